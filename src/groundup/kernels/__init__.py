"""Kernels in C++ for CPUs: compiled at first use, tested, and called where they are faster than a library."""
