"""Reductions of per-sample losses other than the mean and the sum."""
