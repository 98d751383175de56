"""The worlds of CPU kernels, one for each precision."""

from functools import cache

import numpy as np
from numba import njit

from ...spec.worlds import World
from ..math.scalar_math import VOCABULARY
from .specialize import SCALAR

__all__ = ["cpu"]


@cache
def cpu(dtype: str) -> World:
    """The world of CPU kernels in one precision."""
    return World(getattr(np, dtype), VOCABULARY[dtype], njit(**SCALAR))
