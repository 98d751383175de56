"""Softmax of 64 rows at a time against targets for every class, where K is too small to fill a vector.

The target is probabilities, or a teacher's logits, which are scanned as the scores are.
"""

from typing import Any

import numpy as np

from . import staging, tiles
from .cpu import call, widest_vectors
from .specialize import LOOP, inner
from .tiles import COLUMNS, GROUP, LABEL, TAIL, TOP, VALUE, WEIGHT

__all__ = ["dense_room", "softmax_dense_tiled", "tile_extras"]

# Names that the templates below find bound when they are specialized; branches on flags are pruned.
T: Any = None
ZERO: Any = None
formula: Any = None
unpack: Any = None
derivatives: Any = None
curvature: Any = None
described: Any = None
taught: Any = None
order: Any = None
log1p: Any = None
scan: Any = None
lanes: Any = None
clear: Any = None
flat: Any = None
work: Any = None
columns_of: Any = None
put_rows: Any = None


def to_columns(rows, address, pad, tile):
    """Transpose up to 64 rows; those that are missing are 0."""
    x = flat(rows)
    if len(rows) < GROUP:
        for q in range(x.size):
            pad[q] = x[q]
        for q in range(x.size, pad.size):
            pad[q] = ZERO
        call(address, (pad, flat(tile)))
    else:
        call(address, (x, flat(tile)))


def dense_lanes(p, x, t, e, class_weight, g, h, beta, zeta, scale, s):
    """Losses and derivatives of a tile from its scores, exponentials and targets."""
    widest_vectors()
    top, tail, lt, inverse = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    value, slope, others, bends = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    push, factor = lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    clear(value, 0)
    clear(slope, 0)
    clear(others, 0)
    clear(bends, 0)
    for i in range(GROUP):
        top[i], tail[i] = s[TOP + i], s[TAIL + i]
        lt[i] = log1p(tail[i])
        inverse[i] = T(1.0) / (tail[i] + T(1.0))
        lse = top[i] * beta + lt[i]
        push[i] = T(2.0) * zeta * lse if zeta > ZERO else ZERO
        value[i] = T(0.5) * push[i] * lse if zeta > ZERO else ZERO
        factor[i] = scale * s[WEIGHT + i] * beta
    for j in range(x.shape[0]):
        c = class_weight[j]
        for i in range(GROUP):
            out = formula((x[j, i] - top[i]) * beta - lt[i], t[j, i], *p)
            f1 = c * out[1]
            value[i] += c * out[0]
            slope[i] += f1
            others[i] += ZERO if x[j, i] == top[i] else f1
            if curvature:
                bends[i] += c * out[order]
    total = ZERO
    for i in range(GROUP):
        w = s[WEIGHT + i]
        v = ZERO if w == ZERO else w * value[i]
        s[VALUE + i] = v
        total += v
    if derivatives:
        for j in range(x.shape[0]):
            c = class_weight[j]
            for i in range(GROUP):
                out = formula((x[j, i] - top[i]) * beta - lt[i], t[j, i], *p)
                f1 = c * out[1]
                r = e[j, i] * inverse[i]
                # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
                winner = (tail[i] < T(1.0)) & (x[j, i] == top[i])
                q = tail[i] * inverse[i] if winner else T(1.0) - r
                first = f1 * q - r * others[i] if winner else f1 - r * slope[i]
                counted = factor[i] != ZERO
                if curvature:
                    f2 = c * out[order]
                    second = f2 * q * q + r * r * (bends[i] - f2) - slope[i] * r * q
                    second = factor[i] * beta * (second + r * (push[i] * q + T(2.0) * zeta * r))
                    h[j, i] = second if counted else ZERO
                g[j, i] = factor[i] * (first + push[i] * r) if counted else ZERO
    return total


def softmax_dense_tiled(
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
    """Tiles of rows against a target for each class."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    keep, share = T(1.0) - eps, eps / T(k)
    again = T(1.0) / (beta * beta) if taught else T(1.0)
    s = scratch[:COLUMNS]
    tiles = scratch[COLUMNS : COLUMNS + 6 * k * GROUP].reshape(6, k, GROUP)
    x, t, e, g, h, pad = tiles[0], tiles[1], tiles[2], tiles[3], tiles[4], flat(tiles[5])
    s[LABEL : LABEL + GROUP] = T(-1.0)
    total = 0.0
    bad = ZERO
    for lo in range(0, n, GROUP):
        hi = min(n, lo + GROUP)
        columns_of(target[lo:hi], helpers[0], pad, t)
        if taught:
            scan(target[lo:hi], beta, class_weight, helpers[0], e, pad, s)
            for i in range(GROUP):
                s[VALUE + i] = log1p(s[TAIL + i])
            for j in range(k):
                for i in range(GROUP):
                    t[j, i] = (t[j, i] - s[TOP + i]) * beta - s[VALUE + i]
        else:
            for j in range(k):
                for i in range(GROUP):
                    bad += T(1.0) if t[j, i] < ZERO else ZERO
                    t[j, i] = keep * t[j, i] + share
        columns_of(z[lo:hi], helpers[0], pad, x)
        scan(z[lo:hi], beta, class_weight, helpers[0], e, pad, s)
        for i in range(GROUP):
            s[WEIGHT + i] = again if i < hi - lo else ZERO
        if weight.size > 0:
            for i in range(hi - lo):
                s[WEIGHT + i] *= weight[lo + i]
        total += work(p, x, t, e, class_weight, g, h, beta, zeta, T(scale), s)
        if values.size > 0:
            for i in range(hi - lo):
                values[lo + i] = s[VALUE + i]
        if described:
            for i in range(hi - lo):
                details[lo + i, 0] = s[TOP + i] * beta + log1p(s[TAIL + i])
        if derivatives:
            put_rows(helpers[1], g, pad, grad[lo:hi], False)
            if curvature:
                put_rows(helpers[1], h, pad, hess[lo:hi], False)
    stats[0] = total
    stats[1] = np.float64(bad)
    return total


def tile_extras(bound: dict[str, Any]) -> dict[str, Any]:
    """What the template above finds bound besides the names of all loops."""
    words = {"ZERO": bound["T"](0), "lanes": staging.lanes, "clear": staging.clear, "call": call}
    found = {
        **bound,
        **words,
        "put_rows": inner(tiles.put_rows, LOOP, flat=bound["flat"], call=call, flush=staging.flush),
    }
    moved = inner(to_columns, LOOP, **{k: found[k] for k in ("ZERO", "flat", "call")})
    return {**found, "columns_of": moved, "work": inner(dense_lanes, LOOP, **found)}


def dense_room(k: int) -> int:
    """How many numbers of scratch the tiles need."""
    return COLUMNS + 6 * k * GROUP
