"""Floor 7: the composition root, the loop, and those who look on."""
