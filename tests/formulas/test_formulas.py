"""Derivatives, values and rounding of every formula, against exact arithmetic and the textbook."""

import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from formula_cases import CASES, FORMULAS, each_formula, points
from oracles import MP_WORDS, carry, exact, in_mpmath, in_numpy, in_sympy, mp_number, sp_number
from sampling import OF_ITSELF, flat, kinks, numbers, residual, sample, variants

from fastloss import reference
from fastloss.spec import special
from fastloss.spec.record import SIGNS

each_case = pytest.mark.parametrize(("formula", "variant"), CASES)


def smooth_points(formula, variant, n):
    """Points off the kinks, the ends of the domain and the floors of a variance."""
    chosen = []
    for row in points(formula, variant, 20 * n):
        z = row[0]
        r = residual(formula, z, row[1:])
        off_kinks = all(abs(abs(r) - abs(k)) > 1e-7 for k in kinks(formula, variant)) and z != 0.0
        off_ends = all(x not in d[:2] for x, d in zip(row, formula.prediction_domains, strict=False))
        floor = {**formula.defaults, **variant}["eps"] if formula.name == "gaussian_nll" else 0.0
        negative = formula.name == "gaussian_nll" and not variant.get("log_var") and row[1] <= floor
        if off_kinks and off_ends and not negative:
            chosen.append(row)
    assert len(chosen) >= n
    return chosen[:n]


def close(got, expected, tolerance):
    return abs(got - expected) <= tolerance * max(1, abs(expected))


# Derivatives ---------------------------------------------------------------------------------------------------------


@each_case
def test_derivatives_in_fifty_digits(formula, variant):
    f = in_mpmath(formula.function)
    k = len(formula.predictions)
    parameters = [mp_number(x) for x in numbers(formula, variant)]
    # beta-NLL holds its weight constant in the derivatives.
    beta = variant.get("beta", 0.0) if formula.name == "gaussian_nll" else 0.0
    plain = [mp_number(x) for x in numbers(formula, {**variant, "beta": 0.0} if beta else variant)]
    for row in smooth_points(formula, variant, 6):
        data = [mp_number(x) for x in row]
        value, first, second = (flat(x) for x in f(*data, *parameters)[:3])
        weight = value[0] / f(*data, *plain)[0] if beta else 1
        for i in range(k):

            def along(x, order, i=i, data=data):
                out = f(*data[:i], x, *data[i + 1 :], *plain)[order]
                return flat(out)[i if order else 0]

            slope, bend = (mp.diff(lambda x, order=order: along(x, order), data[i]) for order in (0, 1))
            assert close(first[i], weight * slope, mp.mpf(10) ** -20), (row, i)
            assert close(second[i], weight * bend, mp.mpf(10) ** -20), (row, i)


def small(x):
    return math.isinf(x) or (abs(x) <= 100.0 and exact(x).denominator <= 10**6)


# SymPy expands gamma functions and powers of long rationals term by term.
@pytest.mark.parametrize(("formula", "variant"), [c for c in CASES if all(map(small, numbers(*c.values)))])
def test_derivatives_in_symbols(formula, variant):
    # beta-NLL holds its weight constant in the derivatives.
    if formula.name == "gaussian_nll" and variant.get("beta"):
        variant = {**variant, "beta": 0.0}
    x = sp.Symbol("x", real=True)
    parameters = [sp.S(p) if math.isinf(p) else sp_number(p) for p in numbers(formula, variant)]
    for row in smooth_points(formula, variant, 2):
        data = [sp.Rational(v) for v in row]
        for i in range(len(formula.predictions)):
            f = in_sympy(formula.function, x, data[i])
            value, first, second = f(*data[:i], x, *data[i + 1 :], *parameters)[:3]
            for low, high in ((value, flat(first)[i]), (flat(first)[i], flat(second)[i])):
                pair = [sp.diff(low, x), sp.sympify(high)]
                slope, expected = sp.lambdify(x, pair, "mpmath")(mp_number(row[i]))
                assert close(slope, expected, mp.mpf(10) ** -20), (row, i)


# Values --------------------------------------------------------------------------------------------------------------

# The textbook form itself cancels here: relative to the size of the terms that cancel, not to their difference.
TERMS = {
    "log_cosh": lambda z, t: 1e-3,
    "msle": lambda z, t: abs(math.log1p(z)) * 2 + abs(math.log1p(t)) * 2 + 1e-3,
    "fair": lambda z, t, c: c * abs(z - t) + 1e-3,
    "barron": lambda z, t, alpha, c: 1e-3,
    "poisson": lambda z, t, full: math.exp(z) + abs(t * z) + 1,
    "gamma": lambda z, t, full: abs(z) + t * math.exp(-z) + 1,
    "tweedie": lambda z, t, power, full: math.exp(2 * abs(z)) * (1 + t) * (1 + t * t),
    "gaussian_nll": lambda m, v, t, *p: 1.0,
    "laplace_nll": lambda m, s, t: 1.0,
    "student_t_nll": lambda m, s, t, df: 1.0 + df * math.log1p(df),
    "evidential_regression": lambda g, n, a, b, t, lam: (
        (1 + a) * (10 + math.log1p(a) + abs(math.log(b)) + math.log1p(n))
    ),
    "negative_binomial_nll": lambda m, r, t: (r + t + 1) * (1 + math.log1p(r + t)),
    "asymmetric": lambda z, t, *p: 1e-3,
}


