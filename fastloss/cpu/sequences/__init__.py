"""Losses of sequences of tokens."""
