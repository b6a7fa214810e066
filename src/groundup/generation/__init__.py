"""Sampling, decoding, text."""
