"""By how much a time changed, and how sure that is.

A time on a shared machine has a long tail, so the statistic is the median: of the logarithms of the ratios of all
rounds. Its confidence interval is that of the Bayesian bootstrap [1]_, with the random weights on the gaps between the
values [2]_. For a median that needs no random numbers: it lies between the k-th and the next of n sorted values with
the probability C(n, k) / 2^n. Bounds are rounded outward to the end of their gap. For rounds measured in pairs the
interval is then that of the sign test, which keeps its level for noise of any shape, in the far tails too. There the
usual bootstrap is too narrow: with 31 rounds and a level of 1/1000, it misses three times as often.

The intervals of m cases hold all at once: each is taken at the level 1 - 0.05 / m (Bonferroni's inequality, as Dunn
[3]_ applied it). Holm's step-down test [4]_ finds a little more, but has no intervals that belong to it. Here the
interval is what is shown, and what tells a case that did *not* change from one that nobody can judge.

References
----------
.. [1] D. B. Rubin, "The Bayesian bootstrap", Annals of Statistics 9 (1981), 130-134.
.. [2] D. L. Banks, "Histospline smoothing the Bayesian bootstrap", Biometrika 75 (1988), 673-684.
.. [3] O. J. Dunn, "Multiple comparisons among means", Journal of the American Statistical Association 56 (1961), 52-64.
.. [4] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979),
   65-70.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ALPHA", "Interval", "between", "fewest", "of_median"]

ALPHA = 0.05
"""The probability that any of the intervals shown together misses."""


class Interval(NamedTuple):
    """A ratio, and the bounds of its confidence interval."""

    ratio: float
    low: float
    high: float


def fewest(cases: int) -> int:
    """How many rounds on either side the intervals of so many cases need; with fewer they are infinite."""
    return 1 + math.ceil(math.log2(2 * max(cases, 1) / ALPHA))


def of_median(ratios: Sequence[float], cases: int = 1) -> Interval:
    """The median of ratios whose sides were measured in pairs, one a round."""
    x = _logarithms(ratios)
    weights, tail = _weights(x.size), ALPHA / cases / 2
    low, high = _quantile(_floor(x), weights, tail), -_quantile(-_ceiling(x), weights, tail)
    return _interval(float(np.median(x)), low, high)


def between(old: Sequence[float], new: Sequence[float], cases: int = 1) -> Interval:
    """The ratio of the medians of two independent sets of ratios, new over old."""
    a, b = _logarithms(old), _logarithms(new)
    weights, tail = (_weights(b.size)[:, None] * _weights(a.size)).ravel(), ALPHA / cases / 2
    low = _quantile(np.subtract.outer(_floor(b), _ceiling(a)).ravel(), weights, tail)
    high = -_quantile(np.subtract.outer(-_ceiling(b), -_floor(a)).ravel(), weights, tail)
    return _interval(float(np.median(b) - np.median(a)), low, high)


def _logarithms(ratios: Sequence[float]) -> Any:
    return np.sort(np.log(np.asarray(ratios, np.float64)))


def _floor(x: Any) -> Any:
    """The lower end of each gap between sorted values."""
    return np.concatenate(([-np.inf], x))


def _ceiling(x: Any) -> Any:
    """The upper end of each gap."""
    return np.concatenate((x, [np.inf]))


def _quantile(values: Any, weights: Any, tail: float) -> float:
    """The least value that leaves at most a tail below it."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), tail, side="right")])


@lru_cache(maxsize=256)
def _weights(n: int) -> Any:
    """The probability that the median lies in each of the gaps between n sorted values, and before and after them."""
    return np.array([math.comb(n, k) / 2**n for k in range(n + 1)])


def _interval(centre: float, low: float, high: float) -> Interval:
    return Interval(math.exp(centre), math.exp(low), math.exp(high))
