"""Floor 8: benchmarks whose last line of output is one JSON object."""
