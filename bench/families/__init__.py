"""Benchmarks of losses of several arrays: each family in its own shapes, beside NumPy and torch, with its targets."""
