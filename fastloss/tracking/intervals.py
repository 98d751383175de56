"""Confidence intervals of time ratios that hold from one process to the next.

The unit is the process. Two processes that run the same code differ by 1 to 5% for as long as they live, as their
arrays, their code and their stacks have other addresses [1]_. More rounds in one process do not average that out, so
the times of one process count as one value.

The values of two sides are compared by ranks. The estimate is the median of all differences between a logarithm of the
one side and one of the other [2]_, and its interval inverts the rank-sum test [3]_. Where the sides were measured in
pairs of processes, the estimate is the median of the averages of any two differences, and its interval inverts the
signed-rank test [4]_. Both are exact for few values and hold for noise with long tails. Two of ten processes may be
far off, and with normal noise the intervals are 3% wider than those of Student's t.

The intervals of m cases hold together: each is taken at the level 1 - 0.05 / m (Bonferroni's inequality).

References
----------
.. [1] T. Mytkowicz, A. Diwan, M. Hauswirth, P. F. Sweeney, "Producing wrong data without doing anything obviously
   wrong!", ASPLOS (2009), 265-276.
.. [2] J. L. Hodges, E. L. Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34
   (1963), 598-611.
.. [3] H. B. Mann, D. R. Whitney, "On a test of whether one of two random variables is stochastically larger than the
   other", Annals of Mathematical Statistics 18 (1947), 50-60.
.. [4] F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945), 80-83.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ALPHA", "Interval", "between", "fewest", "fewest_pairs", "of_pairs"]

ALPHA = 0.05
"""Probability that any of the intervals shown together misses its true value."""


class Interval(NamedTuple):
    """Ratio with the bounds of its confidence interval."""

    ratio: float
    low: float
    high: float


def fewest(cases: int) -> int:
    """Return the number of processes per side from which the intervals of that many cases are finite."""
    return next(n for n in itertools.count(1) if 1 / math.comb(2 * n, n) <= _tail(cases))


def fewest_pairs(cases: int) -> int:
    """Return the number of pairs of processes from which the intervals of that many cases are finite."""
    return math.ceil(-math.log2(_tail(cases)))


def between(old: Sequence[float], new: Sequence[float], cases: int = 1) -> Interval:
    """Return the ratio of two independent sets of values, new over old; unbounded where they are too few."""
    differences = np.subtract.outer(np.log(np.asarray(new, np.float64)), np.log(np.asarray(old, np.float64)))
    # One process among many of the other side could not be told from an odd one.
    is_enough = min(len(old), len(new)) >= fewest(cases)
    return _interval(differences.ravel(), _rank_sums(len(old), len(new)) if is_enough else (), cases)


def of_pairs(ratios: Sequence[float], cases: int = 1) -> Interval:
    """Return the centre of ratios measured in pairs; unbounded where they are too few."""
    x = np.log(np.asarray(ratios, np.float64))
    first, second = np.triu_indices(x.size)
    return _interval((x[first] + x[second]) / 2, _signed_ranks(x.size), cases)


def _tail(cases: int) -> float:
    return ALPHA / max(cases, 1) / 2


def _interval(differences: Any, counts: tuple[int, ...], cases: int) -> Interval:
    """Return the interval left after dropping as many extreme differences as the test allows at its level."""
    if not differences.size:
        return Interval(math.nan, 0.0, math.inf)
    ordered = np.sort(differences)
    at_most = _tail(cases) * sum(counts)
    outside = sum(c <= at_most for c in itertools.accumulate(counts))
    low, high = (ordered[outside - 1], ordered[-outside]) if outside else (-math.inf, math.inf)
    return Interval(*(math.exp(x) for x in (float(np.median(ordered)), low, high)))


@lru_cache(maxsize=256)
def _rank_sums(n: int, m: int) -> tuple[int, ...]:
    """Return the null distribution of the rank-sum statistic: numbers of orders of n and m values."""
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for j in range(n * m, m + i - 1, -1):
            counts[j] -= counts[j - m - i]
        for j in range(i, n * m + 1):
            counts[j] += counts[j - i]
    return tuple(counts)


@lru_cache(maxsize=256)
def _signed_ranks(n: int) -> tuple[int, ...]:
    """Return the null distribution of the signed-rank statistic: numbers of sign choices of n ranks."""
    counts = [1] + [0] * (n * (n + 1) // 2)
    for i in range(1, n + 1):
        for j in range(len(counts) - 1, i - 1, -1):
            counts[j] += counts[j - i]
    return tuple(counts)
