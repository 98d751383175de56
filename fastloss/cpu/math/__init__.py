"""Scalar functions that LLVM vectorises, and sorting."""
