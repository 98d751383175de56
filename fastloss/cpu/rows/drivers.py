"""Loops over rows of K scores for a CPU: one scalar formula inside, one driver outside."""

from functools import cache
from typing import Any

import numpy as np
from numba import config, prange, types

from ...spec.special import convex_factor
from ...spec.worlds import carry
from ..runtime import access
from ..runtime.intrinsics import array, call, combine
from ..runtime.slots import ABSENT, Number, unbound
from ..runtime.specialize import (
    INLINED,
    INNER,
    LOOP,
    Chunk,
    compile_chunk,
    compile_driver,
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

__all__ = ["counting", "label_driver", "room", "row_chunk", "row_driver", "row_helpers"]

use: Any = unbound(RowSlots, Number)

times = access.times[True]


def survey(labels, weight, class_weight, k, ignored):
    """Sum of the weights of the rows that count, and how many labels are neither a class nor ignored."""
    T = use.T
    n = labels.size
    counted = 0
    wrong = 0
    for i in range(n):
        # Keeps the loop vectorised: both conditions are computed, and neither is a branch.
        inside = (labels[i] >= 0) & (labels[i] < k)
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
            total += np.float64(w) * np.float64(class_weight[y] if class_weight.size > 0 else T(1.0))
    return total, wrong


def drive_rows(
    address, z, labels, target, weight, class_weight, counted, values, grad, hess, details,
    scale, ignored, params, helpers, streamed, classes, room, chunk, parallel,
):  # fmt: skip
    """All chunks of rows, in parallel or one after another; the bits are the same.

    Labels are looked at first: a negative scale stands for the mean over the rows that count. Returns the sum of the
    losses, the violations, the weight of the rows that count, and how many labels are wrong.
    """
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
        if wrong > 0.0:
            return 0.0, 0.0, mass, wrong
    if scale < 0.0:
        scale = 1.0 / mass if mass != 0.0 else 0.0
    for c in prange(chunks):
        a = c * chunk
        b = min(n, a + chunk)
        inputs = (z[a:b], labels[a:b], target[a:b], weight[a:b], class_weight)
        outputs = (values[a:b], grad[a:b], hess[a:b], details[a:b])
        scratch = np.empty(room, z.dtype)
        call(address, (*inputs, *outputs, scale, params, helpers, streamed, scratch, stats[c]))
    total, bad = combine(stats)
    return total, bad, mass, wrong


def drive_labels(address, z, labels, grad, ignored, params, helpers, classes, room, chunk):
    """A few rows with labels and nothing else: each array that is not passed saves 60 ns."""
    e, e2 = flat(z)[:0], z[:0]
    inputs, outputs = (z, labels, e2, e, e, e), (e, grad, e2, np.empty((0, 0), np.float64))
    return drive_rows(address, *inputs, *outputs, -1.0, ignored, params, helpers, False, classes, room, chunk, False)


def _arguments(dtype: str) -> tuple[Any, ...]:
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    # z, labels, target, weight, class_weight; values, grad, hess, details; scale, params, helpers, streamed
    inputs = (two, array("int64"), two, one, one)
    return (*inputs, one, two, two, array("float64", 2), types.float64, doubles, array("int64"), types.boolean)


def room(k: int, mode: str, kind: str, tiled: bool, loop: str, rows: int) -> int:
    """Return the scratch elements that a chunk of rows needs."""
    if kind == "dense" and tiled:
        return dense_tiles.dense_room(k)
    return softmax.room(k, mode, kind, tiled) + k * KERNELS[loop].room(rows)


def curve_factor(record: Any, mode: str, dtype: str) -> Any:
    """The function of the factors of a softmax's curvature, which only a z_loss can make negative."""
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
def label_driver(dtype: str) -> Any:
    """The driver of small calls with labels."""
    two, helpers = array(dtype, 2), array("int64")
    inputs = (two, array("int64"), two, types.int64, array("float64"), helpers, types.int64, types.intp, types.intp)
    signature = types.UniTuple(types.float64, 4)(types.intp, *inputs)
    drive = inner(drive_rows, INNER, survey=counting(dtype))
    return compile_driver(drive_labels, f"labels_{dtype}", signature, drive_rows=drive)


@cache
def row_driver(dtype: str) -> Any:
    """The driver of all row losses."""
    returns = types.UniTuple(types.float64, 4)
    *inputs, scale, params, helpers, streamed = _arguments(dtype)
    inputs.insert(5, array(dtype))
    signature = returns(
        *(
            types.intp,
            *inputs,
            scale,
            types.int64,
            params,
            helpers,
            streamed,
            *(types.int64, types.intp, types.intp),
            types.boolean,
        )
    )
    return compile_driver(drive_rows, f"rows_{dtype}", signature, survey=counting(dtype))
