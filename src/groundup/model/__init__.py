"""The transformer, its baseline, its loss and its oracle."""
