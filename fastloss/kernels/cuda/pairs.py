"""Losses of two or three vectors each on a GPU: a warp takes a row, and reads it again where it writes the gradient.

The mathematics is that of `kernels/pairs.py` in the precision of the arrays: sums are compensated pairs, which give
float32 the digits that the CPU takes double for, and differences of products are fused. Where a sum of squares leaves
the range in which none of its terms vanishes, it is formed once more of numbers scaled by a power of two.
"""

import math
from typing import Any

import numpy as np
from numba import types

from ...formulas.record import Formula
from .. import access
from ..specialize import bind
from ..worlds import carry
from .launch import ADDRESS, MAX_BLOCKS, Kernel, addresses
from .memory import cuda, device, present, reader, real, spelled, writer
from .scalars import faults, scalars, watched
from .sums import LANES, NONE, block_end, earlier, over, plus, rounded, warp_everywhere
from .totals import Total, at, blocks_for, threads
from .world import gpu

__all__ = ["launch", "pairs_kernel"]

# Names that the templates below find bound when they are specialized; branches on flags are pruned.
T: Any = None
formula: Any = None
unpack: Any = None
load: Any = None
fault_of: Any = None
times: Any = None
share: Any = None
end: Any = None
read: Any = None
write: Any = None
pow: Any = None
gap: Any = None
measure: Any = None
spread: Any = None
power_of_two: Any = None
farthest: Any = None
squares: Any = None
powers: Any = None
distance: Any = None
largest: Any = None
products: Any = None
apart: Any = None
inverse_of: Any = None
unit: Any = None
single_vector: Any = None
euclidean: Any = None
LEAST: Any = None
MOST: Any = None
STEP: Any = None

WARP = np.uint64(32)


def _pairs(vectors, numbers, outputs, partials, firsts, n, d, scale, mass, absent, params):
    """Vectors and outputs are addresses, those of the values first; numbers are those of each row, the weight last."""
    p, s = unpack(params), share(scale, mass)
    high, low, first = T(0.0), T(0.0), NONE
    lane = np.uint64(cuda.threadIdx.x & 31)
    row, rows = np.uint64(cuda.grid(1)) >> np.uint64(5), np.uint64(cuda.gridsize(1)) >> np.uint64(5)
    while row < n:
        start, stop = row * d + lane, row * d + d
        x = load(numbers, row, absent)
        found, state = measure(vectors, start, stop, params)
        out = formula(found, x, p)
        fault = fault_of(x)
        w = x[-1][0] if fault == T(0.0) else T(np.nan)
        if present(outputs[1]):
            spread(vectors, outputs, start, stop, state, out[1], w * s, params)
        if lane == np.uint64(0):
            value = times(out[0], w)
            if present(outputs[0]):
                write(outputs[0], row, (value,))
            high, low = plus(high, low, value)
            if fault != T(0.0):
                first = earlier(first, np.int64(row) * 8 + np.int64(fault))
        row += rows
    end(partials, firsts, high, low, first)


def _power_of_two(m):
    """What brings a number near 1; finite itself."""
    scale = T(1.0)
    if T(0.0) < m < T(np.inf):
        while m * scale > STEP:
            scale *= T(1.0) / STEP
        while m * scale * STEP < T(1.0) and scale < STEP * STEP * STEP:
            scale *= STEP
    return scale


@device
def warp_max(m):
    """The largest of a warp's numbers, in all of its lanes."""
    step = 16
    while step > 0:
        other = cuda.shfl_xor_sync(LANES, m, step)
        m = other if other > m else m
        step >>= 1
    return m


def _farthest(x, y, start, stop, scale):
    """The largest difference of two rows, scaled."""
    m, j = T(0.0), start
    while j < stop:
        e = abs(gap(x, y, j, scale))
        m = e if e > m else m
        j += WARP
    return warp_max(m)


