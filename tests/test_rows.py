"""Losses of rows of K scores, through their compiled kernels: both targets, both layouts of the loop, every option.

The oracle of the digits is a textbook of a few lines in mpmath, whose derivatives are taken numerically at 50 digits.
"""

import math

import mpmath as mp
import numpy as np
import pytest
from numba import config

import fastloss as fl
from fastloss import reference
from fastloss.formulas.record import LOOPS

DTYPES = [np.float32, np.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
ROWS = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "rows"}
# Below 33 classes labels go through a transposed tile, from there on row by row; 512 is the block of a sum.
CLASSES = [1, 2, 3, 10, 31, 32, 33, 100, 1000]
if config.DISABLE_JIT:
    CLASSES = [1, 2, 3, 10, 33]
SOFTMAX = ["cross_entropy", "softmax_focal", "poly1_cross_entropy", "generalized_cross_entropy", "label_relaxation"]
CURVED = [name for name, loss in ROWS.items() if loss.record.second]
VARIANTS = {
    "cross_entropy": [
        {},
        {"label_smoothing": 0.1},
        {"temperature": 2.5},
        {"logit_scale": 0.3, "z_loss": 1e-2},
        {"label_smoothing": 0.3, "z_loss": 0.1, "temperature": 0.7},
    ],
    "softmax_focal": [{}, {"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 1.0}, {"temperature": 2.0}],
    "poly1_cross_entropy": [{}, {"epsilon": -0.5}, {"logit_scale": 2.0}],
    "generalized_cross_entropy": [{}, {"q": 0.1}, {"q": 1.0}],
    "js_div": [{}, {"beta": 0.1}],
    "multi_margin": [{}, {"p": 2.0}, {"margin": 0.3}],
    "crammer_singer": [{}, {"margin": 0.3}],
    "crps_ensemble": [{}, {"fair": True}],
    "label_relaxation": [{}, {"alpha": 0.0}, {"alpha": 0.4, "temperature": 2.0}],
    "dirichlet_evidential": [{}, {"lam": 0.0}, {"lam": 0.25}],
    "distillation": [{}, {"temperature": 1.0}, {"temperature": 0.7}],
    "arcface": [{}, {"margin": 0.0}, {"margin": 1.5, "scale": 4.0}],
    "cosface": [{}, {"margin": 0.1, "scale": 8.0}],
}
CASES = [pytest.param(n, v, id=f"{n}-{v}" if v else n) for n in ROWS for v in VARIANTS.get(n, [{}])]


def probabilities(rng, n, k, dtype=np.float64):
    """Rows of probabilities, some of them 0."""
    t = rng.gamma(0.5, size=(n, k)) * (rng.random((n, k)) < 0.8)
    t[:, 0] += 0.01
    return (t / t.sum(axis=1, keepdims=True)).astype(dtype)


def scores(rng, name, n, k, dtype, spread=3.0):
    """Logits, or log-probabilities where the loss takes them."""
    z = rng.normal(0, spread, (n, k))
    if ROWS[name].record.loop in ("log_probs", "divergence"):
        z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
    return (np.tanh(z / spread / 2) if ROWS[name].record.loop == "angular" else z).astype(dtype)


def targets(rng, name, kind, n, k, dtype):
    if name == "crps_ensemble":
        return rng.normal(size=n).astype(dtype)
    if kind == "labels":
        return rng.integers(0, k + (name == "ordinal"), n)
    if name == "distillation":
        return rng.normal(0, 2, (n, k)).astype(dtype)
    # Where a target is 0, reverse_kl is infinite.
    return rng.dirichlet(np.ones(k), n).astype(dtype) if name == "reverse_kl" else probabilities(rng, n, k, dtype)


def kinds(name):
    """The kinds of target that a loss takes."""
    loop = LOOPS[ROWS[name].record.loop]
    return ("labels",) * loop.labels + {"": (), "number": ("observed",)}.get(loop.dense, ("dense",))


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
        n = 3 if k < 33 else 1
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
                assert abs(float(exact) - values[i]) <= unit * max(abs(float(exact)), 0.1), (k, kind, i)
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


# Options -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[4, 40], ids=["tile", "row"])
def batch(request):
    """(logits, labels) for either loop."""
    rng = np.random.default_rng(27)
    return rng.normal(size=(50, request.param)), rng.integers(0, request.param, 50)


@pytest.mark.parametrize("name", [n for n in ROWS if "labels" in kinds(n)])
@pytest.mark.parametrize("index", [-100, 255, 0, 3, -1])
def test_ignored_rows_have_no_part(name, batch, index):
    z, t = batch
    t = t.copy()
    t[::4] = index
    keep = t != index
    loss = ROWS[name]
    value, grad = loss.value_and_grad(z, t, ignore_index=index)
    expected, expected_grad = loss.value_and_grad(z[keep], t[keep], ignore_index=None)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(grad[keep], expected_grad, rtol=1e-12, atol=1e-18)
    assert not grad[~keep].any()
    rows = loss(z, t, ignore_index=index, reduction="none")
    assert not rows[~keep].any()
    if name in CURVED:
        first, hess = loss.grad_and_hess(z, t, ignore_index=index)
        assert not first[~keep].any()
        assert not hess[~keep].any()


@pytest.mark.parametrize("name", [n for n in ROWS if "labels" in kinds(n)])
def test_ignored_rows_may_hold_anything(name, batch):
    z, t = batch[0].copy(), batch[1].copy()
    t[[1, 5, 9]] = -100
    expected = ROWS[name].value_and_grad(z, t)
    z[1], z[5], z[9, 0] = np.nan, np.inf, -np.inf
    value, grad = ROWS[name].value_and_grad(z, t)
    assert value == expected[0]
    assert np.array_equal(grad, expected[1])
    assert name not in CURVED or not any(x[[1, 5, 9]].any() for x in ROWS[name].grad_and_hess(z, t))


@each_dtype
@pytest.mark.parametrize("name", [n for n in ROWS if "labels" in kinds(n)])
def test_everything_ignored(name, batch, dtype):
    z = batch[0].astype(dtype)
    for reduction in ("mean", "sum"):
        value, grad = ROWS[name].value_and_grad(z, np.full(50, -100), reduction=reduction)
        assert value == 0.0
        assert grad.dtype == dtype
        assert not grad.any()
    value, grad = ROWS[name].value_and_grad(z, batch[1], weight=np.zeros(50))
    assert value == 0.0
    assert not grad.any()


@pytest.mark.parametrize("name", ROWS)
def test_no_rows(name):
    for shape in ((0, 4), (0, 40), (3, 0, 4)):
        t = np.empty(shape[:-1], np.int64 if "labels" in kinds(name) else np.float64)
        t = np.empty(shape) if kinds(name) == ("dense",) else t
        value, grad = ROWS[name].value_and_grad(np.empty(shape), t)
        assert value == 0.0
        assert grad.shape == shape


def test_labels_are_never_read_out_of_bounds(batch):
    z, t = batch
    k = z.shape[1]
    for wrong in (k, -1, -2, 10**12, -(2**63)):
        bad = t.copy()
        bad[7] = wrong
        with pytest.raises(ValueError, match=rf"target\[7\] is {wrong}; allowed: 0 to {k - 1}"):
            fl.cross_entropy.value_and_grad(z, bad)
    with pytest.raises(ValueError, match="-100"):
        fl.cross_entropy(z, np.full(50, -100), ignore_index=None)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64, np.bool_])
