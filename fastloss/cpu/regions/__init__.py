"""Losses of regions of pixels."""
