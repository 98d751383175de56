"""Losses of the caller's own, from a function or from text."""
