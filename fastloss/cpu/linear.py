"""Value, gradient and curvature of losses of linear models, z = X W^T + b, in one pass over X.

X is read once: a block of rows at a time, small enough for the second-level cache, is multiplied with the coefficients,
goes through the kernel of the loss that all other calls run, and is multiplied with the derivatives. Rows are divided
among parts by their number alone, and the sums of the parts are added in order: results have the same bits on any
number of threads.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types

from ..call.arrays import NAMES, contiguous, flat
from . import dispatch
from .linear_products import AT_ONCE, LANES, outer_of, scores_of, spread_of
from .runtime.intrinsics import array, call
from .runtime.slots import unbound
from .runtime.specialize import INNER, LOOP, compile_driver, inner

__all__ = ["Pass", "block_functions", "element_pass", "row_pass"]

BLOCK = 1 << 15
"""Elements of X per block: 128 KiB in float32, so that the second product finds the block in the second-level cache."""

PARTS = 32
"""Largest number of parts among which rows are divided."""

PART = 1 << 16
"""Elements of X per part, at least: a part clears and adds up sums of its own."""


class Products(NamedTuple):
    """Functions and constants that the products with a block of rows read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    V: int
    """Lanes of a vector."""
    scores: Callable[..., None]
    """X w + b for groups of rows."""
    spread8: Callable[..., None]
    """X^T r for eight vectors of columns; so for the others."""
    spread4: Callable[..., None]
    spread2: Callable[..., None]
    spread1: Callable[..., None]
    fold: Callable[..., None]
    """Sums in vectors, added to sums of float64."""


class Curves(NamedTuple):
    """Constants and functions that the curvature of a block reads."""

    T: type
    """Number type of the arrays."""
    V: int
    """Lanes of a vector."""
    outer4: Callable[..., None]
    """X^T Q for four vectors of columns; so for the others."""
    outer2: Callable[..., None]
    outer1: Callable[..., None]
    fold: Callable[..., None]
    """Sums in vectors, added to sums of float64."""


class Fold(NamedTuple):
    """Constant that sums in vectors are read by."""

    V: int
    """Lanes of a vector."""


class Blocks(NamedTuple):
    """Constants and functions that a pass over blocks of rows reads."""

    T: type
    """Number type of the arrays."""
    V: int
    """Lanes of a vector."""
    product: Callable[..., None]
    """X w + b for a block."""
    sums: Callable[..., None]
    """X^T r for a block, added to sums of float64."""
    curves: Callable[..., None]
    """X^T diag(h) X for a block, added to sums of float64."""


class Drive(NamedTuple):
    """Function that runs the blocks of one part."""

    part: Callable[..., None]
    """Pass over the rows of one part."""


use: Any = unbound(Products, Curves, Fold, Blocks, Drive)


def product(x, start, m, d, w, padded, z):
    """Write X w + b for m rows of a block, b the last of w."""
    groups = m // use.V
    # Short rows are read a whole vector at a time, which for the last ones reaches beyond the array.
    while groups > 0 and start + groups * use.V * d + use.V > x.size + d:
        # For the last rows of the array alone: no others are that near its end.
        groups -= 1
    use.scores(x, start, groups, d, padded, w[d], z)
    for i in range(groups * use.V, m):
        s = w[d]
        row = x[start + i * d : start + i * d + d]
        for j in range(row.size):
            s += row[j] * w[j]
        # The rows that fill no vector: fewer than V of a block, or a few at the end.
        z[i] = s


def fold(g, out, d, first):
    """Add sums in whole vectors, from one vector on, to sums of float64."""
    V = use.V
    whole = d // V
    for j in range(first * V, whole * V):
        # Once a block: additions in float64 inside the products would halve their vectors.
        out[j] += np.float64(g[j])
    # The last vector ends with the row, or begins with it where the row is shorter.
    shift = V - d if d >= V else 0
    for j in range(whole * V, d):
        out[j] += np.float64(g[whole * V + j + shift])


