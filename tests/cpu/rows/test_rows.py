"""Values and derivatives of row-wise losses through their compiled kernels, and extreme numbers.

The oracle of the digits is a textbook of a few lines in mpmath, whose derivatives are taken numerically at 50 digits.
"""

import math

import mpmath as mp
import numpy as np
import pytest
from row_cases import (
    CLASSES,
    CURVED,
    ROWS,
    SOFTMAX,
    VARIANTS,
    each_dtype,
    kinds,
    scores,
    targets,
)

import fastloss as fl
from fastloss import reference

CASES = [pytest.param(n, v, id=f"{n}-{v}" if v else n) for n in ROWS for v in VARIANTS.get(n, [{}])]


# The textbook in mpmath: z a list of numbers, t a label or a list of probabilities.
def textbook(name, z, t, class_weight=None, **p):
    k = len(z)
    p = {**ROWS[name].record.defaults, **p}
    if name == "crps_ensemble":
        pairs = k * (k - 1) if p["fair"] and k > 1 else k * k
        spread = sum(abs(a - b) for a in z for b in z) / (2 * mp.mpf(pairs))
        return sum(abs(x - t) for x in z) / k - spread
    if name in ("multi_margin", "crammer_singer"):
        each = [max(0, mp.mpf(p["margin"]) + z[j] - z[t]) for j in range(k) if j != t]
        w = class_weight[t] if class_weight else 1
        return w * (sum(x ** int(p["p"]) for x in each) / k if name == "multi_margin" else max(each, default=0))
    dense = isinstance(t, list)
    if name in TEXTBOOKS:
        goal = t if dense or name in ("ordinal", "arcface", "cosface") else [mp.mpf(j == t) for j in range(k)]
        return TEXTBOOKS[name](z, goal, **p)
    target = t if dense else [mp.mpf(j == t) for j in range(k)]
    c = class_weight or [1] * k
    lse = mp.mpf(0)
    lp = z
    if ROWS[name].record.loop == "softmax":
        beta = mp.mpf(p["logit_scale"]) / mp.mpf(p["temperature"])
        z = [beta * x for x in z]
        lse = mp.log(mp.fsum(mp.exp(x) for x in z))
        lp = [x - lse for x in z]
    e = mp.mpf(p.get("label_smoothing", 0.0))
    target = [(1 - e) * x + e / k for x in target]
    prob = [mp.exp(x) for x in lp]
    rest = [mp.fsum(prob[:j] + prob[j + 1 :]) if k > 1 else mp.mpf(0) for j in range(k)]
    terms = {
        "cross_entropy": lambda j: -lp[j],
        "nll": lambda j: -lp[j],
        "softmax_focal": lambda j: -(rest[j] ** mp.mpf(p["gamma"]) if p["gamma"] else 1) * lp[j],
        "poly1_cross_entropy": lambda j: -lp[j] + mp.mpf(p["epsilon"]) * rest[j],
        "generalized_cross_entropy": lambda j: -mp.expm1(mp.mpf(p["q"]) * lp[j]) / mp.mpf(p["q"]),
        "kl_div": lambda j: mp.log(target[j]) - lp[j],
    }
    if name == "label_relaxation":
        total = mp.mpf(0)
        a = mp.mpf(p["alpha"])
        for j in range(k):
            if target[j] and rest[j] > a:
                others = [a * prob[i] / rest[j] for i in range(k) if i != j]
                projected = [*others[:j], 1 - a, *others[j:]]
                total += target[j] * mp.fsum(r * mp.log(r / x) for r, x in zip(projected, prob, strict=True) if r)
        return total
    if name == "js_div":
        b = mp.mpf(p["beta"])
        m = [b * target[j] + (1 - b) * prob[j] for j in range(k)]
        first = mp.fsum(target[j] * mp.log(target[j] / m[j]) for j in range(k) if target[j])
        return b * first + (1 - b) * mp.fsum(prob[j] * mp.log(prob[j] / m[j]) for j in range(k) if prob[j])
    total = mp.fsum(c[j] * target[j] * terms[name](j) for j in range(k) if target[j])
    return total + mp.mpf(p.get("z_loss", 0.0)) * lse**2


def sparsemax(z, t):
    down = sorted(z, reverse=True)
    size = max(j for j in range(1, len(z) + 1) if 1 + j * down[j - 1] > mp.fsum(down[:j]))
    tau = (mp.fsum(down[:size]) - 1) / size
    p = [max(x - tau, 0) for x in z]
    # The supremum of <q, z> - |q|^2 / 2 over probabilities q is that at p.
    conjugate = mp.fsum(a * b for a, b in zip(p, z, strict=True)) - mp.fsum(a * a for a in p) / 2
    return conjugate + mp.fsum(a * a for a in t) / 2 - mp.fsum(a * b for a, b in zip(t, z, strict=True))