def _squares(x, y, start, stop, scale):
    """The sum of the squared differences of two rows, scaled."""
    high, low, j = T(0.0), T(0.0), start
    while j < stop:
        e = gap(x, y, j, scale)
        high, low = plus(high, low, e * e)
        j += WARP
    high, low = warp_everywhere(high, low)
    return rounded(high, low)


def _powers(x, y, start, stop, scale, p):
    """The norm of order p of the scaled differences of two rows."""
    top = farthest(x, y, start, stop, scale) if p != T(1.0) else T(1.0)
    inverse = T(1.0) / top if top > T(0.0) else T(1.0)
    high, low, j = T(0.0), T(0.0), start
    while j < stop:
        e = abs(gap(x, y, j, scale)) * inverse
        high, low = plus(high, low, e if p == T(1.0) else pow(e, p))
        j += WARP
    high, low = warp_everywhere(high, low)
    s = rounded(high, low)
    return s if p == T(1.0) else top * pow(s, T(1.0) / p)


def _distance(x, y, start, stop, p):
    """The scaled norm of a difference, and its scale."""
    if euclidean:
        s = squares(x, y, start, stop, T(1.0))
        scale = T(1.0)
        if not LEAST < s < MOST:
            scale = power_of_two(farthest(x, y, start, stop, T(1.0)))
            s = squares(x, y, start, stop, scale)
        return math.sqrt(s), scale
    scale = power_of_two(farthest(x, y, start, stop, T(1.0)))
    return powers(x, y, start, stop, scale, p), scale


def _inverse_of(root):
    """1 / root, 0 of 0."""
    return T(1.0) / root if root != T(0.0) else T(0.0)


def _unit(e, p):
    """The derivative of a norm by a difference that is scaled as the norm is to 1."""
    if euclidean:
        return e
    size = T(1.0) if p == T(1.0) else pow(abs(e), p - T(1.0))
    return size if e > T(0.0) else -size if e < T(0.0) else e


def _measure_one(a, start, stop, params):
    """The distance of two vectors, or a norm."""
    root, scale = distance(a[0], a[-1], start, stop, T(2.0))
    return (root / scale,), (scale, inverse_of(root))


def _spread_one(a, outputs, start, stop, state, slope, factor, params):
    scale, inverse = state
    k, j = times(slope, factor), start
    while j < stop:
        e = times(gap(a[0], a[-1], j, scale) * inverse, k)
        write(outputs[1], j, (e,))
        if not single_vector:
            write(outputs[2], j, (-e,))
        j += WARP


def _measure_two(a, start, stop, params):
    """The distances of a vector from two others, or of those where the second is nearer to the first of them."""
    p, squared, swap = params[1], params[2] > T(0.0), params[3] > T(0.0)
    near, near_scale = distance(a[0], a[1], start, stop, p)
    far, far_scale = distance(a[0], a[2], start, stop, p)
    swapped = T(0.0)
    if swap:
        other, other_scale = distance(a[1], a[2], start, stop, p)
        if other / other_scale < far / far_scale:
            far, far_scale, swapped = other, other_scale, T(1.0)
    d, e = near / near_scale, far / far_scale
    slopes = (T(2.0) * d, T(2.0) * e) if squared else (T(1.0), T(1.0))
    state = (near_scale, inverse_of(near), slopes[0], far_scale, inverse_of(far), slopes[1], swapped)
    return ((d * d, e * e) if squared else (d, e)), state


def _spread_two(a, outputs, start, stop, state, slope, factor, params):
    scale, inverse, by_near, far_scale, far_inverse, by_far, swapped = state
    k, m = times(by_near, times(slope[0], factor)), times(by_far, times(slope[1], factor))
    origin, j = a[1] if swapped > T(0.0) else a[0], start
    while j < stop:
        e = times(unit(gap(a[0], a[1], j, scale) * inverse, params[1]), k)
        f = times(unit(gap(origin, a[2], j, far_scale) * far_inverse, params[1]), m)
        write(outputs[1], j, (e if swapped > T(0.0) else e + f,))
        write(outputs[2], j, (f - e if swapped > T(0.0) else -e,))
        write(outputs[3], j, (-f,))
        j += WARP


