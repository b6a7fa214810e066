"""Shards of tokens, their order, and batches."""
