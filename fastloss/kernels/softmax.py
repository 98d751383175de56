"""Softmax loops over rows of K classes for a CPU, around one scalar formula of log-probability and target.

With integer labels there are two scans: along a row, or down a transposed tile of rows where K is too small to
fill the vector unit. Both find, per row, the maximum, the sum of exponentials less one (so that a loss or a
1 - p near zero keeps its digits), and leave the exponentials where the gradient will be.
"""

from functools import cache
from typing import Any

import numpy as np

from . import staging, tiles
from .cpu import call, prefetch, widest_vectors
from .specialize import LOOP, SCALAR, inner
from .tiles import (
    AT_E,
    AT_LABEL,
    AT_PP,
    AT_PQ,
    CLASS_WEIGHT,
    COLUMNS,
    FLAT,
    GROUP,
    HESS_LABEL,
    LINEAR,
    PICKED,
    SHIFTED,
    TAIL,
    TOP,
    VALUE,
    WEIGHT,
)
from .worlds import cpu

__all__ = ["label_terms", "parts", "room", "softmax_dense", "softmax_labels"]

BLOCK = 512
"""Elements summed in the lanes of a row loop before they become one number."""

AHEAD = 2048
"""How many elements ahead of its use memory is asked for: two pages; the hardware's own fetching ends with one."""

# Names that the templates below find bound when they are specialized.
T: Any = None
exp: Any = None
log1p: Any = None
formula: Any = None
unpack: Any = None
top_of: Any = None
scan: Any = None
scan_one: Any = None
row_terms: Any = None
spread: Any = None
pick: Any = None
drain: Any = None
flat: Any = None
streamable: Any = None
shifted: Any = None
describe: Any = None
derivatives: Any = None
curvature: Any = None
order: Any = None
smooth: Any = None
tiled: Any = None
stored: Any = None
exponentials_of: Any = None
scan_segment_of: Any = None
settled: Any = None
INFINITE: Any = None
described: Any = None
BITS: Any = None
SHIFT: Any = None
MAGNITUDE: Any = None
LEAST: Any = None


def order_max(x):
    """The largest element; NaN of positive sign is above infinity. As integers, a maximum vectorises."""
    widest_vectors()
    m = LEAST
    for j in range(x.size):
        b = T(x[j]).view(BITS)
        b = BITS(b ^ ((b >> SHIFT) & MAGNITUDE))
        m = b if b > m else m
    return BITS(m ^ ((m >> SHIFT) & MAGNITUDE)).view(T)


def tail_of(total, rest):
    """The sum of exponentials less one: all but the maximum where it is single, with every digit.

    A count of the maxima would say so directly, but a conditional count keeps the loop scalar (10 times slower).
    """
    return rest if total - rest < T(1.5) else total - T(1.0)


def exponentials(x, m, beta, e):
    """Shifted, scaled exponentials; a loop of its own, since beside sums it would be unrolled less."""
    widest_vectors()
    for j in range(x.size):
        e[j] = exp((x[j] - m) * beta)


SEGMENT = 1 << 12
"""Elements of a row that stay in the first-level cache from the maximum to the sum.

A longer row is taken in segments, each with a maximum of its own, so that it is read from memory once.
"""


def scan_segment(x, base, beta, e):
    """Sum of exponentials relative to base, and the same without the elements that equal it."""
    widest_vectors()
    total = T(0.0)
    rest = T(0.0)
    for lo in range(0, x.size, BLOCK):
        hi = min(lo + BLOCK, x.size)
        xs = x[lo:hi]
        es = e[lo:hi] if stored else e[: hi - lo]
        # Rows follow each other: a short row fetches for later ones.
        prefetch(x, lo + AHEAD, hi + AHEAD)
        if stored:
            prefetch(e, lo + AHEAD, hi + AHEAD)
        exponentials_of(xs, base, beta, es)
        for j in range(xs.size):
            total += es[j]
            rest += T(0.0) if xs[j] == base else es[j]
    return total, rest


