"""Advice on which loss to choose, from targets, predictions and groups."""

from .choose import advise
from .mismatch import mismatches
from .result import Advice, Recommendation

__all__ = ["Advice", "Recommendation", "advise", "mismatches"]
