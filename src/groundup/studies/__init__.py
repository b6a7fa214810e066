"""What recipes reach: whole runs side by side, equal in tokens or in seconds, and what follows from them."""