def evidential(z, t, lam):
    alpha = [1 + mp.log1p(mp.exp(x)) for x in z]
    s = mp.fsum(alpha)
    risk = mp.fsum((y - a / s) ** 2 + a * (s - a) / (s * s * (s + 1)) for a, y in zip(alpha, t, strict=True))
    wrong = [y + (1 - y) * a for a, y in zip(alpha, t, strict=True)]
    total = mp.fsum(wrong)
    divergence = mp.loggamma(total) - mp.loggamma(len(z)) - mp.fsum(mp.loggamma(a) for a in wrong)
    divergence += mp.fsum((a - 1) * (mp.psi(0, a) - mp.psi(0, total)) for a in wrong)
    return risk + mp.mpf(lam) * divergence


def distilled(z, t, temperature):
    p, q = ([mp.exp(x / mp.mpf(temperature)) for x in row] for row in (z, t))
    p, q = ([x / mp.fsum(row) for x in row] for row in (p, q))
    return mp.mpf(temperature) ** 2 * mp.fsum(b * mp.log(b / a) for a, b in zip(p, q, strict=True) if b)


def angular(z, y, scale, changed):
    z = [mp.mpf(scale) * x for x in (*z[:y], changed, *z[y + 1 :])]
    return mp.log(mp.fsum(mp.exp(x) for x in z)) - z[y]


def arc(x, margin):
    m = mp.mpf(margin)
    return mp.cos(mp.acos(x) + m) if mp.acos(x) + m <= mp.pi else x - m * mp.sin(m)


TEXTBOOKS = {
    "tv_distance": lambda lp, t: mp.fsum(abs(mp.exp(x) - y) for x, y in zip(lp, t, strict=True)) / 2,
    "reverse_kl": lambda lp, t: mp.fsum(mp.exp(x) * (x - mp.log(y)) for x, y in zip(lp, t, strict=True)),
    "sparsemax_loss": sparsemax,
    "ordinal": lambda z, y: mp.fsum(mp.log1p(mp.exp(-x if y > j else x)) for j, x in enumerate(z)),
    "dirichlet_evidential": evidential,
    "distillation": distilled,
    "arcface": lambda z, y, margin, scale: angular(z, y, scale, arc(z[y], margin)),
    "cosface": lambda z, y, margin, scale: angular(z, y, scale, z[y] - mp.mpf(margin)),
}


# The largest term of a value that is a difference of terms: the value has no digits below a rounding error of it.
LARGEST = {"dirichlet_evidential": lambda z: mp.loggamma(len(z) + mp.fsum(mp.log1p(mp.exp(x)) for x in z))}


def numbers(x):
    return [mp.mpf(float(v)) for v in x]


def in_type(options, dtype):
    """Parameters as a kernel of that precision has them."""
    return {k: v if isinstance(v, bool) else float(dtype(v)) for k, v in options.items()}


def as_target(t):
    return numbers(t) if np.ndim(t) else (int(t) if t.dtype.kind == "i" else mp.mpf(float(t)))


def along(name, row, t, j, **options):
    """The textbook as a function of score j."""
    return lambda x: textbook(name, [*row[:j], x, *row[j + 1 :]], t, **options)


# Values and derivatives ----------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_derivatives_at_fifty_digits(name, variant, dtype):
    """Value, gradient and diagonal of the second derivative of small rows, in units of rounding errors."""
    rng = np.random.default_rng(21)
    loss = ROWS[name].bind(**variant)
    options = in_type(variant, dtype)
    eps = float(np.finfo(dtype).eps)
    for k in (2, 5) if name not in SOFTMAX else (2, 5, 33):
        n = 2 if k < 33 else 1
        for kind in kinds(name):
            z = scores(rng, name, n, k, dtype)
            t = targets(rng, name, kind, n, k, dtype)
            values, grads = loss.value_and_grad(z, t, reduction="none")
            first, hess = loss.grad_and_hess(z, t) if name in CURVED else (grads, grads)
            assert values.dtype == grads.dtype == hess.dtype == dtype
            for i in range(n):
                row, goal = numbers(z[i]), as_target(t[i])
                exact = textbook(name, row, goal, **options)
                largest = float(max(abs(x) for x in row))
                # Rounding z - max moves p by |z - max| rounding errors; sums of terms of either sign keep theirs.
                used = {**loss.record.defaults, **options}
                beta = used.get("logit_scale", 1.0) * used.get("scale", 1.0) / used.get("temperature", 1.0)
                unit = eps * (12 + 2 * largest * max(1.0, beta))
                lost = eps * float(LARGEST[name](row)) if name in LARGEST else 0.0
                assert abs(float(exact) - values[i]) <= unit * max(abs(float(exact)), 0.1) + lost, (k, kind, i)
                for j in range(k) if k < 33 else (0, 7, int(np.argmax(z[i]))):
                    f = along(name, row, goal, j, **options)
                    slope = float(mp.diff(f, row[j]))
                    assert abs(grads[i, j] - slope) <= unit * max(abs(slope), 0.1), (k, kind, i, j)
                    assert abs(first[i, j] - slope) <= unit * max(abs(slope), 0.1)
                    if name not in CURVED:
                        continue
                    bend = float(mp.diff(f, row[j], 2))
                    assert abs(hess[i, j] - bend) <= 2 * unit * max(abs(bend), 0.2), (k, kind, i, j)


