"""Models that are only read from: matrices in fewer bits, blocks as one kernel."""
