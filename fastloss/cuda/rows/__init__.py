"""Losses of rows of K scores on a GPU."""
