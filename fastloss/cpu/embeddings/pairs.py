"""Losses of two or three vectors each: their distances or cosines, a scalar formula of those, and the chain back.

Rows are summed in float64 whatever their precision. Where a sum of squares leaves the range of float64 it is formed
once more, of numbers scaled by a power of two: neither huge nor tiny vectors lose a digit.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..math.scalar_math import pow64
from ..runtime.slots import ABSENT, unbound
from ..runtime.specialize import SCALAR, compiled, inner
from ..runtime.units import factor_of, kernel

__all__ = ["DISTANCE", "prepare", "run", "steps"]


class Slots(NamedTuple):
    """Flags and functions that the templates of pairs of vectors read."""

    formula: Callable[..., Any]
    """Formula of the loss."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""
    euclidean: bool
    """Whether the norm is of order 2."""
    targets: bool
    """Whether the formula takes a target."""
    unit: Callable[..., Any]
    """Derivative of the norm by one difference."""


use = unbound(Slots)

ONE = np.ones(1)
"""Factor of all pairs where no derivatives are wanted."""

LEAST, MOST = 1e-270, 1e270
"""Bounds between which a sum of squares has lost nothing to underflow or overflow."""


# Steps that may not be reassociated: x * scale - y * scale is finite where (x - y) * scale is not.
@compiled(SCALAR)
def gap(x, y, scale):
    """The scaled difference of two numbers."""
    return np.float64(x) * scale - np.float64(y) * scale


@compiled(SCALAR)
def shrunk(x, a, p):
    """A number times two factors, one after the other."""
    return np.float64(x) * a * p


def unit(x, y, scale, inverse, p):
    """The derivative of a norm by one difference, which the scale and the inverse of the scaled norm bring below 1."""
    e = gap(x, y, scale) * inverse
    if use.euclidean:
        return e
    size = 1.0 if p == 1.0 else pow64(abs(e), p - 1.0)
    return size if e > 0.0 else -size if e < 0.0 else e


@cache
def steps(euclidean: bool) -> tuple[tuple[str, Any], ...]:
    """The norm of a kernel and its derivative, as flags."""
    bare = Slots(formula=ABSENT, unpack=ABSENT, euclidean=euclidean, targets=ABSENT, unit=ABSENT)
    return ("euclidean", euclidean), ("targets", ABSENT), ("unit", inner(unit, SCALAR, bare))


def power_of_two(m):
    """Return a finite power-of-two scale factor that brings m close to 1."""
    if not m > 0.0:
        return 1.0
    # The reciprocal of the largest numbers is subnormal: their scale is a normal power of two.
    if m > 1e308:
        return 2.0**-1020
    return math.ldexp(1.0, min(-math.frexp(m)[1], 1000))


def farthest(x, y, scale):
    """The largest difference of two rows, scaled."""
    m = 0.0
    for j in range(x.size):
        m = max(m, abs(gap(x[j], y[j], scale)))
    return m


def squares(x, y, scale):
    """The sum of the squared differences of two rows, scaled."""
    s = 0.0
    for j in range(x.size):
        e = gap(x[j], y[j], scale)
        s += e * e
    return s


def powers(x, y, p, scale):
    """The norm of order p of the scaled differences of two rows."""
    s = 0.0
    # No power, and no scale: a sum of magnitudes loses nothing.
    if p == 1.0:
        for j in range(x.size):
            s += abs(gap(x[j], y[j], scale))
        return s
    # Keeps powers in range: relative to the largest difference, none exceeds 1.
    top = farthest(x, y, scale)
    inverse = 1.0 / top if top > 0.0 else 1.0
    for j in range(x.size):
        s += pow64(abs(gap(x[j], y[j], scale)) * inverse, p)
    return top * pow64(s, 1.0 / p)


def distance(x, y, p):
    """The scaled norm of a difference, and its scale."""
    if use.euclidean:
        s = squares(x, y, 1.0)
        # Saves the pass for the largest difference: most sums lose nothing unscaled.
        if LEAST < s < MOST:
            return math.sqrt(s), 1.0
    # A power of two: scaling rounds no digit of any element.
    scale = power_of_two(farthest(x, y, 1.0))
    return (math.sqrt(squares(x, y, scale)) if use.euclidean else powers(x, y, p, scale)), scale


DISTANCE = (power_of_two, farthest, squares, powers, distance)
"""Functions that compute a distance, each after those that it calls."""


def inverse_of(root):
    """1 / root, 0 of 0."""
    return 1.0 / root if root != 0.0 else 0.0


