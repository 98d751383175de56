"""Softmax of 64 rows at a time against targets for every class, where K is too small to fill a vector.

The target is probabilities, or a teacher's logits, which are scanned as the scores are.
"""

from typing import Any

import numpy as np

from ..runtime import access
from ..runtime.intrinsics import call, widest_vectors
from ..runtime.slots import unbound
from ..runtime.specialize import LOOP, inner
from ..runtime.staging import clear, flat, lanes
from ..runtime.subnormals import flush_subnormals, restore_subnormals
from .slots import RowSlots
from .tiles import (
    COLUMNS,
    GROUP,
    LABEL,
    TAIL,
    TOP,
    VALUE,
    WEIGHT,
    put_rows,
    scan_tile,
)

__all__ = ["dense_room", "softmax_dense_tiled", "tile_parts"]

use = unbound(RowSlots)

times = access.times[True]
apart = access.times[False]


def to_columns(rows, address, pad, tile):
    """Transpose up to 64 rows; those that are missing are 0."""
    x = flat(rows)
    # The shuffles read whole tiles, and beyond the array lies other memory.
    if len(rows) < GROUP:
        for q in range(x.size):
            pad[q] = x[q]
        for q in range(x.size, pad.size):
            pad[q] = use.ZERO
        call(address, (pad, flat(tile)))
    else:
        call(address, (x, flat(tile)))


def dense_lanes(p, x, t, e, class_weight, g, h, beta, zeta, scale, s):
    """Losses and derivatives of a tile from its scores, exponentials and targets."""
    T = use.T
    ZERO = use.ZERO
    widest_vectors()
    # Keeps them in registers: on the stack, no store to the tile can change them.
    top, tail, lt, inverse = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    value, slope, others, bends = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    push, factor = lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    clear(value, 0)
    clear(slope, 0)
    clear(others, 0)
    clear(bends, 0)
    for i in range(GROUP):
        top[i], tail[i] = s[TOP + i], s[TAIL + i]
        # Once a row, in vectors of rows.
        lt[i] = use.log1p(tail[i])
        inverse[i] = T(1.0) / (tail[i] + T(1.0))
        lse = top[i] * beta + lt[i]
        # Selected: an infinite log-sum-exp times a z_loss of 0 would be NaN.
        push[i] = T(2.0) * zeta * lse if zeta > ZERO else ZERO
        value[i] = T(0.5) * push[i] * lse if zeta > ZERO else ZERO
        factor[i] = scale * s[WEIGHT + i] * beta
    for j in range(x.shape[0]):
        c = class_weight[j]
        for i in range(GROUP):
            out = use.formula((x[j, i] - top[i]) * beta - lt[i], t[j, i], *p)
            f1 = times(out[1], c)
            value[i] += times(out[0], c)
            slope[i] += f1
            # Summed apart: the winner's slope less the sum of all would lose the digits of the others.
            others[i] += ZERO if x[j, i] == top[i] else f1
            if use.curvature:
                bends[i] += times(out[use.order], c)
    total = ZERO
    for i in range(GROUP):
        w = s[WEIGHT + i]
        v = ZERO if w == ZERO else w * value[i]
        s[VALUE + i] = v
        total += v
    if use.derivatives:
        for j in range(x.shape[0]):
            c = class_weight[j]
            for i in range(GROUP):
                out = use.formula((x[j, i] - top[i]) * beta - lt[i], t[j, i], *p)
                f1 = times(out[1], c)
                r = e[j, i] * inverse[i]
                # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
                winner = (tail[i] < T(1.0)) & (x[j, i] == top[i])
                q = tail[i] * inverse[i] if winner else T(1.0) - r
                first = f1 * q - r * others[i] if winner else f1 - r * slope[i]
                counted = factor[i] != ZERO
                if use.curvature:
                    f2 = times(out[use.order], c)
                    second = f2 * q * q + r * r * (bends[i] - f2)
                    pull, twice = use.curved_by(push[i] - slope[i]), use.curved_by(T(2.0) * zeta)
                    second = apart(apart(second + r * (pull * q + twice * r), factor[i]), beta)
                    h[j, i] = second if counted else ZERO
                g[j, i] = factor[i] * (first + push[i] * r) if counted else ZERO
    return total


def softmax_dense_tiled(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """Tiles of rows against a target for each class."""
    z, _, target, weight, class_weight = inputs
    values, grad, hess, details = outputs
    T = use.T
    ZERO = use.ZERO
    widest_vectors()
    control = flush_subnormals()
    n, k = z.shape
    p = use.unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    keep, share = T(1.0) - eps, eps / T(k)
    again = T(1.0) / (beta * beta) if use.taught else T(1.0)
    s = scratch[:COLUMNS]
    # Six tiles of K x 64: 15 kB at K = 10 in float32, which stay in the first-level cache.
    tiles = scratch[COLUMNS : COLUMNS + 6 * k * GROUP].reshape(6, k, GROUP)
    x, t, e, g, h, pad = tiles[0], tiles[1], tiles[2], tiles[3], tiles[4], flat(tiles[5])
    s[LABEL : LABEL + GROUP] = T(-1.0)
    total = 0.0
    bad = ZERO
    for lo in range(0, n, GROUP):
        hi = min(n, lo + GROUP)
        for i in range(GROUP):
            s[WEIGHT + i] = again if i < hi - lo else ZERO
        if weight.size > 0:
            for i in range(hi - lo):
                s[WEIGHT + i] *= weight[lo + i]
        # Fills the vectors where K is small: each lane is a row, and classes pass by one after another.
        to_columns(target[lo:hi], helpers[0], pad, t)
        if use.taught:
            scan_tile(target[lo:hi], beta, class_weight, helpers[0], e, pad, s)
            for i in range(GROUP):
                s[VALUE + i] = use.log1p(s[TAIL + i])
            for j in range(k):
                for i in range(GROUP):
                    t[j, i] = (t[j, i] - s[TOP + i]) * beta - s[VALUE + i]
        else:
            for j in range(k):
                counts = class_weight[j] != ZERO
                for i in range(GROUP):
                    bad += T(1.0) if (t[j, i] < ZERO) & counts & (s[WEIGHT + i] != ZERO) else ZERO
                    t[j, i] = keep * t[j, i] + share
        to_columns(z[lo:hi], helpers[0], pad, x)
        scan_tile(z[lo:hi], beta, class_weight, helpers[0], e, pad, s)
        total += dense_lanes(p, x, t, e, class_weight, g, h, beta, zeta, T(scale), s)
        if values.size > 0:
            for i in range(hi - lo):
                values[lo + i] = s[VALUE + i]
        if details.size > 0:
            for i in range(hi - lo):
                details[lo + i, 0] = s[TOP + i] * beta + use.log1p(s[TAIL + i])
                call(helpers[2], (z[lo + i], target[lo + i], details[lo + i]))
        if use.derivatives:
            put_rows(helpers[1], g, pad, grad[lo:hi], False)
            if use.curvature:
                put_rows(helpers[1], h, pad, hess[lo:hi], False)
    stats[0] = total
    stats[1] = np.float64(bad)
    restore_subnormals(control)
    return total


def tile_parts(use: RowSlots, functions: dict[str, Any]) -> dict[str, Any]:
    """Functions that the template above calls besides those of a softmax, by their names."""
    moved = inner(to_columns, LOOP, use)
    return {"to_columns": moved, "dense_lanes": inner(dense_lanes, LOOP, use, **functions)}


def dense_room(k: int) -> int:
    """Return the scratch elements that a chunk of tiles needs."""
    return COLUMNS + 6 * k * GROUP
