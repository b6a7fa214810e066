"""Fair races, and who runs in them: our own training loop and the models of other projects."""