def test_any_integer_type_of_labels(batch, kind):
    z, t = batch
    t = np.minimum(t, 1) if kind is np.bool_ else t
    expected = fl.cross_entropy.value_and_grad(z, t)
    value, grad = fl.cross_entropy.value_and_grad(z, t.astype(kind))
    assert value == expected[0]
    assert np.array_equal(grad, expected[1])


@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_weights_of_rows(batch, kind):
    rng = np.random.default_rng(28)
    z, t = batch
    k = z.shape[1]
    t = t if kind == "labels" else probabilities(rng, 50, k)
    w, c = rng.gamma(1.0, size=50), rng.gamma(1.0, size=k)
    w[::7] = 0.0
    rows, grads = fl.cross_entropy.value_and_grad(z, t, class_weight=c, reduction="none")
    # The class weight of a label is part of the mean's divisor; that of probabilities is not: as torch.
    mass = float((w * c[t]).sum() if kind == "labels" else w.sum())
    for reduction, divisor, scale in (("mean", None, 1 / mass), ("sum", None, 1.0), ("mean", 7.0, 1 / 7)):
        value, grad = fl.cross_entropy.value_and_grad(
            z, t, weight=w, class_weight=c, reduction=reduction, divisor=divisor
        )
        assert value == pytest.approx(float((w * rows).sum()) * scale, rel=1e-13)
        np.testing.assert_allclose(grad, grads * w[:, None] * scale, rtol=1e-12, atol=1e-17)
    each = fl.cross_entropy(z, t, weight=w, class_weight=c, reduction="none")
    np.testing.assert_allclose(each, w * rows, rtol=1e-13)
    first, hess = fl.cross_entropy.grad_and_hess(z, t, weight=w, class_weight=c)
    np.testing.assert_allclose(first, grads * w[:, None], rtol=1e-12, atol=1e-17)
    unweighted = fl.cross_entropy.grad_and_hess(z, t, class_weight=c)[1]
    np.testing.assert_allclose(hess, unweighted * w[:, None], rtol=1e-12, atol=1e-17)


