"""The machine: device, precision, matrix products, compiler, memory, seeds."""
