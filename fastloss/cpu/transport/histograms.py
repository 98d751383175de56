"""Wasserstein distances between rows of histograms over common bins."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ...call import check
from ...call.errors import CallValueError
from ..rows.tiles import SQUARE, turn
from ..runtime import staging
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import Number, unbound
from ..runtime.staging import clear, lanes
from ..runtime.units import all_between, factor_of, kernel

__all__ = ["prepare", "run"]

GROUP = 16
"""Rows taken at a time: a running sum waits for itself, some beside each other fill a vector."""

GOOD, NEGATIVE, UNEVEN, EXTREME = 0, 1, 2, 3
"""Findings on a row: fit to compare; an element below 0; mass in one of the two histograms alone; a sum that overflows
or whose inverse may."""

LEAST, MOST = 1e-290, 1e290
"""Sums of masses between which neither a row nor its inverse sum leaves the range of float64."""

use = unbound(Number)


def mass_of(x):
    """The sum of a row, and whether an element is negative."""
    T = use.T
    widest_vectors()
    total = 0.0
    below = T(0.0)
    for j in range(x.size):
        # In float64: a histogram of counts in float32 may have more than its 16,777,216.
        total += np.float64(x[j])
        below += T(1.0) if x[j] < T(0.0) else T(0.0)
    return total, below > T(0.0)


def inverses(p, t):
    """Return the scale factors of both histograms, 0 for an empty one, and the state of the pair."""
    mass, below = mass_of(p)
    other, under = mass_of(t)
    # A state, not an exception: kernels run without the interpreter's lock and cannot raise.
    found = NEGATIVE if below | under else (UNEVEN if (mass == 0.0) != (other == 0.0) else GOOD)
    if found == GOOD and mass != 0.0 and (not LEAST < mass < MOST or not LEAST < other < MOST):
        found = EXTREME
    return (0.0 if mass == 0.0 else 1.0 / mass), (0.0 if other == 0.0 else 1.0 / other), found


def differences(p, t, by_p, by_t, out):
    """The difference of two histograms of mass 1."""
    widest_vectors()
    for j in range(p.size):
        # Of normalised masses, in float64: what is accumulated below is a difference of sums near 1.
        out[j] = np.float64(p[j]) * by_p - np.float64(t[j]) * by_t


def transpose(source, target):
    """Move a matrix of whole squares into its transpose."""
    widest_vectors()
    for r in range(0, source.shape[0], SQUARE):
        for j in range(0, source.shape[1], SQUARE):
            # Squares of 8 x 8 by shuffles: loads with a stride take 1 ns an element, these a tenth.
            turn(source, target, r, j)


def accumulate(tile, gaps, tiny, total):
    """Sum of |F - G| times the gaps; the tile gets the derivatives by F."""
    widest_vectors()
    # On the stack, where no store to the tile can change them.
    running, area = lanes(0.0, GROUP), lanes(0.0, GROUP)
    clear(running, 0)
    clear(area, 0)
    for j in range(gaps.size):
        gap = gaps[j]
        row = tile[j]
        for r in range(GROUP):
            c = running[r] + row[r]
            running[r] = c
            # What rounding leaves of equal masses is no difference, and has no direction.
            d = 0.0 if abs(c) <= tiny else c
            area[r] += abs(d) * gap
            row[r] = gap if d > 0.0 else (-gap if d < 0.0 else d)
    for r in range(GROUP):
        total[r] = area[r]


def slopes(tile):
    """The derivatives by the mass of each bin: of all F from there on."""
    widest_vectors()
    running = lanes(0.0, GROUP)
    clear(running, 0)
    last = tile.shape[0] - 1
    for j in range(tile.shape[0]):
        row = tile[last - j]
        for r in range(GROUP):
            # Sixteen rows side by side: along one row each addition would wait for the last.
            running[r] += row[r]
            row[r] = running[r]


def centre(p, by_p, factor, slope, out):
    """Derivatives by the row as given, which is divided by its sum: less their mean under the histogram."""
    T = use.T
    widest_vectors()
    mean = 0.0
    for j in range(p.size):
        # The histogram is divided by its sum: adding a constant to all slopes changes nothing, and this removes it.
        mean += slope[j] * np.float64(p[j])
    mean *= by_p
    scale = 0.0 if factor == 0.0 else factor * by_p
    for j in range(p.size):
        out[j] = T((slope[j] - mean) * scale)
    if factor == 0.0:
        for j in range(p.size):
            out[j] = T(0.0)


def distances(lo, hi, prediction, target, gaps, factors, values, found, grad):
    """Integral of |F - G|, GROUP rows at a time; the last rows are taken again rather than fewer."""
    k = prediction.shape[1]
    # As long as the gaps: of whole squares, zero from the last bin on.
    room = np.zeros((GROUP, gaps.size))
    tile = np.empty((gaps.size, GROUP))
    scale = np.empty(GROUP)
    total = np.empty(GROUP)
    # What k additions of numbers below 1 may round off.
    tiny = (k + 4) * 2.0**-53
    for start in range(lo, hi, GROUP):
        for r in range(GROUP):
            # Keeps tiles whole: the last row fills up the last of them.
            i = min(start + r, hi - 1)
            by_p, by_t, found[i] = inverses(prediction[i], target[i])
            differences(prediction[i], target[i], by_p, by_t, room[r])
            scale[r] = by_p
        # Vectorises running sums: each lane is a row, since along a row every sum waits for the one before.
        transpose(room, tile)
        accumulate(tile, gaps, tiny, total)
        if grad.size > 0:
            slopes(tile)
            transpose(tile, room)
        for r in range(min(GROUP, hi - start)):
            i = start + r
            values[i] = total[r]
            if grad.size > 0:
                centre(prediction[i], scale[r], factor_of(factors, i), room[r], grad[i])
                room[r, k:] = 0.0


def couple(p, t, x, by_p, by_t, tiny, slope):
    """Cost of the monotone coupling, and its derivatives by p up to a constant (the dual potential).

    Where both bins are used up at once, the potential is the mean of what either order of going on gives.
    """
    last = p.size - 1
    i = 0
    j = 0
    done = 0.0
    total = 0.0
    potential = 0.0
    f = np.float64(p[0]) * by_p
    g = np.float64(t[0]) * by_t
    slope[0] = 0.0
    while True:
        # Distribution functions, not masses left over: subtracting masses would collect a rounding at each bin.
        moved = min(f, g) - done
        # Lets NaN through, of which every comparison is false.
        if not moved <= 0.0:
            gap = x[i] - x[j]
            total += moved * (gap * gap)
            done += moved
        if i == last and j == last:
            return total
        on = i < last and (j == last or not f - g > tiny)
        over = j < last and (i == last or not g - f > tiny)
        if on:
            middle = x[j] + x[j + 1] if over else 2.0 * x[j]
            potential += (x[i + 1] - x[i]) * (x[i + 1] + x[i] - middle)
        if over:
            j += 1
            g += np.float64(t[j]) * by_t
        if on:
            i += 1
            f += np.float64(p[i]) * by_p
            slope[i] = potential


def squares(lo, hi, prediction, target, places, factors, values, found, grad):
    """Squared distance of quantiles, row by row."""
    k = places.size
    slope = np.empty(k)
    tiny = (k + 4) * 2.0**-53
    for i in range(lo, hi):
        p = prediction[i]
        t = target[i]
        by_p, by_t, found[i] = inverses(p, t)
        values[i] = couple(p, t, places, by_p, by_t, tiny, slope) if by_p != 0.0 else 0.0
        if by_p != by_p or by_t != by_t:
            # The coupling compares masses, and so loses NaN.
            values[i] = np.nan
            slope[:] = np.nan
        if grad.size > 0:
            centre(p, by_p, factor_of(factors, i), slope, grad[i])


@lru_cache(maxsize=8)
def _whole_places(k: int) -> Any:
    """Bins one apart."""
    return np.arange(k, dtype=np.float64)


def _gaps(x: Any) -> Any:
    """Return the gaps between bins, 0 behind the last, of whole squares."""
    gaps = np.zeros(-(-x.size // SQUARE) * SQUARE)
    with np.errstate(over="ignore"):
        np.subtract(x[1:], x[:-1], out=gaps[: x.size - 1])
    return gaps


@lru_cache(maxsize=8)
def _even_gaps(k: int) -> Any:
    """Gaps between bins one apart."""
    return _gaps(_whole_places(k))


FLAGS = (("lanes", staging.lanes), ("clear", staging.clear), ("turn", turn))
DISTANCES = (mass_of, inverses, differences, transpose, accumulate, slopes, centre)
SQUARES = (mass_of, inverses, couple, centre)


def _places(call: Any, k: int) -> Any:
    """Return the checked positions of the bins."""
    given = call["positions"]
    if given is None:
        return _whole_places(k)
    x = given.astype(np.float64)
    if not np.isfinite(x).all():
        i = int(np.argmin(np.isfinite(x)))
        raise CallValueError(f"is {x[i]:g}; expected finite positions", "positions", (i,))
    if (x[1:] < x[:-1]).any():
        i = int(np.argmax(x[1:] < x[:-1]))
        problem = f"is {x[i + 1]:g}, below positions[{i}] = {x[i]:g}; expected positions that never fall"
        raise CallValueError(problem, "positions", (i + 1,))
    return x


def _scaled(a: Any) -> tuple[Any, Any]:
    """Rows of masses, each times a power of two that brings its largest near 1, and the exponents."""
    exponent = np.frexp(a.max(axis=1))[1]
    return np.ldexp(a, -exponent[:, None]), exponent


def _repeat_extreme(run_of: Any, call: Any, found: Any, grad: Any, factors: Any) -> None:
    """Evaluate again, scaled, the rows whose sums of masses overflow or have an inverse that may."""
    rows = np.flatnonzero(found == EXTREME)
    # Only these rows, again: scaling all of them would be a pass over both arrays.
    (p, exponent), (t, _) = (_scaled(call[k][rows]) for k in ("prediction", "target"))
    values, slopes = np.empty(rows.size), np.empty((rows.size if grad.size else 0, p.shape[1]), grad.dtype)
    run_of(p, t, factors if factors.size == 1 else factors[rows], values, np.zeros(rows.size, np.uint8), slopes)
    # Infinite masses are not to be divided by their sum.
    unknown = ~(np.isfinite(p).all(axis=1) & np.isfinite(t).all(axis=1))
    values[unknown] = np.nan
    call.values[rows] = values
    if grad.size:
        slopes[unknown] = np.nan
        with np.errstate(over="ignore", under="ignore"):
            grad[rows] = np.ldexp(slopes, -exponent[:, None])


def _explain(call: Any, found: Any) -> None:
    """Raise for what a kernel found wrong."""
    record, shape = call.record, call.shape
    for name in record.checked_by_kernel:
        a, domain = call[name].reshape(*shape, -1), record.inputs[name].domain
        check.violation(name, a, domain, counts=call.kept(*shape, 1))
    i = int(np.argmax(found == UNEVEN))
    p, t = (call[k][i].sum(dtype=np.float64) for k in ("prediction", "target"))
    index = check.index_of(i, shape)
    where = f"[{', '.join(map(str, index))}]" if index else ""
    problem = f"has mass {p:g} and target{where} {t:g}; expected mass in both or in neither"
    raise CallValueError(problem, "prediction", index)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates every row of calls like one."""
    rows, k = call["prediction"].shape
    squared, even = call.parameters["p"] != 1.0, call["positions"] is None
    which: tuple[Any, ...] = (distances, "cdf_rows", call.name, None, DISTANCES, FLAGS)
    if squared:
        which = squares, "quantile_rows", call.name, None, SQUARES, ()
    found_by, work = kernel(*which), 8 if squared else 2
    launch, no_grad = found_by.bound(rows, work * rows * k), np.empty((0, 0), call.dtype)

    def evaluate(call: Any) -> None:
        x = _places(call, k)
        places = x if squared else _even_gaps(k) if even else _gaps(x)
        grad = call.grads.get("prediction", no_grad)
        factors, found = call.factors() if call.grads else ONE, np.zeros(rows, np.uint8)
        launch(call.arrays["prediction"], call.arrays["target"], places, factors, call.values, found, grad)
        if all_between(found, 0):
            return
        if call.weight is not None:
            found[call.weight == 0.0] = GOOD
        if not found.any():
            return
        if ((found == NEGATIVE) | (found == UNEVEN)).any():
            _explain(call, found)

        def again(p: Any, t: Any, *outputs: Any) -> None:
            found_by(len(p), work * p.size, p, t, places, *outputs)

        with np.errstate(all="ignore"):
            _repeat_extreme(again, call, found, grad, factors)

    return evaluate


def run(call: Any) -> None:
    """Evaluate every row."""
    prepare(call)(call)


ONE = np.ones(1)
