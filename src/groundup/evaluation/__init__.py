"""Floor 6: how good a model is."""
