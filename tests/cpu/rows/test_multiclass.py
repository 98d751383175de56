"""Losses of classes beyond the softmax: limits, extremes, chunks, halves, and other libraries."""

import math

import mpmath as mp
import numpy as np
import pytest
from numba import config

import fastloss as fl

DTYPES = [np.float32, np.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
LABELLED = ["label_relaxation", "sparsemax_loss", "ordinal", "dirichlet_evidential", "arcface", "cosface"]
TAUGHT = ["tv_distance", "reverse_kl", "distillation"]


def data(name, n, k, dtype=np.float64, seed=60):
    """A prediction and a target that the loss takes."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, k))
    if name in LABELLED:
        z = np.tanh(z / 4) if name in ("arcface", "cosface") else z
        return z.astype(dtype), rng.integers(0, k + (name == "ordinal"), n)
    if name == "distillation":
        return z.astype(dtype), rng.normal(0, 2, (n, k)).astype(dtype)
    z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
    return z.astype(dtype), rng.dirichlet(np.ones(k), n).astype(dtype)


# Chunks, threads, halves ---------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize(("k", "dtype"), [(10, np.float32), (300, np.float64)], ids=["tiles", "rows"])
@pytest.mark.parametrize("name", ["sparsemax_loss", "ordinal", "dirichlet_evidential", "distillation", "arcface"])
def test_chunks_and_threads_change_no_bit(name, k, dtype):
    """Rows in several chunks, on one thread and on two, and each part by itself."""
    loss = fl.LOSSES[name]
    n = 90_000 // k
    z, t = data(name, n, k, dtype)
    before, found = fl.get_num_threads(), []
    try:
        for threads in {1, before}:
            fl.set_num_threads(threads)
            found.append((*loss.value_and_grad(z, t), loss(z, t, reduction="none")))
    finally:
        fl.set_num_threads(before)
    for value, grad, rows in found[1:]:
        assert value == found[0][0]
        assert np.array_equal(grad, found[0][1])
        assert np.array_equal(rows, found[0][2])
    rows, grads = loss.value_and_grad(z, t, reduction="none")
    assert found[0][0] == pytest.approx(math.fsum(rows.tolist()) / n, rel=1e-6 if dtype is np.float32 else 1e-13)
    part = loss.value_and_grad(z[-65:], t[-65:], reduction="none")
    np.testing.assert_allclose(part[0], rows[-65:], rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(part[1], grads[-65:], rtol=1e-5, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["sparsemax_loss", "ordinal", "dirichlet_evidential", "distillation", "arcface"])
def test_halves_are_float32_rounded_once(name):
    loss = fl.LOSSES[name]
    for n, k in ((65, 10), (900, 10)):
        z, t = data(name, n, k, np.float16)
        wide = t.astype(np.float32) if t.dtype == np.float16 else t
        value, grad = loss.value_and_grad(z, t)
        expected, gradient = loss.value_and_grad(z.astype(np.float32), wide)
        assert value == pytest.approx(expected, rel=1e-6)
        assert grad.dtype == np.float16
        assert np.array_equal(grad, gradient.astype(np.float16))


# Sparsemax -----------------------------------------------------------------------------------------------------------


@each_dtype
def test_sparsemax_of_ties_infinities_and_one_class(dtype):
    inf = np.inf
    z = np.array([[5, 5, 5], [1e30, 1e30, 0], [inf, 0, inf], [-inf, 2, -inf], [-inf, -inf, -inf], [0, 1, 3]], dtype)
    expected = np.array([[1 / 3] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 1, 0], [1 / 3] * 3, [0, 0, 1]])
    labels = np.array([0, 1, 2, 1, 0, 2])
    value, grad = fl.sparsemax_loss.value_and_grad(z, labels, reduction="none")
    np.testing.assert_allclose(grad + np.eye(3)[labels], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(value, ((expected - np.eye(3)[labels]) ** 2).sum(axis=1) / 2, rtol=1e-6, atol=1e-12)
    # A label that scores less by an infinite amount costs as much.
    assert fl.sparsemax_loss(z[2:3], np.array([1])) == inf
    assert fl.sparsemax_loss.value_and_grad(z[:, :1], np.zeros(6, int))[0] == 0.0
    hess = fl.sparsemax_loss.grad_and_hess(z, labels)[1]
    size = (expected > 0).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(hess, (expected > 0) * (1 - 1 / size), rtol=1e-6)


def test_sparsemax_is_zero_where_the_label_leads_by_one():
    z = np.array([[1.0, 0.0, -3.0], [1.0 + 1e-9, 0.0, 0.0], [0.999, 0.0, 0.0]])
    value, grad = fl.sparsemax_loss.value_and_grad(z, np.zeros(3, int), reduction="none")
    assert value[0] == value[1] == 0.0 < value[2]
    assert not grad[:2].any()


@pytest.mark.parametrize("k", [2, 10, 300])
def test_sparsemax_gives_probabilities(k):
    """However the scores lie, in few steps: close together, far apart, or in powers of two."""
    rng = np.random.default_rng(61)
    rows = [rng.normal(0, s, k) for s in (1e-6, 1e-2, 1.0, 1e4)] + [-(2.0 ** -np.arange(k)), np.arange(k) / k]
    z = np.array(rows)
    p = fl.sparsemax_loss.value_and_grad(z, np.zeros(len(z), int), reduction="none")[1]
    p[:, 0] += 1
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-13)
    assert (p >= 0).all()
    # What a probability of more than 0 exceeds the score by is the same for all, and the others' scores are below.
    for row, x in zip(p, z, strict=True):
        tau = (x - row)[row > 0]
        np.testing.assert_allclose(tau, tau[0], rtol=1e-12, atol=1e-13)
        assert (x[row == 0] <= tau[0] + 1e-12).all()


def test_class_weights_of_sparsemax_and_evidence():
    for name in ("sparsemax_loss", "dirichlet_evidential"):
        z, t = data(name, 20, 5)
        c = np.random.default_rng(62).gamma(1.0, size=5)
        rows, grads = fl.LOSSES[name].value_and_grad(z, t, reduction="none")
        value, grad = fl.LOSSES[name].value_and_grad(z, t, class_weight=c)
        assert value == pytest.approx((c[t] * rows).sum() / c[t].sum(), rel=1e-13)
        np.testing.assert_allclose(grad, grads * (c[t] / c[t].sum())[:, None], rtol=1e-12)
        dense = fl.LOSSES[name](z, np.eye(5)[t], class_weight=c, reduction="none")
        np.testing.assert_allclose(dense, c[t] * rows, rtol=1e-12)


# Ordinal -------------------------------------------------------------------------------------------------------------


def test_ordinal_has_one_more_label_than_columns():
    z = np.array([[2.0, -1.0], [0.5, 0.5], [1.0, -3.0]])
    got = fl.ordinal(z, np.array([0, 1, 2]), reduction="none")
    above = np.array([[0, 0], [1, 0], [1, 1]], float)
    np.testing.assert_allclose(got, fl.bce_with_logits(z, above, reduction="none").sum(axis=1), rtol=1e-14)
    c = np.array([0.5, 3.0])
    weighted = (c * fl.bce_with_logits(z, above, reduction="none")).sum(axis=1)
    np.testing.assert_allclose(fl.ordinal(z, np.array([0, 1, 2]), class_weight=c), weighted.mean(), rtol=1e-14)
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=rf"ordinal: target\[1\] is {wrong}; allowed: 0 to 2, or -100"):
            fl.ordinal.value_and_grad(z, np.array([0, wrong, 2]))
    with pytest.raises(ValueError, match=r"one weight per threshold"):
        fl.ordinal(z, np.array([0, 1, 2]), class_weight=np.ones(3))
    for _ in range(2):
        kept = fl.ordinal(z, np.array([0, 1, 2]), ignore_index=2)
        assert kept == pytest.approx(got[:2].mean(), rel=1e-14)


def test_ordinal_against_binary_cross_entropy_of_torch():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    z, t = data("ordinal", 40, 6)
    levels = (t[:, None] > np.arange(6)).astype(float)
    x = torch.tensor(z, requires_grad=True)
    # The loss of the authors' package: minus the sum of the logarithms, averaged over rows.
    value = -(torch.nn.functional.logsigmoid(x) * torch.tensor(levels)).sum(1)
    value = value - ((torch.nn.functional.logsigmoid(x) - x) * (1 - torch.tensor(levels))).sum(1)
    value.mean().backward()
    got, grad = fl.ordinal.value_and_grad(z, t)
    assert got == pytest.approx(value.mean().item(), rel=1e-13)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-12)


# Divergences ---------------------------------------------------------------------------------------------------------


def test_reverse_kl_of_classes_that_are_not_there():
    with np.errstate(divide="ignore"):
        lp, t = np.log([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]]), np.array([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]])
    value, grad = fl.reverse_kl.value_and_grad(lp, t, reduction="none")
    assert value[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-14)
    assert np.isfinite(grad[0]).all()
    assert value[1] == math.inf
    special = pytest.importorskip("scipy.special", reason="needs the peers extra")
    p, q = np.random.default_rng(63).dirichlet(np.ones(5), (2, 9))
    expected = special.rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(fl.reverse_kl(np.log(p), q, reduction="none"), expected, rtol=1e-12)
    # The Jensen-Shannon divergence, scaled, leads to it.
    near = fl.js_div(np.log(p), q, beta=1 - 1e-7, reduction="none") / 1e-7
    np.testing.assert_allclose(near, expected, rtol=1e-3)


def test_total_variation_is_half_the_distance_of_scipy():
    distance = pytest.importorskip("scipy.spatial.distance", reason="needs the peers extra")
    p, q = np.random.default_rng(64).dirichlet(np.ones(5), (2, 9))
    expected = [distance.cityblock(a, b) / 2 for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(fl.tv_distance(np.log(p), q, reduction="none"), expected, rtol=1e-12)
    assert fl.tv_distance(np.log(q), q) < 1e-15
    with np.errstate(divide="ignore"):
        assert fl.tv_distance(np.log([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == 1.0


@each_dtype
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.6])
def test_label_relaxation_near_its_edge_and_far_away(alpha, dtype):
    """Where p_y is just short of 1 - alpha, and where it vanishes: every digit."""
    a = mp.mpf(float(dtype(alpha)))
    eps = float(np.finfo(dtype).eps)
    edge = float(mp.log((1 - a) / a)) if alpha else 20.0
    for x in (edge - 1e-3, edge - 0.1, edge - 3.0, -60.0, -1e4):
        z = np.array([[x, 0.0]], dtype)
        value, grad = fl.label_relaxation.value_and_grad(z, np.array([0]), alpha=alpha)
        y = mp.mpf(float(z[0, 0]))
        p, n = 1 / (1 + mp.exp(-y)), 1 / (1 + mp.exp(y))
        exact = (1 - a) * mp.log((1 - a) / p) + (a * mp.log(a / n) if alpha else 0)
        # One rounding error in log p moves the loss by its slope.
        moved = eps * float(abs(a / n - 1) * (abs(mp.log(p)) + n))
        assert value == pytest.approx(float(exact), rel=16 * eps, abs=4 * moved), x
        assert grad[0, 0] == pytest.approx(float((a / n - 1) * n), rel=8 * eps, abs=8 * eps), x
    met = fl.label_relaxation.value_and_grad(np.array([[edge + 1e-2, 0.0]], dtype), np.array([0]), alpha=alpha)
    assert met[0] == 0.0 or alpha == 0.0


def test_label_relaxation_is_cross_entropy_at_0():
    z, t = data("label_relaxation", 30, 10)
    value, grad = fl.label_relaxation.value_and_grad(z, t, alpha=0.0)
    expected, gradient = fl.cross_entropy.value_and_grad(z, t)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(grad, gradient, rtol=1e-11, atol=1e-17)


# Evidence ------------------------------------------------------------------------------------------------------------


@each_dtype
def test_evidence_of_extreme_logits(dtype):
    z = np.array([[-1e4, -1e4, -1e4], [1e4, -1e4, 0.0], [1e4, 1e4, 1e4], [30.0, 1e4, -1e4]], dtype)
    t = np.array([0, 0, 1, 0])
    values, grads = fl.dirichlet_evidential.value_and_grad(z, t, lam=0.5, reduction="none")
    assert np.isfinite(grads).all()
    for x, y, got in zip(z.astype(float), t, values, strict=True):
        alpha = [1 + mp.log1p(mp.exp(v)) for v in x]
        s = mp.fsum(alpha)
        risk = mp.fsum((int(j == y) - a / s) ** 2 + a * (s - a) / (s * s * (s + 1)) for j, a in enumerate(alpha))
        wrong = [1 if j == y else a for j, a in enumerate(alpha)]
        total = mp.fsum(wrong)
        kl = mp.loggamma(total) - mp.loggamma(3) - mp.fsum(mp.loggamma(a) for a in wrong)
        kl += mp.fsum((a - 1) * (mp.psi(0, a) - mp.psi(0, total)) for a in wrong)
        assert got == pytest.approx(float(risk + kl / 2), rel=30 * float(np.finfo(dtype).eps)), x


@each_dtype
@pytest.mark.parametrize("k", [3, 1000])
def test_no_evidence_has_no_divergence(k, dtype):
    """Its terms are as large as log((K - 1)!), and cancel."""
    z = np.full((1, k), -1e4, dtype)
    plain, penalised = (fl.dirichlet_evidential(z, np.array([0]), lam=x) for x in (0.0, 1.0))
    # A sum of k terms one by one has k / 2 rounding errors at most.
    exact = (1 - 1 / k) ** 2 + (k - 1) / k**2 + (1 - 1 / k) / (k + 1)
    assert penalised == plain == pytest.approx(exact, rel=(8 + k / 2) * float(np.finfo(dtype).eps))


def test_a_loss_without_a_second_derivative_says_so():
    z, t = data("dirichlet_evidential", 3, 4)
    with pytest.raises(ValueError, match="dirichlet_evidential has no second derivative; use value_and_grad"):
        fl.dirichlet_evidential.grad_and_hess(z, t)


# Distillation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("k", [1, 10, 50, 9000 if not config.DISABLE_JIT else 60])
def test_distillation_against_torch(k, temperature):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    own = torch.nn.functional
    z, t = data("distillation", 6, k)
    x = torch.tensor(z, requires_grad=True)
    goal = own.log_softmax(torch.tensor(t) / temperature, -1)
    loss = own.kl_div(own.log_softmax(x / temperature, -1), goal, reduction="batchmean", log_target=True)
    (loss * temperature**2).backward()
    value, grad = fl.distillation.value_and_grad(z, t, temperature=temperature)
    assert value == pytest.approx(loss.item() * temperature**2, rel=1e-12, abs=1e-15)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-9, atol=1e-16)


@each_dtype
def test_distillation_limits(dtype):
    z = np.array([[1.0, 2.0, -1e4], [3e3, 0.0, 1.0]], dtype)
    value, grad = fl.distillation.value_and_grad(z, z, reduction="none")
    assert not value.any()
    np.testing.assert_allclose(grad, 0.0, atol=4 * np.finfo(dtype).eps)
    teacher = np.array([[0.0, 0.0, -np.inf], [0.0, -np.inf, -np.inf]], dtype)
    value, grad = fl.distillation.value_and_grad(z, teacher, temperature=1.0, reduction="none")
    lp = np.array([1.0, 2.0]) - np.logaddexp(1.0, 2.0)
    np.testing.assert_allclose(value, [-math.log(2) - lp.mean(), 0.0], rtol=1e-6)
    assert np.isfinite(grad).all()
    assert fl.distillation(np.array([[0.0, -np.inf]], dtype), np.zeros((1, 2), dtype)) == math.inf
    with pytest.raises(TypeError, match="expected the teacher's logits, as floats"):
        fl.distillation(z, np.array([0, 1]))
    with pytest.raises(TypeError, match="expected rows of 3 logits"):
        fl.distillation(z, np.array([0.0, 1.0], dtype))


# Angles --------------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("margin", [0.0, 0.5, 1.5])
def test_arcface_at_the_ends(margin, dtype):
    """Finite at cosines of 1 and -1 and beyond; the slope at 1 is that of its neighbour."""
    below = np.nextafter(dtype(1), dtype(0))
    z = np.array([[x, 0.2, -0.1] for x in (1.0, below, -1.0, 1.0 + 1e-6, -1.0 - 1e-6)], dtype)
    value, grad = fl.arcface.value_and_grad(z, np.zeros(5, int), margin=margin, scale=1.0, reduction="none")
    assert np.isfinite(value).all()
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(grad[0], grad[1], rtol=1e-3)
    assert np.isfinite(fl.arcface.grad_and_hess(z, np.zeros(5, int), margin=margin, scale=1.0)).all()
    m = float(dtype(margin))
    changed = [math.cos(m), math.cos(math.acos(float(below)) + m), -1 - m * math.sin(m) if margin else -1.0]
    rest = np.exp(0.2) + np.exp(-0.1)
    expected = [math.log(1 + rest * math.exp(-x)) for x in changed]
    np.testing.assert_allclose(value[:3], expected, rtol=1e-5 if dtype is np.float32 else 1e-12)


def test_angular_losses_without_a_margin_are_cross_entropy():
    z, t = data("arcface", 40, 10)
    value, grad = fl.cross_entropy.value_and_grad(z, t, logit_scale=30.0)
    for loss in (fl.arcface, fl.cosface):
        got, gradient = loss.value_and_grad(z, t, margin=0.0, scale=30.0)
        assert got == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(gradient, grad, rtol=1e-10, atol=1e-17)


@pytest.mark.parametrize("k", [10, 60])
def test_arcface_against_torch(k):
    """The authors' code: arccos, the margin where the angle has room for it, and cross-entropy."""
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    z, t = data("arcface", 30, k)
    z[:3, :] = -0.95
    x, y = torch.tensor(z, requires_grad=True), torch.tensor(t)
    hot = torch.nn.functional.one_hot(y, k).bool()
    turned = torch.cos(torch.acos(x) + 0.5)
    eased = torch.where(x > math.cos(math.pi - 0.5), turned, x - math.sin(math.pi - 0.5) * 0.5)
    loss = torch.nn.functional.cross_entropy(64 * torch.where(hot, eased, x), y)
    loss.backward()
    value, grad = fl.arcface.value_and_grad(z, t)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_sine_and_cosine():
    from fastloss.spec.special import sine_cosine

    for x in np.linspace(0, math.pi / 2, 200):
        s, c = sine_cosine(float(x))
        assert s == pytest.approx(math.sin(x), rel=4e-16)
        assert c == pytest.approx(math.cos(x), abs=2e-16)
