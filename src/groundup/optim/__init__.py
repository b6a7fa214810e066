"""Parameter groups, optimizers, learning rate."""