OTHERS = ["softmax_focal", "multi_margin", "crammer_singer", "nll", "js_div", "tv_distance", "label_relaxation"]
OTHERS += ["sparsemax_loss", "ordinal", "dirichlet_evidential", "distillation", "arcface"]


@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_other_losses(name, batch):
    rng = np.random.default_rng(29)
    z, t = batch
    k = z.shape[1]
    t = t if "labels" in kinds(name) else probabilities(rng, 50, k)
    if ROWS[name].record.loop in ("log_probs", "divergence"):
        z = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    w = rng.gamma(1.0, size=50)
    rows, grads = ROWS[name].value_and_grad(z, t, reduction="none")
    value, grad = ROWS[name].value_and_grad(z, t, weight=w)
    assert value == pytest.approx(float((w * rows).sum() / w.sum()), rel=1e-13)
    np.testing.assert_allclose(grad, grads * (w / w.sum())[:, None], rtol=1e-12, atol=1e-17)


def test_a_divergence_takes_no_labels(batch):
    """Its classes of target 0 count too: reading the label alone would give another number."""
    with pytest.raises(TypeError, match="js_div: the target has dtype int64; expected probabilities"):
        fl.js_div(*batch)


def test_surrogate_curvature_is_not_negative(batch):
    z, t = batch
    for name in ("multi_margin", "crammer_singer"):
        first, second = ROWS[name].grad_and_hess(z, t, curvature="surrogate")
        assert np.array_equal(first, ROWS[name].grad_and_hess(z, t)[0])
        assert (second >= 0).all()
        assert second[np.arange(50), t].any()


# Layouts -------------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("name", [n for n in ROWS if n != "crps_ensemble"])
def test_classes_along_any_axis(name, k, dtype):
    """(N, C, H, W) against labels (N, H, W), as segmentation has them."""
    rng = np.random.default_rng(30)
    z = scores(rng, name, 2 * 3 * 4, k, dtype).reshape(2, 3, 4, k)
    dense = "labels" not in kinds(name) or name == "kl_div"
    t = targets(rng, name, "dense", 24, k, dtype).reshape(z.shape) if dense else rng.integers(0, k, (2, 3, 4))
    loss = ROWS[name]
    expected = loss.value_and_grad(z, t)
    rows, second = loss(z, t, reduction="none"), loss.grad_and_hess if name in CURVED else loss.value_and_grad
    details = second(z, t)
    for axis in (1, -3):
        moved = np.ascontiguousarray(np.moveaxis(z, -1, axis))
        goal = np.ascontiguousarray(np.moveaxis(t, -1, axis)) if dense else t
        before = moved.copy()
        value, grad = loss.value_and_grad(moved, goal, axis=axis)
        assert value == expected[0]
        assert grad.shape == moved.shape
        assert np.array_equal(grad, np.moveaxis(expected[1], -1, axis))
        assert np.array_equal(loss(moved, goal, axis=axis, reduction="none"), rows)
        for got, wanted in zip(second(moved, goal, axis=axis), details, strict=True):
            assert np.array_equal(got, np.moveaxis(wanted, -1, axis) if np.ndim(wanted) else wanted)
        out = np.full(moved.shape, np.nan, dtype)
        assert loss.value_and_grad(moved, goal, axis=axis, out=out)[1] is out
        assert np.array_equal(out, grad)
        assert np.array_equal(moved, before)


