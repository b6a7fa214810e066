"""Parameters, FLOPs, memory and time by arithmetic, without torch."""
