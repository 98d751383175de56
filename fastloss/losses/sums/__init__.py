"""Weighted sums of losses, fused into one pass where they can be."""
