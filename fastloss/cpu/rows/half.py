"""The driver for rows of float16 and bfloat16: each chunk is read as it is and computed in float32.

A chunk's scores pass through buffers that stay in the caches, so that memory carries half of what float32 takes and
no copy of a whole array is made. The kernels are those of float32.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from ..runtime import access
from ..runtime.access import get
from ..runtime.intrinsics import array, call, combine, widest_vectors
from ..runtime.specialize import LOOP, compile_driver, compiled
from ..runtime.staging import flat
from .drivers import counting, survey

__all__ = ["half_row_driver"]

PARTS = 64
"""Largest number of parts among which the chunks of a call are divided, each with buffers of its own."""

put = access.put["values"]


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
def row_part(
    address, z, labels, target, target16, weight, class_weight, values, grad, hess, details,
    scale, params, helpers, room, chunk, first, last, stats,
):  # fmt: skip
    """Run chunks first to last of rows, through float32 buffers of one chunk."""
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
        call(address, (*inputs, *outputs, scale, params, helpers, False, scratch, stats[c]))
        narrow(flat(g), flat(grad[lo:hi]))
        narrow(flat(h), flat(hess[lo:hi]))


def drive_rows(
    address, z, labels, target, target16, weight, class_weight, counted, values, grad, hess, details,
    scale, ignored, params, helpers, classes, room, chunk, parallel,
):  # fmt: skip
    """Run all chunks of rows, as the driver of rows of float32 does."""
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
            first, last = chunks * w // workers, chunks * (w + 1) // workers
            inputs, outputs = (z, labels, target, target16, weight, class_weight), (values, grad, hess, details)
            row_part(address, *inputs, *outputs, scale, params, helpers, room, chunk, first, last, stats)
    else:
        inputs, outputs = (z, labels, target, target16, weight, class_weight), (values, grad, hess, details)
        row_part(address, *inputs, *outputs, scale, params, helpers, room, chunk, 0, chunks, stats)
    total, bad = combine(stats)
    return total, bad, mass, wrong


@cache
def half_row_driver(stored: str) -> Any:
    """The driver of all row losses on scores of 16 bits."""
    one, two, rows = array("float32"), array("float32", 2), array(stored, 2)
    inputs = (rows, array("int64"), two, rows, one, one, one)
    outputs = (one, rows, rows, array("float64", 2))
    fixed = (types.float64, types.int64, array("float64"), array("int64"))
    signature = types.UniTuple(types.float64, 4)(
        types.intp, *inputs, *outputs, *fixed, types.int64, types.intp, types.intp, types.boolean
    )
    return compile_driver(drive_rows, f"rows_{stored}", signature, survey=counting("float32"))
