"""Distances of two samples by their order: the cost of the monotone coupling, and of distribution functions.

Samples come sorted, with the mass that lies below each: n + 1 numbers from 0 to 1. The work of a row is divided at
samples of one side; where on the other side a block begins, a binary search finds. Samples that are equal are one
atom, and share its derivative by mass.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...call import check
from ...call.arrays import F64, constants
from ...call.errors import CallValueError
from ..dispatch import PARALLEL_FROM
from ..math.order import ordered
from ..runtime.slots import Number, unbound
from ..runtime.units import bound_stages, factor_of, kernel

__all__ = ["Side", "coupled", "prepare", "run", "side"]

BLOCK = 1 << 13
"""Samples of a block, at whose boundaries partial sums are formed on any number of threads."""

use = unbound(Number)


def first_above(a, x):
    """Return the number of elements of an ascending array that are at most x."""
    low = 0
    high = a.size
    while low < high:
        # A shift: a division of signed numbers rounds towards zero, and costs a correction.
        middle = (low + high) >> 1
        if a[middle] <= x:
            low = middle + 1
        else:
            high = middle
    return low


def after(x, i):
    """Return the end of the run of samples that equal x[i]."""
    e = i + 1
    while e < x.size and x[e] == x[i]:
        e += 1
    return e


def start_of(x, i):
    """The first atom that begins at i or later."""
    while 0 < i < x.size and x[i] == x[i - 1]:
        i += 1
    return i


def share(below, i, e, each, out):
    """Give the samples i to e of an atom their derivatives: so much by mass and place, times their mass."""
    for q in range(i, e):
        mass = below[q + 1] - below[q]
        out[q] = each * mass if each != 0.0 and mass != 0.0 else 0.0


def scatter(slopes, order, i, stop, out):
    """Put sorted derivatives where the samples were; in a loop of its own, which waits for nothing else."""
    for q in range(i, stop):
        out[order[q]] = use.T(slopes[q])


def couple(x, y, a, b, i, stop, square, factor, out):
    """Cost of the atoms of x from i to stop under the monotone coupling, and its derivatives by place."""
    j = max(0, min(first_above(b, a[i]) - 1, y.size - 1)) if i < stop else 0
    total = 0.0
    while i < stop:
        e = after(x, i)
        # In float64: gaps of float32 samples are exact there.
        place = np.float64(x[i])
        low = a[i]
        high = a[e]
        push = 0.0
        while True:
            # The last of y takes whatever rounding leaves.
            end = b[j + 1] if j + 1 < y.size else high
            to = min(end, high)
            moved = to - low
            # Lets NaN through, of which every comparison is false.
            if not moved <= 0.0:
                gap = place - np.float64(y[j])
                if square:
                    total += moved * (gap * gap)
                    push += moved * (2.0 * gap)
                else:
                    total += moved * abs(gap)
                    push += moved if gap > 0.0 else (-moved if gap < 0.0 else gap)
                low = to
            if j + 1 == y.size or not end <= high:
                break
            j += 1
        if out.size > 0:
            mass = high - a[i]
            share(a, i, e, 0.0 if mass == 0.0 or factor == 0.0 else factor * push / mass, out)
        i = e
    return total


def area(x, y, a, b, i, stop, tiny):
    """Integral of (F - G)^2 from x[i - 1] to x[stop - 1]; up to the first x and beyond the last, as far as y go."""
    total = 0.0
    f = a[i]
    j = 0 if i == 0 else first_above(y, x[i - 1])
    place = np.float64(y[0] if i == 0 else x[i - 1])
    while True:
        rest = j < y.size
        if i < stop and not (rest and y[j] < x[i]):
            to = np.float64(x[i])
            d = f - b[j]
            i += 1
            # Read, not added up: distribution functions come whole, and no rounding grows along the samples.
            f = a[i]
        elif rest and (i < stop or stop == x.size):
            to = np.float64(y[j])
            d = f - b[j]
            j += 1
        else:
            return total
        # Lets NaN through, of which every comparison is false; what rounding leaves of equal masses is no difference.
        if not abs(d) <= tiny:
            total += (d * d) * (to - place)
        place = to


def slope(x, y, a, b, i, stop, tiny, factor, out):
    """Derivatives of the integral of (F - G)^2 by the places of the atoms of x from i to stop."""
    j = 0 if i == 0 else first_above(y, x[i - 1])
    while i < stop:
        e = after(x, i)
        while j < y.size and y[j] < x[i]:
            j += 1
        d = a[i] - b[j]
        while j < y.size and y[j] == x[i]:
            j += 1
        d += a[e] - b[j]
        share(a, i, e, 0.0 if factor == 0.0 or abs(d) <= 2.0 * tiny else -factor * d, out)
        i = e


def couplings(lo, hi, x, y, a, b, settings, order, factors, partial, slopes, out):
    """Blocks of rows under the monotone coupling."""
    n = x.shape[1]
    per_row = (n + BLOCK - 1) // BLOCK
    for unit in range(lo, hi):
        row = unit // per_row
        first = (unit - row * per_row) * BLOCK
        xs = x[row]
        below, under = a[row if a.shape[0] > 1 else 0], b[row if b.shape[0] > 1 else 0]
        # Gives equal samples to one block: their derivative is a mean over all of them.
        i, stop = start_of(xs, first), start_of(xs, min(n, first + BLOCK))
        given = row if out.size > 0 else 0
        # Once a block of a row.
        factor = factor_of(factors, row)
        partial[unit] = couple(xs, y[row], below, under, i, stop, settings[0] == 2.0, factor, slopes[given])
        if out.size > 0:
            scatter(slopes[row], order[row], i, stop, out[row])


def areas(lo, hi, x, y, a, b, settings, order, factors, partial, slopes, out):
    """Blocks of rows between the distribution functions: integrals, or derivatives."""
    n = x.shape[1]
    per_row = (n + BLOCK - 1) // BLOCK
    for unit in range(lo, hi):
        row = unit // per_row
        first = (unit - row * per_row) * BLOCK
        last = min(n, first + BLOCK)
        xs, ys = x[row], y[row]
        below, under = a[row if a.shape[0] > 1 else 0], b[row if b.shape[0] > 1 else 0]
        if out.size > 0:
            i, stop = start_of(xs, first), start_of(xs, last)
            slope(xs, ys, below, under, i, stop, settings[0], factor_of(factors, row), slopes[row])
            scatter(slopes[row], order[row], i, stop, out[row])
        else:
            partial[unit] = area(xs, ys, below, under, first, last, settings[0])


class Side(NamedTuple):
    """The samples of one side, row by row."""

    places: Any
    """Sorted."""
    below: Any
    """The mass below each, and at last 1; one row for all where none has weights."""
    order: Any
    """Indices of the samples before sorting; empty where no derivatives are wanted."""


def side(name: str, x: Any, weight: Any, traced: bool) -> Side:
    """Sort the samples of one side; where the weights of a row sum to 0, no mass is below any."""
    n = x.shape[1]
    if weight is not None and not weight.all():
        # A sample without mass may hold anything.
        x = np.where(weight != 0.0, x, x.dtype.type(0.0))
    places, order = ordered(name, x, traced or weight is not None)
    if weight is None:
        return Side(places, _even(n), order)
    below = np.zeros((len(x), n + 1))
    masses = np.take_along_axis(weight, order, axis=1)
    with np.errstate(over="ignore"):
        np.cumsum(masses, axis=1, dtype=np.float64, out=below[:, 1:])
        over = np.isinf(below[:, -1])
        if over.any():
            # Sums of masses near the largest number overflow, though they are divided by their total.
            below[over, 1:] = np.cumsum(masses[over] * 2.0**-64, axis=1)
    total = below[:, -1:].copy()
    # Infinite masses are not to be divided by their sum.
    total[np.isinf(total)] = np.nan
    with np.errstate(invalid="ignore"):
        below /= np.where(total == 0.0, 1.0, total)
    return Side(places, below, order)


@lru_cache(maxsize=8)
def _even(n: int) -> Any:
    """The mass below each of n equal masses; equal fractions of another n are equal numbers."""
    return (np.arange(n + 1) / n)[None]


COUPLE = (first_above, after, start_of, share, scatter, couple)
AREA = (first_above, after, start_of, share, scatter, area, slope)


@lru_cache(maxsize=64)
def _bound(template: Any, helpers: Any, name: str, units: int, work: int) -> Callable[..., None]:
    """Return the function that runs a kernel on blocks of rows."""
    return kernel(template, template.__name__, name, None, helpers).bound(units, work)


def _blocks(
    template: Any, helpers: Any, name: str, one: Side, other: Side, setting: float, factors: Any, out: Any
) -> Any:
    rows, n = one.places.shape
    per_row = -(-n // BLOCK)
    partial = np.zeros(rows * per_row)
    slopes = np.empty((rows, n) if out.size else (1, 0))
    work = 4 * rows * (n + other.places.shape[1])
    places, below = (one.places, other.places), (one.below, other.below)
    run_of = _bound(template, helpers, name, rows * per_row, work)
    run_of(*places, *below, constants(F64, setting), one.order, factors, partial, slopes, out)
    # In the order of the blocks: the same bits on any number of threads.
    return partial if per_row == 1 else partial.reshape(rows, per_row).sum(axis=1)


def coupled(name: str, one: Side, other: Side, p: float, factors: Any, out: Any) -> Any:
    """The cost of coupling each row, to the power p; in out, its derivatives by the places of one side."""
    return _blocks(couplings, COUPLE, name, one, other, p, factors, out)


def _between(name: str, one: Side, other: Side, tiny: float, factors: Any, out: Any) -> Any:
    """The integral of (F - G)^2 of each row, or its derivatives by the places of one side."""
    return _blocks(areas, AREA, name, one, other, tiny, factors, out)


def _check_mass(call: Any, x: Side, y: Side) -> None:
    """Raise where one side of a row has mass and the other has none."""
    totals = [s.below[:, -1] for s in (x, y)]
    uneven = (totals[0] == 0.0) != (totals[1] == 0.0)
    if call.weight is not None:
        uneven = uneven & (call.weight != 0.0)
    if uneven.any():
        i = int(np.argmax(uneven))
        name = "x_weight" if totals[0][i if len(totals[0]) > 1 else 0] == 0.0 else "y_weight"
        raise CallValueError("sums to 0; expected a positive sum", name, check.index_of(i, call.shape))


def _coupled_samples(call: Any, x: Side, y: Side) -> None:
    """The cost of the coupling."""
    p, nowhere = call.parameters["p"], np.empty((1, 0), call.dtype)
    factors = call.factors() if call.grads else np.ones(1)
    call.values[:] = coupled(call.name, x, y, p, factors, call.grads.get("x", nowhere))
    if call.grads:
        coupled(call.name, y, x, p, factors, call.grads["y"])


def _between_samples(call: Any, x: Side, y: Side, weighted: bool) -> None:
    """The root of the area between the distribution functions."""
    scale = 2.0 if call.record.name == "energy_distance" else 1.0
    # What rounding leaves of equal sums of weights is no difference.
    tiny = (x.places.shape[1] + y.places.shape[1]) * 2.0**-53 if weighted else 0.0
    found = _between(call.name, x, y, tiny, np.ones(1), np.empty((1, 0), call.dtype))
    # NaN is sorted to the end, where no comparison finds it.
    found[np.isnan(x.places[:, -1]) | np.isnan(y.places[:, -1])] = np.nan
    call.values[:] = np.sqrt(scale * found)
    if call.grads:
        factors, none = call.factors(), call.values == 0.0
        chain = np.where(none | (factors == 0.0), 0.0, factors * scale / (2 * np.where(none, 1.0, call.values)))
        _between(call.name, x, y, tiny, chain, call.grads["x"])
        _between(call.name, y, x, tiny, chain, call.grads["y"])


def run(call: Any) -> None:
    """Evaluate every row."""
    x, y = (side(call.name, call[k], call[f"{k}_weight"], bool(call.grads)) for k in ("x", "y"))
    weighted = call["x_weight"] is not None or call["y_weight"] is not None
    if weighted:
        _check_mass(call, x, y)
    if call.record.name == "wasserstein_samples":
        _coupled_samples(call, x, y)
    else:
        _between_samples(call, x, y, weighted)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates calls like one, without warnings of NumPy.

    Small ones of samples that weigh alike couple both sides in one call of the driver.
    """
    rows, name, writes = len(call["x"]), call.name, bool(call.grads)
    sizes = call["x"].shape[1], call["y"].shape[1]
    weighted, work = call["x_weight"] is not None or call["y_weight"] is not None, 8 * rows * sum(sizes)

    def general(call: Any) -> None:
        with np.errstate(all="ignore"):
            run(call)

    if call.record.name != "wasserstein_samples" or weighted or max(sizes) > BLOCK or work >= PARALLEL_FROM:
        return general
    each = kernel(couplings, couplings.__name__, name, None, COUPLE), rows
    launch = bound_stages(1, work, *([each, each] if writes else [each]))
    setting, below, empty = constants(F64, call.parameters["p"]), tuple(map(_even, sizes)), np.empty
    no_slopes, nowhere = empty((1, 0)), empty((1, 0), call.dtype)

    def evaluate(call: Any) -> None:
        arrays, grads, values = call.arrays, call.grads, call.values
        (x, i), (y, j) = ordered(name, arrays["x"], writes), ordered(name, arrays["y"], writes)
        if not writes:
            launch((x, y, *below, setting, i, ONE, values, no_slopes, nowhere))
            return
        factors = call.factors()
        by_x = (x, y, *below, setting, i, factors, values, empty(x.shape), grads["x"])
        launch(by_x, (y, x, *below[::-1], setting, j, factors, empty(rows), empty(y.shape), grads["y"]))

    return evaluate


ONE = np.ones(1)
"""Factor of all rows where no derivatives are wanted."""
