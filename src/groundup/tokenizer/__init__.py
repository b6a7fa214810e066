"""Text to ids and back, without torch."""
