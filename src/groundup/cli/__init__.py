"""Floor 9: one thin file a command."""
