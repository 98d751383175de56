"""Risks: how per-sample losses become one number, in place of their mean; every loss takes one as its `reduction`."""

from .losses.risks.base import Risk
from .losses.risks.groups import GroupDRO, WorstGroup
from .losses.risks.measures import KL, ChiSquare, CVaR, Quantile, Tilted, Trimmed

__all__ = ["KL", "CVaR", "ChiSquare", "GroupDRO", "Quantile", "Risk", "Tilted", "Trimmed", "WorstGroup"]
