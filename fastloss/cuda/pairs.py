"""Losses of two or three vectors each on a GPU: a warp takes a row, and reads it again where it writes the gradient.

The mathematics is that of `cpu/embeddings/pairs.py` in the precision of the arrays: sums are compensated pairs, which
give float32 the digits that the CPU takes double for, and differences of products are fused. Where a sum of squares
leaves the range in which none of its terms vanishes, it is formed once more of numbers scaled by a power of two.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..cpu.embeddings.pairs import of_cosines
from ..cpu.runtime import access
from ..cpu.runtime.slots import ABSENT, unbound
from ..cpu.runtime.specialize import bind
from ..spec.record import Formula
from ..spec.worlds import carry
from .runtime.launch import ADDRESS, MAX_BLOCKS, Kernel, addresses
from .runtime.memory import (
    chained,
    cuda,
    device,
    present,
    reader,
    real,
    spelled,
    writer,
)
from .runtime.scalars import faults, scalars, watched
from .runtime.sums import (
    LANES,
    NONE,
    block_end,
    earlier,
    over,
    plus,
    rounded,
    warp_everywhere,
)
from .runtime.totals import Total, at, blocks_for, threads
from .runtime.world import gpu

__all__ = ["launch", "pairs_kernel"]


class Slots(NamedTuple):
    """Constants and functions that the kernel of pairs of vectors and its steps read."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    LEAST: Any
    """Least sum of squares that has lost nothing to underflow."""
    MOST: Any
    """Largest sum of squares that is far from overflow."""
    STEP: Any
    """Power of two that brings numbers into that range, step by step."""
    pow: Callable[..., Any]
    """Power in that type."""
    euclidean: bool
    """Whether the norm is of order 2."""
    single_vector: bool
    """Whether the formula is of one vector's norm."""
    read: Callable[..., Any]
    """Reader of an element of a vector."""
    write: Callable[..., Any]
    """Writer of an element."""
    gap: Callable[..., Any]
    """Function of (x, y, j, scale): the scaled difference of elements j."""
    formula: Callable[..., Any]
    """Function of (measures, numbers, parameters): the formula of the loss."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of a tuple."""
    load: Callable[..., Any]
    """Reader of the numbers of a row, the weight last."""
    fault_of: Callable[..., Any]
    """Function of those numbers: 0, or the first outside its domain."""
    share: Callable[..., Any]
    """Scale over the sum of the weights."""
    end: Callable[..., Any]
    """Function that leaves the sum over a block."""
    measure: Callable[..., Any]
    """Function that reads the vectors of a row: what the formula takes, and what the gradient needs."""
    spread: Callable[..., Any]
    """Function that writes the gradient of a row."""


use = unbound(Slots)

times = access.times[True]

WARP = np.uint64(32)


def _pairs(vectors, numbers, outputs, partials, firsts, n, d, scale, mass, absent, params):
    """Vectors and outputs are addresses, those of the values first; numbers are those of each row, the weight last."""
    T = use.T
    p, s = use.unpack(params), use.share(scale, mass)
    high, low, first = T(0.0), T(0.0), NONE
    # Gives a warp to each pair, so that its loads coalesce along the vectors.
    lane = np.uint64(cuda.threadIdx.x & 31)
    row, rows = np.uint64(cuda.grid(1)) >> np.uint64(5), np.uint64(cuda.gridsize(1)) >> np.uint64(5)
    while row < n:
        start, stop = row * d + lane, row * d + d
        x = use.load(numbers, row, absent)
        found, state = use.measure(vectors, start, stop, params)
        out = use.formula(found, x, p)
        fault = use.fault_of(x)
        w = x[-1][0] if fault == T(0.0) else T(np.nan)
        if present(outputs[1]):
            use.spread(vectors, outputs, start, stop, state, out[1], w * s, params)
        # One lane counts the pair; all of them hold the same bits after the exchange.
        if lane == np.uint64(0):
            value = times(out[0], w)
            if present(outputs[0]):
                use.write(outputs[0], row, (value,))
            high, low = plus(high, low, value)
            if fault != T(0.0):
                first = earlier(first, np.int64(row) * 8 + np.int64(fault))
        row += rows
    use.end(partials, firsts, high, low, first)


