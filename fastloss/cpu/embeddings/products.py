"""Cross-entropy of the rows of a product of two matrices that is never held whole.

All losses whose scores are inner products are one: the rows of a @ b.T, each against a label or against probabilities.
A chunk of rows is multiplied by BLAS, the softmax kernels of rows put the derivatives in the place of the scores, and
two more products carry them to a and to b. Chunks, and the tiles of a chunk that threads share, depend on the sizes
alone, and sums over tiles are taken in one order: the result has the same bits on any number of threads.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...call.arrays import F64, NAMES, constants
from ...spec.record import registered
from .. import dispatch
from ..dispatch import TILED_TO, rows_per_chunk
from ..runtime import blas
from ..runtime.blas import add_product, multiplied, single_threaded
from ..runtime.intrinsics import array, call
from ..runtime.specialize import compile_driver
from ..runtime.subnormals import flushed_subnormals
from ..runtime.threads import one_by_one, share

__all__ = ["Few", "Product", "bound_few", "rows_at_a_time", "softmax_of_product"]

SCORES = 64 << 20
"""Bytes of scores at a time: 128 rows of 128k. The products take 1.2 times as long with 64 rows, 0.9 with 256.
What tiles hold for the sums over them is no more."""

ENOUGH_ROWS, ENOUGH_SCORES = 256, 1 << 21
"""More rows make no product faster; but few columns make small work of a chunk, and Python is paid for each."""

TILE, LEAST = 1 << 18, 128
"""Scores in a tile of rows, which a second-level cache holds, and the rows or columns that a tile has at least."""

WIDE = 1 << 19
"""Scores in a tile of columns: a quarter of it takes 1.1 times as long, twice as much 0.98."""


def slopes_in_place(address, arrays, keep, scale, params, helpers, room, chunk):
    """Copy rows of scores, their bias added, and have the derivatives written over the scores.

    The arrays are scores, bias, labels, dense target and class weights, and the losses of the rows.
    """
    z, bias, labels, target, class_weight, values = arrays
    n, k = z.shape
    # For one chunk, which stays in the cache: the scores themselves may be 64 MB.
    x = np.empty((min(n, chunk), k), z.dtype)
    scratch = np.empty(room, z.dtype)
    stats = np.empty(2, np.float64)
    none = np.empty((0, 0), np.float64)
    for lo in range(0, n, chunk):
        hi = min(n, lo + chunk)
        # Copies the scores: their derivatives take their place.
        for i in range(lo, hi):
            copy, row = x[i - lo], z[i]
            # Branches once a row: most products have no bias.
            if bias.size > 0:
                for j in range(k):
                    copy[j] = row[j] + bias[j]
            else:
                for j in range(k):
                    copy[j] = row[j]
        e2 = z[:0]
        outputs = (values[lo:hi], z[lo:hi] if keep else e2, e2, none)
        inputs = (x[: hi - lo], labels[lo:hi], target[lo:hi], values[:0], class_weight)
        call(address, (inputs, outputs, scale, params, helpers, False, scratch, stats))


@cache
def _driver(dtype: str) -> Any:
    one, two = array(dtype), array(dtype, 2)
    arrays = (two, one, array("int64"), two, one, one)
    fixed = (types.boolean, types.float64, array("float64"), array("int64"), types.intp, types.intp)
    signature = types.void(types.intp, types.Tuple(arrays), *fixed)
    return compile_driver(slopes_in_place, f"in_place_{dtype}", signature)


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
    """Factor of the scores."""
    smoothing: float = 0.0
    z_loss: float = 0.0
    lasting: bool = False
    """Whether all calls have so many columns, not just this batch: code for a few columns is worth compiling."""


def rows_at_a_time(n: int, k: int, itemsize: int) -> int:
    """Return the number of rows of k scores that are held at a time."""
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
    address = dispatch.rows(registered["cross_entropy"], name, mode, kind, smooth, tiled)[0]
    chunk = rows_per_chunk(k)
    tail = (dispatch.helpers(k, dtype, tiled), dispatch.room(k, mode, kind, tiled, "softmax", chunk), chunk)
    # Only dense targets and smoothing read class weights for every column.
    ones = np.ones(0 if labels and not smooth else k, dtype)
    with dispatch.compiling:
        return _Kernel(_driver(name), address, ones, np.empty((0, 0), dtype), tail)


def _pieces(n: int, step: int) -> list[slice]:
    return [slice(lo, min(n, lo + step)) for lo in range(0, n, step)]


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
    n, k = len(p.a), len(p.b)
    # By the sizes alone, so that sums over chunks have one order on every machine.
    rows = min(n, rows) or rows_at_a_time(n, k, p.a.dtype.itemsize)
    if _is_few(n, k, p.a.shape[1], rows):
        with np.errstate(all="ignore"), flushed_subnormals():
            _of_few(p, values, factors, grads)
        return
    for g in grads[1:]:
        g[...] = 0.0
    # Once a call, not once a chunk: fresh pages of 64 MB would be zeroed by the system each time.
    scores = np.empty((rows if rows < k else 0, k), p.a.dtype)
    # What is infinite or NaN comes through without a warning, as in the kernels.
    with np.errstate(all="ignore"), flushed_subnormals(), single_threaded(rows * k * p.a.shape[1]) as shared:
        # Products one by one stay in this thread.
        products = shared if shared is one_by_one else _flushed(shared)
        for lo in range(0, n, rows):
            hi = min(n, lo + rows)
            chunk = _Chunk(p, lo, hi, values, factors, grads)
            if rows < k:
                chunk.by_columns(products, scores[: hi - lo])
            elif not chunk.by_rows(products):
                chunk.by_products(products)


def _is_few(n: int, k: int, d: int, rows: int) -> bool:
    """Whether a product of n and k rows of d numbers, so many rows at a time, is one tile that BLAS does not share."""
    return k <= rows == n <= max(LEAST, TILE // k) and n * k * d <= blas.UNTHREADED


class Few(NamedTuple):
    """Sizes and settings of a small product whose rows are each held against a label, and all count alike."""

    n: int
    k: int
    d: int
    dtype: Any
    keep: bool
    """Whether derivatives are wanted."""
    beta: float = 1.0
    smoothing: float = 0.0
    z_loss: float = 0.0
    lasting: bool = False
    """As in `Product`."""


def bound_few(kind: Few) -> Callable[..., None] | None:
    """Return the function that evaluates products of a kind, with its kernel looked up once; None where they are large.

    It takes a, b, their bias (empty for none), labels, values to write, the scale of the derivatives, which is not 0,
    and arrays for the derivatives by a, by b and by the bias; its bits are those of `softmax_of_product`.
    """
    n, k, dtype, keep = kind.n, kind.k, kind.dtype, kind.keep
    if not (n and k and _is_few(n, k, kind.d, rows_at_a_time(n, k, dtype.itemsize))):
        return None
    work = _kernel(dtype, k, True, keep, kind.smoothing > 0.0, kind.lasting and k <= TILED_TO)
    params = constants(F64, kind.beta, kind.smoothing, kind.z_loss)
    driver, address, class_weight, empty2, tail = work
    empty, matmul, add = np.empty, np.matmul, np.add

    def evaluate(a: Any, b: Any, bias: Any, labels: Any, values: Any, scale: float, grads: tuple[Any, ...]) -> None:
        with np.errstate(all="ignore"), flushed_subnormals():
            g, found = matmul(a, b.T), empty(n, dtype)
            driver(address, (g, bias, labels, empty2, class_weight, found), keep, scale, params, *tail)
            values[...] = found
            if not keep:
                return
            matmul(g, b, out=grads[0])
            matmul(g.T, a, out=grads[1])
            # As a sum over tiles, which begins with 0, makes -0 into 0.
            add(grads[1], 0.0, out=grads[1])
            for to_bias in grads[2:]:
                add(g.sum(0), 0.0, out=to_bias)

    return evaluate


def _of_few(p: Product, values: Any, factors: Any, grads: tuple[Any, ...]) -> None:
    """Compute a chunk of one tile without the steps that share tiles out, which take 10 us: the same bits."""
    keep, own, counted, scale = bool(grads), None, p.a, 1.0
    if factors is not None and factors.size > 1:
        own = factors.astype(p.a.dtype)[:, None]
        counted = np.where(own != 0.0, p.a, p.a.dtype.type(0.0))
    elif factors is not None:
        scale = float(factors[0])
    g = p.a @ p.b.T
    put_slopes(p, 0, g, values, own, scale, keep)
    if not keep:
        return
    np.matmul(g, p.b, out=grads[0])
    np.matmul(g.T, counted, out=grads[1])
    # As a sum over tiles, which begins with 0, makes -0 into 0.
    np.add(grads[1], 0.0, out=grads[1])
    for to_bias in grads[2:]:
        np.add(g.sum(0), 0.0, out=to_bias)
    if own is not None:
        grads[0][own[:, 0] == 0.0] = 0.0


def _flushed(products: Callable[..., None]) -> Callable[..., None]:
    """Share products out as before, with subnormal numbers taken for 0 in all threads; the caller has seen to its own.

    The sum of the first terms of an element may be subnormal where the element is not.
    """
    caller = get_ident()

    def run(work: Callable[[Any], Any], items: Any) -> None:
        def each(item: Any) -> None:
            if get_ident() == caller:
                work(item)
                return
            with flushed_subnormals():
                work(item)

        products(each, items)

    return run


class _Chunk:
    """Some rows of a product. Tiles are shared out; what several of them add to is summed in their order."""

    def __init__(self, p: Product, lo: int, hi: int, values: Any, factors: Any, grads: tuple[Any, ...]) -> None:
        self.p, self.lo, self.a, self.values = p, lo, p.a[lo:hi], values[lo:hi]
        self.to_a: Any = grads[0][lo:hi] if grads else None
        self.sums = grads[1:]
        self.scale = float(factors[0]) if factors is not None and factors.size == 1 else 1.0
        self.own: Any = None
        self.counted_a = self.a
        if factors is not None and factors.size > 1:
            self.own = factors[lo:hi].astype(p.a.dtype)[:, None]
            # Keeps NaN of a row that does not count out of the sums: a product would spread it.
            self.counted_a = np.where(self.own != 0.0, self.a, p.a.dtype.type(0.0))

    def by_rows(self, products: Callable[..., None]) -> bool:
        """In tiles of rows, each through all steps; not where too much would be held for the sums over tiles."""
        b = self.p.b
        tiles = _pieces(len(self.a), max(LEAST, TILE // len(b)))
        parts: list[Any] = [()] * len(tiles)
        # Each tile holds a sum of the size of b until all are added in order.
        if self.to_a is not None and len(tiles) * b.nbytes > SCORES:
            return False

        def work(i: int) -> None:
            rows = tiles[i]
            g = self.a[rows] @ b.T
            self.put_slopes(rows, g)
            if self.to_a is not None:
                np.matmul(g, b, out=self.to_a[rows])
                parts[i] = g.T @ self.counted_a[rows], g.sum(0) if len(self.sums) > 1 else None

        products(work, range(len(tiles)))
        # Gives the same bits on any number of threads: tiles are added in their order.
        for part in parts:
            for total, one in zip(self.sums, part, strict=False):
                total += one
        self.clear()
        return True

    def by_products(self, products: Callable[..., None]) -> None:
        """One product after another, each shared out by itself."""
        b = self.p.b
        z = multiplied(products, self.a, b.T)
        self.share_slopes(z)
        multiplied(products, z, b, out=self.to_a)
        self.sums[0][...] += multiplied(products, z.T, self.counted_a)
        for to_bias in self.sums[1:]:
            to_bias += z.sum(0)
        self.clear()

    def by_columns(self, products: Callable[..., None], z: Any) -> None:
        """In tiles of columns, and its softmax in tiles of rows, with room for the scores."""
        b = self.p.b
        # What all tiles hold for their sum is within bounds too.
        tiles = _pieces(len(b), max(LEAST, WIDE // len(z), -(-len(b) * self.a.nbytes // SCORES)))
        parts: list[Any] = [None] * len(tiles)

        def multiply(columns: slice) -> None:
            np.matmul(self.a, b[columns].T, out=z[:, columns])

        def carry(i: int) -> None:
            columns = tiles[i]
            g = z[:, columns]
            parts[i] = g @ b[columns]
            # Into the sum itself, by BLAS: NumPy would write the product and read it again (1.18 instead of 1.06 of the
            # products).
            add_product(self.sums[0][columns], g, self.counted_a)
            for to_bias in self.sums[1:]:
                to_bias[columns] += g.sum(0)

        products(multiply, tiles)
        self.share_slopes(z)
        if self.to_a is not None:
            products(carry, range(len(tiles)))
            self.to_a[...] = parts[0]
            # Gives the same bits on any number of threads: tiles are added in their order.
            for part in parts[1:]:
                self.to_a += part
            self.clear()

    def clear(self) -> None:
        """Rows of factor 0 get nothing, whatever b holds."""
        if self.to_a is not None and self.own is not None:
            self.to_a[self.own[:, 0] == 0.0] = 0.0

    def share_slopes(self, z: Any) -> None:
        """Put the derivatives of all rows in the place of the scores."""
        share(lambda rows: self.put_slopes(rows, z[rows]), _pieces(len(z), max(1, TILE // len(self.p.b))))

    def put_slopes(self, rows: slice, g: Any) -> None:
        """Put the derivatives of some rows in the place of their scores, and write their values."""
        own = None if self.own is None else self.own[rows]
        put_slopes(self.p, self.lo + rows.start, g, self.values[rows], own, self.scale, self.to_a is not None)


def put_slopes(p: Product, lo: int, g: Any, values: Any, own: Any, scale: float, keep: bool) -> None:
    """Write the values of some rows, from `lo` on; their derivatives, times their own factors, replace the scores."""
    n, k = g.shape
    target = p.target(lo, lo + n, g) if p.target else None
    labels = NO_LABELS if p.labels is None else p.labels[lo : lo + n]
    if own is not None and p.labels is not None:
        # A row of factor 0 is left out, whatever it holds.
        labels = np.where(own[:, 0] != 0.0, labels, -1)
    found = np.empty(n, g.dtype)
    tiled, smooth = p.lasting and k <= TILED_TO, p.labels is not None and p.smoothing > 0.0
    work = _kernel(g.dtype, k, p.labels is not None, keep, smooth, tiled)
    bias = dispatch.EMPTY[g.dtype] if p.bias is None else p.bias
    target = work.empty2 if target is None else target
    arrays = (g, bias, labels, target, work.ones if p.class_weight is None else p.class_weight)
    params = constants(F64, p.beta, p.smoothing, p.z_loss)
    work.driver(work.address, (*arrays, found), keep, scale, params, *work.tail)
    values[...] = found
    if keep and own is not None:
        g *= own
        g[own[:, 0] == 0.0] = 0.0
