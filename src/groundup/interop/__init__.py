"""Models of other programs in, ours out: one table of names serves both directions."""
