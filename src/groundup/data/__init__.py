"""Floor 4: corpora to documents, documents to shards, shards to batches."""