def scan_row(x, beta, class_weight, e, tops):
    """Maximum, sum of exponentials less one, and weighted sum of shifted logits.

    The exponentials go to e, relative to each segment's own maximum in tops; e may be shorter than the row where
    nobody will read them.
    """
    widest_vectors()
    m = T(0.0)
    rest = T(0.0)
    total = T(0.0)
    linear = T(0.0)
    for c in range(tops.size):
        lo = c * SEGMENT
        hi = min(lo + SEGMENT, x.size)
        xs = x[lo:hi]
        top = top_of(xs)
        # Nothing is relative to minus infinity: exp(-inf - 0) is 0.
        base = top if top != -INFINITE else T(0.0)
        part, below = scan_segment_of(xs, base, beta, e[lo:hi] if stored else e)
        tops[c] = top
        if c == 0:
            m, total, rest = top, part, below
        elif top > m:
            shrink = exp((m - top) * beta)
            m, total, rest = top, total * shrink + part, total * shrink + below
        elif top == m:
            total += part
            rest += below
        else:
            shrink = exp((top - m) * beta)
            total += part * shrink
            rest += part * shrink
    if smooth:
        for j in range(x.size):
            linear += class_weight[j] * ((x[j] - m) * beta)
    return m, tail_of(total, rest), linear


def settle(e, tops, m, beta):
    """Make the exponentials of a row relative to its maximum."""
    widest_vectors()
    for c in range(tops.size):
        factor = exp((tops[c] - m) * beta)
        for j in range(c * SEGMENT, min((c + 1) * SEGMENT, e.size)):
            e[j] *= factor


def scan_rows(z, beta, class_weight, e, tops, s):
    """Scan row by row."""
    for i in range(z.shape[0]):
        s[TOP + i], s[TAIL + i], s[LINEAR + i] = scan_one(z[i], beta, class_weight, e[i if stored else 0], tops[i])


def pick_shifted(z, labels, beta, s):
    """The shifted logit that each row's label picks."""
    n, k = z.shape
    for i in range(n):
        y = labels[i]
        s[SHIFTED + i] = (z[i, y] - s[TOP + i]) * beta if 0 <= y < k else T(0.0)


def label_terms(p, beta, eps, zeta, scale, k, mass, s):
    """Per row: value, factor of the exponentials, smoothing term, and the entries at the label."""
    widest_vectors()
    keep = T(1.0) - eps
    share = eps / k
    bend = T(2.0) * zeta
    total = T(0.0)
    for i in range(GROUP):
        tail, d, w = s[TAIL + i], s[SHIFTED + i], s[WEIGHT + i]
        lt = log1p(tail)
        out = formula(d - lt, T(1.0), *p)
        lse = s[TOP + i] * beta + lt
        # Selected, not multiplied: an infinite log-sum-exp times a z_loss of 0 would be NaN.
        push = bend * lse if zeta > T(0.0) else T(0.0)
        extra = push + share * mass if smooth else push
        f1 = keep * s[CLASS_WEIGHT + i] * out[1]
        v = keep * s[CLASS_WEIGHT + i] * out[0] + (T(0.5) * push * lse if zeta > T(0.0) else T(0.0))
        if smooth:
            v += share * (mass * lt - s[LINEAR + i])
        v = T(0.0) if w == T(0.0) else w * v
        s[VALUE + i] = v
        total += v
        if derivatives:
            factor = scale * w * beta
            inverse = T(1.0) / (tail + T(1.0))
            # A label that is not the maximum has a tail of at least its own exponential: 1 - picked loses nothing.
            picked = s[PICKED + i] if tiled else exp(d)
            q = (tail + (T(1.0) - picked)) * inverse
            r = picked * inverse
            s[AT_E + i] = factor * (extra - f1) * inverse
            s[FLAT + i] = factor * share
            s[AT_LABEL + i] = factor * (f1 * q + extra * r - (share * s[CLASS_WEIGHT + i] if smooth else T(0.0)))
            if curvature:
                f2 = keep * s[CLASS_WEIGHT + i] * out[order]
                s[AT_PQ + i] = factor * beta * (extra - f1)
                s[AT_PP + i] = factor * beta * (bend + f2)
                s[HESS_LABEL + i] = factor * beta * ((extra - f1) * r * q + f2 * q * q + bend * r * r)
    return total


