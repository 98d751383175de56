"""Loops over rows of K scores for a CPU: one scalar formula inside, one driver outside."""

from functools import cache
from typing import Any

import numpy as np
from numba import config, prange, types

from ...spec.special import convex_factor
from ...spec.worlds import carry
from ..runtime import access
from ..runtime.access import get
from ..runtime.intrinsics import array, call, combine, widest_vectors
from ..runtime.slots import ABSENT, Number, unbound
from ..runtime.specialize import (
    INLINED,
    LOOP,
    Chunk,
    compile_chunk,
    compile_driver,
    compiled,
    inner,
)
from ..runtime.staging import flat
from ..runtime.worlds import cpu
from . import dense_tiles, softmax
from .details import describer
from .multiclass import KERNELS
from .slots import RowSlots
from .softmax import dense_sums, label_terms, parts, softmax_labels
from .tiles import transposers

__all__ = ["counting", "half_row_driver", "room", "row_chunk", "row_driver", "row_helpers"]

PARTS = 64
"""Largest number of parts among which the chunks of a call are divided, each with buffers of its own."""

use: Any = unbound(RowSlots, Number)

times = access.times[True]
put = access.put["values"]


def survey(labels, weight, class_weight, k, ignored):
    """Sum of the weights of the rows that count, and how many labels are neither a class nor ignored."""
    T = use.T
    n = labels.size
    counted = 0
    wrong = 0
    for i in range(n):
        # Keeps the loop vectorised: both conditions are computed, and neither is a branch.
        inside = (labels[i] >= 0) & (labels[i] < k)
        # In integers: a count in float32 stops at 16,777,216.
        counted += 1 if inside else 0
        wrong += 0 if inside | (labels[i] == ignored) else 1
    if wrong > 0 and weight.size > 0:
        # A row of weight 0 may have any label.
        for i in range(n):
            inside = (labels[i] >= 0) & (labels[i] < k)
            wrong -= 0 if inside | (labels[i] == ignored) | (weight[i] != T(0.0)) else 1
    if weight.size == 0 and class_weight.size == 0:
        return float(counted), wrong
    total = 0.0
    for i in range(n):
        y = labels[i]
        if 0 <= y < k:
            w = weight[i] if weight.size > 0 else T(1.0)
            # In float64: the mean divides by this sum of all rows.
            total += np.float64(w) * np.float64(class_weight[y] if class_weight.size > 0 else T(1.0))
    return total, wrong


