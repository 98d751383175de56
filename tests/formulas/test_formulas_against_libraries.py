"""Formulas against torch, scikit-learn and SciPy."""

import mpmath as mp
import numpy as np
import pytest
from formula_cases import run


def column(name, *data, order=0, **variant):
    """One result of a formula over arrays, element by element."""
    out = [run(name, *(float(x) for x in row), **variant)[order] for row in zip(*data, strict=True)]
    return np.array(out)


@pytest.fixture
def rng():
    return np.random.default_rng(42)


TORCH = {
    "mse": (lambda F, z, t: F.mse_loss(z, t, reduction="none"), {}),
    "mae": (lambda F, z, t: F.l1_loss(z, t, reduction="none"), {}),
    "huber": (lambda F, z, t: F.huber_loss(z, t, delta=0.7, reduction="none"), {"delta": 0.7}),
    "smooth_l1": (lambda F, z, t: F.smooth_l1_loss(z, t, beta=0.7, reduction="none"), {"beta": 0.7}),
    "poisson": (lambda F, z, t: F.poisson_nll_loss(z, t.abs(), reduction="none"), {}),
    "bce_with_logits": (
        lambda F, z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=z.new_tensor(3.0)),
        {"pos_weight": 3.0},
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name, rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    call, variant = TORCH[name]
    z, t = rng.normal(0, 2, 200), rng.normal(0, 2, 200)
    t = rng.random(200) if name.startswith("bce") else np.abs(t) if name == "poisson" else t
    x = torch.tensor(z, requires_grad=True)
    loss = call(torch.nn.functional, x, torch.tensor(t))
    loss.sum().backward()
    np.testing.assert_allclose(column(name, z, t, **variant), loss.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(column(name, z, t, order=1, **variant), x.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_bce_against_torch_at_the_ends(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    p = np.concatenate([rng.random(50), [0.0, 1.0, 0.0, 1.0, 1e-13, 1e-300]])
    t = np.concatenate([rng.random(50), [0.0, 1.0, 1.0, 0.0, 1.0, 0.5]])
    x = torch.tensor(p, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy(x, torch.tensor(t), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(column("bce", p, t), loss.detach().numpy(), rtol=1e-13)
    # torch's 1e-12 is a float32 literal, 4e-9 smaller.
    np.testing.assert_allclose(column("bce", p, t, order=1), x.grad.numpy(), rtol=5e-9)


@pytest.mark.parametrize("full", [False, True])
def test_gaussian_nll_against_torch(full, rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    m, v, t = rng.normal(size=50), np.append(rng.gamma(1.0, size=48), [1e-9, 0.0]), rng.normal(size=50)
    x, y = torch.tensor(m, requires_grad=True), torch.tensor(v, requires_grad=True)
    loss = torch.nn.functional.gaussian_nll_loss(x, torch.tensor(t), y, full=full, eps=1e-6, reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(column("gaussian_nll", m, v, t, full=full), loss.detach().numpy(), rtol=1e-12)
    first = column("gaussian_nll", m, v, t, order=1, full=full)
    np.testing.assert_allclose(first[:, 0], x.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(first[:, 1], y.grad.numpy(), rtol=1e-9)


SKLEARN = {
    "mse": ("HalfSquaredError", {}, {}, 2.0),
    "mae": ("AbsoluteError", {}, {}, 1.0),
    "quantile": ("PinballLoss", {"quantile": 0.8}, {"q": 0.8}, 1.0),
    "huber": ("HuberLoss", {"delta": 0.7}, {"delta": 0.7}, 1.0),
    "poisson": ("HalfPoissonLoss", {}, {}, 1.0),
    "gamma": ("HalfGammaLoss", {}, {}, 1.0),
    "bce_with_logits": ("HalfBinomialLoss", {}, {}, 1.0),
}


@pytest.mark.parametrize("name", SKLEARN)
def test_against_sklearn_losses(name, rng):
    losses = pytest.importorskip("sklearn._loss.loss", reason="needs the peers extra")
    kind, arguments, variant, factor = SKLEARN[name]
    loss = getattr(losses, kind)(**arguments)
    z, t = rng.normal(0, 2, 200), rng.normal(0, 2, 200)
    t = rng.random(200) if name.startswith("bce") else np.abs(t) + 0.1 if name in ("poisson", "gamma") else t
    value, gradient = loss.loss_gradient(y_true=t, raw_prediction=z)
    np.testing.assert_allclose(column(name, z, t, **variant), factor * value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(column(name, z, t, order=1, **variant), factor * gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 1.99, 2.0, 3.0])
def test_tweedie_against_sklearn(power, rng):
    losses = pytest.importorskip("sklearn._loss.loss", reason="needs the peers extra")
    loss = losses.HalfTweedieLoss(power=power)
    z, t = rng.normal(size=100), rng.gamma(1.0, size=100) + 0.05
    value, gradient = loss.loss_gradient(y_true=t, raw_prediction=z)
    deviance = value + loss.constant_to_optimal_zero(t)
    np.testing.assert_allclose(column("tweedie", z, t, power=power, full=True), deviance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(column("tweedie", z, t, order=1, power=power), gradient, rtol=1e-11, atol=1e-13)
    # At 0, 1 and 2 sklearn has other constants: none for the squared error, and the infinite ones dropped.
    if power not in (0.0, 1.0, 2.0):
        shift = 1 / (2 - power) - t / (1 - power)
        np.testing.assert_allclose(column("tweedie", z, t, power=power) + shift, value, rtol=1e-11, atol=1e-12)


def test_against_sklearn_metrics(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    z, t, p, y = rng.gamma(1.0, size=80), rng.gamma(1.0, size=80), rng.random(80), rng.integers(0, 2, 80)
    p[:2], y[:2] = (0.0, 1.0), (1, 0)
    assert column("msle", z, t).mean() == pytest.approx(metrics.mean_squared_log_error(t, z), rel=1e-12)
    assert column("mape", z, t).mean() == pytest.approx(metrics.mean_absolute_percentage_error(t, z), rel=1e-12)
    pinball = metrics.mean_pinball_loss(t, z, alpha=0.8)
    assert column("quantile", z, t, q=0.8).mean() == pytest.approx(pinball, rel=1e-12)
    assert column("brier", p, y).mean() == pytest.approx(metrics.brier_score_loss(y, p), rel=1e-12)
    assert column("log_loss", p, y).mean() == pytest.approx(metrics.log_loss(y, p), rel=1e-12)
    signs = 2 * y - 1
    assert column("hinge", z - 1, signs).mean() == pytest.approx(metrics.hinge_loss(signs, z - 1), rel=1e-12)


SCIPY = {
    "laplace_nll": (lambda st, m, s, t: st.laplace.logpdf(t, m, s), {}),
    "student_t_nll": (lambda st, m, s, t: st.t.logpdf(t, 2.5, m, s), {"df": 2.5}),
    "gaussian_nll": (lambda st, m, s, t: st.norm.logpdf(t, m, np.sqrt(s)), {"full": True}),
}


@pytest.mark.parametrize("name", SCIPY)
def test_against_scipy(name, rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    m, s, t = rng.normal(size=100), rng.gamma(1.0, size=100) + 0.05, rng.normal(size=100)
    call, variant = SCIPY[name]
    np.testing.assert_allclose(column(name, m, s, t, **variant), -call(stats, m, s, t), rtol=1e-11)


def test_counts_against_scipy(rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    m, r, t = rng.gamma(2.0, 5.0, 100), rng.gamma(1.0, 9.0, 100) + 0.01, rng.poisson(8.0, 100)
    expected = -stats.nbinom.logpmf(t, r, r / (r + m))
    np.testing.assert_allclose(column("negative_binomial_nll", m, r, t), expected, rtol=1e-10)
    np.testing.assert_allclose(column("poisson", np.log(m), t, full=True), -stats.poisson.logpmf(t, m), rtol=1e-10)


def test_evidential_regression_is_the_student_marginal(rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    g, nu, a, b, t = rng.normal(size=60), *(rng.gamma(2.0, size=60) + 0.1 for _ in range(3)), rng.normal(size=60)
    a = a + 1
    expected = -stats.t.logpdf(t, 2 * a, g, np.sqrt(b * (1 + nu) / (nu * a)))
    np.testing.assert_allclose(column("evidential_regression", g, nu, a, b, t, lam=0.0), expected, rtol=1e-11)


def test_crps_gaussian_is_its_integral():
    for m, s, t in ((0.0, 1.0, 0.4), (1.0, 0.3, -1.0), (-2.0, 3.0, 2.0)):
        below = mp.quad(lambda x, m=m, s=s: mp.ncdf((x - m) / s) ** 2, [-mp.inf, m - 5 * s, t])
        above = mp.quad(lambda x, m=m, s=s: mp.ncdf((m - x) / s) ** 2, [t, m + 5 * s, mp.inf])
        assert run("crps_gaussian", m, s, t)[0] == pytest.approx(float(below + above), rel=1e-12)