@pytest.mark.parametrize("k", [5, 40])
def test_strided_and_read_only_rows(k):
    rng = np.random.default_rng(31)
    whole, t = rng.normal(size=(60, 2 * k)), rng.integers(0, k, 30)
    z = whole[::2, ::-2]
    expected = fl.cross_entropy.value_and_grad(np.ascontiguousarray(z), t)
    whole.flags.writeable = False
    value, grad = fl.cross_entropy.value_and_grad(z, t)
    assert value == expected[0]
    assert np.array_equal(grad, expected[1])
    out = np.empty((30, 2 * k))[:, ::2]
    assert fl.cross_entropy.value_and_grad(z, t, out=out)[1] is out
    assert np.array_equal(out, expected[1])


@each_dtype
@pytest.mark.parametrize("k", [3, 10, 32, 33, 700])
def test_row_counts_around_tiles_and_chunks(k, dtype):
    """Each row by itself gives the same result as among others, whatever the tile."""
    rng = np.random.default_rng(32)
    most = 130 if config.DISABLE_JIT else 9001 if k < 50 else 200
    z = rng.normal(size=(most, k)).astype(dtype)
    t = rng.integers(0, k, most)
    rows, grads = fl.cross_entropy.value_and_grad(z, t, reduction="none")
    for n in (1, 63, 64, 65, 128, most):
        value, grad = fl.cross_entropy.value_and_grad(z[:n], t[:n], reduction="sum")
        again = fl.cross_entropy(z[:n], t[:n], reduction="none")
        np.testing.assert_allclose(again, rows[:n], rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad, grads[:n], rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps / 8)
        total = math.fsum(rows[:n].tolist())
        assert value == pytest.approx(total, rel=1e-6 if dtype is np.float32 else 1e-13)


# By-products ---------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("k", [1, 2, 10, 33, 100])
@pytest.mark.parametrize("variant", [{}, {"temperature": 2.0, "label_smoothing": 0.1}], ids=["plain", "scaled"])
def test_details(k, variant, dtype):
    rng = np.random.default_rng(33)
    z = rng.normal(0, 3, (80, k)).astype(dtype)
    t = rng.integers(0, k, 80)
    t[5] = -100
    loss, grad, details = fl.cross_entropy.value_and_grad(z, t, details=True, **variant)
    assert loss == fl.cross_entropy.value_and_grad(z, t, **variant)[0]
    assert np.array_equal(grad, fl.cross_entropy.value_and_grad(z, t, **variant)[1])
    scaled = z.astype(np.float64) / variant.get("temperature", 1.0)
    np.testing.assert_allclose(details.logsumexp, np.logaddexp.reduce(scaled, axis=1), rtol=1e-5, atol=1e-6)
    assert np.array_equal(details.argmax, z.argmax(axis=1))
    keep = t >= 0
    rank = (z > z[np.arange(80), np.where(keep, t, 0)][:, None]).sum(axis=1)
    assert np.array_equal(details.rank[keep], rank[keep])
    assert details.rank[5] == k
    for top in (1, 2, 5):
        order = np.argsort(-z, axis=1, kind="stable")[:, :top]
        hits = (order == t[:, None]).any(axis=1)
        assert np.array_equal(details.top_k(top) & keep, hits & keep)
    np.testing.assert_allclose(details.loss, fl.cross_entropy(z, t, reduction="none", **variant), rtol=1e-6)
    alone = fl.cross_entropy.details(z, t, **variant)
    np.testing.assert_allclose(alone.loss, details.loss, rtol=1e-5 if dtype is np.float32 else 1e-13)
    assert np.array_equal(alone.rank, details.rank)


