"""Exact, associative statistics: integers while they are added, rounded once when they are read."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec.record import registered
from .fixed_point import BIAS, DIGITS

__all__ = ["HIGHEST", "Moments", "Partial", "Partials", "Statistics", "figure", "from_ordered", "integer"]

HIGHEST = 0x7FFFFFFFFFFFFFFF
"""Largest int64: the pattern that no extreme of a double has."""


ONE = np.zeros(1, np.int64)
"""Index of the one loss of an accumulator."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of one loss over all rows that count.

    Attributes
    ----------
    mean, std : float
        Weighted where weights were given; the standard deviation is that of the population (divisor: the weight sum,
        or the count). NaN where there is nothing to average. Of perplexity, the exponential of the mean cross-entropy,
        which has no such deviation: NaN.
    min, max : float
        Smallest and largest loss of a row.
    count : int
        Number of rows included in the other figures.
    non_finite : int
        Rows whose loss is NaN or infinite; left out of the rest unless they were asked to propagate.
    weight_sum : float or None
        Sum of the weights of the rows that count; None without weights.
    ignored : int
        Rows left out because their label is the loss's `ignore_index`.
    """

    mean: float
    std: float
    min: float
    max: float
    count: int
    non_finite: int
    weight_sum: float | None
    ignored: int = 0


def figure(name: str, mean: float) -> float:
    """Return the value of a loss that is a function of another loss's mean."""
    return float(registered[name].function(mean, 1.0)[0])