def spread_rows(e, tops, beta, labels, class_weight, s, grad, hess):
    """Write the derivatives of each row from its exponentials, which already lie in grad."""
    widest_vectors()
    k = grad.shape[1]
    for i in range(grad.shape[0]):
        g = grad[i]
        y = labels[i]
        if s[WEIGHT + i] == T(0.0):
            for j in range(k):
                g[j] = T(0.0)
            if curvature:
                for j in range(k):
                    hess[i, j] = T(0.0)
            continue
        b = s[FLAT + i]
        for c in range(tops.shape[1]):
            lo = c * SEGMENT
            hi = min(lo + SEGMENT, k)
            gs = g[lo:hi]
            factor = exp((tops[i, c] - s[TOP + i]) * beta)
            a = s[AT_E + i] * factor
            if curvature:
                hs = hess[i, lo:hi]
                tail = s[TAIL + i]
                inverse = T(1.0) / (tail + T(1.0))
                pq = s[AT_PQ + i]
                pp = s[AT_PP + i]
                for j in range(gs.size):
                    r = gs[j] * factor
                    p = r * inverse
                    q = tail * inverse if r == T(1.0) else T(1.0) - p
                    hs[j] = p * (pq * q + pp * p)
            if smooth:
                cs = class_weight[lo:hi]
                for j in range(gs.size):
                    gs[j] = gs[j] * a - b * cs[j]
            else:
                for j in range(gs.size):
                    gs[j] = gs[j] * a
        g[y] = s[AT_LABEL + i]
        if curvature:
            hess[i, y] = s[HESS_LABEL + i]


def describe_rows(z, labels, beta, s, details):
    """By-products on request: log-sum-exp, index of the maximum, rank of the label (0 is the top)."""
    n, k = z.shape
    for i in range(n):
        x = z[i]
        best = 0
        for j in range(k):
            if x[j] == s[TOP + i]:
                best = j
                break
        details[i, 0] = s[TOP + i] * beta + log1p(s[TAIL + i])
        details[i, 1] = best
        y = labels[i]
        ahead = k
        if 0 <= y < k:
            ahead = 0
            for j in range(k):
                ahead += x[j] > x[y] or (x[j] == x[y] and j < y)
        details[i, 2] = ahead


