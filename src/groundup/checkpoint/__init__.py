"""Model folders and resumable training state."""
