"""Cross-entropy of the rows of a product of two matrices that is never held whole.

All losses whose scores are inner products are one: the rows of a @ b.T, each against a label or against probabilities.
A chunk of rows is multiplied by BLAS, the softmax kernels of rows put the derivatives in the place of the scores, and
two more products carry them to a and to b.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types

from .. import dispatch
from ..arrays import F64, NAMES
from ..formulas.record import registered
from ..row_loss import TILED_TO, rows_per_chunk
from .cpu import array, call
from .specialize import LOOP, compile_driver, inner

__all__ = ["Product", "rows_at_a_time", "softmax_of_product"]

SCORES = 64 << 20
"""Bytes of scores at a time: 128 rows of 128k. The products take 1.2 times as long with 64 rows, 0.9 with 256."""

MOST_ROWS = 512
"""More rows at a time make no product faster."""

REGION = 16
"""How many times the usual scores a parallel region takes to pay: the threads of BLAS still spin when it begins."""

PART = 2 << 20
"""Bytes of a product on its way to a sum: what stays in the cache until it is added."""


# Names that the templates below find bound when they are specialized.
some_rows: Any = None


def rows_in_place(address, z, bias, labels, target, class_weight, values, keep, params, helpers, room):
    """Copy rows of scores, their bias added, and have the derivatives written over the scores."""
    n, k = z.shape
    x = np.empty((n, k), z.dtype)
    scratch = np.empty(room, z.dtype)
    stats = np.empty(2, np.float64)
    for i in range(n):
        copy, row = x[i], z[i]
        if bias.size > 0:
            for j in range(k):
                copy[j] = row[j] + bias[j]
        else:
            for j in range(k):
                copy[j] = row[j]
    e2 = z[:0]
    outputs = (values, z if keep else e2, e2, np.empty((0, 0), np.float64))
    call(address, (x, labels, target, values[:0], class_weight, *outputs, 1.0, params, helpers, False, scratch, stats))


def drive_in_place(
    address, z, bias, labels, target, class_weight, values, keep, params, helpers, room, chunk, parallel
):
    """All chunks of rows, in parallel or one after another."""
    n = z.shape[0]
    chunks = (n + chunk - 1) // chunk
    if parallel:
        for c in prange(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            rows, found = (z[a:b], bias, labels[a:b], target[a:b], class_weight), values[a:b]
            some_rows(address, *rows, found, keep, params, helpers, room)
    else:
        for c in range(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            rows, found = (z[a:b], bias, labels[a:b], target[a:b], class_weight), values[a:b]
            some_rows(address, *rows, found, keep, params, helpers, room)


@cache
def _driver(dtype: str) -> Any:
    one, two = array(dtype), array(dtype, 2)
    arrays = (two, one, array("int64"), two, one, one)
    fixed = (types.boolean, array("float64"), array("int64"), types.intp, types.intp, types.boolean)
    # A function of its own: in a parallel one, each assignment of a row would be a parallel region.
    work = inner(rows_in_place, LOOP)
    signature = types.void(types.intp, *arrays, *fixed)
    return compile_driver(drive_in_place, f"in_place_{dtype}", signature, some_rows=work)


class Product(NamedTuple):
    """The rows of a @ b.T + bias, and what they are held against."""

    a: Any
    b: Any
    bias: Any = None
    labels: Any = None
    """The column that each row should find; -1 where the row is left out."""
    target: Callable[[int, int, Any], Any] | None = None
    """target(lo, hi, scores) -> probabilities of the columns for the rows lo to hi, None for labels; it may change
    the scores."""
    class_weight: Any = None
    beta: float = 1.0
    """What the scores are multiplied by."""
    smoothing: float = 0.0
    z_loss: float = 0.0


def rows_at_a_time(n: int, k: int, itemsize: int) -> int:
    """How many rows of k scores are held at a time."""
    return max(1, min(n, MOST_ROWS, max(16, SCORES // (k * itemsize))))


class _Rows:
    """The softmax kernels, for rows that they may overwrite."""

    def __init__(self, p: Product, keep: bool) -> None:
        self.dtype = p.a.dtype
        k = len(p.b)
        kind = "dense" if p.labels is None else "labels"
        self.keep = keep
        mode = "grad" if keep else "value"
        smooth = kind == "labels" and p.smoothing > 0.0
        tiled = kind == "labels" and k <= TILED_TO
        name = NAMES[self.dtype]
        self.address = dispatch.rows(registered["cross_entropy"], name, mode, kind, smooth, tiled, False)[0]
        self.empty, self.empty2 = dispatch.EMPTY[self.dtype], np.empty((0, 0), self.dtype)
        self.bias = self.empty if p.bias is None else p.bias
        self.class_weight = self.empty if p.class_weight is None else p.class_weight
        if not self.class_weight.size and (smooth or kind == "dense"):
            self.class_weight = np.ones(k, self.dtype)
        self.params = np.array([p.beta, p.smoothing, p.z_loss], F64)
        helpers = dispatch.helpers(k, self.dtype, tiled)
        self.fixed = (self.params, helpers, dispatch.room(k, mode, kind, tiled), rows_per_chunk(k))
        with dispatch.compiling:
            self.driver = _driver(name)

    def __call__(self, scores: Any, labels: Any, target: Any, values: Any) -> None:
        labels = dispatch.EMPTY[np.dtype(np.int64)] if labels is None else labels
        target = self.empty2 if target is None else target
        arrays = (scores, self.bias, labels, target, self.class_weight, values)
        dispatch.launch(self.driver, scores.size // REGION, self.address, *arrays, self.keep, *self.fixed)


def _add_product(total: Any, g: Any, x: Any, first: bool) -> None:
    """Add g.T @ x to a total in parts that stay in the cache; NumPy has no product that adds."""
    if first:
        np.matmul(g.T, x, out=total)
        return
    k, h = total.shape
    step = max(256, PART // (h * total.itemsize))
    part = np.empty((min(step, k), h), total.dtype)
    for lo in range(0, k, step):
        hi = min(k, lo + step)
        np.matmul(g[:, lo:hi].T, x, out=part[: hi - lo])
        total[lo:hi] += part[: hi - lo]


def softmax_of_product(
    p: Product, values: Any, factors: Any = None, grads: tuple[Any, ...] = (), rows: int = 0
) -> None:
    """Cross-entropy of each row, and the sums of its derivatives times its factor by a, by b and by the bias.

    A row of factor 0 adds nothing, whatever it holds. `rows` are taken at a time; 0 chooses.
    """
    n, k = len(p.a), len(p.b)
    dtype = p.a.dtype
    rows = min(n, rows) or rows_at_a_time(n, k, dtype.itemsize)
    kernel = _Rows(p, bool(grads))
    buffer, found = np.empty((rows, k), dtype), np.empty(rows, dtype)
    live = np.ones(n, bool)
    if grads:
        factors = np.broadcast_to(factors, n).astype(dtype)
        live = factors != 0.0
    # What is infinite or NaN comes through without a warning, as in the kernels.
    with np.errstate(all="ignore"):
        for lo in range(0, n, rows):
            hi = min(n, lo + rows)
            g, v, alive = buffer[: hi - lo], found[: hi - lo], live[lo:hi]
            np.matmul(p.a[lo:hi], p.b.T, out=g)
            target = p.target(lo, hi, g) if p.target else None
            labels = None if p.labels is None else np.where(alive, p.labels[lo:hi], -1)
            kernel(g, labels, target, v)
            values[lo:hi] = np.where(alive, v, 0.0)
            if not grads:
                continue
            if not alive.all():
                g[~alive] = 0.0
            f = factors[lo:hi]
            np.matmul(g, p.b, out=grads[0][lo:hi])
            _scaled(grads[0][lo:hi], f, alive, grads[0][lo:hi])
            _add_product(grads[1], g, _scaled(p.a[lo:hi], f, alive, np.empty((hi - lo, p.a.shape[1]), dtype)), lo == 0)
            if len(grads) > 2:
                grads[2][...] = f @ g if lo == 0 else grads[2] + f @ g


def _scaled(x: Any, factors: Any, alive: Any, out: Any) -> Any:
    """Rows times their factors, 0 where those are: whatever such a row holds, it adds nothing."""
    np.multiply(x, factors[:, None], out=out)
    if not alive.all():
        out[~alive] = 0.0
    return out
