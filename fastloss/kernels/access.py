"""Element access for one, two or four arrays at once, parameters, and domain checks, as functions for kernels.

Spelled out per count, so that every index is a constant: a computed index into a tuple of arrays keeps a loop scalar.
Each is compiled once per process and shared by all kernels.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from .specialize import SCALAR, bind

__all__ = ["at", "check", "masked", "store", "store_masked", "unpack", "window"]

_inline = njit(**SCALAR)

# Names bound when a function below is specialized.
T: Any = None
low: Any = None
high: Any = None

at = {
    1: _inline(lambda a, i: (a[0][i],)),
    2: _inline(lambda a, i: (a[0][i], a[1][i])),
    4: _inline(lambda a, i: (a[0][i], a[1][i], a[2][i], a[3][i])),
}
"""The elements of some arrays at one index, by the number of arrays."""

window = {
    1: _inline(lambda a, lo, hi: (a[0][lo:hi],)),
    2: _inline(lambda a, lo, hi: (a[0][lo:hi], a[1][lo:hi])),
    4: _inline(lambda a, lo, hi: (a[0][lo:hi], a[1][lo:hi], a[2][lo:hi], a[3][lo:hi])),
}
"""The same part of each of some arrays."""


def _store1(a, i, d, k):
    a[0][i] = d * k


def _store2(a, i, d, k):
    a[0][i] = d[0] * k
    a[1][i] = d[1] * k


def _store4(a, i, d, k):
    a[0][i] = d[0] * k
    a[1][i] = d[1] * k
    a[2][i] = d[2] * k
    a[3][i] = d[3] * k


@_inline
def masked(d, k):
    """d times k, and 0 where k is, whatever d may be; the truth of k, since a literal 0 would widen float32."""
    return d * k if k else k


def _store_masked1(a, i, d, k):
    a[0][i] = masked(d, k)


def _store_masked2(a, i, d, k):
    a[0][i] = masked(d[0], k)
    a[1][i] = masked(d[1], k)


def _store_masked4(a, i, d, k):
    a[0][i] = masked(d[0], k)
    a[1][i] = masked(d[1], k)
    a[2][i] = masked(d[2], k)
    a[3][i] = masked(d[3], k)


store = {1: _inline(_store1), 2: _inline(_store2), 4: _inline(_store4)}
"""Write derivatives d, times k, at one index."""

store_masked = {1: _inline(_store_masked1), 2: _inline(_store_masked2), 4: _inline(_store_masked4)}
"""The same under weights, of which 0 takes an element out even where its derivatives are NaN."""

_UNPACK = (
    lambda p: (),
    lambda p: (T(p[0]),),
    lambda p: (T(p[0]), T(p[1])),
    lambda p: (T(p[0]), T(p[1]), T(p[2])),
    lambda p: (T(p[0]), T(p[1]), T(p[2]), T(p[3])),
    lambda p: (T(p[0]), T(p[1]), T(p[2]), T(p[3]), T(p[4])),
)


@cache
def unpack(count: int, dtype: str) -> Any:
    """The first parameters of an array, as a tuple in a kernel's precision."""
    return _inline(bind(_UNPACK[count], T=getattr(np, dtype)))


# Violations are counted in the array's own precision (at most a block's worth): a mask summed into an
# integer of another width keeps the loop scalar.
def _interval(x):
    return (T(1.0) if x < low else T(0.0)) + (T(1.0) if x > high else T(0.0))


def _signs(x):
    distance = abs(abs(x) - T(1.0))
    return T(1.0) if distance > T(0.0) else T(0.0)


@cache
def check(domain: Any, dtype: str) -> Any:
    """A test of one number, None where the domain is the whole line.

    Open ends become closed ones at the next float, and NaN is never outside.
    """
    kind = getattr(np, dtype)
    if not hasattr(domain, "low"):
        return _inline(bind(_signs, T=kind))
    low, high = kind(domain.low), kind(domain.high)
    if np.isneginf(low) and np.isposinf(high):
        return None
    low = np.nextafter(low, kind(np.inf)) if domain.low_open else low
    high = np.nextafter(high, kind(-np.inf)) if domain.high_open else high
    return _inline(bind(_interval, T=kind, low=low, high=high))
