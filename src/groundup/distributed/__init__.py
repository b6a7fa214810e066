"""The processes of a run: ranks, and how they share a model."""
