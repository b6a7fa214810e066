"""Models of other programs into our model folder, and the table of names that serves both directions."""
