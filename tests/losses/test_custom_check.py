"""The report of a loss of a user's own: accuracy, domain, kinks, shape."""

import builtins
import math

import numpy as np
import pytest

import fastloss as fl

pytest.importorskip("mpmath")
pytestmark = pytest.mark.jit


def test_a_naive_formula_and_what_rewriting_gained():
    @fl.loss(target=(0, 1))
    def naive(z, t):
        return np.log(1 + np.exp(z)) - z * t

    report = naive.check()
    for accuracy in report.accuracy:
        assert accuracy.errors[0] <= 4.0
        assert accuracy.as_written > 1e4
    assert report.convex
    assert report.differentiable
    assert report.undefined is None
    assert report.lipschitz == pytest.approx(1.0, abs=1e-3)
    text = str(report)
    assert "log(1 + exp(x)) -> softplus(x)" in text
    assert "def formula(z, t):" in text
    assert "Convex: yes, at all points" in text


def test_a_formula_that_no_rule_saves_says_so():
    report = fl.formula("log(2 + exp(z)) - z").check()
    assert report.accuracy[0].errors[0] > 1e4
    assert report.rewrites == ()
    worst = report.accuracy[0].worst[0]
    assert worst.point["z"] > 10.0
    text = str(report)
    assert "no stabilising rule applies" in text
    assert "Digits are lost here that no rule of fastloss saves" in text
    assert f"z={worst.point['z']:.9g}" in text


KINKS = {
    "abs(z - t)": ("where z - t = 0 the slope jumps",),
    "maximum(0, 1 - z * t)": ("the slope jumps",),
    "(z - t)**2": (),
    "abs(z - t)**3": (),
    "where(z > t, 1, 0) + 0 * z": ("where z - t = 0 the value jumps",),
    "where(abs(z - t) < 1, (z - t)**2 / 2, abs(z - t) - 0.5)": (),
}


@pytest.mark.parametrize("text", KINKS)
def test_kinks(text):
    report = fl.formula(text).check(40)
    assert len(report.kinks) == len(KINKS[text])
    for found, expected in zip(report.kinks, KINKS[text], strict=True):
        assert expected in found
    assert report.differentiable == (not KINKS[text])


def test_shapes():
    assert fl.formula("abs(z - t)").check(40).convex
    assert not fl.formula("-abs(z - t)").check(40).convex
    assert fl.formula("-abs(z - t)").check(40).concave_at is not None
    assert not fl.formula("tanh((z - t)**2)").check(40).convex
    assert math.isinf(fl.formula("(z - t)**2").check(40).lipschitz)
    assert math.isinf(fl.formula("-t * log(p)", prediction=(0, 1), target=(0, 1)).check(40).lipschitz)


def test_domains_are_found():
    report = fl.formula("log(z) * t").check()
    assert report.undefined["z"] <= 0.0
    assert 0.3 < report.outside < 0.7
    assert report.domain == "prediction=(0, np.inf)"
    assert "declare its domain: prediction=(0, np.inf)" in str(report)
    assert fl.formula("log(z) * t", prediction=(1e-6, math.inf)).check(40).undefined is None


def test_several_predictions_and_parameters():
    @fl.loss(prediction={"scale": (1e-3, math.inf)})
    def laplace(mean, scale, t, width=1.0):
        return width * abs(mean - t) / scale + np.log(2 * scale)

    report = laplace.bind(width=2.0).check(60)
    assert report.accuracy[1].errors[1] < 100.0
    assert report.kinks == ("where mean - t = 0 the slope jumps",)


def test_points_are_checked_by_their_own_kernel():
    @fl.array_loss("points", inputs={"near": 1, "far": 2}, grad=("far",))
    def margin(near, u, v, least=1.0):
        return np.maximum(near - u * v + least, 0)

    report = margin.bind(least=0.5).check(20)
    assert len(report.kinks) == 1
    assert report.domain == ""
    assert math.isinf(report.lipschitz)
    for accuracy in report.accuracy:
        value, first = accuracy.errors
        # The derivatives are the numbers of the point themselves; the value is a difference of rounded products.
        assert first == 0.0
        assert 0.0 < value < 1e6
        assert accuracy.worst[0].order == "value"
    assert "(value, first derivative; value as written)" in str(report)


def test_points_that_lose_digits_say_where():
    @fl.array_loss("points", inputs={"a": 1, "b": 1})
    def lost(a, b):
        return np.log(2 + np.exp(a)) - a + 0 * b

    worst = lost.check(40).accuracy[0].worst[0]
    assert worst.point["a"] > 10.0
    assert worst.exact == pytest.approx(math.log1p(2.0 * math.exp(-worst.point["a"])), rel=1e-12)


def test_regions_and_pairs_are_checked_by_their_formula():
    @fl.array_loss("regions")
    def missed(tp, fp, fn, tn, k=1.0):
        return fn / (k * tp + fn)

    report = missed.bind(k=2.0).check(20)
    assert report.undefined is None
    assert report.accuracy[1].errors[0] < 4.0
    assert not report.convex
    assert min(report.accuracy[0].worst[0].point.values()) >= 0.0

    @fl.array_loss("pairs")
    def contrast(d, t):
        return np.where(t > 0.5, d * d, np.maximum(1.0 - d, 0.0) ** 2)

    report = contrast.check(20)
    assert report.convex
    assert report.differentiable
    assert report.accuracy[0].errors[0] < 4.0
    assert "Finite: at all points" in str(report)


def test_without_mpmath_it_names_the_extra(monkeypatch):
    real = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name == "mpmath":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    loss = fl.formula("z**2")
    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(ImportError, match=r'pip install "fastloss\[check\]"'):
        loss.check()
