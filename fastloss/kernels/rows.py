"""Loops over rows of K scores for a CPU: one scalar formula inside, one driver outside."""

from functools import cache
from typing import Any

import numpy as np
from numba import config, prange, types

from . import access, dense_tiles, multiclass, softmax, staging
from .cpu import array, call, combine, widest_vectors
from .softmax import BLOCK, label_terms, parts, softmax_dense, softmax_labels
from .specialize import INNER, LOOP, Chunk, compile_chunk, compile_driver, inner
from .tiles import transposers
from .worlds import carry, cpu

__all__ = ["counting", "label_driver", "room", "row_chunk", "row_driver", "tile_helpers"]

# Names that the templates below find bound when they are specialized; branches on flags are pruned.
T: Any = None
formula: Any = None
unpack: Any = None
derivatives: Any = None
curvature: Any = None
order: Any = None
top_only: Any = None
drive: Any = None
flat: Any = None


def log_probs_labels(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula of the label's log-probability alone."""
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    for i in range(n):
        y = labels[i]
        v = T(0.0)
        if derivatives:
            grad[i, :] = T(0.0)
            if curvature:
                hess[i, :] = T(0.0)
        if 0 <= y < k:
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= class_weight[y] if class_weight.size > 0 else T(1.0)
            out = formula(z[i, y], T(1.0), *p)
            v = T(0.0) if w == T(0.0) else w * out[0]
            if derivatives:
                grad[i, y] = T(scale) * w * out[1]
                if curvature:
                    hess[i, y] = T(scale) * w * out[order]
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def log_probs_dense(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula summed over the row, each class by itself."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    bad = T(0.0)
    if values.size == 0 and weight.size == 0 and class_weight.size == 0:
        # No number depends on its row: rows too short for the vector unit need not be told apart.
        xs, ts = flat(z), flat(target)
        gs, hs = flat(grad) if derivatives else xs, flat(hess) if curvature else xs
        for lo in range(0, xs.size, BLOCK):
            x, t, g, h = xs[lo : lo + BLOCK], ts[lo : lo + BLOCK], gs[lo : lo + BLOCK], hs[lo : lo + BLOCK]
            v = T(0.0)
            for j in range(x.size):
                out = formula(x[j], t[j], *p)
                v += out[0]
                bad += T(1.0) if t[j] < T(0.0) else T(0.0)
                if derivatives:
                    g[j] = T(scale) * out[1]
                    if curvature:
                        h[j] = T(scale) * out[order]
            total += v
        stats[0] = total
        stats[1] = bad
        return total
    for i in range(n):
        x, t, g, h = z[i], target[i], grad[i] if derivatives else z[i], hess[i] if curvature else z[i]
        w = weight[i] if weight.size > 0 else T(1.0)
        factor = T(scale) * w
        v = T(0.0)
        for j in range(k):
            out = formula(x[j], t[j], *p)
            c = class_weight[j] if class_weight.size > 0 else T(1.0)
            v += c * out[0]
            bad += T(1.0) if t[j] < T(0.0) else T(0.0)
            if derivatives:
                g[j] = factor * c * out[1]
                if curvature:
                    h[j] = factor * c * out[order]
        v = T(0.0) if w == T(0.0) else w * v
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = bad
    return total


def margin_labels(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula of margins z_j - z_label: summed over the other classes and divided by K, or of the largest alone."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    for i in range(n):
        y = labels[i]
        x = z[i]
        v = T(0.0)
        if derivatives:
            grad[i, :] = T(0.0)
            if curvature:
                hess[i, :] = T(0.0)
        if 0 <= y < k and k > 1:
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= class_weight[y] if class_weight.size > 0 else T(1.0)
            w /= T(1.0) if top_only else T(k)
            lo, hi = 0, k
            if top_only:
                lo = 1 if y == 0 else 0
                for j in range(k):
                    lo = j if j != y and (x[j] > x[lo] or x[j] != x[j]) else lo
                hi = lo + 1
            slope = T(0.0)
            bend = T(0.0)
            for j in range(lo, hi):
                out = formula(x[j] - x[y], *p)
                counted = j != y
                v += out[0] if counted else T(0.0)
                if derivatives:
                    f1 = T(scale) * w * out[1] if counted else T(0.0)
                    slope += f1
                    grad[i, j] = f1
                    if curvature:
                        f2 = T(scale) * w * out[order] if counted else T(0.0)
                        bend += f2
                        hess[i, j] = f2
            v = T(0.0) if w == T(0.0) else w * v
            if derivatives:
                grad[i, y] = -slope
                if curvature:
                    hess[i, y] = bend
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def ensemble(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula of each member, its mid-rank among all members, and their number."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    for i in range(n):
        x, t = z[i], target[i, 0]
        w = weight[i] if weight.size > 0 else T(1.0)
        v = T(0.0)
        for j in range(k):
            below = T(0.0)
            equal = T(0.0)
            for m in range(k):
                below += T(1.0) if x[m] < x[j] else T(0.0)
                equal += T(1.0) if x[m] == x[j] else T(0.0)
            rank = below + T(0.5) * (equal + T(1.0))
            out = formula(x[j], t, rank, T(k), *p)
            v += out[0]
            if derivatives:
                grad[i, j] = T(scale) * w * out[1]
                if curvature:
                    hess[i, j] = T(scale) * w * out[order]
        v = T(0.0) if w == T(0.0) else w * v
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def survey(labels, weight, class_weight, k, ignored):
    """Sum of the weights of the rows that count, and how many labels are neither a class nor ignored."""
    n = labels.size
    counted = 0
    wrong = 0
    for i in range(n):
        inside = (labels[i] >= 0) & (labels[i] < k)
        counted += 1 if inside else 0
        wrong += 0 if inside | (labels[i] == ignored) else 1
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
    address,
    z,
    labels,
    target,
    weight,
    class_weight,
    counted,
    values,
    grad,
    hess,
    details,
    scale,
    ignored,
    params,
    helpers,
    streamed,
    classes,
    room,
    chunk,
    parallel,
):
    """All chunks of rows, in parallel or one after another; the bits are the same.

    Labels are looked at first: a negative scale stands for the mean over the rows that count. Returns the sum of the
    losses, the violations, the weight of the rows that count, and how many labels are wrong.
    """
    n = z.shape[0]
    chunks = (n + chunk - 1) // chunk
    stats = np.empty((chunks, 2), np.float64)
    mass, wrong = 0.0, 0.0
    if labels.size > 0:
        if parallel:
            for c in prange(chunks):
                a = c * chunk
                b = min(n, a + chunk)
                stats[c, 0], stats[c, 1] = survey(labels[a:b], weight[a:b], counted, classes, ignored)
        else:
            for c in range(chunks):
                a = c * chunk
                b = min(n, a + chunk)
                stats[c, 0], stats[c, 1] = survey(labels[a:b], weight[a:b], counted, classes, ignored)
        mass, wrong = combine(stats)
        if wrong > 0.0:
            return 0.0, 0.0, mass, wrong
    if scale < 0.0:
        scale = 1.0 / mass if mass != 0.0 else 0.0
    if parallel:
        for c in prange(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            inputs = (z[a:b], labels[a:b], target[a:b], weight[a:b], class_weight)
            outputs = (values[a:b], grad[a:b], hess[a:b], details[a:b])
            scratch = np.empty(room, z.dtype)
            call(address, (*inputs, *outputs, scale, params, helpers, streamed, scratch, stats[c]))
    else:
        for c in range(chunks):
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
    return drive(address, *inputs, *outputs, -1.0, ignored, params, helpers, False, classes, room, chunk, False)


def _arguments(dtype: str) -> tuple[Any, ...]:
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    # z, labels, target, weight, class_weight; values, grad, hess, details; scale, params, helpers, streamed
    inputs = (two, array("int64"), two, one, one)
    return (*inputs, one, two, two, array("float64", 2), types.float64, doubles, array("int64"), types.boolean)


_LOOPS = {
    ("softmax", "labels"): softmax_labels,
    ("softmax", "dense"): softmax_dense,
    ("log_probs", "labels"): log_probs_labels,
    ("log_probs", "dense"): log_probs_dense,
    ("divergence", "dense"): log_probs_dense,
    ("margin", "labels"): margin_labels,
    ("top_margin", "labels"): margin_labels,
    ("ensemble", "dense"): ensemble,
    **multiclass.TEMPLATES,
}


def room(k: int, mode: str, kind: str, tiled: bool, loop: str, rows: int) -> int:
    """How many numbers of scratch a chunk of some rows needs."""
    if kind == "dense" and tiled:
        return dense_tiles.dense_room(k)
    return softmax.room(k, mode, kind, tiled) + multiclass.extra_room(k, loop, rows)


def row_chunk(record: Any, dtype: str, mode: str, kind: str, smooth: bool, tiled: bool, described: bool) -> Chunk:
    """Compile, or load from the disk cache, one row loss in one precision, mode and layout."""
    template = _LOOPS[record.loop, kind]
    derivatives, curvature = mode != "value", mode in ("hess", "surrogate")
    bound = {
        **parts(dtype, derivatives, curvature, smooth, tiled, derivatives or kind == "dense"),
        "order": 3 if mode == "surrogate" else 2,
        "flat": staging.flat,
        "top_only": record.loop == "top_margin",
        "described": described,
        "formula": carry(record.function, cpu(dtype)),
        "unpack": access.unpack(len(record.parameters) - len(record.loop_parameters), dtype),
    }
    if template is softmax_labels:
        bound["row_terms"] = inner(label_terms, LOOP, **bound)
    if kind == "dense" and tiled:
        template = dense_tiles.softmax_dense_tiled
        bound = dense_tiles.tile_extras({**bound, "taught": record.loop == "distillation"})
    elif record.loop in multiclass.LOOPS:
        bound |= multiclass.extras(record.loop, kind, dtype, log_probs_dense, bound)
    flags = "".join(f"_{k}" for k, v in {"smooth": smooth, "tiled": tiled, "described": described}.items() if v)
    signature = types.float64(*_arguments(dtype), array(dtype), array("float64"))
    return compile_chunk(template, f"{record.name}_{kind}_{mode}{flags}_{dtype}", signature, **bound)


@cache
def tile_helpers(k: int, dtype: str) -> tuple[Any, Any]:
    """The addresses of the functions that transpose tiles of rows of K, and the objects that keep the code alive."""
    chunks = transposers(k, dtype, array(dtype))
    addresses = [c.address for c in chunks]
    return (addresses if config.DISABLE_JIT else np.array(addresses, np.int64)), chunks


@cache
def counting(dtype: str) -> Any:
    """The function that looks at the labels of a chunk."""
    return inner(survey, {**LOOP, "forceinline": True}, T=getattr(np, dtype))


@cache
def label_driver(dtype: str) -> Any:
    """The driver of small calls with labels."""
    two, helpers = array(dtype, 2), array("int64")
    inputs = (two, array("int64"), two, types.int64, array("float64"), helpers, types.int64, types.intp, types.intp)
    signature = types.UniTuple(types.float64, 4)(types.intp, *inputs)
    drive = inner(drive_rows, INNER, survey=counting(dtype))
    return compile_driver(drive_labels, f"labels_{dtype}", signature, parallel=False, drive=drive, flat=staging.flat)


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
