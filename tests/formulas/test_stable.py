"""Stabilising rules: each an identity in 120 digits, and naive texts within a few ulp over the whole range."""

import math

import mpmath as mp
import numpy as np
import pytest
from oracles import MP_WORDS, carry

import fastloss as fl
from fastloss.spec.graph import EXACT, symbols
from fastloss.spec.render import formula as written
from fastloss.spec.spelling import Symbol, UserGraph
from fastloss.spec.stable import STABLE
from fastloss.spec.text import compute, parsed

SHARES = [0.0, 0.3, 1.0]
ALL = [-30.0, -2.5, -0.75, -1e-9, 1e-9, 0.25, 1.0, 17.0]
POSITIVE = [1e-9, 0.25, 0.75, 1.0, 17.0]
WORDS = MP_WORDS | {
    "xlogy": lambda x, y: mp.mpf(0) if x == 0 else x * MP_WORDS["log"](y),
    "xlog1py": lambda x, y: mp.mpf(0) if x == 0 else x * MP_WORDS["log1p"](y),
    "cosh": mp.cosh,
    "sinh": mp.sinh,
    "log_of_cosh": lambda x: mp.log(mp.cosh(x)),
    "log1mexp": lambda x: mp.log(-mp.expm1(-x)),
    "hypot1": lambda x: mp.sqrt(1 + x * x),
    "hypot1_less_1": lambda x: mp.sqrt(1 + x * x) - 1,
}

RULES = {
    "log(1 + exp(x))": (ALL, "softplus"),
    "log(exp(x) + 1)": (ALL, "softplus"),
    "log1p(exp(x))": (ALL, "softplus"),
    "logaddexp(0, x)": (ALL, "softplus"),
    "log(1 + exp(-x)) + x": (ALL, "softplus"),
    "log(1 + exp(x)) - x": (ALL, "softplus"),
    "log(1 + exp(x)) - x * t": (ALL, "softplus"),
    "(1 - t) * x + log(1 + exp(-x))": (ALL, "softplus"),
    "maximum(x, 0) + log1p(exp(-abs(x)))": (ALL, "softplus"),
    "maximum(x, 0) - x * t + log1p(exp(-abs(x)))": (ALL, "softplus"),
    "1 / (1 + exp(-x))": (ALL, "sigmoid"),
    "exp(x) / (1 + exp(x))": (ALL, "sigmoid"),
    "1 - 1 / (1 + exp(-x))": (ALL, "sigmoid"),
    "1 - (1 - 1 / (1 + exp(-x)))": (ALL, "sigmoid"),
    "log(1 / (1 + exp(-x)))": (ALL, "softplus"),
    "log(1 - 1 / (1 + exp(-x)))": (ALL, "softplus"),
    "log1p(-sigmoid(x))": (ALL, "softplus"),
    "exp(-log(1 + exp(x)))": (ALL, "sigmoid"),
    "log(clip(sigmoid(x), 1e-7, 1 - 1e-7))": (ALL, "softplus"),
    "log(1 - clip(sigmoid(x), 1e-7, 1 - 1e-7))": (ALL, "softplus"),
    "exp(x) - 1": (ALL, "expm1"),
    "1 - exp(x)": (ALL, "expm1"),
    "log(1 + x)": (POSITIVE, "log1p"),
    "log(1 - exp(-x))": (POSITIVE, "log1mexp"),
    "log(exp(x))": (ALL, ""),
    "log1p(expm1(x))": (ALL, ""),
    "log(sqrt(x))": (POSITIVE, "log"),
    "log(1 / x)": (POSITIVE, "log"),
    "sqrt(1 + x * x) - 1": (ALL, "hypot1_less_1"),
    "sqrt(1 + x**2)": (ALL, "hypot1"),
    "sqrt(1 + abs(x)) - 1": (ALL, "sqrt"),
    "sqrt(x**2)": (ALL, "abs"),
    "log(cosh(x))": (ALL, "log_of_cosh"),
    "log(exp(x) + exp(2 * t))": (ALL, "softplus"),
    "log(exp(x) + exp(t) + exp(3 * x))": (ALL, "maximum"),
    "x * log(x)": (POSITIVE, "xlogy"),
    "x * log1p(t)": (POSITIVE, "xlog1py"),
}


def traced(text, rules):
    graph = UserGraph(rules, Symbol)
    x, t = symbols(graph, ["x", "t"])
    return written("rule", ["x", "t"], (compute(parsed("rule", text), {"x": x, "t": t}),)), graph