def single(lo, hi, params, factors, values, x, y, t, g, h):
    """Losses of the distance of two vectors; of a norm, where y is a single row of zeros."""
    q = use.unpack(params)
    for i in range(lo, hi):
        a, b = x[i], y[i if y.shape[0] > 1 else 0]
        root, scale = distance(a, b, 2.0)
        # Unscaled at the end, so that an overflow is that of the distance itself.
        d = root / scale
        out = use.formula(d, np.float64(t[i]), *q) if use.targets else use.formula(d, *q)
        values[i] = out[0]
        if g.size > 0:
            factor, inverse = factor_of(factors, i), inverse_of(root)
            # Selected, not multiplied: 0 times an infinite slope would be NaN.
            k = out[1] * factor if factor != 0.0 else 0.0
            u = g[i]
            if k == 0.0:
                u[:] = 0.0
            else:
                for j in range(a.size):
                    u[j] = k * use.unit(a[j], b[j], scale, inverse, 2.0)
            if h.size > 0:
                v = h[i]
                for j in range(a.size):
                    v[j] = -u[j]


def comparable(d, e):
    """The squares of two distances; their difference and 0 where both overflow."""
    left, right = d * d, e * e
    if left == math.inf and right == math.inf:
        # Keeps the sign of the difference, on which alone the loss depends: infinity less infinity has none.
        return (d - e) * d + (d - e) * e, 0.0
    return left, right


def triples(lo, hi, params, options, factors, values, x, y, z, g, h, w):
    """Losses of the distances of a vector from two others."""
    q = use.unpack(params)
    # Run-time numbers: one kernel serves all combinations, at the cost of a branch a row.
    p, squared, swap = options[0], options[1] > 0.0, options[2] > 0.0
    for i in range(lo, hi):
        a, b, c = x[i], y[i], z[i]
        near, near_scale = distance(a, b, p)
        far, far_scale = distance(a, c, p)
        swapped = False
        if swap:
            other, other_scale = distance(b, c, p)
            # Compares unscaled distances: each has a scale of its own.
            if other / other_scale < far / far_scale:
                far, far_scale, swapped = other, other_scale, True
        d, e = near / near_scale, far / far_scale
        left, right = comparable(d, e) if squared else (d, e)
        out = use.formula(left, right, *q)
        values[i] = out[0]
        if g.size > 0:
            factor = factor_of(factors, i)
            k, m = (out[1][0] * factor, out[1][1] * factor) if factor != 0.0 else (0.0, 0.0)
            close = (k * 2.0 * d if squared and k != 0.0 else k, near_scale, inverse_of(near))
            away = (m * 2.0 * e if squared and m != 0.0 else m, far_scale, inverse_of(far))
            triple_slopes((a, b, c), (g[i], h[i], w[i]), close, away, p, swapped)


def triple_slopes(vectors, slopes, near, far, p, swapped):
    """Write k times the derivative of the distance of a and b, plus m times that of a and c; of b and c if swapped.

    `near` and `far` are k and m, each with the scale of its distance and the inverse of that.
    """
    (a, b, c), (g, h, w) = vectors, slopes
    (k, scale, inverse), (m, far_scale, far_inverse) = near, far
    if k == 0.0 and m == 0.0:
        g[:] = 0.0
        h[:] = 0.0
        w[:] = 0.0
        return
    start = b if swapped else a
    for j in range(a.size):
        # Computed again, not kept: the vectors are in the cache, a row of units would need memory.
        e = k * use.unit(a[j], b[j], scale, inverse, p)
        f = m * use.unit(start[j], c[j], far_scale, far_inverse, p)
        g[j] = e if swapped else e + f
        h[j] = f - e if swapped else -e
        w[j] = -f


def largest(x):
    """The largest magnitude in a row."""
    m = 0.0
    for j in range(x.size):
        m = max(m, abs(np.float64(x[j])))
    return m


def products(x, y, a, b):
    """x.x, y.y and x.y of two rows, scaled by a and by b."""
    xx, yy, xy = 0.0, 0.0, 0.0
    for j in range(x.size):
        e, f = np.float64(x[j]) * a, np.float64(y[j]) * b
        xx += e * e
        yy += f * f
        xy += e * f
    return xx, yy, xy


def apart(x, y, a, p, b, q):
    """1 - the cosine of the unit vectors x * a * p and y * b * q, from half their squared distance: no cancellation."""
    s = 0.0
    for j in range(x.size):
        e = shrunk(x[j], a, p) - shrunk(y[j], b, q)
        s += e * e
    return 0.5 * s