@pytest.mark.parametrize("k", [4, 40])
def test_ties_go_to_the_first(k):
    z = np.zeros((3, k))
    details = fl.cross_entropy.details(z, np.array([0, 1, 3]))
    assert details.argmax.tolist() == [0, 0, 0]
    assert details.rank.tolist() == [0, 1, 3]


def test_details_of_images_have_their_shape():
    rng = np.random.default_rng(34)
    z, t = rng.normal(size=(2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))
    details = fl.cross_entropy.details(z, t, axis=1)
    assert {x.shape for x in details} == {(2, 3, 4)}
    assert np.array_equal(details.argmax, z.argmax(axis=1))


@pytest.mark.parametrize("name", ["nll", "multi_margin", "crps_ensemble"])
def test_no_details_without_a_softmax(name):
    t = np.array([0.0]) if name == "crps_ensemble" else np.array([0])
    with pytest.raises(ValueError, match="details"):
        ROWS[name].details(np.zeros((1, 3)), t)


# Long sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("k", [10, 100])
def test_rows_are_accumulated_in_float64(k):
    rng = np.random.default_rng(35)
    z = rng.normal(size=(200_000, k)).astype(np.float32)
    t = rng.integers(0, k, len(z))
    rows = fl.cross_entropy(z, t, reduction="none")
    assert fl.cross_entropy(z, t, reduction="sum") == pytest.approx(math.fsum(rows.tolist()), rel=2e-9)


# torch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize("kind", ["labels", "dense"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_against_torch(k, kind, smoothing, weighted):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(36)
    z = rng.normal(0, 3, (20, k))
    t = targets(rng, "cross_entropy", kind, 20, k, np.float64)
    if kind == "labels":
        t[3] = -100
    c = rng.gamma(1.0, size=k) if weighted else None
    x = torch.tensor(z, requires_grad=True)
    for reduction in ("mean", "sum", "none"):
        x.grad = None
        theirs = torch.nn.functional.cross_entropy(
            x,
            torch.tensor(t),
            weight=None if c is None else torch.tensor(c),
            label_smoothing=smoothing,
            reduction=reduction,
        )
        theirs.sum().backward()
        value, grad = fl.cross_entropy.value_and_grad(
            z, t, class_weight=c, label_smoothing=smoothing, reduction=reduction
        )
        np.testing.assert_allclose(value, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["labels", "dense"])
@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("variant", [{}, {"temperature": 2.0}, {"z_loss": 0.1}, {"label_smoothing": 0.1}], ids=str)
def test_curvature_against_torch(kind, k, variant):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(37)
    z, t = rng.normal(0, 2, (2, k)), targets(rng, "cross_entropy", kind, 2, k, np.float64)
    hess = fl.cross_entropy.grad_and_hess(z, t, **variant)[1]
    for i in range(2):

        def f(x, i=i):
            x = x / variant.get("temperature", 1.0)
            loss = torch.nn.functional.cross_entropy(
                x[None], torch.tensor(t[i : i + 1]), label_smoothing=variant.get("label_smoothing", 0.0)
            )
            return loss + variant.get("z_loss", 0.0) * torch.logsumexp(x, 0) ** 2

        full = torch.autograd.functional.hessian(f, torch.tensor(z[i]))
        np.testing.assert_allclose(hess[i], torch.diagonal(full).numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("k", [2, 10, 40])
def test_multi_margin_against_torch(p, k):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(38)
    z, t, c = rng.normal(size=(30, k)), rng.integers(0, k, 30), rng.gamma(1.0, size=k)
    x = torch.tensor(z, requires_grad=True)
    theirs = torch.nn.functional.multi_margin_loss(
        x, torch.tensor(t), p=p, margin=0.7, weight=torch.tensor(c), reduction="sum"
    )
    theirs.backward()
    value, grad = fl.multi_margin.value_and_grad(z, t, p=p, margin=0.7, class_weight=c, reduction="sum")
    assert value == pytest.approx(theirs.item(), rel=1e-12)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_log_probabilities_against_torch():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(39)
    z, t, q = rng.normal(size=(30, 7)), rng.integers(0, 7, 30), probabilities(rng, 30, 7)
    lp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    x = torch.tensor(lp, requires_grad=True)
    theirs = torch.nn.functional.nll_loss(x, torch.tensor(t))
    theirs.backward()
    value, grad = fl.nll.value_and_grad(lp, t)
    assert value == pytest.approx(theirs.item(), rel=1e-13)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-13)
    x.grad = None
    theirs = torch.nn.functional.kl_div(x, torch.tensor(q), reduction="batchmean")
    theirs.backward()
    value, grad = fl.kl_div.value_and_grad(lp, q)
    assert value == pytest.approx(theirs.item(), rel=1e-12)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-12, atol=1e-16)


