"""What a run leaves to read: metrics, history, plots, report. Imports no torch."""