def _power_of_two(m):
    """Return a finite power-of-two scale factor that brings m close to 1."""
    T = use.T
    scale = T(1.0)
    if T(0.0) < m < T(np.inf):
        # By steps of one power of two, which round nothing; rows near 1 pass neither loop.
        while m * scale > use.STEP:
            # The reciprocal of a power of two is exact, and spares a division.
            scale *= T(1.0) / use.STEP
        while m * scale * use.STEP < T(1.0) and scale < use.STEP * use.STEP * use.STEP:
            scale *= use.STEP
    return scale


@device
def warp_max(m):
    """The largest of a warp's numbers, in all of its lanes."""
    step = 16
    while step > 0:
        # Five exchanges without shared memory: all 32 lanes hold the largest afterwards.
        other = cuda.shfl_xor_sync(LANES, m, step)
        m = other if other > m else m
        step >>= 1
    return m


def _farthest(x, y, start, stop, scale):
    """The largest difference of two rows, scaled."""
    m, j = use.T(0.0), start
    while j < stop:
        e = abs(use.gap(x, y, j, scale))
        m = e if e > m else m
        j += WARP
    return warp_max(m)


def _squares(x, y, start, stop, scale):
    """The sum of the squared differences of two rows, scaled."""
    T = use.T
    high, low, j = T(0.0), T(0.0), start
    # Lane by lane through the row, so that a warp's loads are neighbours; sums in pairs keep float32's digits.
    while j < stop:
        # Scaled before the difference, as on the CPU: x - y may overflow where neither scaled number does.
        e = use.gap(x, y, j, scale)
        high, low = plus(high, low, e * e)
        j += WARP
    # Merged as pairs: additions of plain float32 would lose what the pairs have kept.
    high, low = warp_everywhere(high, low)
    return rounded(high, low)


def _powers(x, y, start, stop, scale, p):
    """The norm of order p of the scaled differences of two rows."""
    T = use.T
    # Keeps powers in range: relative to the largest difference, none exceeds 1.
    top = _farthest(x, y, start, stop, scale) if p != T(1.0) else T(1.0)
    inverse = T(1.0) / top if top > T(0.0) else T(1.0)
    high, low, j = T(0.0), T(0.0), start
    while j < stop:
        e = abs(use.gap(x, y, j, scale)) * inverse
        high, low = plus(high, low, e if p == T(1.0) else use.pow(e, p))
        j += WARP
    high, low = warp_everywhere(high, low)
    s = rounded(high, low)
    return s if p == T(1.0) else top * use.pow(s, T(1.0) / p)


def _distance(x, y, start, stop, p):
    """The scaled norm of a difference, and its scale."""
    T = use.T
    if use.euclidean:
        s = _squares(x, y, start, stop, T(1.0))
        scale = T(1.0)
        # Saves a pass: most sums lose nothing unscaled.
        if not use.LEAST < s < use.MOST:
            scale = _power_of_two(_farthest(x, y, start, stop, T(1.0)))
            s = _squares(x, y, start, stop, scale)
        return math.sqrt(s), scale
    scale = _power_of_two(_farthest(x, y, start, stop, T(1.0)))
    return _powers(x, y, start, stop, scale, p), scale


def _inverse_of(root):
    """1 / root, 0 of 0."""
    T = use.T
    return T(1.0) / root if root != T(0.0) else T(0.0)


def _unit(e, p):
    """The derivative of a norm by a difference that is scaled as the norm is to 1."""
    T = use.T
    if use.euclidean:
        return e
    # The order is an argument of the kernel: all threads take the same side.
    size = T(1.0) if p == T(1.0) else use.pow(abs(e), p - T(1.0))
    return size if e > T(0.0) else -size if e < T(0.0) else e


def _measure_one(a, start, stop, params):
    """The distance of two vectors, or a norm."""
    root, scale = _distance(a[0], a[-1], start, stop, use.T(2.0))
    return (root / scale,), (scale, _inverse_of(root))


def _spread_one(a, outputs, start, stop, state, slope, factor, params):
    scale, inverse = state
    k, j = times(slope, factor), start
    while j < stop:
        e = times(use.gap(a[0], a[-1], j, scale) * inverse, k)
        use.write(outputs[1], j, (e,))
        if not use.single_vector:
            use.write(outputs[2], j, (-e,))
        j += WARP


def _comparable(d, e):
    """The squares of two distances; their difference and 0 where both overflow."""
    T = use.T
    left, right = d * d, e * e
    if left == T(np.inf) and right == T(np.inf):
        # Keeps the sign of the difference, on which alone the loss depends: infinity less infinity has none.
        return (d - e) * d + (d - e) * e, T(0.0)
    return left, right


