"""The driver for rows of float16 and bfloat16: each chunk is read as it is and computed in float32.

A chunk's scores pass through buffers that stay in the caches, so that memory carries half of what float32 takes and
no copy of a whole array is made. The kernels are those of float32.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from . import access, staging
from .cpu import array, call, combine, widest_vectors
from .rows import counting
from .specialize import LOOP, compile_driver, inner

__all__ = ["half_row_driver"]

PARTS = 64
"""Into how many parts the chunks of a call go at most, each with buffers of its own."""

# Names bound when a function below is specialized.
widened: Any = None
narrowed: Any = None
get: Any = None
put: Any = None
flat: Any = None
part: Any = None
survey: Any = None


def widen(source, target):
    """Read numbers of 16 bits as float32."""
    widest_vectors()
    for i in range(source.size):
        target[i] = get(source, i)


def narrow(source, target):
    """Round float32 to numbers of 16 bits, as many as there is room for."""
    widest_vectors()
    for i in range(target.size):
        put(target, i, source[i])


def row_part(
    address,
    z,
    labels,
    target,
    target16,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    room,
    chunk,
    first,
    last,
    stats,
):
    """Some chunks of rows."""
    size, k = z.shape
    x = np.empty((chunk, k), np.float32)
    g = np.empty((chunk if grad.size > 0 else 0, k), np.float32)
    h = np.empty((chunk if hess.size > 0 else 0, k), np.float32)
    goal = np.empty((chunk if target16.size > 0 else 0, k), np.float32)
    scratch = np.empty(room, np.float32)
    for c in range(first, last):
        lo = c * chunk
        hi = min(size, lo + chunk)
        n = hi - lo
        widened(flat(z[lo:hi]), flat(x))
        if target16.size > 0:
            widened(flat(target16[lo:hi]), flat(goal))
        t = goal[:n] if target16.size > 0 else target[lo:hi]
        inputs = (x[:n], labels[lo:hi], t, weight[lo:hi], class_weight)
        outputs = (values[lo:hi], g[:n], h[:n], details[lo:hi])
        call(address, (*inputs, *outputs, scale, params, helpers, False, scratch, stats[c]))
        narrowed(flat(g), flat(grad[lo:hi]))
        narrowed(flat(h), flat(hess[lo:hi]))


def drive_rows(
    address,
    z,
    labels,
    target,
    target16,
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
    classes,
    room,
    chunk,
    parallel,
):
    """As the driver of rows of float32."""
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
        workers = min(chunks, PARTS)
        for w in prange(workers):
            first, last = chunks * w // workers, chunks * (w + 1) // workers
            inputs, outputs = (z, labels, target, target16, weight, class_weight), (values, grad, hess, details)
            part(address, *inputs, *outputs, scale, params, helpers, room, chunk, first, last, stats)
    else:
        inputs, outputs = (z, labels, target, target16, weight, class_weight), (values, grad, hess, details)
        part(address, *inputs, *outputs, scale, params, helpers, room, chunk, 0, chunks, stats)
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
    widened, narrowed = inner(widen, LOOP, get=access.get), inner(narrow, LOOP, put=access.put["values"])
    work = inner(row_part, LOOP, widened=widened, narrowed=narrowed, call=call, flat=staging.flat)
    return compile_driver(drive_rows, f"rows_{stored}", signature, part=work, survey=counting("float32"))
