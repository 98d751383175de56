"""The world in which a formula is compiled for a GPU: the vocabulary of the CPU, which is plain arithmetic.

Two words differ: the CPU's power of float32 works in double, which a GPU has few units for, and sqrt is NumPy's.
"""

import math
from functools import cache

import numpy as np
from numba import njit

from ...cpu.math.scalar_math import VOCABULARY
from ...cpu.runtime.specialize import SCALAR
from ...spec.worlds import World
from .memory import SIMULATED

__all__ = ["gpu"]

_scalar = njit(**SCALAR)


@_scalar
def _sqrt(x):
    return math.sqrt(x)


@_scalar
def _pow(x, y):
    return math.pow(x, y)


@cache
def gpu(number: str) -> World:
    """The world of GPU kernels in one precision."""
    words = dict(VOCABULARY[number])
    if not SIMULATED:
        words |= {"sqrt": _sqrt, "pow": _pow if number == "float32" else words["pow"]}
    return World(getattr(np, number), words, _scalar)