# Relations -----------------------------------------------------------------------------------------------------------


def test_relations(batch):
    z, t = batch
    lp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    plain, slope = fl.cross_entropy.value_and_grad(z, t, reduction="none")
    for name, variant in (("softmax_focal", {"gamma": 0.0}), ("poly1_cross_entropy", {"epsilon": 0.0})):
        value, grad = ROWS[name].value_and_grad(z, t, reduction="none", **variant)
        np.testing.assert_allclose(value, plain, rtol=1e-13)
        np.testing.assert_allclose(grad, slope, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(fl.nll(lp, t, reduction="none"), plain, rtol=1e-12)
    near = fl.generalized_cross_entropy(z, t, q=1e-9, reduction="none")
    np.testing.assert_allclose(near, plain, rtol=1e-7)
    p = np.exp(lp[np.arange(50), t])
    np.testing.assert_allclose(fl.generalized_cross_entropy(z, t, q=1.0, reduction="none"), 1 - p, rtol=1e-12)
    dense = np.eye(z.shape[1])[t]
    for name in SOFTMAX:
        value, grad = ROWS[name].value_and_grad(z, t)
        other, gradient = ROWS[name].value_and_grad(z, dense)
        assert value == pytest.approx(other, rel=1e-13)
        np.testing.assert_allclose(grad, gradient, rtol=1e-10, atol=1e-17)
    q = probabilities(np.random.default_rng(40), 50, z.shape[1])
    entropy = -np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0).sum(axis=1)
    kl = fl.kl_div(lp, q, reduction="none")
    np.testing.assert_allclose(kl + entropy, fl.cross_entropy(z, q, reduction="none"), rtol=1e-12)
    # A gradient of a softmax sums to 0 over the classes.
    for name in SOFTMAX:
        np.testing.assert_allclose(ROWS[name].value_and_grad(z, q)[1].sum(axis=1), 0.0, atol=1e-15)


def test_two_classes_are_the_binary_loss():
    rng = np.random.default_rng(41)
    x, y = rng.normal(0, 5, 100), rng.integers(0, 2, 100)
    z = np.stack([np.zeros(100), x], axis=1)
    value, grad = fl.cross_entropy.value_and_grad(z, y)
    binary, slope = fl.bce_with_logits.value_and_grad(x, y.astype(float))
    assert value == pytest.approx(binary, rel=1e-14)
    np.testing.assert_allclose(grad[:, 1], slope, rtol=1e-12)


@pytest.mark.parametrize("name", ["kl_div", "js_div"])
def test_divergences_vanish_where_they_should(name):
    q = probabilities(np.random.default_rng(42), 20, 6)
    with np.errstate(divide="ignore"):
        lp = np.log(q)
    value, grad = ROWS[name].value_and_grad(lp, q, reduction="none")
    np.testing.assert_allclose(value, 0.0, atol=1e-15)
    assert np.isfinite(grad).all()


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_a_label_that_is_masked_out(dtype, gamma):
    z = np.array([[-np.inf, 0.0, 0.0]], dtype)
    value, grad = fl.softmax_focal.value_and_grad(z, np.array([0]), gamma=gamma)
    assert value == np.inf
    np.testing.assert_array_equal(grad, [[-1.0, 0.5, 0.5]])
