"""What all CPU kernels stand on: compilation, the disk cache, records of constants, threads, parallel drivers."""
