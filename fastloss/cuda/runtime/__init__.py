"""Foundations of all CUDA kernels: launching, memory, sums, teams of threads."""