@pytest.mark.parametrize("text", RULES)
def test_each_rule_is_an_identity(text):
    points, word = RULES[text]
    plain, _ = traced(text, EXACT)
    stable, graph = traced(text, STABLE)
    assert word in stable.__dict__["source"]
    assert graph.rewrites or "(1 -" in text or word == "hypot1"
    with mp.workdps(120):
        before, after = (carry(f, mp.mpf, WORDS) for f in (plain, stable))
        for x in points:
            for t in SHARES:
                expected, got = (f(mp.mpf(x), mp.mpf(t))[0] for f in (before, after))
                # The bounds of a clip are constants of 17 digits.
                digits = 15 if "clip" in text else 90
                assert abs(expected - got) <= mp.mpf(10) ** -digits * (1 + abs(expected)), (x, t)


def test_rules_leave_alone_what_they_would_make_worse():
    for text in ("log(2 + exp(x))", "1 / (2 + exp(x))", "exp(x) - 2", "log(x + t)", "2 * log(3)", "sqrt(1 + x) + 1"):
        assert not traced(text, STABLE)[1].rewrites, text


def test_powers_of_zero_are_zero_times_infinity_no_more():
    f = fl.formula("t * log(t / z) - t + z", prediction=(0, math.inf))
    assert f(np.array([2.0]), np.array([0.0])) == 2.0
    entropy = fl.formula("z * log(z)", prediction=(0, 1))
    assert entropy(np.array([0.0])) == 0.0


# Naive texts ---------------------------------------------------------------------------------------------------------


def naive_bce(z, t):
    p = 1 / (1 + np.exp(-z))
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def naive_softplus_bce(z, t):
    return np.log(1 + np.exp(z)) - z * t


def careful_bce(z, t):
    return np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))


def keras_bce(z, t):
    return (1 - t) * z + np.log(1 + np.exp(-z))


def naive_logistic(z, t):
    return np.log(1 + np.exp(-z * t))


def mp_bce(z, t):
    return t * mp.log1p(mp.exp(-z)) + (1 - t) * mp.log1p(mp.exp(z))


def mp_slope(z, t):
    return (1 - t) / (1 + mp.exp(-z)) - t / (1 + mp.exp(z))


def far_points(dtype):
    """Predictions over the whole range of a dtype, of both signs."""
    top = 38 if dtype is np.float32 else 300
    size = np.concatenate([np.logspace(-top, top, 60), np.linspace(0.1, 110, 60), [0.0]])
    return np.concatenate([size, -size]).astype(dtype)


def ulps(got, expected, dtype):
    """Errors in units in the last place; results below the smallest normal number count as those."""
    tiny = np.finfo(dtype).tiny
    size = max(abs(expected), mp.mpf(float(tiny)))
    return float(abs(mp.mpf(float(got)) - expected) / (size * mp.mpf(float(np.finfo(dtype).eps))))


BCES = [(f, 0.0, 1.0) for f in (naive_bce, naive_softplus_bce, careful_bce, keras_bce)]


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("function", "low", "high"), [*BCES, (naive_logistic, -1.0, 1.0)], ids=lambda x: getattr(x, "__name__", "")
)
def test_naive_texts_are_within_four_ulp(function, low, high, dtype):
    loss = fl.loss(function)
    z = far_points(dtype)
    for target in (low, high):
        t = np.full_like(z, target)
        values = loss(z, t, reduction="none")
        _, slopes = loss.value_and_grad(z, t, reduction="sum")
        sign = target if low < 0 else 1.0
        for i, x in enumerate(z):
            share = mp.mpf((target - low) / (high - low))
            value, slope = mp_bce(mp.mpf(float(x)), share), mp_slope(mp.mpf(float(x)), share)
            assert ulps(values[i], value, dtype) <= 4.0, (float(x), target, values[i], float(value))
            assert ulps(slopes[i], slope, dtype) <= 4.0, (float(x), target, sign, slopes[i], float(slope))


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_naive_text_with_soft_targets_is_within_four_ulp(dtype):
    z, t = far_points(dtype), dtype(0.3)
    values = fl.loss(naive_bce)(z, np.full_like(z, t), reduction="none")
    for x, value in zip(z, values, strict=True):
        assert ulps(value, mp_bce(mp.mpf(float(x)), mp.mpf(float(t))), dtype) <= 4.0, (float(x), value)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("sqrt(1 + z**2) - 1", lambda z: mp.sqrt(1 + z * z) - 1 if abs(z) < 1e60 else abs(z)),
        ("log(cosh(z))", lambda z: mp.log(mp.cosh(z))),
        ("log(1 + abs(z))", lambda z: mp.log1p(abs(z))),
        ("exp(-abs(z)) - 1", lambda z: mp.expm1(-abs(z))),
    ],
)
def test_other_rules_keep_digits_over_the_range(text, truth):
    for dtype in (np.float32, np.float64):
        z = far_points(dtype)
        with mp.workdps(400):
            for x, value in zip(z, fl.formula(text)(z, reduction="none"), strict=True):
                expected = truth(mp.mpf(float(x)))
                assert ulps(value, expected, dtype) <= 6.0, (dtype, float(x), value, float(expected))
