"""Floor 3: device, precision, seeds, measurement, files."""
