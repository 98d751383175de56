"""The generator of test data is tested itself: a generator that draws one constant lets every test pass."""

import numpy as np
import pytest
from sampling import (
    LARGEST,
    OF_ITSELF,
    SMALLEST,
    domains,
    kinks,
    largest_prediction,
    numbers,
    residual,
    sample,
    variants,
)

import fastloss.formulas  # noqa: F401
from fastloss.spec.record import SIGNS, Interval, registered

FORMULAS = [f for f in registered.values() if f.family == "elementwise"]
N = 2000


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_points_lie_in_the_domain_and_vary(formula, dtype, rng):
    for variant in variants(formula):
        predictions, target = sample(formula, N, rng, dtype, **variant)
        columns = list(zip(predictions, domains(formula, variant), strict=True))
        columns += [] if target is None else [(target, formula.target_domain)]
        for x, domain in columns:
            assert x.shape == (N,)
            assert x.dtype == dtype
            assert np.isfinite(x).all()
            assert not domain.outside(x).any()
            assert np.unique(x).size > (1 if domain == SIGNS else N // 3)


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_magnitudes_and_signs_are_spanned(formula, rng):
    predictions, target = sample(formula, N, rng)
    every = (*formula.prediction_domains, formula.target_domain)
    for x, domain in zip((*predictions, target), every, strict=True):
        if x is None or domain == SIGNS:
            continue
        origin = domain.low if np.isfinite(domain.low) else 0.0
        distance = np.abs(x - origin)[x != origin]
        top = domain.high - origin if np.isfinite(domain.high) else largest_prediction(formula)
        assert distance.min() < 10 * SMALLEST
        assert distance.max() > min(top, LARGEST) / 10


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_both_signs_of_the_residual_and_of_the_prediction(formula, rng):
    predictions, target = sample(formula, N, rng)
    if formula.prediction_domains[0] == Interval():
        assert 0.2 < (predictions[0] > 0).mean() < 0.8
    if target is not None and formula.link == "identity":
        assert 0.2 < (predictions[0] > target).mean() < 0.8
        assert (predictions[0] == target).any()


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_closed_ends_are_hit_and_open_ends_avoided(formula, rng):
    predictions, target = sample(formula, N, rng)
    every = (*formula.prediction_domains, formula.target_domain)
    for x, domain in zip((*predictions, target), every, strict=True):
        if x is None or domain == SIGNS:
            continue
        for end, is_open in ((domain.low, domain.low_open), (domain.high, domain.high_open)):
            if np.isfinite(end):
                assert (x == end).any() != is_open


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.name)
def test_kinks_are_approached_from_both_sides(formula, rng):
    for variant in variants(formula):
        (z, *rest), target = sample(formula, N, rng, **variant)
        if formula.link not in ("identity", "margin", "difference", *OF_ITSELF):
            continue
        r = residual(formula, z, rest if target is None else (*rest, target))
        for k in kinks(formula, variant):
            bounded = np.isfinite(domains(formula, variant)[0].low)
            if abs(k) > 10 or bounded:
                continue
            assert ((r > k) & (r < k + 0.02)).any()
            assert ((r < k) & (r > k - 0.02)).any()


def test_every_parameter_has_a_variant_apart_from_its_default():
    for formula in FORMULAS:
        for name, default in formula.defaults.items():
            values = {numbers(formula, v)[list(formula.defaults).index(name)] for v in variants(formula)}
            assert values - {default}, (formula.name, name)


def test_variants_are_allowed():
    for formula in FORMULAS:
        for variant in variants(formula):
            for name, value in variant.items():
                assert name in formula.parameters
                assert value is None or not formula.parameters[name].allowed.outside(value), (formula.name, variant)


def test_the_seed_decides():
    formula = registered["huber"]
    a, b, c = (sample(formula, 50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a[0][0], b[0][0])
    assert np.array_equal(a[1], b[1])
    assert not np.array_equal(a[1], c[1])
