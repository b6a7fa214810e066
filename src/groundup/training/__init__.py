"""A run: its parts built from a config, its life from folder and lock to report, what it resumes from."""
