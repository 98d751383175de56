"""Losses of rows of K scores."""
