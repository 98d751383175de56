"""Losses as functions of SQL in DuckDB."""

from .interop.duckdb import register

__all__ = ["register"]
