"""Losses as expressions of Polars."""

from .interop.polars import loss

__all__ = ["loss"]