def drive_rows(address, arrays, scale, ignored, params, helpers, streamed, classes, room, chunk, parallel):
    """All chunks of rows, in parallel or one after another; the bits are the same.

    The arrays are the inputs of chunks, the class weights that are part of the mean's divisor, and the outputs.

    Labels are looked at first: a negative scale stands for the mean over the rows that count. Returns the sum of the
    losses, the violations, the weight of the rows that count, and how many labels are wrong.
    """
    z, labels, target, weight, class_weight, counted, values, grad, hess, details = arrays
    n = z.shape[0]
    chunks = (n + chunk - 1) // chunk
    # Gives the same bits on any number of threads: each chunk has its own sums, which are added in order.
    stats = np.empty((chunks, 2), np.float64)
    mass, wrong = 0.0, 0.0
    if labels.size > 0:
        for c in prange(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            stats[c, 0], stats[c, 1] = survey(labels[a:b], weight[a:b], counted, classes, ignored)
        mass, wrong = combine(stats)
        # Stops before any kernel runs: these trust labels as indices.
        if wrong > 0.0:
            return 0.0, 0.0, mass, wrong
    # The divisor of a mean is known only here: no second call needs to survey the labels.
    if scale < 0.0:
        scale = 1.0 / mass if mass != 0.0 else 0.0
    for c in prange(chunks):
        a = c * chunk
        b = min(n, a + chunk)
        inputs = (z[a:b], labels[a:b], target[a:b], weight[a:b], class_weight)
        outputs = (values[a:b], grad[a:b], hess[a:b], details[a:b])
        # A buffer of the chunk's own: threads would share one for all chunks.
        scratch = np.empty(room, z.dtype)
        call(address, (inputs, outputs, scale, params, helpers, streamed, scratch, stats[c]))
    total, bad = combine(stats)
    return total, bad, mass, wrong


@compiled(LOOP)
def widen(source, target):
    """Read numbers of 16 bits as float32."""
    widest_vectors()
    for i in range(source.size):
        target[i] = get(source, i)


@compiled(LOOP)
def narrow(source, target):
    """Round float32 to numbers of 16 bits, as many as there is room for."""
    widest_vectors()
    for i in range(target.size):
        put(target, i, source[i])


@compiled(LOOP)
def half_part(address, arrays, scale, params, helpers, room, chunk, first, last, stats):
    """Run chunks first to last of rows of 16 bits, through float32 buffers of one chunk."""
    z, labels, target, target16, weight, class_weight, _, values, grad, hess, details = arrays
    size, k = z.shape
    # Bounds memory and stays in the caches: a chunk at a time is widened, not the whole array.
    x = np.empty((chunk, k), np.float32)
    g = np.empty((chunk if grad.size > 0 else 0, k), np.float32)
    h = np.empty((chunk if hess.size > 0 else 0, k), np.float32)
    goal = np.empty((chunk if target16.size > 0 else 0, k), np.float32)
    scratch = np.empty(room, np.float32)
    for c in range(first, last):
        lo = c * chunk
        hi = min(size, lo + chunk)
        n = hi - lo
        widen(flat(z[lo:hi]), flat(x))
        if target16.size > 0:
            widen(flat(target16[lo:hi]), flat(goal))
        t = goal[:n] if target16.size > 0 else target[lo:hi]
        inputs = (x[:n], labels[lo:hi], t, weight[lo:hi], class_weight)
        outputs = (values[lo:hi], g[:n], h[:n], details[lo:hi])
        call(address, (inputs, outputs, scale, params, helpers, False, scratch, stats[c]))
        # Rounded once, from the float32 that the kernel of float32 gives.
        narrow(flat(g), flat(grad[lo:hi]))
        narrow(flat(h), flat(hess[lo:hi]))


def drive_half_rows(address, arrays, scale, ignored, params, helpers, classes, room, chunk, parallel):
    """All chunks of rows of float16 or bfloat16, each read as it is and computed in float32 by the kernels of float32.

    A chunk's scores pass through buffers that stay in the caches, so that memory carries half of what float32 takes and
    no copy of a whole array is made. The arrays are those of `drive_rows`, with a target of 16 bits after that of 32.
    """
    z, labels, _, _, weight, _, counted, _, _, _, _ = arrays
    n = z.shape[0]
    chunks = (n + chunk - 1) // chunk
    stats = np.empty((chunks, 2), np.float64)
    mass, wrong = 0.0, 0.0
    if labels.size > 0:
        for c in prange(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            stats[c, 0], stats[c, 1] = survey(labels[a:b], weight[a:b], counted, classes, ignored)
        mass, wrong = combine(stats)
        if wrong > 0.0:
            return 0.0, 0.0, mass, wrong
    if scale < 0.0:
        scale = 1.0 / mass if mass != 0.0 else 0.0
    # Allocates buffers once per part rather than once per chunk.
    if parallel:
        workers = min(chunks, PARTS)
        for w in prange(workers):
            # As even as whole chunks are; which part has a chunk changes no bit of it.
            first, last = chunks * w // workers, chunks * (w + 1) // workers
            half_part(address, arrays, scale, params, helpers, room, chunk, first, last, stats)
    else:
        half_part(address, arrays, scale, params, helpers, room, chunk, 0, chunks, stats)
    total, bad = combine(stats)
    return total, bad, mass, wrong


def _arrays(dtype: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the types of the inputs and of the outputs of a chunk, in the order that `RowSlots` gives."""
    one, two = array(dtype), array(dtype, 2)
    return (two, array("int64"), two, one, one), (one, two, two, array("float64", 2))


def _arguments(dtype: str) -> tuple[Any, ...]:
    """Return the types of a chunk's arguments, but of its scratch and its sums."""
    inputs, outputs = map(types.Tuple, _arrays(dtype))
    return (inputs, outputs, types.float64, array("float64"), array("int64"), types.boolean)


def room(k: int, mode: str, kind: str, tiled: bool, loop: str, rows: int) -> int:
    """Return the scratch elements that a chunk of rows needs."""
    if kind == "dense" and tiled:
        return dense_tiles.dense_room(k)
    return softmax.room(k, mode, kind, tiled) + k * KERNELS[loop].room(rows)


def curve_factor(record: Any, mode: str, dtype: str) -> Any:
    """The function of the factors of a softmax's curvature, which only a z_loss can make negative."""
    # Other surrogates are never negative, and spare the comparison.
    bounded = mode == "surrogate" and "z_loss" in record.loop_parameters
    return carry(convex_factor, cpu(dtype)) if bounded else access.same


def row_chunk(record: Any, dtype: str, mode: str, kind: str, smooth: bool, tiled: bool) -> Chunk:
    """Compile, or load from the disk cache, one row loss in one precision, mode and layout."""
    kernels = KERNELS[record.loop]
    template: Any = kernels.labels if kind == "labels" else kernels.dense
    derivatives, curvature = mode != "value", mode in ("hess", "surrogate")
    T, words = getattr(np, dtype), cpu(dtype).words
    use = RowSlots(
        T=T,
        ZERO=T(0.0),
        INFINITE=T(np.inf),
        exp=words["exp"],
        log1p=words["log1p"],
        formula=carry(record.function, cpu(dtype)),
        unpack=access.unpack(len(record.parameters) - len(record.loop_parameters), dtype),
        curved_by=curve_factor(record, mode, dtype),
        derivatives=derivatives,
        curvature=curvature,
        order=3 if mode == "surrogate" else 2,
        smooth=smooth,
        tiled=tiled,
        stored=derivatives or kind == "dense",
        taught=record.row_loop.dense == "logits",
        dense=kind == "dense",
        top_only=record.row_loop.top_only,
        loop=ABSENT,
    )
    functions = parts(use, dtype)
    if template is softmax_labels:
        functions["label_terms"] = inner(label_terms, LOOP, use, **functions)
    if kind == "dense" and not tiled:
        functions["dense_sums"] = inner(dense_sums, INLINED, use, **functions)
    if kind == "dense" and tiled:
        template = dense_tiles.softmax_dense_tiled
        functions |= dense_tiles.tile_parts(use, functions)
    else:
        use, functions = kernels.prepared(dtype, use, functions)
    flags = "".join(f"_{k}" for k, v in {"smooth": smooth, "tiled": tiled}.items() if v)
    signature = types.float64(*_arguments(dtype), array(dtype), array("float64"))
    return compile_chunk(template, f"{record.name}_{kind}_{mode}{flags}_{dtype}", signature, use, **functions)


@cache
def row_helpers(k: int, dtype: str, tiled: bool, described: str) -> tuple[Any, Any]:
    """The addresses of what chunks of rows call, and the objects that keep the code alive.

    They are the functions that transpose tiles of rows of K to columns and back, and the one of by-products.
    """
    moves = transposers(k, dtype, array(dtype)) if tiled else ()
    chunks = (*moves, describer(dtype, described)) if described else moves
    addresses = [0] * (2 - len(moves)) + [c.address for c in chunks]
    return (addresses if config.DISABLE_JIT else np.array(addresses, np.int64)), chunks


@cache
def counting(dtype: str) -> Any:
    """The function that looks at the labels of a chunk."""
    return inner(survey, INLINED, Number(getattr(np, dtype)))


@cache
def row_driver(dtype: str) -> Any:
    """The driver of all row losses."""
    inputs, outputs = _arrays(dtype)
    return compile_driver(
        drive_rows, f"rows_{dtype}", _driving((*inputs, array(dtype), *outputs), True), survey=counting(dtype)
    )


def _driving(arrays: tuple[Any, ...], streams: bool) -> Any:
    """Return the signature of a driver."""
    fixed = (types.float64, types.int64, array("float64"), array("int64"), *(types.boolean,) * streams)
    sizes = (types.int64, types.intp, types.intp)
    return types.UniTuple(types.float64, 4)(types.intp, types.Tuple(arrays), *fixed, *sizes, types.boolean)


@cache
def half_row_driver(stored: str) -> Any:
    """The driver of all row losses on scores of 16 bits."""
    (_, labels, target, *weights), (values, _, _, details) = _arrays("float32")
    rows = array(stored, 2)
    arrays = (rows, labels, target, rows, *weights, array("float32"), values, rows, rows, details)
    return compile_driver(drive_half_rows, f"rows_{stored}", _driving(arrays, False), survey=counting("float32"))
