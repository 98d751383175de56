"""Handlers of XLA's custom calls: compiled functions that read the buffers of a call and run a driver of kernels."""
