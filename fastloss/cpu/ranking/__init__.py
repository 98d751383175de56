"""Losses of ranked groups and of orders of events."""
