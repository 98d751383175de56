"""Intervals of ratios of times: against SciPy's exact tests, and by simulation."""

import math

import numpy as np
import pytest

from fastloss.tracking import intervals
from fastloss.tracking.intervals import between, fewest, fewest_pairs, of_pairs


def noise(rng, *shape):
    """Relative noise with the tail of a shared machine; its median is 1."""
    return np.exp(0.03 * rng.standard_t(2, shape))


def skewed(rng, *shape):
    """Noise that only ever slows down; its median is 1."""
    return np.exp(rng.exponential(0.1, shape) - 0.1 * math.log(2))


@pytest.mark.parametrize("cases", [1, 5, 50])
@pytest.mark.parametrize(("n", "m"), [(10, 10), (7, 12)])
def test_the_interval_of_two_sides_inverts_the_rank_sum_test(cases, n, m):
    """SciPy's exact test accepts every ratio inside the interval and refuses every one outside."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(n + cases)
    old, new = noise(rng, n), 1.1 * noise(rng, m)
    ratio, low, high = between(old, new, cases)
    assert ratio == pytest.approx(math.exp(np.median(np.subtract.outer(np.log(new), np.log(old)))))

    def is_accepted(shift):
        return stats.mannwhitneyu(new / shift, old, method="exact").pvalue > intervals.ALPHA / cases

    for bound, inside in ((low, 1 + 1e-9), (high, 1 - 1e-9)):
        assert is_accepted(bound * inside)
        assert not is_accepted(bound / inside)


@pytest.mark.parametrize("cases", [1, 5, 50])
@pytest.mark.parametrize("n", [12, 20])
def test_the_interval_of_pairs_inverts_the_signed_rank_test(cases, n):
    stats = pytest.importorskip("scipy.stats")
    x = np.log(noise(np.random.default_rng(n), n))
    ratio, low, high = of_pairs(np.exp(x), cases)
    assert ratio == pytest.approx(math.exp(np.median([(a + b) / 2 for i, a in enumerate(x) for b in x[i:]])))

    def is_accepted(shift):
        return stats.wilcoxon(x - shift, method="exact").pvalue > intervals.ALPHA / cases

    for bound, inside in ((math.log(low), 1e-9), (math.log(high), -1e-9)):
        assert is_accepted(bound + inside)
        assert not is_accepted(bound - inside)


@pytest.mark.parametrize("draw", [noise, skewed])
@pytest.mark.parametrize(("cases", "count"), [(1, 6), (10, 10), (4, 20)])
def test_intervals_of_several_cases_hold_together(draw, cases, count):
    """Where nothing changed, one of all intervals misses in 5% of the comparisons at the most."""
    rng = np.random.default_rng(cases + count)
    runs = 400

    def misses(interval):
        wrong = 0
        for _ in range(runs):
            old, new = draw(rng, cases, count), draw(rng, cases, count)
            found = [interval(a, b, cases) for a, b in zip(old, new, strict=True)]
            wrong += any(not i.low <= 1.0 <= i.high for i in found)
        return wrong

    # Six standard deviations of a count with the mean 20 are 26.
    assert misses(lambda old, new, m: of_pairs(new / old, m)) <= 46
    assert misses(between) <= 46


def test_an_interval_of_too_few_processes_is_infinite():
    for count in (1, 3, 10, 64):
        enough, few = ([1.1] * n for n in (fewest(count), fewest(count) - 1))
        assert math.isfinite(between(enough, enough, count).high)
        assert between(few, few, count)[1:] == (0.0, math.inf)
        enough, few = ([1.1] * n for n in (fewest_pairs(count), fewest_pairs(count) - 1))
        assert math.isfinite(of_pairs(enough, count).high)
        assert of_pairs(few, count)[1:] == (0.0, math.inf)
    assert between([], [1.0])[1:] == of_pairs([])[1:] == (0.0, math.inf)


def test_intervals_do_not_depend_on_which_side_is_called_old():
    rng = np.random.default_rng(2)
    old, new = noise(rng, 20), noise(rng, 23)
    ratio, low, high = between(old, new, 3)
    assert between(new, old, 3) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert of_pairs(1 / old, 3) == pytest.approx([1 / x for x in (of_pairs(old, 3)[i] for i in (0, 2, 1))])