def softmax_labels(
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
    """Softmax of each row against an integer label; labels outside the classes are rows to ignore."""
    n, k = z.shape
    p = unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    mass = T(0.0)
    if smooth:
        for j in range(k):
            mass += class_weight[j]
    segments = (k + SEGMENT - 1) // SEGMENT
    s = scratch[:COLUMNS]
    rest = scratch[COLUMNS:]
    tops = rest[: GROUP * segments].reshape(GROUP, segments)
    tile = k * GROUP if tiled else 1
    pad = rest[:tile]
    e = (rest[tile : 2 * tile] if tiled else rest[GROUP * segments :]).reshape(k if tiled else 1, -1)
    bent = (rest[2 * tile : 3 * tile] if tiled and curvature else rest).reshape(k if tiled and curvature else 1, -1)
    past = streamed & streamable((flat(grad), flat(hess)))
    total = 0.0
    for lo in range(0, n, GROUP):
        hi = min(n, lo + GROUP)
        zz, yy, gg, hh = z[lo:hi], labels[lo:hi], grad[lo:hi], hess[lo:hi]
        pick(yy, weight[lo:hi], class_weight, k, s)
        if tiled:
            prefetch(flat(z), hi * k, min(n, hi + GROUP) * k)
            scan(zz, beta, class_weight, helpers[0], e, pad, s)
        else:
            scan(zz, beta, class_weight, gg if stored else e, tops, s)
            shifted(zz, yy, beta, s)
        total += row_terms(p, beta, eps, zeta, T(scale), T(k), mass, s)
        if values.size > 0:
            for i in range(hi - lo):
                values[lo + i] = s[VALUE + i]
        if described:
            describe(zz, yy, beta, s, details[lo:hi])
        if derivatives:
            if tiled:
                spread(e, bent, helpers[1], pad, class_weight, s, gg, hh, past)
            else:
                spread(gg, tops, beta, yy, class_weight, s, gg, hh)
    if past:
        drain()
    stats[0] = total
    stats[1] = 0.0
    return total


def softmax_dense(
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
    """Softmax of each row against class probabilities."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    keep, share = T(1.0) - eps, eps / T(k)
    e, tops = scratch[:k], scratch[k : k + (k + SEGMENT - 1) // SEGMENT]
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        x, t = z[i], target[i]
        m, tail, _ = scan_one(x, beta, class_weight, e, tops)
        if tops.size > 1:
            settled(e, tops, m, beta)
        lt = log1p(tail)
        inverse = T(1.0) / (tail + T(1.0))
        lse = m * beta + lt
        push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
        w = weight[i] if weight.size > 0 else T(1.0)
        v = T(0.0)
        slope = T(0.0)
        others = T(0.0)
        bends = T(0.0)
        for j in range(k):
            out = formula((x[j] - m) * beta - lt, keep * t[j] + share, *p)
            c = class_weight[j]
            f1 = c * out[1]
            v += c * out[0]
            slope += f1
            others += T(0.0) if x[j] == m else f1
            bends += c * out[order]
            bad += T(1.0) if t[j] < T(0.0) else T(0.0)
        v += T(0.5) * push * lse if zeta > T(0.0) else T(0.0)
        v = T(0.0) if w == T(0.0) else w * v
        total += v
        if values.size > 0:
            values[i] = v
        if described:
            details[i, 0] = lse
        if derivatives:
            factor = T(scale) * w * beta
            # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
            single = tail < T(1.0)
            g = grad[i]
            h = hess[i] if curvature else g
            for j in range(k):
                out = formula((x[j] - m) * beta - lt, keep * t[j] + share, *p)
                c = class_weight[j]
                f1 = c * out[1]
                r = e[j] * inverse
                winner = single and x[j] == m
                q = tail * inverse if winner else T(1.0) - r
                first = f1 * q - r * others if winner else f1 - r * slope
                if curvature:
                    f2 = c * out[order]
                    second = f2 * q * q + r * r * (bends - f2) - slope * r * q
                    h[j] = factor * beta * (second + r * (push * q + T(2.0) * zeta * r))
                g[j] = factor * (first + push * r)
    stats[0] = total
    stats[1] = bad
    return total


def room(k: int, mode: str, kind: str, tiled: bool) -> int:
    """How many numbers of scratch a chunk needs: columns, and tiles or tops and what no output has place for."""
    segments = -(-k // SEGMENT)
    if kind == "dense":
        return k + segments
    if tiled:
        return COLUMNS + k * GROUP * (2 if mode in ("value", "grad") else 3)
    return COLUMNS + GROUP * segments + (min(k, BLOCK) if mode == "value" else 1)


@cache
def parts(dtype: str, derivatives: bool, curvature: bool, smooth: bool, tiled: bool, stored: bool) -> Any:
    """What templates need apart from the loss itself; functions among it are compiled once and shared."""
    bits = np.int32 if dtype == "float32" else np.int64
    info = np.iinfo(bits)
    words = cpu(dtype).words
    constants = {
        "T": getattr(np, dtype),
        "BITS": bits,
        "SHIFT": bits(info.bits - 1),
        "MAGNITUDE": bits(info.max),
        "LEAST": bits(info.min),
        "INFINITE": getattr(np, dtype)(np.inf),
        "derivatives": derivatives,
        "curvature": curvature,
        "smooth": smooth,
        "tiled": tiled,
        "stored": stored,
        "drain": staging.drain,
        "flat": staging.flat,
        "streamable": staging.streamable,
        **{k: words[k] for k in ("exp", "log1p")},
    }

    def loop(function: Any, **bound: Any) -> Any:
        return inner(function, LOOP, **constants, **bound)

    constants["tail_of"] = inner(tail_of, SCALAR, T=constants["T"])
    segment = inner(scan_segment, {**LOOP, "forceinline": True}, **constants, exponentials_of=loop(exponentials))
    row = loop(scan_row, top_of=loop(order_max), scan_segment_of=segment)
    shared = {**constants, "scan_one": row, "settled": loop(settle), "describe": loop(describe_rows)}
    shared |= {"pick": loop(tiles.pick_labels), "top_of": loop(order_max)}
    if tiled:
        words = {"ZERO": constants["T"](0), "lanes": staging.lanes, "clear": staging.clear, "call": call}
        words["widest_vectors"] = widest_vectors
        return {
            **shared,
            "scan": loop(tiles.scan_tile, **words),
            "spread": loop(tiles.spread_tile, **words, put_rows=loop(tiles.put_rows, call=call, flush=staging.flush)),
        }
    return {
        **shared,
        "scan": loop(scan_rows, scan_one=row),
        "shifted": loop(pick_shifted),
        "spread": loop(spread_rows),
    }
