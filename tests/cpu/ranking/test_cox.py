"""Cox's partial likelihood: published solutions, other packages, all pairs, ends of the range."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastloss as fl
from fastloss import reference

BOTH = pytest.mark.parametrize("ties", ["breslow", "efron"])


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def subjects(rng, n=80, moments=12):
    """Risks, times with ties, events."""
    return rng.normal(0, 1.5, n), rng.integers(0, moments, n) / 4.0, rng.integers(0, 2, n)


def test_the_solutions_of_the_survival_package():
    # Therneau, survival: validation, the first data set, with its solutions in closed form.
    time, event = np.array([1.0, 1.0, 6.0, 6.0, 8.0, 9.0]), np.array([1, 0, 1, 1, 0, 1])
    x = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    of_breslow = (3 + math.sqrt(33)) / 2
    of_efron = 2 * math.sqrt(23 / 3) * math.cos(math.acos(45 / 23 * math.sqrt(3 / 23)) / 3)
    for ties, r, beta, middle in (
        ("breslow", of_breslow, 1.475285, lambda r: r + 3),
        ("efron", of_efron, 1.676857, lambda r: (r + 5) / 2),
    ):
        assert math.log(r) == pytest.approx(beta, abs=5e-7)
        options = {"ties": ties, "reduction": "sum"}
        for at in (1.0, r):
            value, grad = fl.cox.value_and_grad(math.log(at) * x, time, event, **options)
            assert value == pytest.approx(math.log((3 * at + 3) * middle(at) * (at + 3)) - 2 * math.log(at), rel=1e-14)
        assert grad @ x == pytest.approx(0.0, abs=1e-14)


@pytest.mark.oracle
@BOTH
def test_against_statsmodels(ties, rng):
    duration = pytest.importorskip("statsmodels.duration.hazard_regression", reason="needs statsmodels")
    risk, time, event = subjects(rng)
    strata = rng.integers(0, 2, 80)
    x = np.column_stack((risk, rng.normal(size=80)))
    beta = np.array([0.7, -0.4])
    for given in (None, strata):
        model = duration.PHReg(time, x, status=event, ties=ties, strata=given)
        order = np.arange(80) if given is None else np.argsort(strata, kind="stable")
        offsets = None if given is None else np.r_[0, np.cumsum(np.bincount(strata))]
        value, grad = fl.cox.value_and_grad(
            (x @ beta)[order], time[order], event[order], offsets, ties=ties, reduction="sum"
        )
        assert value == pytest.approx(-model.loglike(beta), rel=1e-12)
        np.testing.assert_allclose(grad @ x[order], -model.score(beta), rtol=1e-10)


@BOTH
def test_large_batches_follow_all_pairs(ties, rng):
    risk, time, event = subjects(rng, 3000, 900)
    expected = reference.cox(risk, time, event, ties=ties)
    np.testing.assert_allclose(fl.cox(risk, time, event, ties=ties, reduction="none"), expected, rtol=1e-12)
    value = fl.cox(risk, time, event, ties=ties)
    assert value == pytest.approx(expected.sum() / event.sum(), rel=1e-13)
    grad = fl.cox.value_and_grad(risk, time, event, ties=ties)[1]
    # Adding a number to all risks changes nothing.
    assert abs(grad.sum()) < 1e-14


@BOTH
@pytest.mark.parametrize("spread", [700.0, 1e4])
def test_risks_set_far_apart_in_fifty_digits(ties, spread):
    base = np.array([-1.0, 1.0, 0.2, 0.9, -0.3, 0.4])
    time, event = np.array([4.0, 2.0, 2.0, 3.0, 1.0, 2.0]), np.array([1, 1, 0, 1, 1, 1])
    for risk in (spread * base, -spread * base):
        with mp.workdps(60):
            e = [mp.exp(mp.mpf(float(x))) for x in risk]
            total, slopes = mp.mpf(0), [mp.mpf(0)] * 6
            for i in np.flatnonzero(event):
                tied = [j for j in range(6) if event[j] and time[j] == time[i]]
                for k in range(len(tied)):
                    out = mp.mpf(k) / len(tied) if ties == "efron" else 0
                    share = [e[j] * (1 - out * (j in tied)) if time[j] >= time[i] else mp.mpf(0) for j in range(6)]
                    total += mp.log(sum(share)) / len(tied)
                    slopes = [a + b / sum(share) / len(tied) for a, b in zip(slopes, share, strict=True)]
                total -= mp.mpf(float(risk[i]))
                slopes[i] -= 1
        value, grad = fl.cox.value_and_grad(risk, time, event, ties=ties, reduction="sum")
        assert value == pytest.approx(float(total), rel=1e-14)
        np.testing.assert_allclose(grad, np.array(slopes, float), rtol=1e-12, atol=1e-15)


def test_a_risk_that_explains_all_keeps_its_digits():
    value, grad = fl.cox.value_and_grad(np.array([50.0, 0.0]), np.array([1.0, 2.0]), np.array([1, 0]))
    exact = math.exp(-50)
    assert value == pytest.approx(exact, rel=1e-14)
    np.testing.assert_allclose(grad, [-exact, exact], rtol=1e-14)


def test_infinite_risks_and_what_is_not_a_number():
    time, event = np.array([1.0, 2.0, 3.0]), np.array([1, 1, 0])
    assert fl.cox(np.array([-np.inf, 0.0, 1.0]), time, event) == np.inf
    value, grad = fl.cox.value_and_grad(np.array([np.inf, 0.0, -np.inf]), time, event)
    assert value == 0.0
    assert not grad.any()
    for risk, times in ((np.array([0.0, 1.0, np.nan]), time), (np.zeros(3), np.array([1.0, 2.0, np.nan]))):
        value, grad = fl.cox.value_and_grad(risk, times, event)
        assert np.isnan(value)
        assert np.isnan(grad).any()
    # The risk set of the last event does not hold the first subject.
    each = fl.cox(np.array([np.nan, 1.0, 0.0]), time, event, reduction="none")
    assert np.isnan(each[0])
    assert each[1] == pytest.approx(math.log1p(math.exp(-1.0)))


@BOTH
def test_without_events_the_loss_is_zero(ties):
    value, grad = fl.cox.value_and_grad(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.zeros(2, bool), ties=ties)
    assert value == 0.0
    assert not grad.any()


@BOTH
def test_an_event_of_weight_zero_still_stands_in_risk_sets(ties, rng):
    risk, time, event = subjects(rng, 30, 5)
    weight = rng.integers(0, 3, 30) / 2
    each = reference.cox(risk, time, event, ties=ties)
    value, grad = fl.cox.value_and_grad(risk, time, event, ties=ties, weight=weight)
    assert value == pytest.approx((weight * each).sum() / (weight * event).sum(), rel=1e-13)
    assert abs(grad.sum()) < 1e-15


def test_strata_are_apart_and_order_does_not_matter(rng):
    risk, time, event = subjects(rng, 40)
    parts = [fl.cox(risk[p], time[p], event[p], reduction="sum") for p in (slice(0, 15), slice(15, 40))]
    value = fl.cox(risk, time, event, np.array([0, 15, 15, 40]), reduction="sum")
    assert value == pytest.approx(sum(parts), rel=1e-14)
    mixed = rng.permutation(40)
    _, grad = fl.cox.value_and_grad(risk, time, event)
    _, again = fl.cox.value_and_grad(risk[mixed], time[mixed], event[mixed])
    np.testing.assert_allclose(again, grad[mixed], rtol=1e-11, atol=1e-16)


def test_times_are_compared_in_double_precision():
    risk, event = np.array([0.0, 1.0], np.float32), np.ones(2, bool)
    apart = fl.cox(risk, np.array([1e9, 1e9 + 1]), event)
    assert apart != fl.cox(risk, np.array([1e9, 1e9]), event)
    assert apart == fl.cox(risk, np.array([10**9, 10**9 + 1]), event)


def test_events_must_be_zero_or_one():
    with pytest.raises(ValueError, match=r"cox: event\[1\] is 2; allowed: 0 or 1"):
        fl.cox(np.zeros(2), np.zeros(2), np.array([1, 2]))
    with pytest.raises(ValueError, match="ties is 'exact'; allowed: 'breslow', 'efron'"):
        fl.cox(np.zeros(2), np.zeros(2), np.array([1, 1]), ties="exact")
