"""The text and the record of every formula: vocabulary, convexity, surrogate curvature and bounds."""

import dis
import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from formula_cases import CASES, FORMULAS, each_formula, points
from oracles import IRRATIONAL, MP_WORDS, exact
from sampling import flat, largest_prediction, numbers, variants

from fastloss import reference
from fastloss.spec import vocabulary, worlds
from fastloss.spec.record import CAPPED, registered
from fastloss.spec.record import FISHER as FISHER_INFORMATION

# The text of the formulas --------------------------------------------------------------------------------------------


def texts():
    found = {f.function for f in registered.values()}
    while True:
        more = {f.__globals__[n] for f in found for n in set(f.__code__.co_names) - {*vocabulary.__all__, "abs"}}
        if more <= found:
            return sorted(found, key=lambda f: f.__name__)
        found |= more


def test_formulas_use_the_vocabulary_and_float_literals_only():
    for function in texts():
        code = function.__code__
        for name in code.co_names:
            known = name in vocabulary.__all__ or name == "abs" or function.__globals__[name] in texts()
            assert known, (function.__name__, name)
        found = [c for c in code.co_consts if c is not None and c != function.__doc__]
        numbers_only = [x for c in found for x in (c if type(c) is tuple else (c,))]
        assert all(type(c) is float for c in numbers_only), (function.__name__, numbers_only)
        for instruction in dis.get_instructions(code):
            assert instruction.opcode not in dis.hasjrel + dis.hasjabs, (function.__name__, instruction.opname)
            assert "**" not in instruction.argrepr, function.__name__


def test_literals_that_are_returned_together_are_retyped_too():
    def pair(z, t):
        return z, (0.5, 1.0), (0.0, 0.0)

    found = worlds.carry(pair, worlds.World(np.float32, {}))(np.float32(1.0), np.float32(2.0))
    assert all(type(x) is np.float32 for x in (*found[1], *found[2]))


def test_every_irrational_literal_is_known_to_the_oracle():
    for function in (f for f in texts() if f.__name__ not in MP_WORDS):
        for c in function.__code__.co_consts:
            if isinstance(c, float) and len(repr(c)) > 12 and c not in IRRATIONAL:
                assert exact(c).denominator <= 10**6 or exact(c).numerator == 1, (function.__name__, c)


@each_formula
def test_the_record_is_complete(formula):
    assert formula.math
    assert formula.paper
    assert formula.summary.endswith(".")
    assert getattr(reference, formula.name).__doc__
    assert all(p.doc for p in formula.parameters.values())
    row = points(formula, {}, 1)[0]
    out = formula.function(*row, *numbers(formula, {}))
    assert len(out) == 2 + formula.second + (formula.surrogate is not None)
    for derivative in out[1:]:
        assert isinstance(derivative, tuple) == (len(formula.predictions) > 1)
        assert len(flat(derivative)) == len(formula.predictions)


# The record ----------------------------------------------------------------------------------------------------------


def midpoint_violations(formula, variant):
    parameters = numbers(formula, variant)
    rows = points(formula, variant, 400, seed=1)
    rng = np.random.default_rng(2)
    k = len(formula.predictions)
    found = 0
    for row in rows:
        other = rows[rng.integers(len(rows))]
        for scale in (1.0, 1e-2):
            b = [x + scale * (y - x) for x, y in zip(row[:k], other[:k], strict=True)]
            middle = [(x + y) / 2 for x, y in zip(row[:k], b, strict=True)]
            u, v, w = (formula.function(*x, *row[k:], *parameters)[0] for x in (row[:k], b, middle))
            found += w > (u + v) / 2 + 1e-9 * (abs(u) + abs(v) + 1e-3)
    return found


@each_formula
def test_convex(formula):
    found = sum(midpoint_violations(formula, v) for v in variants(formula))
    assert (found == 0) == formula.convex, found
    if formula.convex:
        for variant in variants(formula):
            for row in points(formula, variant, 200):
                assert all(h >= 0.0 for h in flat(formula.function(*row, *numbers(formula, variant))[2]))


