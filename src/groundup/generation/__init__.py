"""Floor 5: sampling, decoding, text."""