def _largest(x, start, stop):
    """The largest magnitude in a row."""
    m, j = T(0.0), start
    while j < stop:
        e = abs(read(x, j)[0])
        m = e if e > m else m
        j += WARP
    return warp_max(m)


def _products(x, y, start, stop, a, b):
    """x.x, y.y and x.y of two rows, scaled by a and by b."""
    xx, yy, xy, xx_low, yy_low, xy_low = T(0.0), T(0.0), T(0.0), T(0.0), T(0.0), T(0.0)
    j = start
    while j < stop:
        e, f = read(x, j)[0] * a, read(y, j)[0] * b
        xx, xx_low = plus(xx, xx_low, e * e)
        yy, yy_low = plus(yy, yy_low, f * f)
        xy, xy_low = plus(xy, xy_low, e * f)
        j += WARP
    xx, xx_low = warp_everywhere(xx, xx_low)
    yy, yy_low = warp_everywhere(yy, yy_low)
    xy, xy_low = warp_everywhere(xy, xy_low)
    return rounded(xx, xx_low), rounded(yy, yy_low), rounded(xy, xy_low)


@device
def difference(x, p, y, q):
    """The difference of two products, of which neither is rounded by itself."""
    other = y * q
    return cuda.fma(x, p, -other) - cuda.fma(y, q, -other)


def _apart(x, y, start, stop, a, p, b, q):
    """1 - the cosine of the unit vectors x * a * p and y * b * q, from half their squared distance: no cancellation."""
    high, low, j = T(0.0), T(0.0), start
    while j < stop:
        e = difference(read(x, j)[0] * a, p, read(y, j)[0] * b, q)
        high, low = plus(high, low, e * e)
        j += WARP
    high, low = warp_everywhere(high, low)
    return T(0.5) * rounded(high, low)


def _measure_angle(a, start, stop, params):
    """One less the cosine of two vectors, and the cosine, which is 0 where one of them is."""
    s, t = T(1.0), T(1.0)
    xx, yy, xy = products(a[0], a[1], start, stop, s, t)
    if not (LEAST < xx < MOST and LEAST < yy < MOST):
        s, t = power_of_two(largest(a[0], start, stop)), power_of_two(largest(a[1], start, stop))
        xx, yy, xy = products(a[0], a[1], start, stop, s, t)
    p, q = inverse_of(math.sqrt(xx)), inverse_of(math.sqrt(yy))
    c = xy * p * q
    rest = T(1.0) - c
    if c > T(0.5):
        rest = apart(a[0], a[1], start, stop, s, p, t, q)
    return (rest, c), (s, p, t, q, rest)


def _spread_angle(a, outputs, start, stop, state, slope, factor, params):
    s, p, t, q, rest = state
    k, j = times(slope, factor), start
    if p == T(0.0) or q == T(0.0):
        k = T(0.0)
    left, right = k * p * s, k * q * t
    while j < stop:
        x, y = read(a[0], j)[0] * s, read(a[1], j)[0] * t
        # The vectors' difference, which nearly cancels where they are nearly parallel.
        apart = difference(x, p, y, q)
        write(outputs[1], j, (times(rest * (x * p) - apart, left),))
        write(outputs[2], j, (times(rest * (y * q) + apart, right),))
        j += WARP


KINDS = {
    "one": (_measure_one, _spread_one),
    "two": (_measure_two, _spread_two),
    "angle": (_measure_angle, _spread_angle),
}


def kind_of(record: Formula) -> str:
    """What the formula of a loss is of: one distance, two of them, or an angle."""
    return "two" if len(record.predictions) == 3 else "angle" if "cosine" in record.name else "one"


def _targets(record: Formula) -> tuple[str, ...]:
    return tuple(k for k in record.inputs if k not in record.predictions)


