"""Floor 2: parameters, FLOPs, memory and time by arithmetic, without torch."""