REFERENCES = {n: getattr(reference, n) for n in ROWS}


@each_dtype
@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize("name", [n for n in ROWS if n != "crps_ensemble"])
def test_values_of_the_textbook(name, k, dtype):
    rng = np.random.default_rng(22)
    n = 70 if k < 1000 else 5
    for variant in VARIANTS.get(name, [{}]):
        kind = "dense" if name == "kl_div" else kinds(name)[0]
        z, t = scores(rng, name, n, k, dtype), targets(rng, name, kind, n, k, dtype)
        options = in_type(variant, dtype)
        if "logit_scale" in options:
            options["temperature"] = 1.0 / options.pop("logit_scale")
        wide = z.astype(np.float64)
        if name in SOFTMAX[1:]:
            wide = wide / options.pop("temperature", 1.0)
        with np.errstate(all="ignore"):
            expected = REFERENCES[name](wide, t if t.dtype.kind == "i" else t.astype(np.float64), **options)
        if name == "crammer_singer" and k == 1:
            expected = np.zeros(n)
        got = ROWS[name](z, t, reduction="none", **variant)
        rel = 1e-5 if dtype is np.float32 else 1e-13
        np.testing.assert_allclose(got, expected, rtol=rel, atol=rel)
        mean = ROWS[name](z, t, **variant)
        assert type(mean) is float
        assert mean == pytest.approx(float(got.astype(np.float64).mean()), rel=1e-6 if dtype is np.float32 else 1e-14)


@each_dtype
@pytest.mark.parametrize("k", [1, 2, 10, 40])
def test_crps_of_an_ensemble(k, dtype):
    rng = np.random.default_rng(23)
    x, t = rng.normal(size=(30, k)).astype(dtype), rng.normal(size=30).astype(dtype)
    x[0] = x[0, 0]
    for fair in (False, True) if k > 1 else (False,):
        expected = reference.crps_ensemble(x.astype(np.float64), t.astype(np.float64), fair=fair)
        got = fl.crps_ensemble(x, t, fair=fair, reduction="none")
        np.testing.assert_allclose(got, expected, atol=20 * np.finfo(dtype).eps)


