"""Floor 3: the transformer, its baseline, its loss and its oracle."""
