"""What all CUDA kernels stand on: launching, memory, sums, teams of threads."""