@each_dtype
@pytest.mark.parametrize("k", CLASSES)
def test_cross_entropy_and_its_gradient_against_float64(k, dtype):
    """Every class count, both targets, with class weights: the gradient in closed form."""
    rng = np.random.default_rng(24)
    n = 130 if k < 1000 else 9
    z = rng.normal(0, 4, (n, k)).astype(dtype)
    c = rng.gamma(1.0, size=k).astype(dtype)
    for kind in ("labels", "dense"):
        t = targets(rng, "cross_entropy", kind, n, k, dtype)
        dense = np.eye(k)[t] if kind == "labels" else t.astype(np.float64)
        for eps in (0.0, 0.2):
            e = float(dtype(eps))
            q = c * ((1 - e) * dense + e / k)
            wide = z.astype(np.float64)
            lp = wide - wide.max(axis=1, keepdims=True)
            lp -= np.log(np.exp(lp).sum(axis=1, keepdims=True))
            p = np.exp(lp)
            mass = q.sum(axis=1, keepdims=True)
            values, grads = fl.cross_entropy.value_and_grad(z, t, class_weight=c, label_smoothing=eps, reduction="none")
            tolerance = 40 * np.finfo(dtype).eps
            np.testing.assert_allclose(values, -(q * lp).sum(axis=1), rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(grads, mass * p - q, rtol=tolerance, atol=tolerance * float(c.max()))
            first, hess = fl.cross_entropy.grad_and_hess(z, t, class_weight=c, label_smoothing=eps)
            np.testing.assert_allclose(first, grads, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(hess, mass * p * (1 - p), rtol=tolerance, atol=tolerance * float(c.max()))


# Small numbers and large ones ----------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("k", [2, 5, 40])
@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_a_probability_near_one_keeps_its_complement(k, kind, dtype):
    """At p = 0.999999 and beyond, the loss and the gradient at the true class are right in every digit."""
    for gap in (5.0, 13.8, 20.0, 39.0, 60.0):
        z = np.zeros((1, k), dtype)
        z[0, 1] = gap
        t = np.array([1]) if kind == "labels" else np.eye(k, dtype=dtype)[[1]]
        value, grad = fl.cross_entropy.value_and_grad(z, t)
        row = numbers(z[0])
        tail = (k - 1) * mp.exp(-row[1])
        eps = float(np.finfo(dtype).eps)
        assert value == pytest.approx(float(mp.log1p(tail)), rel=8 * eps, abs=0)
        assert grad[0, 1] == pytest.approx(float(-tail / (1 + tail)), rel=8 * eps, abs=0)
        assert grad[0, 0] == pytest.approx(float(tail / (1 + tail) / (k - 1)), rel=8 * eps, abs=0)
        hess = fl.cross_entropy.grad_and_hess(z, t)[1]
        assert hess[0, 1] == pytest.approx(float(tail / (1 + tail) ** 2), rel=10 * eps, abs=0)


@pytest.mark.parametrize("k", [3, 40])
def test_a_loss_of_1e_17_is_not_zero(k):
    z = np.zeros((1, k))
    z[0, 0] = 40.0
    assert fl.cross_entropy(z, np.array([0])) == pytest.approx((k - 1) * math.exp(-40.0), rel=1e-15)


@each_dtype
@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_logits_of_ten_thousand(k, kind, dtype):
    z = np.full((4, k), -1e4, dtype)
    z[0, 0] = z[1, 1] = z[3, :] = 1e4
    labels = np.array([0, 0, 2, 1])
    t = labels if kind == "labels" else np.eye(k, dtype=dtype)[labels]
    values, grads = fl.cross_entropy.value_and_grad(z, t, reduction="none")
    np.testing.assert_allclose(values, [0.0, 2e4, math.log(k), math.log(k)], rtol=1e-6)
    expected = np.zeros((4, k))
    expected[1, 0], expected[1, 1] = -1.0, 1.0
    expected[2:] = 1 / k
    expected[2, 2] = expected[3, 1] = 1 / k - 1
    np.testing.assert_allclose(grads, expected, rtol=1e-6, atol=0)


@each_dtype
@pytest.mark.parametrize("k", [4, 40])
@pytest.mark.parametrize("name", SOFTMAX)
def test_minus_infinity_masks_a_class(name, k, dtype):
    """A logit of -inf is a class that is not there."""
    rng = np.random.default_rng(25)
    z = rng.normal(size=(6, k)).astype(dtype)
    t = rng.integers(0, k - 1, 6)
    masked = np.concatenate([z, np.full((6, 1), -np.inf, dtype)], axis=1)
    values, grads = ROWS[name].value_and_grad(z, t, reduction="none")
    got, got_grads = ROWS[name].value_and_grad(masked, t, reduction="none")
    np.testing.assert_allclose(got, values, rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(got_grads[:, :-1], grads, rtol=1e-5 if dtype is np.float32 else 1e-13)
    assert not got_grads[:, -1].any()


@each_dtype
@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("name", ROWS)
def test_nan_rows_stay_nan_and_alone(name, k, dtype):
    rng = np.random.default_rng(26)
    for kind in kinds(name):
        z = scores(rng, name, 5, k, dtype)
        t = targets(rng, name, kind, 5, k, dtype)
        if kind == "labels":
            t[2] = 1
        elif kind == "dense":
            t[2] = 1 / k
        z[2, 1] = np.nan
        values, grads = ROWS[name].value_and_grad(z, t, reduction="none")
        assert np.isnan(values[2])
        # A logarithm's loss is linear in it.
        assert np.isnan(grads[2]).any() or name in ("nll", "kl_div")
        keep = [0, 1, 3, 4]
        assert np.isfinite(values[keep]).all()
        assert np.isfinite(grads[keep]).all()
        assert math.isnan(ROWS[name].value_and_grad(z, t)[0])


@each_dtype
@pytest.mark.parametrize("name", SOFTMAX)
def test_one_class_costs_nothing(name, dtype):
    z = np.array([[3.0], [-1e4], [0.0]], dtype)
    for t in (np.zeros(3, np.int64), np.ones((3, 1), dtype)):
        value, grad = ROWS[name].value_and_grad(z, t)
        assert value == 0.0
        assert not grad.any()
        assert not ROWS[name].grad_and_hess(z, t)[1].any()


@each_dtype
@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_finite_when_saturated(gamma, k, dtype):
    z = np.zeros((2, k), dtype)
    z[:, 0] = 1e4
    t = np.array([0, 1])
    values, grads = fl.softmax_focal.value_and_grad(z, t, gamma=gamma, reduction="none")
    np.testing.assert_allclose(values, [0.0, 1e4])
    assert np.isfinite(grads).all()
    np.testing.assert_allclose(grads[1, :2], [1.0, -1.0])
    assert np.isfinite(fl.softmax_focal.grad_and_hess(z, t, gamma=gamma)[1]).all()
