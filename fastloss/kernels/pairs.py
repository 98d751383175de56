"""Losses of two or three vectors each: their distances or cosines, a scalar formula of those, and the chain back.

Rows are summed in float64 whatever their precision. Where a sum of squares leaves the range of float64 it is formed
once more, of numbers scaled by a power of two: neither huge nor tiny vectors lose a digit.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from .blocks import kernel
from .scalar_math import VOCABULARY
from .specialize import SCALAR, inner

__all__ = ["DISTANCE", "run", "steps"]

# Names that the templates below find bound when they are specialized.
formula: Any = None
unpack: Any = None
factor_of: Any = None
pow64: Any = None
euclidean: Any = None
targets: Any = None

LEAST, MOST = 1e-270, 1e270
"""Between which a sum of squares has lost nothing to underflow or overflow."""


# Steps that may not be reassociated: x * scale - y * scale is finite where (x - y) * scale is not.
def gap(x, y, scale):
    """The scaled difference of two numbers."""
    return np.float64(x) * scale - np.float64(y) * scale


def shrunk(x, a, p):
    """A number times two factors, one after the other."""
    return np.float64(x) * a * p


def unit(x, y, scale, inverse, p):
    """The derivative of a norm by one difference, which the scale and the inverse of the scaled norm bring below 1."""
    e = gap(x, y, scale) * inverse
    if euclidean:
        return e
    size = 1.0 if p == 1.0 else pow64(abs(e), p - 1.0)
    return size if e > 0.0 else -size if e < 0.0 else e


@cache
def steps(euclidean: bool) -> tuple[tuple[str, Any], ...]:
    """The steps above and the norm that they are for, as flags of a kernel."""
    words: dict[str, Any] = {"gap": inner(gap, SCALAR), "shrunk": inner(shrunk, SCALAR)}
    words["unit"] = inner(unit, SCALAR, gap=words["gap"], euclidean=euclidean, pow64=VOCABULARY["float64"]["pow"])
    return (*words.items(), ("euclidean", euclidean))


def power_of_two(m):
    """What brings a number near 1; finite itself."""
    if not m > 0.0:
        return 1.0
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
    if p == 1.0:
        for j in range(x.size):
            s += abs(gap(x[j], y[j], scale))
        return s
    top = farthest(x, y, scale)
    inverse = 1.0 / top if top > 0.0 else 1.0
    for j in range(x.size):
        s += pow64(abs(gap(x[j], y[j], scale)) * inverse, p)
    return top * pow64(s, 1.0 / p)


def distance(x, y, p):
    """The scaled norm of a difference, and its scale."""
    if euclidean:
        s = squares(x, y, 1.0)
        if LEAST < s < MOST:
            return math.sqrt(s), 1.0
    scale = power_of_two(farthest(x, y, 1.0))
    return (math.sqrt(squares(x, y, scale)) if euclidean else powers(x, y, p, scale)), scale


DISTANCE = (power_of_two, farthest, squares, powers, distance)
"""What forms a distance."""


def inverse_of(root):
    """1 / root, 0 of 0."""
    return 1.0 / root if root != 0.0 else 0.0


def single(lo, hi, params, factors, values, x, y, t, g, h):
    """Losses of the distance of two vectors; of a norm, where y is a single row of zeros."""
    q = unpack(params)
    for i in range(lo, hi):
        a, b = x[i], y[i if y.shape[0] > 1 else 0]
        root, scale = distance(a, b, 2.0)
        d = root / scale
        out = formula(d, np.float64(t[i]), *q) if targets else formula(d, *q)
        values[i] = out[0]
        if g.size > 0:
            factor, inverse = factor_of(factors, i), inverse_of(root)
            k = out[1] * factor if factor != 0.0 else 0.0
            u = g[i]
            if k == 0.0:
                u[:] = 0.0
            else:
                for j in range(a.size):
                    u[j] = k * unit(a[j], b[j], scale, inverse, 2.0)
            if h.size > 0:
                v = h[i]
                for j in range(a.size):
                    v[j] = -u[j]


def triples(lo, hi, params, options, factors, values, x, y, z, g, h, w):
    """Losses of the distances of a vector from two others."""
    q = unpack(params)
    p, squared, swap = options[0], options[1] > 0.0, options[2] > 0.0
    for i in range(lo, hi):
        a, b, c = x[i], y[i], z[i]
        near, near_scale = distance(a, b, p)
        far, far_scale = distance(a, c, p)
        swapped = False
        if swap:
            other, other_scale = distance(b, c, p)
            if other / other_scale < far / far_scale:
                far, far_scale, swapped = other, other_scale, True
        d, e = near / near_scale, far / far_scale
        out = formula(d * d, e * e, *q) if squared else formula(d, e, *q)
        values[i] = out[0]
        if g.size > 0:
            factor = factor_of(factors, i)
            k, m = (out[1][0] * factor, out[1][1] * factor) if factor != 0.0 else (0.0, 0.0)
            triple_slopes(
                a, b, c, g[i], h[i], w[i],
                k * 2.0 * d if squared and k != 0.0 else k, near_scale, inverse_of(near),
                m * 2.0 * e if squared and m != 0.0 else m, far_scale, inverse_of(far), p, swapped,
            )  # fmt: skip


def triple_slopes(a, b, c, g, h, w, k, scale, inverse, m, far_scale, far_inverse, p, swapped):
    """Write k times the derivative of the distance of a and b, plus m times that of a and c; of b and c if swapped."""
    if k == 0.0 and m == 0.0:
        g[:] = 0.0
        h[:] = 0.0
        w[:] = 0.0
        return
    start = b if swapped else a
    for j in range(a.size):
        e = k * unit(a[j], b[j], scale, inverse, p)
        f = m * unit(start[j], c[j], far_scale, far_inverse, p)
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
    n = unpack(params)
    for i in range(lo, hi):
        u, v = x[i], y[i]
        a, b = 1.0, 1.0
        uu, vv, uv = products(u, v, a, b)
        if not (LEAST < uu < MOST and LEAST < vv < MOST):
            a, b = power_of_two(largest(u)), power_of_two(largest(v))
            uu, vv, uv = products(u, v, a, b)
        p, q = inverse_of(math.sqrt(uu)), inverse_of(math.sqrt(vv))
        c = uv * p * q
        rest = apart(u, v, a, p, b, q) if c > 0.5 else 1.0 - c
        out = formula(rest, c, np.float64(t[i]), *n) if targets else formula(rest, c, *n)
        values[i] = out[0]
        if g.size > 0:
            factor = factor_of(factors, i)
            k = out[1] * factor if factor != 0.0 else 0.0
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
    triples: (*DISTANCE, inverse_of, triple_slopes),
    cosines: (power_of_two, largest, products, apart, inverse_of, cosine_slopes),
}


def run(call: Any) -> None:
    """Evaluate every pair or triplet."""
    arrays = [call[k] for k in call.record.predictions]
    grads = list(call.grads.values()) or [np.empty((0, 0), call.dtype)] * len(arrays)
    factors = call.factors() if call.grads else np.ones(1)
    numbers, values = call.numbers(), call.values
    target = next((call[k] for k in call.record.inputs if k not in call.record.predictions), None)
    if len(arrays) == 1:
        arrays.append(np.zeros((1, arrays[0].shape[1]), call.dtype))
        grads.append(np.empty((0, 0), call.dtype))
    template = triples if len(arrays) == 3 else cosines if "cosine" in call.record.name else single
    euclidean = call.parameters.get("p", 2.0) == 2.0
    flags = (*steps(euclidean), ("targets", target is not None))
    name = call.record.name if euclidean else f"{call.record.name}_p"
    pairs = kernel(template, name, "float64", call.record.function, HELPERS[template], flags)
    work = arrays[0].size * (4 if euclidean else 40)
    if template is triples:
        options = np.array([call.parameters[k] for k in ("p", "squared", "swap")], np.float64)
        pairs(call.units, work, numbers, options, factors, values, *arrays, *grads)
    else:
        t = np.empty(0, call.dtype) if target is None else target
        pairs(call.units, work, numbers, factors, values, *arrays, t, *grads)