@dataclass(frozen=True, slots=True)
class Moments:
    """Exact state behind the statistics of one loss: counts, integer sums and extremes."""

    finite: int = 0
    nan: int = 0
    above: int = 0
    below: int = 0
    ignored: int = 0
    low: float = math.inf
    high: float = -math.inf
    sums: tuple[int, ...] = (0, 0)
    """Exact sums. Unweighted: of l and l * l. Weighted: of w, w * l, w * l * l, and w of rows with non-finite loss."""
    figure: str = ""
    """Name of the requested loss that is a function of this loss's mean; empty for a plain mean."""

    def merge(self, other: "Moments") -> "Moments":
        """Return the combined state of these rows and others; the order does not matter."""
        if len(self.sums) != len(other.sums):
            raise ValueError("cannot merge weighted with unweighted statistics")
        if self.figure != other.figure:
            raise ValueError(f"cannot merge {self.figure or 'a mean'} with {other.figure or 'a mean'}")
        return Moments(
            self.finite + other.finite,
            self.nan + other.nan,
            self.above + other.above,
            self.below + other.below,
            self.ignored + other.ignored,
            min(self.low, other.low),
            max(self.high, other.high),
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            self.figure,
        )

    def statistics(self, propagate: bool) -> Statistics:
        """Return the statistics rounded to float64; with `propagate`, NaN and infinite losses count."""
        weighted = len(self.sums) == 4
        unit = 1 << BIAS
        weight, first, second = self.sums[:3] if weighted else (self.finite * unit, *self.sums)
        outside = self.nan + self.above + self.below
        mean, std = _rounded(weight, first, second)
        low, high = (self.low, self.high) if self.finite else (math.nan, math.nan)
        count = self.finite
        if propagate and outside:
            mean, std, low, high = self._propagated(low, high)
            count += outside
            weight += self.sums[3] if weighted else 0
        weight_sum = _divide(weight, unit) if weighted else None
        if self.figure:
            mean, low, high = (figure(self.figure, x) for x in (mean, low, high))
            std = math.nan
        return Statistics(mean, std, low, high, count, outside, weight_sum, self.ignored)

    def _propagated(self, low: float, high: float) -> tuple[float, float, float, float]:
        if self.nan:
            return math.nan, math.nan, math.nan, math.nan
        mean = (math.inf if self.above else 0.0) - (math.inf if self.below else 0.0)
        low = -math.inf if self.below else low if self.finite else math.inf
        high = math.inf if self.above else high if self.finite else -math.inf
        return mean, math.nan, low, high

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON-compatible values; sums become [hexadecimal integer, exponent of two]."""
        return {
            "finite": self.finite,
            "nan": self.nan,
            "above": self.above,
            "below": self.below,
            "ignored": self.ignored,
            "low": self.low.hex(),
            "high": self.high.hex(),
            "sums": [_shortened(s) for s in self.sums],
            **({"figure": self.figure} if self.figure else {}),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Moments":
        """Return the state that `to_dict` wrote."""
        counts = {k: int(state[k]) for k in ("finite", "nan", "above", "below", "ignored")}
        low, high = (float.fromhex(state[k]) for k in ("low", "high"))
        sums = tuple(int(h, 16) << (e + BIAS) for h, e in state["sums"])
        return cls(**counts, low=low, high=high, sums=sums, figure=str(state.get("figure", "")))


class Partial:
    """Accumulator arrays that kernels add to, one set for each loss and batch."""

    __slots__ = ("counts", "digits", "extremes", "ignored")

    def __init__(self, weighted: bool, arrays: tuple[Any, Any, Any] | None = None) -> None:
        self.digits, self.counts, self.extremes = arrays or (row[0] for row in _zeros(1, weighted))
        self.ignored = 0

    def add(self, values: Any, weights: Any) -> None:
        """Add float64 losses, with weights unless they are None."""
        from . import exact

        if weights is None:
            none = np.empty(0)
            state = self.digits[None], self.counts[None], self.extremes[None]
            exact.tally(
                none.view(np.int64), none.view(np.int64), none, values, values, ONE, *state, none[None], True, False
            )
            return
        before = self.counts[1:].sum()
        exact.add_weighted(values, weights, self.digits[:3], self.counts, self.extremes)
        if self.counts[1:].sum() > before:
            rest = Partial(True)
            outside = weights[~np.isfinite(values)]
            exact.add_weighted(np.zeros_like(outside), outside, rest.digits[:3], rest.counts, rest.extremes)
            self.digits[3] += rest.digits[0]

    def merge(self, other: "Partial") -> None:
        """Add the state of another batch; the digits have room for 2**30 batches."""
        self.digits += other.digits
        self.counts += other.counts
        self.ignored += other.ignored
        self.extremes[0] = min(self.extremes[0], other.extremes[0])
        self.extremes[1] = max(self.extremes[1], other.extremes[1])

    def moments(self, figure: str = "") -> Moments:
        """Return the state as Python integers."""
        finite, nan, above, below = (int(c) for c in self.counts)
        low, high = from_ordered(self.extremes) if finite else (math.inf, -math.inf)
        sums = tuple(map(integer, self.digits))
        # Adding 0.0 turns -0.0 into 0.0: which of two equal zeros came first must not show.
        return Moments(finite, nan, above, below, self.ignored, low + 0.0, high + 0.0, sums, figure)


class Partials(list[Partial]):
    """Accumulators of several losses, whose arrays are the rows of arrays for all."""

    def __init__(self, size: int, weighted: bool) -> None:
        self.digits, self.counts, self.extremes = arrays = _zeros(size, weighted)
        super().__init__(Partial(weighted, each) for each in zip(*arrays, strict=True))


def _zeros(size: int, weighted: bool) -> tuple[Any, Any, Any]:
    """Return digits, counts and extremes of several losses that have seen no rows."""
    digits = np.zeros((size, 4 if weighted else 2, DIGITS), np.int64)
    extremes = np.empty((size, 2), np.int64)
    extremes[:] = HIGHEST, -HIGHEST
    return digits, np.zeros((size, 4), np.int64), extremes


def from_ordered(extremes: Any) -> tuple[float, float]:
    """Return the doubles that two ordered integers stand for, the smallest and the largest."""
    low, high = (extremes ^ ((extremes >> 63) & HIGHEST)).view(np.float64).tolist()
    return low, high


def integer(digits: Any) -> int:
    """Return the sum that base-2**32 digits hold."""
    return sum(int(d) << (32 * j) for j, d in enumerate(digits) if d)


def _rounded(weight: int, first: int, second: int) -> tuple[float, float]:
    """Return mean and standard deviation from exact sums in units of 2**-BIAS."""
    if weight <= 0:
        return math.nan, math.nan
    # Of 3,300 bits and more all but some hundred are zeros that cancel: a tenth of the time without them.
    shift = min((x & -x).bit_length() - 1 if x else weight.bit_length() for x in (weight, first, second))
    weight, first, second = weight >> shift, first >> shift, second >> shift
    # Rounding errors cannot occur before the division, so the variance is never negative.
    return _divide(first, weight), _root(second * weight - first * first, weight * weight)


def _divide(a: int, b: int) -> float:
    """Return a / b rounded to the nearest float64; infinite on overflow."""
    try:
        return a / b
    except OverflowError:
        return math.copysign(math.inf, a)


def _root(a: int, b: int) -> float:
    """Return the square root of a / b rounded to the nearest float64."""
    # 2**(2 * k) brings the quotient to some 130 bits: a root of 65, and one more that says whether anything is left.
    k = max(0, (130 - a.bit_length() + b.bit_length()) // 2)
    quotient, left = divmod(a << (2 * k), b)
    root = math.isqrt(quotient)
    exact = left == 0 and root * root == quotient
    return _divide(2 * root + (not exact), 1 << (k + 1))


def _shortened(total: int) -> list[Any]:
    zeros = (total & -total).bit_length() - 1 if total else BIAS
    return [hex(total >> zeros), zeros - BIAS]