@pytest.mark.parametrize("formula", [f for f in FORMULAS.values() if f.surrogate], ids=lambda f: f.name)
def test_surrogate_is_positive(formula):
    for variant in variants(formula):
        for row in points(formula, variant, 200):
            assert all(h >= 0.0 for h in flat(formula.function(*row, *numbers(formula, variant))[3]))


SURROGATES = {
    "smooth_l1": lambda z, t, beta: 1 / beta if beta else 1.0,
    "mape": lambda z, t, eps: 1 / max(abs(t), eps),
    "smape": lambda z, t, eps: 2 / max(abs(z) + abs(t), eps),
    "wing": lambda z, t, w, epsilon: w / epsilon,
    "squared_hinge": lambda *a: 2.0,
    "modified_huber": lambda *a: 2.0,
    "contrastive_distance": lambda *a: 2.0,
    "gradient_norm_penalty": lambda n, center, one_sided, lam: 2 * lam,
    "msle": lambda z, t: 2 / (1 + z) ** 2,
    "tweedie": lambda z, t, power, full: math.exp((2 - power) * z),
    "negative_binomial_nll": lambda mean, r, t: FORMULAS["negative_binomial_nll"].function(mean, r, mean)[2],
    "focal": lambda z, t, alpha, gamma: focal_weight(z, t, alpha, gamma) * spread(z),
    "poly1_bce": lambda z, t, epsilon: spread(z) * (1 + epsilon * abs(1 - 2 * t)),
}


def spread(z):
    """p (1 - p) of a logit."""
    return 1 / (2 + 2 * math.cosh(z)) if abs(z) < 700 else math.exp(-abs(z))


def focal_weight(z, t, alpha, gamma):
    """Weight of the cross-entropy in the focal loss."""
    p, n = 1 / (1 + mp.exp(-mp.mpf(z))), 1 / (1 + mp.exp(mp.mpf(z)))
    weight = 1 if alpha < 0 else alpha * t + (1 - alpha) * (1 - t)
    return float(weight * (t * n + (1 - t) * p) ** gamma)


# Their own tests: the bound below, and the Fisher information.
ELSEWHERE = {"asymmetric", "evidential_regression"}


@pytest.mark.parametrize(("formula", "variant"), [c for c in CASES if c.values[0].surrogate])
def test_surrogate_is_what_it_says(formula, variant):
    parameters = numbers(formula, variant)
    for row in points(formula, variant, 50):
        out = formula.function(*row, *parameters)
        if formula.surrogate.startswith("IRLS"):
            r = row[0] - row[1]
            assert out[3] * r == pytest.approx(out[1], rel=1e-12)
        elif formula.surrogate == CAPPED:
            assert out[3] == out[2]
        elif formula.surrogate != FISHER_INFORMATION and formula.name not in ELSEWHERE:
            expected = SURROGATES[formula.name](*row, *parameters) if formula.name in SURROGATES else 1.0
            expected = np.broadcast_to(flat(expected), len(flat(out[3])))
            assert flat(out[3]) == pytest.approx(expected, rel=1e-10 if len(expected) > 1 else 1e-12, abs=1e-300)


def test_surrogate_of_asymmetric_bounds_the_curvature_of_the_logarithms():
    """Without focusing powers, which the surrogate holds constant, the second derivative is the logarithms' own."""
    formula = FORMULAS["asymmetric"]
    for clip in (0.0, 0.05, 0.3):
        for z, t in itertools.product((-40.0, -3.0, -1.0, 0.0, 0.7, 4.0, 40.0), (0.0, 0.3, 1.0)):
            second, surrogate = formula.function(z, t, 0.0, 0.0, clip)[2:]
            assert surrogate >= abs(second) * (1 - 1e-14)
            if clip == 0.0:
                assert surrogate == pytest.approx(second, rel=1e-13)


FISHER = [c for c in CASES if c.values[0].surrogate == FISHER_INFORMATION and not {"beta", "eps"} & {*c.values[1]}]
FISHER = [c for c in FISHER if c.values[0].name not in ELSEWHERE]