def _measure_two(a, start, stop, params):
    """The distances of a vector from two others, or of those where the second is nearer to the first of them."""
    T = use.T
    p, squared, swap = params[1], params[2] > T(0.0), params[3] > T(0.0)
    near, near_scale = _distance(a[0], a[1], start, stop, p)
    far, far_scale = _distance(a[0], a[2], start, stop, p)
    swapped = T(0.0)
    if swap:
        other, other_scale = _distance(a[1], a[2], start, stop, p)
        if other / other_scale < far / far_scale:
            far, far_scale, swapped = other, other_scale, T(1.0)
    d, e = near / near_scale, far / far_scale
    slopes = (T(2.0) * d, T(2.0) * e) if squared else (T(1.0), T(1.0))
    state = (near_scale, _inverse_of(near), slopes[0], far_scale, _inverse_of(far), slopes[1], swapped)
    return (_comparable(d, e) if squared else (d, e)), state


def _spread_two(a, outputs, start, stop, state, slope, factor, params):
    T = use.T
    scale, inverse, by_near, far_scale, far_inverse, by_far, swapped = state
    # By `times`, as everywhere: a row of weight 0 has slopes of 0 even where they are infinite.
    k, m = times(by_near, times(slope[0], factor)), times(by_far, times(slope[1], factor))
    origin, j = a[1] if swapped > T(0.0) else a[0], start
    while j < stop:
        e = times(_unit(use.gap(a[0], a[1], j, scale) * inverse, params[1]), k)
        f = times(_unit(use.gap(origin, a[2], j, far_scale) * far_inverse, params[1]), m)
        use.write(outputs[1], j, (e if swapped > T(0.0) else e + f,))
        use.write(outputs[2], j, (f - e if swapped > T(0.0) else -e,))
        use.write(outputs[3], j, (-f,))
        j += WARP


def _largest(x, start, stop):
    """The largest magnitude in a row."""
    m, j = use.T(0.0), start
    while j < stop:
        e = abs(use.read(x, j)[0])
        m = e if e > m else m
        j += WARP
    return warp_max(m)


def _products(x, y, start, stop, a, b):
    """x.x, y.y and x.y of two rows, scaled by a and by b."""
    T = use.T
    xx, yy, xy, xx_low, yy_low, xy_low = T(0.0), T(0.0), T(0.0), T(0.0), T(0.0), T(0.0)
    j = start
    while j < stop:
        e, f = use.read(x, j)[0] * a, use.read(y, j)[0] * b
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
    # Its rounding error comes back by the second fma: the difference has one rounding, without double.
    other = y * q
    return cuda.fma(x, p, -other) - cuda.fma(y, q, -other)


def _apart(x, y, start, stop, a, p, b, q):
    """1 - the cosine of the unit vectors x * a * p and y * b * q, from half their squared distance: no cancellation."""
    T = use.T
    high, low, j = T(0.0), T(0.0), start
    while j < stop:
        e = difference(use.read(x, j)[0] * a, p, use.read(y, j)[0] * b, q)
        high, low = plus(high, low, e * e)
        j += WARP
    high, low = warp_everywhere(high, low)
    return T(0.5) * rounded(high, low)


def _measure_angle(a, start, stop, params):
    """One less the cosine of two vectors, and the cosine, which is 0 where one of them is."""
    T = use.T
    s, t = T(1.0), T(1.0)
    xx, yy, xy = _products(a[0], a[1], start, stop, s, t)
    if not (use.LEAST < xx < use.MOST and use.LEAST < yy < use.MOST):
        # The whole warp agrees, as all lanes hold the same sums: no lane waits for another branch.
        s, t = _power_of_two(_largest(a[0], start, stop)), _power_of_two(_largest(a[1], start, stop))
        xx, yy, xy = _products(a[0], a[1], start, stop, s, t)
    p, q = _inverse_of(math.sqrt(xx)), _inverse_of(math.sqrt(yy))
    c = xy * p * q
    # Right to the last digit while c is small; above 1/2 it would cancel.
    rest = T(1.0) - c
    if c > T(0.5):
        rest = _apart(a[0], a[1], start, stop, s, p, t, q)
    return (rest, c), (s, p, t, q, rest)


