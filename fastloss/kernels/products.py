"""Cross-entropy of the rows of a product of two matrices that is never held whole.

All losses whose scores are inner products are one: the rows of a @ b.T, each against a label or against probabilities.
A chunk of rows is multiplied by BLAS, the softmax kernels of rows put the derivatives in the place of the scores, and
two more products carry them to a and to b.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types

from .. import dispatch
from ..arrays import F64, NAMES
from ..dispatch import TILED_TO, rows_per_chunk
from ..formulas.record import registered
from .cpu import array, call
from .specialize import LOOP, compile_driver, inner

__all__ = ["Product", "rows_at_a_time", "softmax_of_product"]

SCORES = 64 << 20
"""Bytes of scores at a time: 128 rows of 128k. The products take 1.2 times as long with 64 rows, 0.9 with 256."""

ENOUGH_ROWS, ENOUGH_SCORES = 256, 1 << 20
"""More rows make no product faster; but few columns make small work of a chunk, and Python is paid for each."""

REGION = 64
"""How many times the usual scores a parallel region takes to pay: the threads of BLAS still spin when it begins, and
where it has no core to itself it waits for them (1024 x 1024 scores took 100 ms in parallel)."""

PART = 2 << 20
"""Bytes of a product on its way to a sum: what stays in the cache until it is added."""


# Names that the templates below find bound when they are specialized.
some_rows: Any = None


def rows_in_place(address, z, bias, labels, target, class_weight, values, keep, scale, params, helpers, room):
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
    inputs = (x, labels, target, values[:0], class_weight)
    call(address, (*inputs, *outputs, scale, params, helpers, False, scratch, stats))


def drive_in_place(
    address, z, bias, labels, target, class_weight, values, keep, scale, params, helpers, room, chunk, parallel
):
    """All chunks of rows, in parallel or one after another."""
    n = z.shape[0]
    chunks = (n + chunk - 1) // chunk
    if parallel:
        for c in prange(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            rows, found = (z[a:b], bias, labels[a:b], target[a:b], class_weight), values[a:b]
            some_rows(address, *rows, found, keep, scale, params, helpers, room)
    else:
        for c in range(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            rows, found = (z[a:b], bias, labels[a:b], target[a:b], class_weight), values[a:b]
            some_rows(address, *rows, found, keep, scale, params, helpers, room)


@cache
def _driver(dtype: str) -> Any:
    one, two = array(dtype), array(dtype, 2)
    arrays = (two, one, array("int64"), two, one, one)
    fixed = (types.boolean, types.float64, array("float64"), array("int64"), types.intp, types.intp, types.boolean)
    # A function of its own: in a parallel one, each assignment of a row would be a parallel region.
    work = inner(rows_in_place, LOOP)
    signature = types.void(types.intp, *arrays, *fixed)
    return compile_driver(drive_in_place, f"in_place_{dtype}", signature, some_rows=work)


NO_LABELS = dispatch.EMPTY[np.dtype(np.int64)]


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
    lasting: bool = False
    """Whether all calls have so many columns, not just this batch: code for a few columns is worth compiling."""


def rows_at_a_time(n: int, k: int, itemsize: int) -> int:
    """How many rows of k scores are held at a time."""
    return min(n, max(ENOUGH_ROWS, ENOUGH_SCORES // k), max(16, SCORES // (k * itemsize)))


class _Kernel(NamedTuple):
    """The softmax kernels for rows of k scores that they may overwrite."""

    driver: Any
    address: int
    ones: Any
    """Class weights, where the kernel wants some and there are none."""
    empty2: Any
    tail: tuple[Any, ...]


@lru_cache(maxsize=64)
def _kernel(dtype: Any, k: int, labels: bool, keep: bool, smooth: bool, tiled: bool) -> _Kernel:
    kind, mode, name = "labels" if labels else "dense", "grad" if keep else "value", NAMES[dtype]
    address = dispatch.rows(registered["cross_entropy"], name, mode, kind, smooth, tiled, False)[0]
    chunk = rows_per_chunk(k)
    tail = (dispatch.helpers(k, dtype, tiled), dispatch.room(k, mode, kind, tiled, "softmax", chunk), chunk)
    ones = np.ones(0 if labels and not smooth else k, dtype)
    with dispatch.compiling:
        return _Kernel(_driver(name), address, ones, np.empty((0, 0), dtype), tail)


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

    A single factor is that of all rows, each of which counts; else a row of factor 0 adds nothing, whatever it holds.
    `rows` are taken at a time; 0 chooses.
    """
    if grads and factors.size == 1 and factors[0] == 0.0:
        for g in grads:
            g[...] = 0.0
        grads = ()
    dtype, n, k = p.a.dtype, len(p.a), len(p.b)
    rows = min(n, rows) or rows_at_a_time(n, k, dtype.itemsize)
    scores = np.empty((rows, k), dtype)
    single = factors is not None and factors.size == 1
    scale = float(factors[0]) if single else 1.0
    each = None if factors is None or single else factors.astype(dtype)
    # What is infinite or NaN comes through without a warning, as in the kernels.
    with np.errstate(all="ignore"):
        for lo in range(0, n, rows):
            hi = min(n, lo + rows)
            g, own = scores[: hi - lo], None if each is None else each[lo:hi]
            np.matmul(p.a[lo:hi], p.b.T, out=g)
            values[lo:hi] = _put_slopes(p, lo, hi, g, own, scale, bool(grads))
            if grads:
                _carry(p, lo, hi, g, own, grads)


def _put_slopes(p: Product, lo: int, hi: int, g: Any, own: Any, scale: float, keep: bool) -> Any:
    """The values of some rows; their derivatives take the place of the scores."""
    target = p.target(lo, hi, g) if p.target else None
    labels = NO_LABELS if p.labels is None else p.labels[lo:hi]
    if own is not None and p.labels is not None:
        labels = np.where(own != 0.0, labels, -1)
    found = np.empty(hi - lo, g.dtype)
    tiled, smooth = p.lasting and g.shape[1] <= TILED_TO, p.labels is not None and p.smoothing > 0.0
    work = _kernel(g.dtype, g.shape[1], p.labels is not None, keep, smooth, tiled)
    bias = dispatch.EMPTY[g.dtype] if p.bias is None else p.bias
    target = work.empty2 if target is None else target
    arrays = (g, bias, labels, target, work.ones if p.class_weight is None else p.class_weight)
    params = np.array([p.beta, p.smoothing, p.z_loss], F64)
    dispatch.launch(work.driver, g.size // REGION, work.address, *arrays, found, keep, scale, params, *work.tail)
    return found


def _carry(p: Product, lo: int, hi: int, g: Any, own: Any, grads: tuple[Any, ...]) -> None:
    """Carry the derivatives of some rows to a, b and the bias, each row's times its own factor if it has one."""
    x, to_a = p.a[lo:hi], grads[0][lo:hi]
    if own is not None:
        x = x * own[:, None]
        without = own == 0.0
        x[without] = g[without] = 0.0
    np.matmul(g, p.b, out=to_a)
    if own is not None:
        to_a *= own[:, None]
        to_a[without] = 0.0
    _add_product(grads[1], g, x, lo == 0)
    if len(grads) > 2:
        column = g.sum(0) if own is None else own @ g
        grads[2][...] = column if lo == 0 else grads[2] + column