def sums(x, start, m, d, r, g, out, first, ahead):
    """Add X^T r of m rows of a block to sums of float64, from a vector of columns on, and the sum of r to the last."""
    V = use.V
    vectors = (d + V - 1) // V
    rows = m // 8 * 8
    while rows > 0 and start + rows * d + V > x.size + d:
        rows -= 8
    # Sums of one block in the arrays' precision, then of all blocks in float64.
    g[:] = use.T(0.0)
    c = first
    # Widest first: more vectors of columns in registers at once read the residuals fewer times.
    while c + 8 <= vectors:
        use.spread8(x, start, rows, d, r, c, g, ahead)
        c += 8
    if c + 4 <= vectors:
        use.spread4(x, start, rows // 2, d, r, c, g, ahead)
        c += 4
    if c + 2 <= vectors:
        use.spread2(x, start, rows // 4, d, r, c, g, ahead)
        c += 2
    if c < vectors:
        use.spread1(x, start, rows // 8, d, r, c, g, ahead)
    use.fold(g, out, d, first)
    for i in range(rows, m):
        f = np.float64(r[i])
        row = x[start + i * d : start + i * d + d]
        for j in range(first * V, row.size):
            out[j] += f * np.float64(row[j])
    total = 0.0
    for i in range(m):
        # The intercept's derivative: a column of ones that is not stored.
        total += np.float64(r[i])
    out[d] += total


def curves(x, start, m, d, h, q, g, out):
    """Add the upper half of X^T diag(h) X of a block to sums of float64, with a last column of ones."""
    V = use.V
    vectors = (d + V - 1) // V
    rows = m
    while rows > 0 and start + rows * d + V > x.size + d:
        rows -= 1
    total = 0.0
    for i in range(m):
        total += np.float64(h[i])
    out[d, d] += total
    for j in range(0, d, AT_ONCE):
        count = min(AT_ONCE, d - j)
        for k in range(AT_ONCE):
            # Unsigned indices need no test for negative ones; a view of a row would cost a reference count, 20 ns.
            if k < count:
                step, to, at = np.uintp(d), np.uintp(k), np.uintp(start + j + k)
                for i in range(m):
                    q[to] = h[i] * x[at]
                    to += np.uintp(AT_ONCE)
                    at += step
            else:
                for i in range(m):
                    q[np.uintp(i * AT_ONCE + k)] = use.T(0.0)
        # Starts with the vector that holds the diagonal: the matrix is symmetric.
        first = j // V
        g[:] = use.T(0.0)
        c = first
        while c + 4 <= vectors:
            use.outer4(x, start, rows, d, q, c, g, vectors * V)
            c += 4
        if c + 2 <= vectors:
            use.outer2(x, start, rows, d, q, c, g, vectors * V)
            c += 2
        if c < vectors:
            use.outer1(x, start, rows, d, q, c, g, vectors * V)
        for k in range(count):
            use.fold(g[k * vectors * V : (k + 1) * vectors * V], out[j + k], d, first)
            total = 0.0
            for i in range(m):
                total += np.float64(q[i * AT_ONCE + k])
            out[j + k, d] += total
            for i in range(rows, m):
                for e in range(first * V, d):
                    out[j + k, e] += np.float64(q[i * AT_ONCE + k]) * np.float64(x[start + i * d + e])


def element_part(address, arrays, params, block, bounds, grad, hess, stats):
    """Pass over the rows of one part for an elementwise loss."""
    x, w, padded, target, weight = arrays
    lo, hi, d = bounds
    k = w.shape[0]
    T = use.T
    slope, curved = grad.size > 0, hess.size > 0
    # One block, lent to every step: products, slopes and curvatures stay in the cache between them.
    z = np.empty(block * k, T)
    r = np.empty(block * k if slope else 0, T)
    h = np.empty(block * k if curved else 0, T)
    one = np.empty(block, T)
    q = np.empty(block * AT_ONCE if curved else 0, T)
    g = np.empty((d + use.V - 1) // use.V * use.V, T)
    outer = np.empty(g.size * AT_ONCE if curved else 0, T)
    own = np.zeros(2)
    # No memory: it stands for weights and outputs that the call has not got.
    none = z[:0]
    total, bad = 0.0, 0.0
    for a in range(lo, hi, block):
        m = min(hi, a + block) - a
        start, n = a * d, m * k
        for c in range(k):
            # A single output needs no copy to its column.
            column = z if k == 1 else one
            use.product(x, start, m, d, w[c], padded[c], column)
            if k > 1:
                for i in range(m):
                    z[i * k + c] = one[i]
        first = a * k
        wb = weight[first : first + n] if weight.size > 0 else none
        tb = target[first : first + n] if target.size > 0 else none
        rb, hb = r[: n if slope else 0], h[: n if curved else 0]
        # The kernel that calls of the loss itself run: the block's predictions never leave the cache.
        call(address, ((z[:n],), tb, wb, none, (rb,), (hb,), 1.0, params, False, own))
        total += own[0]
        bad += own[1]
        # Asks for the next block while this one is multiplied; not past the end, where other memory lies.
        ahead = block * d if start + 2 * block * d <= x.size else 0
        if slope:
            for c in range(k):
                column = r if k == 1 else one
                if k > 1:
                    for i in range(m):
                        one[i] = r[i * k + c]
                use.sums(x, start, m, d, column, g, grad[c], 0, ahead)
        if curved:
            for c in range(k):
                column = h if k == 1 else one
                if k > 1:
                    for i in range(m):
                        one[i] = h[i * k + c]
                use.curves(x, start, m, d, column, q, outer, hess[c])
    stats[0], stats[1] = total, bad


def row_part(address, arrays, params, block, bounds, grad, stats):
    """Pass over the rows of one part for a loss of rows of K scores."""
    x, w, padded, labels, target, weight, class_weight, helpers, room = arrays
    lo, hi, d = bounds
    k = w.shape[0]
    T = use.T
    slope = grad.size > 0
    z = np.empty((block, k), T)
    r = np.empty((block if slope else 0, k), T)
    scratch = np.empty(room, T)
    one = np.empty(block, T)
    g = np.empty((d + use.V - 1) // use.V * use.V, T)
    own = np.zeros(2)
    nothing, details = np.empty((0, k), T), np.empty((0, 0))
    total, bad = 0.0, 0.0
    for a in range(lo, hi, block):
        m = min(hi, a + block) - a
        start, b = a * d, a + m
        for c in range(k):
            use.product(x, start, m, d, w[c], padded[c], one)
            for i in range(m):
                z[i, c] = one[i]
        inputs = (z[:m], labels[a:b], target[a:b], weight[a:b], class_weight)
        outputs = (weight[:0], r[: m if slope else 0], nothing, details)
        call(address, (inputs, outputs, 1.0, params, helpers, False, scratch, own))
        total += own[0]
        bad += own[1]
        ahead = block * d if start + 2 * block * d <= x.size else 0
        if slope:
            for c in range(k):
                for i in range(m):
                    one[i] = r[i, c]
                use.sums(x, start, m, d, one, g, grad[c], 0, ahead)
    stats[0], stats[1] = total, bad


def drive_elements(address, arrays, params, d, block, grad, hess, stats, parallel):
    """Run all parts of a pass for an elementwise loss."""
    n = arrays[0].size // d
    # Parts by the sizes alone, added in their order: the same bits on any number of threads.
    parts = stats.shape[0]
    for p in prange(parts):
        bounds = (n * p // parts, n * (p + 1) // parts, d)
        use.part(address, arrays, params, block, bounds, grad[p], hess[p], stats[p])


def drive_row_scores(address, arrays, params, d, block, grad, stats, parallel):
    """Run all parts of a pass for a loss of rows."""
    n = arrays[0].size // d
    parts = stats.shape[0]
    for p in prange(parts):
        use.part(address, arrays, params, block, (n * p // parts, n * (p + 1) // parts, d), grad[p], stats[p])


@cache
def block_functions(dtype: str) -> Any:
    """Return the functions of products, compiled for kernels of a dtype."""
    T, V = getattr(np, dtype), LANES[dtype]
    own = inner(fold, LOOP, Fold(V))
    eight, four, two, one = (spread_of(dtype, count, 8 // count) for count in (8, 4, 2, 1))
    made = Products(T, V, scores_of(dtype), eight, four, two, one, own)
    added = inner(sums, LOOP, made)
    curving = Curves(T, V, outer_of(dtype, 4), outer_of(dtype, 2), outer_of(dtype, 1), own)
    return Blocks(T, V, inner(product, LOOP, made), added, inner(curves, LOOP, curving))


@cache
def _element_driver(dtype: str) -> Any:
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    part = inner(element_part, INNER, block_functions(dtype))
    arrays = types.Tuple((one, two, two, one, one))
    three, four = array("float64", 3), array("float64", 4)
    signature = types.void(
        *(types.intp, arrays, doubles, types.intp, types.intp, three, four, array("float64", 2), types.boolean)
    )
    with dispatch.compiling:
        return compile_driver(drive_elements, f"linear_{dtype}", signature, Drive(part))


@cache
def _row_driver(dtype: str) -> Any:
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    part = inner(row_part, INNER, block_functions(dtype))
    arrays = types.Tuple((one, two, two, array("int64"), two, one, one, array("int64"), types.intp))
    signature = types.void(
        *(types.intp, arrays, doubles, types.intp, types.intp, array("float64", 3)),
        *(array("float64", 2), types.boolean),
    )
    with dispatch.compiling:
        return compile_driver(drive_row_scores, f"linear_rows_{dtype}", signature, Drive(part))


class Pass:
    """Pass over one X for one loss: the sum of the losses with its derivatives, by the coefficients."""

    def __init__(self, x: Any, outputs: int) -> None:
        self.n, self.d = x.shape
        self.outputs, self.dtype = outputs, x.dtype
        self.x = flat(x, x.dtype)
        lanes = LANES[NAMES[x.dtype]]
        self.block = max(lanes, BLOCK // self.d // 64 * 64 or BLOCK // self.d // lanes * lanes)
        self.parts = max(1, min(PARTS, x.size // PART, self.n // self.block))
        self.lanes = lanes

    def sums(self, curved: bool, slope: bool) -> tuple[Any, Any, Any]:
        """Return cleared sums of each part: gradient, curvature, and losses with violations."""
        k, m = self.outputs, self.d + 1
        grad = np.zeros((self.parts, k, m) if slope else (self.parts, 0, 0))
        hess = np.zeros((self.parts, k, m, m) if curved else (self.parts, 0, 0, 0))
        return grad, hess, np.zeros((self.parts, 2))

    def coefficients(self, w: Any) -> tuple[Any, Any]:
        """Return coefficients, (outputs, d + 1), in the dtype of X, and without the last in whole vectors."""
        # In the dtype of X: coefficients in float64 would widen every product.
        w = np.ascontiguousarray(w, self.dtype)
        d, lanes = self.d, self.lanes
        whole = d // lanes * lanes
        padded = np.zeros((len(w), -(-d // lanes) * lanes), self.dtype)
        padded[:, :whole] = w[:, :whole]
        if whole < d <= lanes:
            padded[:, :d] = w[:, :d]
        elif whole < d:
            padded[:, whole - d :] = w[:, whole:d]
        return w, padded

    def run(self, driver: Any, address: int, arrays: tuple[Any, ...], params: Any, *results: Any) -> None:
        """Run a driver on all parts."""
        work = self.x.size * (1 + self.outputs) + 8 * self.n * self.outputs
        with np.errstate(all="ignore"):
            dispatch.launch(driver, work, address, arrays, params, self.d, self.block, *results)


Summed = tuple[float, Any, Any]
"""Sum of the losses (infinite where a prediction is outside its domain), gradient and curvature."""


def _total(stats: Any) -> float:
    return float(np.add.reduce(stats[:, 0])) if not stats[:, 1].any() else np.inf


def element_pass(record: Any, packed: Any, usual: bool, x: Any, target: Any, weight: Any) -> Callable[..., Summed]:
    """Return the function of (coefficients, slope, curvature) for an elementwise loss.

    Coefficients are (outputs, d + 1), with the intercept last; target and weight are (n outputs,), in the dtype of X, a
    weight of None stands for 1. `curvature` is "" or a mode of `grad_and_hess`.
    """
    dtype, none = NAMES[x.dtype], np.empty(0, x.dtype)
    made = Pass(x, max(1, target.size // x.shape[0]))
    target, weight = flat(target, x.dtype), None if weight is None else flat(weight, x.dtype)

    def run(w: Any, slope: bool = True, curvature: str = "") -> Summed:
        mode = curvature or ("grad" if slope else "value")
        address = dispatch.elementwise(record, dtype, mode, weight is not None, usual=usual)[0]
        grad, hess, stats = made.sums(bool(curvature), slope or bool(curvature))
        arrays = (made.x, *made.coefficients(w), target, none if weight is None else weight)
        made.run(_element_driver(dtype), address, arrays, packed, grad, hess, stats)
        return _total(stats), np.add.reduce(grad), _mirrored(np.add.reduce(hess))

    return run


def _mirrored(upper: Any) -> Any:
    """Return symmetric matrices from their upper halves."""
    return np.triu(upper) + np.triu(upper, 1).transpose(0, 2, 1) if upper.size else upper


def row_pass(loss: Any, x: Any, k: int, labels: Any, target: Any, weight: Any) -> Callable[..., Summed]:
    """Return the function of (coefficients, slope) for a loss of rows of K scores.

    Coefficients are (K, d + 1); labels are (n,), int64, and the target is (0, 0), or labels are empty and the target is
    (n, columns).
    """
    record, dtype, none = loss.record, NAMES[x.dtype], np.empty(0, x.dtype)
    made = Pass(x, k)
    labels, target = flat(labels, np.dtype(np.int64)), contiguous(target, x.dtype)
    weight = None if weight is None else flat(weight, x.dtype)
    kind = "labels" if labels.size else "dense"
    smooth = kind == "labels" and loss.defaults.get("label_smoothing", 0.0) > 0.0
    tiled = kind in record.row_loop.tiles and k <= dispatch.TILED_TO
    read = smooth or (kind == "dense" and "dense" in record.row_loop.tiles)
    class_weight = np.ones(k, x.dtype) if read else none
    helpers = dispatch.helpers(k, x.dtype, tiled)

    def run(w: Any, slope: bool = True, curvature: str = "") -> Summed:
        mode = "grad" if slope else "value"
        address = dispatch.rows(record, dtype, mode, kind, smooth, tiled)[0]
        room = dispatch.room(k, mode, kind, tiled, record.loop, made.block)
        grad, hess, stats = made.sums(False, slope)
        own = none if weight is None else weight
        arrays = (made.x, *made.coefficients(w), labels, target, own, class_weight, helpers, room)
        made.run(_row_driver(dtype), address, arrays, loss._packed, grad, stats)
        return _total(stats), np.add.reduce(grad), np.add.reduce(hess)

    return run
