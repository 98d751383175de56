"""Gradients of sums: the first part writes, each other part adds."""

from typing import Any

import numpy as np

from ...call.arrays import F32, F64, compute_dtype, contiguous, direct, finish, incoming, outputs, predicted, rounded
from ...call.memory import empty
from .routes import Given

__all__ = ["Gradients", "in_rows", "laid", "scaled_sum"]

FEW = 1 << 12
"""Elements below which NumPy's two operations take less time than a kernel's call."""


def scaled_sum(weights: list[float], values: list[Any]) -> Any:
    """Return the sum of values times weights: numbers, or arrays of one shape."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def laid(given: Given) -> Given:
    """Return a call with its arrays in the form that kernels read, so that no part converts them again."""
    several = type(given.prediction) is tuple
    raw = [predicted(x, "prediction") for x in (given.prediction if several else (given.prediction,))]
    ready = tuple(contiguous(x, compute_dtype(x, "prediction")) for x in raw)
    target = None if given.target is None else incoming(given.target, "target")
    return given._replace(prediction=ready if several else ready[0], target=target)


def in_rows(given: Given, axis: int) -> tuple[Given, int | None]:
    """Return a call with its prediction as rows of an axis, and that axis; None where no copy is needed or pays.

    A part of rows would copy its prediction and its gradient; several parts share one copy, and the way back adds.
    """
    x, at = given.prediction, given.options.get("axis", axis)
    if type(x) is tuple or x.ndim < 3 or type(at) is not int:
        return given, None
    at = at + x.ndim if at < 0 else at
    from ...cpu.turned import turnable, turned

    if not turnable(x, at):
        return given, None
    rows = empty((*x.shape[:at], *x.shape[at + 1 :], x.shape[at]), x.dtype)
    turned(x, at, rows)
    options = {k: v for k, v in given.options.items() if k != "axis"}
    return given._replace(prediction=rows, options=options), at


class Gradients:
    """Gradients of the predictions of a sum, to which its parts add theirs one after another.

    Sums over 16-bit predictions are formed in float32, and rounded once.
    """

    def __init__(self, prediction: Any, count: int, out: Any, others: tuple[Any, ...]) -> None:
        several = type(prediction) is tuple
        raw = tuple(predicted(x, "prediction") for x in (prediction if several else (prediction,)))
        self.outs = outputs(out, 1, raw, tuple(x for x in others if _is_array(x)))[0]
        kept = [x.dtype if count == 1 else compute_dtype(x, "prediction") for x in raw]
        self.sums = [o if direct(o, k) else empty(o.shape, k) for o, k in zip(self.outs, kept, strict=True)]
        self.spare: list[Any] = []
        self.rows: Any = None
        self.first: float | None = None

    def room(self, axis: int | None = None) -> Any:
        """Return the arrays for the gradient of the next part; for one of rows of an axis, an array of rows."""
        if axis is not None:
            (whole,) = self.sums
            if self.rows is None:
                shape = (*whole.shape[:axis], *whole.shape[axis + 1 :], whole.shape[axis])
                self.rows = empty(shape, whole.dtype)
            return self.rows
        if self.first is not None and not self.spare:
            self.spare = [empty(x.shape, x.dtype) for x in self.sums]
        found = self.sums if self.first is None else self.spare
        return found[0] if len(found) == 1 else tuple(found)

    def add(self, weight: float, axis: int | None = None) -> None:
        """Add the gradient of a part, which is in the arrays of `room`, times its weight."""
        if axis is not None:
            from ...cpu.turned import add_turned

            add_turned(self.sums[0], axis, self.rows, self.first or 0.0, weight, self.first is not None)
            self.first = 1.0
            return
        if self.first is None:
            self.first = weight
            return
        for total, part in zip(self.sums, self.spare, strict=True):
            add_product(total, self.first, part, weight)
        self.first = 1.0

    def finished(self, out: Any, back: Any) -> Any:
        """Return the gradient in the form of the caller's arrays."""
        for o, total in zip(self.outs, self.sums, strict=True):
            if self.first is not None and self.first != 1.0:
                total *= total.dtype.type(self.first)
            if o is not total:
                o[...] = rounded(total, o.dtype)
        return finish([tuple(self.outs)], out, back)[0]


def add_product(total: Any, factor: float, part: Any, weight: float) -> None:
    """Replace an array by its product with a factor plus another one's with a weight, in one pass."""
    if total.size < FEW or total.dtype not in (F32, F64):
        with np.errstate(all="ignore"):
            if factor != 1.0:
                total *= total.dtype.type(factor)
            total += part if weight == 1.0 else part * part.dtype.type(weight)
        return
    from ...cpu.vectors import blend

    blend(total.reshape(-1), factor, part.reshape(-1), weight)


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array__") or isinstance(x, list)
