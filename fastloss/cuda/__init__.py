"""CUDA kernels of the formulas for numba-cuda, imported with the first array on a device."""
