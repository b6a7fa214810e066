"""Floor 4: model folders and resumable training state."""
