"""Functions that losses of groups share. Group g has the items from offsets[g] up to offsets[g + 1]."""

from typing import Any

import numpy as np

from ...call.arrays import F64
from ...call.errors import CallValueError
from ..runtime.units import convert

__all__ = ["halves", "in_double", "largest_of", "longest", "room_for", "scale", "settle"]


def largest_of(lo, hi, offsets):
    """Return the number of items of the largest of some groups."""
    most = 0
    for g in range(lo, hi):
        most = max(most, offsets[g + 1] - offsets[g])
    return most


def halves(row):
    """A row of scratch as two of whole numbers of 32 bits."""
    return row.view(np.int32).reshape((2, row.size))


def room_for(rows: int, offsets: Any) -> Any:
    """Scratch for one large group, by NumPy, which asks the system for large pages; else kernels make their own.

    Of 90 ms that Cox's loss of a million subjects took, the system spent 38 on giving small pages.
    """
    n = int(offsets[-1])
    return np.empty((rows, n) if offsets.size == 2 and n > 1 << 16 else (0, 0))


def longest(offsets: Any) -> int:
    """Return the number of items of the largest group, or raise where 32 bits cannot count them."""
    most = int(offsets[1]) if offsets.size == 2 else int((offsets[1:] - offsets[:-1]).max())
    if most >= 1 << 31:
        raise CallValueError(f"hold a group of {most} items; allowed: less than 2**31", "offsets")
    return most


def scale(grad: Any, factors: Any, offsets: Any) -> None:
    """Multiply what each group's items have by the factor of the group; by a factor of 0 it is 0, whatever it was."""
    if factors.size == 1:
        factor = float(factors[0])
        if factor == 0.0:
            grad.fill(0.0)
        elif factor != 1.0:
            with np.errstate(over="ignore"):
                np.multiply(grad, factor, out=grad)
        return
    each = np.repeat(factors, offsets[1:] - offsets[:-1])
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(grad, each, out=grad, casting="same_kind")
    if not factors.all():
        grad[each == 0.0] = 0.0


def in_double(grads: dict[str, Any]) -> Any:
    """Room for the derivatives by the only input that has any, in double precision."""
    grad = next(iter(grads.values()), None)
    return np.empty(0) if grad is None else grad if grad.dtype is F64 else np.empty(grad.shape)


def settle(grads: dict[str, Any], filled: Any) -> None:
    """Bring derivatives that were computed in double precision to where they are wanted."""
    for grad in grads.values():
        if grad is not filled:
            convert(filled, grad)
