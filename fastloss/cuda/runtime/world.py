"""The world in which a formula is compiled for a GPU: the vocabulary of the CPU, which is plain arithmetic.

Two words differ: the CPU's power of float32 works in double, which a GPU has few units for, and sqrt is NumPy's.

Nothing here has flags of fast arithmetic. numba-cuda takes any of them for all: with the CPU's `contract` and `nsz`,
half of the float32 kernels divided by `div.approx`, which gives 0 for divisors above 2^126, and powers by
`ex2.approx(y lg2.approx(x))`, by which 0^0 is NaN. The compiler contracts products and sums without being asked.
"""

import math
from functools import cache
from types import CellType, FunctionType
from typing import Any

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from ...cpu.math.scalar_math import VOCABULARY
from ...cpu.runtime.slots import names_of
from ...cpu.runtime.specialize import SCALAR
from ...spec.worlds import World
from .memory import SIMULATED

__all__ = ["gpu"]

_scalar = njit(**{k: v for k, v in SCALAR.items() if k != "fastmath"})


@_scalar
def _sqrt(x):
    return math.sqrt(x)


@_scalar
def _pow(x, y):
    return math.pow(x, y)


def _exact(value: Any) -> Any:
    """Return a compiled function without flags of fast arithmetic, as are those it calls; other values as they are."""
    if isinstance(value, Dispatcher):
        return _exact_function(value)
    if isinstance(value, tuple) and any(isinstance(v, Dispatcher) for v in value):
        parts = [_exact(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


_made: dict[Any, Any] = {}


def _exact_function(compiled: Any) -> Any:
    if compiled in _made:
        return _made[compiled]
    # Names of a function's code include attributes: `np.maximum` within `maximum` would lead to itself.
    _made[compiled] = compiled
    f = compiled.py_func
    bound = {name: _exact(f.__globals__[name]) for name in names_of(f.__code__) if name in f.__globals__}
    # Builders of the vocabulary bind inner functions in closures, and its other words are globals: both are replaced.
    cells = tuple(CellType(_exact(cell.cell_contents)) for cell in f.__closure__ or ())
    _made[compiled] = _scalar(FunctionType(f.__code__, f.__globals__ | bound, f.__name__, f.__defaults__, cells))
    return _made[compiled]


@cache
def gpu(number: str) -> World:
    """The world of GPU kernels in one precision."""
    words = dict(VOCABULARY[number])
    # In the simulator words are plain functions of Python, which have no flags.
    if not SIMULATED:
        words = {name: _exact(word) for name, word in words.items()}
        words |= {"sqrt": _sqrt, "pow": _pow if number == "float32" else words["pow"]}
    return World(getattr(np, number), words, _scalar)