def _spread_angle(a, outputs, start, stop, state, slope, factor, params):
    T = use.T
    s, p, t, q, rest = state
    k, j = times(slope, factor), start
    if p == T(0.0) or q == T(0.0):
        k = T(0.0)
    left, right = times(p * s, k), times(q * t, k)
    while j < stop:
        x, y = use.read(a[0], j)[0] * s, use.read(a[1], j)[0] * t
        # The vectors' difference, which nearly cancels where they are nearly parallel.
        apart = difference(x, p, y, q)
        use.write(outputs[1], j, (times(rest * (x * p) - apart, left),))
        use.write(outputs[2], j, (times(rest * (y * q) + apart, right),))
        j += WARP


KINDS = {
    "one": (_measure_one, _spread_one),
    "two": (_measure_two, _spread_two),
    "angle": (_measure_angle, _spread_angle),
}


STEPS = (
    *(_power_of_two, _farthest, _squares, _powers, _distance, _inverse_of, _unit, _comparable),
    *(_largest, _products, _apart),
)
"""Steps of these functions, each after those that it calls."""


def kind_of(record: Formula) -> str:
    """Return the kind of measure that a formula takes: "one" distance, "two" of them, or an "angle"."""
    return "two" if len(record.predictions) == 3 else "angle" if of_cosines(record) else "one"


def _targets(record: Formula) -> tuple[str, ...]:
    return tuple(k for k in record.inputs if k not in record.predictions)


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
    kind, alone, function = getattr(np, number), count == 1, carry(record.function, gpu(number))
    apart = "read(x, j)[0] * s" if alone else "read(x, j)[0] * s - read(y, j)[0] * s"
    use = Slots(
        T=kind,
        LEAST=kind(1e-270 if number == "float64" else 1e-30),
        MOST=kind(1e270 if number == "float64" else 1e30),
        STEP=kind(2.0**256 if number == "float64" else 2.0**32),
        pow=gpu(number).words["pow"],
        euclidean=euclidean,
        single_vector=alone,
        read=reader(stored),
        write=writer(stored),
        gap=spelled("x, y, j, s", apart, single=True, read=reader(stored)),
        formula=spelled("m, x, p", f"formula({arguments})", single=True, formula=function),
        unpack=access.unpack(len(record.function.__defaults__ or ()), number),
        load=scalars((*[target] * len(names), number), number),
        fault_of=faults([(w.at, w.test) for w in watched(record, names, number)], number, f"x[{len(names)}][0]"),
        share=over(number),
        end=block_end(number),
        measure=ABSENT,
        spread=ABSENT,
    )
    steps = chained(STEPS, use)
    measure, spread = (device(bind(function, use, **steps)) for function in KINDS[kind_of(record)])
    use = use._replace(measure=measure, spread=spread)
    T = getattr(types, number)
    arrays = (addresses(count), addresses(numbers), addresses(1 + count), ADDRESS, ADDRESS)
    given = (types.UniTuple(T, numbers), types.UniTuple(T, max(1, len(record.parameters))))
    signature = types.void(*arrays, types.uint64, types.uint64, T, ADDRESS, *given)
    order = "" if euclidean else "_p"
    return Kernel(_pairs, f"{record.name}{order}_{stored}_{target}", signature, use)


def launch(call: Any) -> Total:
    """Launch the kernel of a call."""
    record, names = call.record, _targets(call.record)
    vectors, given = (tuple(call.arrays[k] for k in part) for part in (record.predictions, names))
    call.watches = watched(record, names, call.number)
    # Few rows, which may be long, get a block each: on as many multiprocessors as there are rows.
    few = call.units <= MAX_BLOCKS
    size, blocks = (32, max(1, call.units)) if few else (threads(), blocks_for(32 * call.units))
    total = Total.of(call.place, call.number, blocks)
    # One kernel for all formats of the number beside each row would have a branch at each read.
    target = next((x.dtype for x in given if x is not None), call.number)
    kernel = pairs_kernel(record, call.stored, target, call.parameters.get("p", 2.0) == 2.0)
    addresses = (at(*vectors), at(*given, call.weight), at(call.values, *call.grads))
    length = vectors[0].size // call.units if call.units else 0
    sizes = (np.uint64(call.units), np.uint64(length), *call.factor())
    arrays = (*addresses, *at(total.partials, total.firsts), *sizes, call.absent(*names), call.params())
    kernel(blocks, size, call.place.stream, *arrays)
    return total
