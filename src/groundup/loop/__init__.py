"""The training loop: a step, the guard that judges it, and what happens between two steps."""