def cosines(lo, hi, params, factors, values, x, y, t, g, h):
    """Losses of the cosine of two vectors, which is 0 where one of them is."""
    n = use.unpack(params)
    for i in range(lo, hi):
        u, v = x[i], y[i]
        a, b = 1.0, 1.0
        # Three sums in one read of both vectors.
        uu, vv, uv = products(u, v, a, b)
        # Nearly never: most sums of squares lose nothing unscaled.
        if not (LEAST < uu < MOST and LEAST < vv < MOST):
            a, b = power_of_two(largest(u)), power_of_two(largest(v))
            uu, vv, uv = products(u, v, a, b)
        p, q = inverse_of(math.sqrt(uu)), inverse_of(math.sqrt(vv))
        c = uv * p * q
        # Keeps the digits of nearly parallel vectors, where 1 - c cancels.
        rest = apart(u, v, a, p, b, q) if c > 0.5 else 1.0 - c
        out = use.formula(rest, c, np.float64(t[i]), *n) if use.targets else use.formula(rest, c, *n)
        values[i] = out[0]
        if g.size > 0:
            factor = factor_of(factors, i)
            k = out[1] * factor if factor != 0.0 else 0.0
            # A zero vector has no direction: its cosine is 0, and so is the slope.
            if p == 0.0 or q == 0.0:
                k = 0.0
            cosine_slopes(u, v, a, p, b, q, rest, k, g[i], h[i])


def cosine_slopes(x, y, a, p, b, q, rest, k, g, h):
    """Write k times the derivative of the cosine of x and y, of unit vectors x * a * p and y * b * q."""
    if k == 0.0:
        g[:] = 0.0
        h[:] = 0.0
        return
    left, right = k * p * a, k * q * b
    for j in range(x.size):
        e, f = shrunk(x[j], a, p), shrunk(y[j], b, q)
        # f - c e and e - c f, which nearly cancel where the vectors are nearly parallel
        g[j] = left * ((f - e) + rest * e)
        h[j] = right * ((e - f) + rest * f)


HELPERS = {
    single: (*DISTANCE, inverse_of),
    triples: (*DISTANCE, inverse_of, comparable, triple_slopes),
    cosines: (power_of_two, largest, products, apart, inverse_of, cosine_slopes),
}


def of_cosines(record: Any) -> bool:
    """Whether the formula takes one less the cosine, and the cosine, in place of a distance."""
    return bool(record.function.__code__.co_varnames[:2] == ("h", "c"))


def prepare(call: Any) -> Callable[[Any], None]:
    """Return what evaluates every pair or triplet of calls like one."""
    record, first, empty = call.record, call[call.record.predictions[0]], np.empty((0, 0), call.dtype)
    count, numbers = len(record.predictions), call.numbers()
    target = next((k for k in record.inputs if k not in record.predictions), None)
    template = triples if count == 3 else cosines if of_cosines(record) else single
    # A kernel of its own, without powers: they take ten times as long as the squares.
    euclidean = call.parameters.get("p", 2.0) == 2.0
    flags = (*steps(euclidean), ("targets", target is not None))
    name = record.name if euclidean else f"{record.name}_p"
    pairs = kernel(template, name, "float64", record.function, HELPERS[template], flags)
    launch = pairs.bound(call.units, first.size * (4 if euclidean else 40))
    head: tuple[Any, ...] = (numbers,)
    second: tuple[Any, ...] = ()
    labels: tuple[Any, ...] = (np.empty(0, call.dtype),)
    if template is triples:
        head, labels = (numbers, np.array([call.parameters[k] for k in ("p", "squared", "swap")], np.float64)), ()
    if count == 1:
        second = (np.zeros((1, first.shape[1]), call.dtype),)
    no_second, no_grads, predictions = (empty,) * len(second), (empty,) * max(count, 2), record.predictions

    def evaluate(call: Any) -> None:
        arrays, grads = call.arrays, call.grads
        inputs = [arrays[k] for k in predictions]
        own = labels if target is None else (arrays[target],)
        if grads:
            launch(*head, call.factors(), call.values, *inputs, *second, *own, *grads.values(), *no_second)
        else:
            launch(*head, ONE, call.values, *inputs, *second, *own, *no_grads)

    return evaluate


def run(call: Any) -> None:
    """Evaluate every pair or triplet."""
    prepare(call)(call)
