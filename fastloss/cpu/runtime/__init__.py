"""Foundations of all CPU kernels: compilation, the disk cache, records of constants, threads, parallel drivers."""
