"""From documents to shards of tokens: a map-reduce with locks and crash rules."""