def _steps(stored: str, record: Formula, euclidean: bool) -> dict[str, Any]:
    """The functions above, bound to a format, those that others call before them."""
    number = real(stored)
    kind, alone = getattr(np, number), len(record.predictions) == 1
    apart = "read(x, j)[0] * s" if alone else "read(x, j)[0] * s - read(y, j)[0] * s"
    bound = {
        "T": kind,
        "euclidean": euclidean,
        "single_vector": alone,
        "LEAST": kind(1e-270 if number == "float64" else 1e-30),
        "MOST": kind(1e270 if number == "float64" else 1e30),
        "STEP": kind(2.0**256 if number == "float64" else 2.0**32),
        "pow": gpu(number).words["pow"],
        "read": reader(stored),
        "write": writer(stored),
        "times": access.times[True],
        "gap": spelled("x, y, j, s", apart, single=True, read=reader(stored)),
    }
    measure, spread = KINDS[kind_of(record)]
    named = (_power_of_two, _farthest, _squares, _powers, _distance, _inverse_of, _unit, _largest, _products, _apart)
    for function in named:
        bound[function.__name__[1:]] = device(bind(function, **bound))
    return bound | {"measure": device(bind(measure, **bound)), "spread": device(bind(spread, **bound))}


_built: dict[tuple[Any, ...], Kernel] = {}


def pairs_kernel(record: Formula, stored: str, target: str, euclidean: bool = True) -> Kernel:
    """The kernel of one loss for vectors in one format, and a number of each row in another."""
    key = (record.function, stored, target, euclidean)
    found = _built.get(key)
    if found is None:
        found = _built[key] = _pairs_kernel(record, stored, target, euclidean)
    return found


def _pairs_kernel(record: Formula, stored: str, target: str, euclidean: bool) -> Kernel:
    number, names = real(stored), _targets(record)
    count, numbers = len(record.predictions), len(names) + 1
    arguments = "*m, x[0][0], *p" if names else "*m, *p"
    function = carry(record.function, gpu(number))
    bound = {
        **_steps(stored, record, euclidean),
        "formula": spelled("m, x, p", f"formula({arguments})", single=True, formula=function),
        "unpack": access.unpack(len(record.function.__defaults__ or ()), number),
        "load": scalars((*[target] * len(names), number), number),
        "fault_of": faults([(w.at, w.test) for w in watched(record, names, number)], number),
        "share": over(number),
        "end": block_end(number),
    }
    T = getattr(types, number)
    arrays = (addresses(count), addresses(numbers), addresses(1 + count), ADDRESS, ADDRESS)
    given = (types.UniTuple(T, numbers), types.UniTuple(T, max(1, len(record.parameters))))
    signature = types.void(*arrays, types.uint64, types.uint64, T, ADDRESS, *given)
    order = "" if euclidean else "_p"
    return Kernel(_pairs, f"{record.name}{order}_{stored}_{target}", signature, bound)


def launch(call: Any) -> Total:
    """Launch the kernel of a call."""
    record, names = call.record, _targets(call.record)
    vectors, given = (tuple(call.arrays[k] for k in part) for part in (record.predictions, names))
    call.watches = watched(record, names, call.number)
    # Few rows, which may be long, get a block each: on as many multiprocessors as there are rows.
    few = call.units <= MAX_BLOCKS
    size, blocks = (32, max(1, call.units)) if few else (threads(), blocks_for(32 * call.units))
    total = Total.of(call.place, call.number, blocks)
    target = next((x.dtype for x in given if x is not None), call.number)
    kernel = pairs_kernel(record, call.stored, target, call.parameters.get("p", 2.0) == 2.0)
    addresses = (at(*vectors), at(*given, call.weight), at(call.values, *call.grads))
    length = vectors[0].size // call.units if call.units else 0
    sizes = (np.uint64(call.units), np.uint64(length), *call.factor())
    arrays = (*addresses, *at(total.partials, total.firsts), *sizes, call.absent(*names), call.params())
    kernel(blocks, size, call.place.stream, *arrays)
    return total
