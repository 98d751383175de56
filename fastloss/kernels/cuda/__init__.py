"""The same formulas on a GPU: kernels for numba-cuda, imported when an array on a device first asks for one."""
