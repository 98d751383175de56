"""Rewards of generated text, and log-probabilities of sequences."""
