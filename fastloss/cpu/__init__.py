"""Compiled loops; imported at the first call."""
