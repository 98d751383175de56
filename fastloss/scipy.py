"""Losses for SciPy's optimisers: `fun` is the mean loss of a linear model with its gradient."""

from .interop.scipy import Linear, fun

__all__ = ["Linear", "fun"]
