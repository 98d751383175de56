"""From the arguments of a call to arrays that kernels read."""
