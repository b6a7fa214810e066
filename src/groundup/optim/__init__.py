"""Floor 4: parameter groups, optimizers, learning rate."""
