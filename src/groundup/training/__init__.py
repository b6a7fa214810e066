"""The composition root, the loop and its callbacks."""
