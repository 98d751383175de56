"""Benchmarks of the losses: cases, contestants and timing."""
