"""Risks: how per-sample losses become one number, in place of their mean; every loss takes one as its `reduction`."""

from .losses.group_risk import GroupDRO, WorstGroup
from .losses.risk import Risk
from .losses.risk_measures import KL, ChiSquare, CVaR, Quantile, Tilted, Trimmed

__all__ = ["KL", "CVaR", "ChiSquare", "GroupDRO", "Quantile", "Risk", "Tilted", "Trimmed", "WorstGroup"]