@each_case
def test_value_is_the_textbook_value(formula, variant):
    parameters = numbers(formula, variant)
    textbook = getattr(reference, formula.name)
    rows = points(formula, variant, 300)
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(textbook(*(np.array(c) for c in zip(*rows, strict=True)), **variant), len(rows))
    terms = TERMS.get(formula.name, lambda *a: 0.0)
    for row, e in zip(rows, expected, strict=True):
        got = formula.function(*row, *parameters)[0]
        assert abs(got - e) <= 1e-12 * abs(e) + 1e-14 * terms(*row, *parameters) + 1e-290 or got == e, (row, got, e)


# Evaluated in the given type, a result may differ from the exact one by 8 rounding errors of itself, and by as much as
# inputs that are 8 rounding errors off would change it. Where more is allowed, this names what cancels: the size of
# the terms, in rounding errors.
ROUNDING = 8
CANCELS = {
    "poisson": "log(t!) of a t far below 1, and the deviance at its minimum",
    "gamma": "half the deviance at its minimum",
    "tweedie": "E(2 - power) against t E(1 - power) at their equilibrium",
    "negative_binomial_nll": "digamma(r + 1) - digamma(r + t + 1)",
    "evidential_regression": "lgamma terms of shapes near each other",
    "student_t_nll": "the constant of the density against log(scale)",
    "gaussian_nll": "log(var) against the squared residual over var",
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_case
def test_rounding_errors(formula, variant, dtype):
    eps = float(np.finfo(dtype).eps)
    tiny, huge = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    words = MP_WORDS | {"epsilon": lambda x: mp.mpf(eps)}
    truth = carry(formula.function, mp_number, words)
    predictions, target = sample(formula, 24, np.random.default_rng(5), dtype, **variant)
    columns = predictions if target is None else (*predictions, target)
    parameters = [dtype(x) for x in numbers(formula, variant)]
    with np.errstate(all="ignore"):
        out = in_numpy(formula.function, dtype)(*columns, *(np.asarray(p) for p in parameters))
    out = [np.broadcast_to(x, columns[0].shape) for part in out[:3] for x in flat(part)]
    assert {x.dtype for x in out} <= {np.dtype(dtype), np.dtype(np.float64)}

    def evaluate(data):
        return [mp.mpf(x) for part in truth(*data)[:3] for x in flat(part)]

    constants = [mp.mpf(float(p)) for p in parameters]
    flags = [j for j, p in enumerate(formula.parameters.values()) if p.flag]
    for i in range(columns[0].size):
        data = [mp.mpf(float(c[i])) for c in columns] + constants
        expected = evaluate(data)
        moved = [mp.mpf(0)] * len(expected)
        for j, x in enumerate(data):
            if not mp.isfinite(x) or x == 0 or j - len(columns) in flags:
                continue
            for s in (1, -1):
                try:
                    near = evaluate([*data[:j], x * (1 + s * ROUNDING * eps), *data[j + 1 :]])
                except (ValueError, ZeroDivisionError):
                    continue
                steps = [abs(b - e) if mp.isfinite(b) else 0 for b, e in zip(near, expected, strict=True)]
                moved = [max(a, b) for a, b in zip(moved, steps, strict=True)]
        cancelled = eps if formula.name in CANCELS else 0.0
        for x, e, m in zip(out, expected, moved, strict=True):
            got = float(x[i])
            if not mp.isfinite(e) or abs(e) > huge:
                assert math.isinf(got), (data, got, e)
            else:
                allowed = ROUNDING * (eps * abs(e) + cancelled) + len(data) * m + 4 * tiny
                assert abs(mp.mpf(got) - e) <= allowed, ([float(d) for d in data], got, float(e), float(allowed))


FAR = ("identity", "logit", "margin", *OF_ITSELF)
FAR = [f for f in FORMULAS.values() if f.link in FAR and len(f.predictions) == 1]
FAR = [f for f in FAR if f.prediction_domains[0].high == math.inf]


@pytest.mark.parametrize("formula", FAR, ids=lambda f: f.name)
def test_far_predictions(formula):
    """Where the exact result is representable, no intermediate overflows: predictions up to a quarter of the range."""
    for dtype in (np.float32, np.float64):
        big = float(np.finfo(dtype).max) / 4
        z = np.array([1e10, 1e15, 1e19, 1e25, 1e30, big], dtype)
        z = np.concatenate([z, -z]) if formula.prediction_domains[0].low < -1 else z
        data = (z,) if formula.target is None else (z, np.ones_like(z))
        parameters = numbers(formula, {})
        with np.errstate(all="ignore"):
            out = in_numpy(formula.function, dtype)(*data, *(dtype(p) for p in parameters))
        in_full = in_mpmath(formula.function)
        for i in range(z.size):
            expected = in_full(*(mp.mpf(float(d[i])) for d in data), *(mp_number(p) for p in parameters))
            for order in range(3):
                got, e = float(np.broadcast_to(out[order], z.shape)[i]), expected[order]
                top = float(np.finfo(dtype).max)
                truth = float(e) if abs(e) <= top else math.copysign(math.inf, e)
                # A derivative below 1e-35 counts as 0; geman_mcclure clips where it is 1e-53.
                assert got == pytest.approx(truth, rel=1e-5, abs=1e-35), (dtype, z[i], order)


LOGIT = [f for f in FORMULAS.values() if f.link == "logit"]


@pytest.mark.parametrize("t", [1.0, 0.0])
@pytest.mark.parametrize("formula", LOGIT, ids=lambda f: f.name)
def test_saturated_logits_have_their_limits(formula, t):
    """At the ends of the range and at infinity, where a vanishing weight meets an infinite cost: 0 and not NaN."""
    target = 2.0 * t - 1.0 if formula.target_domain == SIGNS else t
    for changed in variants(formula):
        near = formula.function(1e4, target, *numbers(formula, changed))
        far = formula.function(-1e4, target, *numbers(formula, changed))
        for dtype in (np.float32, np.float64):
            function = in_numpy(formula.function, dtype)
            parameters = [dtype(p) for p in numbers(formula, changed)]
            for z in (float(np.finfo(dtype).max), math.inf):
                for sign, limit in ((1.0, near), (-1.0, far)):
                    with np.errstate(all="ignore"):
                        value, first, second, *_ = map(float, function(dtype(sign * z), dtype(target), *parameters))
                    # Beyond 1e4 a loss is constant or grows with |z|; its derivatives are where they will stay.
                    assert value == pytest.approx(limit[0], rel=1e-5) if limit[0] < 100.0 else value > 1e30, changed
                    assert first == pytest.approx(limit[1], rel=1e-5, abs=1e-30), (dtype, sign * z, changed)
                    assert second == pytest.approx(limit[2], rel=1e-5, abs=1e-30), (dtype, sign * z, changed)


@each_formula
def test_not_a_number_comes_through(formula):
    parameters = numbers(formula, {})
    for i in range(len(formula.predictions)):
        for dtype in (np.float32, np.float64):
            row = [dtype(x) for x in points(formula, {}, 1)[0]]
            row[i] = dtype(math.nan)
            with np.errstate(all="ignore"):
                value, first, *_ = in_numpy(formula.function, dtype)(*row, *(dtype(p) for p in parameters))
            assert np.isnan(value)
            assert np.isnan(flat(first)[i]) or formula.name in ("l1", "l2"), first


# Special functions ---------------------------------------------------------------------------------------------------

SERIES = {
    "log1p_minus": (lambda x: 10.0**x, -9, 6),
    "normal_within": (lambda x: 10.0**x, -9, 1),
    "gamma_ratio": (lambda x: 10.0**x, -6, 8),
    "lgamma_tail": (lambda x: 10.0**x, -6, 8),
    "digamma_tail": (lambda x: 10.0**x, 1.2042, 8),
    "trigamma_tail": (lambda x: 10.0**x, 1.2042, 8),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_against_their_sums(name):
    spread, low, high = SERIES[name]
    for x in spread(np.linspace(low, high, 400)):
        expected = flat(MP_WORDS[name](mp.mpf(x)))
        for got, e in zip(flat(getattr(special, name)(float(x))), expected, strict=True):
            # lgamma near its zeros: relative to the terms.
            terms = 1 + abs(float(mp.log(x))) if name in ("lgamma_tail", "gamma_ratio") else 0
            assert abs(got - e) <= 2e-15 * abs(e) + 1e-15 * terms, (x, got, e)


def test_log1p_minus_below_zero():
    for x in -(10.0 ** np.linspace(-9, -0.001, 200)):
        assert special.log1p_minus(float(x)) == pytest.approx(float(mp.log1p(mp.mpf(x)) - mp.mpf(x)), rel=3e-15)


def test_normal_within_is_odd():
    assert all(special.normal_within(-x) == -special.normal_within(x) for x in (1e-9, 0.3, 0.5, 2.0, 40.0))