@pytest.mark.parametrize(("formula", "variant"), FISHER)
def test_fisher_information_is_the_mean_squared_score(formula, variant):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    parameters = numbers(formula, variant)
    first, second = 0.4, 1.7
    spread = math.exp(second / 2) if variant.get("log_var") else math.sqrt(second)
    density = {
        "gaussian_nll": stats.norm(first, spread),
        "laplace_nll": stats.laplace(first, second),
        "student_t_nll": stats.t({**formula.defaults, **variant}.get("df"), first, second),
    }[formula.name]
    # Equally likely targets, symmetric about the location; the tails beyond the last cost 1e-3 at most.
    targets = density.ppf((np.arange(20000) + 0.5) / 20000)
    scores = np.array([formula.function(first, second, float(t), *parameters)[1] for t in targets])
    stated = formula.function(first, second, 0.0, *parameters)[3]
    np.testing.assert_allclose((scores**2).mean(axis=0), stated, rtol=2e-3)


def test_fisher_information_of_evidence():
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    function = FORMULAS["evidential_regression"].function
    gamma, nu, alpha, beta = 0.4, 1.7, 2.3, 0.6
    law = stats.t(2 * alpha, gamma, math.sqrt(beta * (1 + nu) / (nu * alpha)))
    targets = law.ppf((np.arange(20000) + 0.5) / 20000)
    scores = np.array([function(gamma, nu, alpha, beta, float(t), 0.0)[1] for t in targets])
    np.testing.assert_allclose((scores**2).mean(axis=0), function(gamma, nu, alpha, beta, 0.0, 0.0)[3], rtol=2e-3)


def test_weighted_fisher_information():
    plain, weighted = (FORMULAS["gaussian_nll"].function(0.4, 1.7, 0.0, 0.0, beta, 1e-6, 0.0)[3] for beta in (0.0, 0.5))
    assert weighted == pytest.approx([x * math.sqrt(1.7) for x in plain], rel=1e-14)


def wide(formula, n=4000):
    """Points whose predictions reach farther than usual, at the defaults."""
    rows = points(formula, {}, n, seed=3)
    factor = 1e3 if largest_prediction(formula) > 100 else 5.0
    domain = formula.prediction_domains[0]
    farther = [[r[0] * factor, *r[1:]] for r in rows if not domain.outside(r[0] * factor)]
    farthest = [[z, *rows[0][1:]] for z in (-1e250, 1e250) if factor > 100.0 and not domain.outside(z)]
    return rows + farther + farthest


@each_formula
def test_bounded(formula):
    values = [formula.function(*row, *numbers(formula, {}))[0] for row in wide(formula)]
    assert (max(values) < 150.0) == formula.bounded, max(values)


# Bounded slopes whose bound has no closed form, or depends on the other predictions.
UNSTATED = {"interval_score", "focal", "asymmetric", "student_t_nll"}


@each_formula
def test_lipschitz(formula):
    slopes = [abs(flat(formula.function(*row, *numbers(formula, {}))[1])[0]) for row in wide(formula)]
    if formula.lipschitz is None:
        assert max(slopes) > 100.0 or formula.name in UNSTATED
    else:
        assert max(slopes) <= formula.lipschitz * (1 + 1e-12)
        assert max(slopes) >= formula.lipschitz * 0.98


RESIDUAL = [f for f in FORMULAS.values() if f.link == "identity" and f.target]
RESIDUAL = [f for f in RESIDUAL if f.prediction_domains[0].high == math.inf]


@pytest.mark.parametrize("formula", RESIDUAL, ids=lambda f: f.name)
def test_robust(formula):
    """Robust means that an outlying target pulls no harder the farther out it lies."""
    row = [1.5] * len(formula.predictions)

    def pull(t, parameters):
        return max(abs(g) for g in flat(formula.function(*row, t, *parameters)[1]))

    tolerant = []
    for variant in variants(formula):
        parameters = numbers(formula, variant)
        ends = (1.0, -1.0) if formula.target_domain.low < -1 else (1.0,)
        tolerant += [pull(s * 1e15, parameters) <= 1.01 * pull(s * 1e12, parameters) + 1e-9 for s in ends]
    assert all(tolerant) == formula.robust


def test_only_losses_of_a_residual_call_themselves_robust():
    assert {f.name for f in FORMULAS.values() if f.robust} <= {f.name for f in RESIDUAL}
