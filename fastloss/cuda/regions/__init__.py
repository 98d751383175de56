"""Losses of regions of pixels on a GPU."""
