"""The compiled kernels against independent libraries on float64 arrays, as the catalogue names them."""

import math

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
pytest.importorskip("sklearn", reason="needs the peers extra")
pytest.importorskip("scipy", reason="needs the peers extra")

from scipy import special, stats  # noqa: E402
from sklearn import metrics  # noqa: E402
from sklearn._loss import loss as sklearn_loss  # noqa: E402

F = torch.nn.functional
N = 400


@pytest.fixture
def rng():
    return np.random.default_rng(51)


def with_gradient(call, z, *data):
    """A torch loss per element and its gradient."""
    x = torch.tensor(z, requires_grad=True)
    loss = call(x, *(torch.tensor(d) for d in data))
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


# torch ---------------------------------------------------------------------------------------------------------------

TORCH = {
    "mse": (lambda z, t: F.mse_loss(z, t, reduction="none"), {}),
    "mae": (lambda z, t: F.l1_loss(z, t, reduction="none"), {}),
    "huber": (lambda z, t: F.huber_loss(z, t, delta=0.7, reduction="none"), {"delta": 0.7}),
    "smooth_l1": (lambda z, t: F.smooth_l1_loss(z, t, beta=0.7, reduction="none"), {"beta": 0.7}),
    "smooth_l1 at 0": (lambda z, t: F.smooth_l1_loss(z, t, beta=0.0, reduction="none"), {"beta": 0.0}),
    "poisson": (lambda z, t: F.poisson_nll_loss(z, t, reduction="none"), {}),
    "bce_with_logits": (lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none"), {}),
    "bce_with_logits weighted": (
        lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=z.new_tensor(3.0)),
        {"pos_weight": 3.0},
    ),
    "bce": (lambda p, t: F.binary_cross_entropy(p, t, reduction="none"), {}),
    "logistic": (lambda z, t: F.soft_margin_loss(z, t, reduction="none"), {}),
}


def torch_data(name, rng):
    z, t = rng.normal(0, 3, N), rng.normal(0, 3, N)
    t[:5] = z[:5]
    if name.startswith("bce"):
        t = rng.random(N)
        t[:20] = np.round(t[:20])
        if name == "bce":
            z = special.expit(z)
    elif name == "poisson":
        t = rng.poisson(3.0, N).astype(float)
    elif name == "logistic":
        t = np.sign(t)
    return z, t


@pytest.mark.parametrize("name", TORCH)
def test_elementwise_against_torch(name, rng):
    call, variant = TORCH[name]
    loss = fl.LOSSES[name.split()[0]]
    z, t = torch_data(name, rng)
    expected, expected_grad = with_gradient(call, z, t)
    value, grad = loss.value_and_grad(z, t, reduction="none", **variant)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-11, atol=1e-14)
    mean, mean_grad = loss.value_and_grad(z, t, **variant)
    assert mean == pytest.approx(float(expected.mean()), rel=1e-13)
    np.testing.assert_allclose(mean_grad, expected_grad / N, rtol=1e-11, atol=1e-17)


@pytest.mark.parametrize("name", ["mse", "bce_with_logits", "huber"])
def test_curvature_against_torch(name, rng):
    """The second derivative, by automatic differentiation twice."""
    call, variant = TORCH[name]
    z, t = torch_data(name, rng)
    x = torch.tensor(z, requires_grad=True)
    (first,) = torch.autograd.grad(call(x, torch.tensor(t)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    grad, hess = fl.LOSSES[name].grad_and_hess(z, t, **variant)
    np.testing.assert_allclose(grad, first.detach().numpy(), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(hess, second.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("full", [False, True])
def test_gaussian_nll_against_torch(full, rng):
    mean, var, t = rng.normal(size=N), rng.gamma(1.0, size=N), rng.normal(size=N)
    x, v = torch.tensor(mean, requires_grad=True), torch.tensor(var, requires_grad=True)
    expected = F.gaussian_nll_loss(x, torch.tensor(t), v, full=full, eps=1e-6, reduction="none")
    expected.sum().backward()
    value, (by_mean, by_var) = fl.gaussian_nll.value_and_grad((mean, var), t, full=full, reduction="none")
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(by_mean, x.grad.numpy(), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(by_var, v.grad.numpy(), rtol=1e-9, atol=1e-9)


def focal_as_published(z, t, alpha, gamma):
    """Lin et al. 2017, equation 5, as torchvision.ops.sigmoid_focal_loss."""
    p = torch.sigmoid(z)
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    weight = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return weight * ce * (1 - p_t) ** gamma


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_focal_against_its_definition_in_torch(alpha, gamma, soft, rng):
    z, t = rng.normal(0, 2, N), rng.integers(0, 2, N).astype(float)
    t = rng.random(N) if soft else t
    expected, grad = with_gradient(lambda x, y: focal_as_published(x, y, alpha, gamma), z, t)
    value, ours = fl.focal.value_and_grad(z, t, alpha=alpha, gamma=gamma, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    np.testing.assert_allclose(ours, grad, rtol=1e-8, atol=1e-13)


def test_a_sigmoid_first_loses_what_logits_keep():
    """pytorch#103316: BCE of a sigmoid at -50 against 1 has gradient -2e-11; of the logit it is -1."""
    z, t = np.array([-50.0]), np.array([1.0])
    _, lost = with_gradient(lambda x, y: F.binary_cross_entropy(torch.sigmoid(x), y, reduction="none"), z, t)
    grad = fl.bce_with_logits.value_and_grad(z, t)[1]
    assert abs(lost[0]) < 1e-9
    assert grad[0] == pytest.approx(-1.0, abs=1e-15)


def test_nothing_to_average_is_nan_in_torch_and_zero_here():
    z, t = np.random.default_rng(0).normal(size=(4, 3)), np.full(4, -100)
    assert math.isnan(F.cross_entropy(torch.tensor(z), torch.tensor(t)).item())
    assert fl.cross_entropy(z, t) == 0.0


def test_tensors_give_the_same_numbers_as_arrays(rng):
    z, t = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(0, 5, 30)
    value, grad = fl.cross_entropy.value_and_grad(torch.tensor(z), torch.tensor(t))
    expected, expected_grad = fl.cross_entropy.value_and_grad(z, t)
    assert value == expected
    assert isinstance(grad, torch.Tensor)
    assert np.array_equal(grad.numpy(), expected_grad)


# scikit-learn --------------------------------------------------------------------------------------------------------

SKLEARN = {
    "mse": (sklearn_loss.HalfSquaredError(), {}, 2.0),
    "mae": (sklearn_loss.AbsoluteError(), {}, 1.0),
    "quantile": (sklearn_loss.PinballLoss(quantile=0.8), {"q": 0.8}, 1.0),
    "huber": (sklearn_loss.HuberLoss(delta=0.7), {"delta": 0.7}, 1.0),
    "poisson": (sklearn_loss.HalfPoissonLoss(), {}, 1.0),
    "gamma": (sklearn_loss.HalfGammaLoss(), {}, 1.0),
    "bce_with_logits": (sklearn_loss.HalfBinomialLoss(), {}, 1.0),
}


@pytest.mark.parametrize("name", SKLEARN)
def test_sklearn_losses(name, rng):
    theirs, variant, factor = SKLEARN[name]
    z, t, w = rng.normal(0, 2, N), rng.normal(0, 2, N), rng.gamma(1.0, size=N)
    t = rng.random(N) if name.startswith("bce") else np.abs(t) + 0.1 if name in ("poisson", "gamma") else t
    expected, gradient = theirs.loss_gradient(y_true=t, raw_prediction=z, sample_weight=w)
    value, grad = fl.LOSSES[name].value_and_grad(z, t, weight=w, reduction="none", **variant)
    np.testing.assert_allclose(value, factor * expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grad, factor * gradient, rtol=1e-12, atol=1e-13)
    if name in ("mse", "poisson", "gamma", "bce_with_logits"):
        gradient, hessian = theirs.gradient_hessian(y_true=t, raw_prediction=z, sample_weight=w)
        first, second = fl.LOSSES[name].grad_and_hess(z, t, weight=w, **variant)
        np.testing.assert_allclose(first, factor * gradient, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(second, factor * hessian, rtol=1e-12, atol=1e-15)


def test_sklearn_multinomial(rng):
    """HalfMultinomialLoss: values, gradients and the diagonal of the curvature of K classes."""
    theirs = sklearn_loss.HalfMultinomialLoss(n_classes=5)
    z, t, w = rng.normal(size=(N, 5)), rng.integers(0, 5, N), rng.gamma(1.0, size=N)
    expected, gradient = theirs.loss_gradient(y_true=t.astype(float), raw_prediction=z, sample_weight=w)
    value, grad = fl.cross_entropy.value_and_grad(z, t, weight=w, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(grad, gradient, rtol=1e-11, atol=1e-15)
    gradient, hessian = theirs.gradient_hessian(y_true=t.astype(float), raw_prediction=z, sample_weight=w)
    np.testing.assert_allclose(fl.cross_entropy.grad_and_hess(z, t, weight=w)[1], hessian, rtol=1e-11)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 1.99, 2.0, 3.0])
def test_tweedie_deviances(power, rng):
    z, t = rng.normal(size=N), rng.gamma(1.0, size=N) + 0.05
    expected = metrics.mean_tweedie_deviance(t, np.exp(z), power=power)
    assert 2 * fl.tweedie(z, t, power=power, full=True) == pytest.approx(expected, rel=1e-9)


METRICS = {
    "mse": (lambda z, t, w: metrics.mean_squared_error(t, z, sample_weight=w), {}),
    "mae": (lambda z, t, w: metrics.mean_absolute_error(t, z, sample_weight=w), {}),
    "msle": (lambda z, t, w: metrics.mean_squared_log_error(t, z, sample_weight=w), {}),
    "mape": (lambda z, t, w: metrics.mean_absolute_percentage_error(t, z, sample_weight=w), {}),
    "quantile": (lambda z, t, w: metrics.mean_pinball_loss(t, z, sample_weight=w, alpha=0.8), {"q": 0.8}),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sklearn_metrics(name, weighted, rng):
    call, variant = METRICS[name]
    z, t = rng.gamma(1.0, size=N), rng.gamma(1.0, size=N)
    w = rng.gamma(1.0, size=N) if weighted else None
    assert fl.LOSSES[name](z, t, weight=w, **variant) == pytest.approx(call(z, t, w), rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_sklearn_classification_metrics(weighted, rng):
    p, y, margin = rng.random(N), rng.integers(0, 2, N), rng.normal(size=N)
    w = rng.gamma(1.0, size=N) if weighted else None
    p[:2], y[:2] = (0.0, 1.0), (1, 0)
    t, signs = y.astype(float), 2.0 * y - 1.0
    assert fl.log_loss(p, t, weight=w) == pytest.approx(metrics.log_loss(y, p, sample_weight=w), rel=1e-12)
    assert fl.brier(p, t, weight=w) == pytest.approx(metrics.brier_score_loss(y, p, sample_weight=w), rel=1e-12)
    assert fl.hinge(margin, signs, weight=w) == pytest.approx(metrics.hinge_loss(y, margin, sample_weight=w), rel=1e-12)
    z, labels = rng.normal(size=(N, 4)), rng.integers(0, 4, N)
    expected = metrics.log_loss(labels, special.softmax(z, axis=1), sample_weight=w)
    assert fl.cross_entropy(z, labels, weight=w) == pytest.approx(expected, rel=1e-12)
    expected = metrics.hinge_loss(labels, z, sample_weight=w)
    assert fl.crammer_singer(z, labels, weight=w) == pytest.approx(expected, rel=1e-12)


def test_modified_huber_and_squared_hinge_as_sgd_has_them(rng):
    """SGDClassifier's decision function after one step from 0 moves by its loss's gradient."""
    gradients = pytest.importorskip("sklearn.linear_model._sgd_fast", reason="moved in this scikit-learn")
    z, t = rng.normal(0, 2, 50), rng.choice([-1.0, 1.0], 50)
    for ours, theirs in (("modified_huber", gradients.ModifiedHuber()), ("squared_hinge", gradients.SquaredHinge(1.0))):
        if not hasattr(theirs, "py_loss"):
            pytest.skip("this scikit-learn keeps its losses to itself")
        value, grad = fl.LOSSES[ours].value_and_grad(z, t, reduction="none")
        np.testing.assert_allclose(value, [theirs.py_loss(a, b) for a, b in zip(z, t, strict=True)], rtol=1e-13)
        np.testing.assert_allclose(grad, [theirs.py_dloss(a, b) for a, b in zip(z, t, strict=True)], rtol=1e-13)


# scipy ---------------------------------------------------------------------------------------------------------------


def test_likelihoods_against_scipy(rng):
    mean, scale, t = rng.normal(size=N), rng.gamma(1.0, size=N) + 0.05, rng.normal(size=N)
    for ours, theirs in (
        (fl.laplace_nll((mean, scale), t, reduction="none"), stats.laplace.logpdf(t, mean, scale)),
        (fl.student_t_nll((mean, scale), t, df=2.5, reduction="none"), stats.t.logpdf(t, 2.5, mean, scale)),
        (
            fl.gaussian_nll((mean, scale**2), t, full=True, eps=1e-12, reduction="none"),
            stats.norm.logpdf(t, mean, scale),
        ),
    ):
        np.testing.assert_allclose(ours, -theirs, rtol=1e-11, atol=1e-13)


def test_counts_against_scipy(rng):
    mean, r, t = rng.gamma(2.0, 5.0, N), rng.gamma(1.0, 9.0, N) + 0.01, rng.poisson(8.0, N).astype(float)
    ours = fl.negative_binomial_nll((mean, r), t, reduction="none")
    np.testing.assert_allclose(ours, -stats.nbinom.logpmf(t, r, r / (r + mean)), rtol=1e-10)
    ours = fl.poisson(np.log(mean), t, full=True, reduction="none")
    np.testing.assert_allclose(ours, -stats.poisson.logpmf(t, mean), rtol=1e-10)


def test_evidential_regression_is_a_student_likelihood(rng):
    g, nu, beta, t = rng.normal(size=N), rng.gamma(2.0, size=N) + 0.1, rng.gamma(2.0, size=N) + 0.1, rng.normal(size=N)
    alpha = 1.0 + rng.gamma(2.0, size=N)
    expected = -stats.t.logpdf(t, 2 * alpha, g, np.sqrt(beta * (1 + nu) / (nu * alpha)))
    ours = fl.evidential_regression((g, nu, alpha, beta), t, lam=0.0, reduction="none")
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


def test_divergences_against_scipy(rng):
    p, q = rng.dirichlet(np.ones(6), 50), rng.dirichlet(np.ones(6), 50)
    np.testing.assert_allclose(fl.kl_div(np.log(p), q, reduction="none"), stats.entropy(q, p, axis=1), rtol=1e-11)
    from scipy.spatial.distance import jensenshannon

    expected = jensenshannon(p, q, axis=1) ** 2
    np.testing.assert_allclose(fl.js_div(np.log(p), q, reduction="none"), expected, rtol=1e-10)


def test_log_cosh_huber_and_pseudo_huber_against_scipy(rng):
    z, t = rng.normal(0, 3, N), rng.normal(0, 3, N)
    np.testing.assert_allclose(fl.huber(z, t, delta=0.7, reduction="none"), special.huber(0.7, z - t), rtol=1e-12)
    expected = special.pseudo_huber(0.7, z - t)
    np.testing.assert_allclose(fl.pseudo_huber(z, t, delta=0.7, reduction="none"), expected, rtol=1e-11)
    np.testing.assert_allclose(fl.log_cosh(z, t, reduction="none"), np.log(np.cosh(z - t)), rtol=1e-10, atol=1e-14)


def test_crps_of_a_large_ensemble_nears_that_of_its_distribution(rng):
    """Members at the quantiles of a normal distribution score as the distribution does."""
    members = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    t = np.array([-1.0, 0.2, 2.5])
    ensemble = fl.crps_ensemble(np.broadcast_to(members, (3, 2000)), t, reduction="none")
    normal = fl.crps_gaussian((np.zeros(3), np.ones(3)), t, reduction="none")
    np.testing.assert_allclose(ensemble, normal, atol=2e-3)


@pytest.mark.jit
def test_margins_with_class_weights_divide_by_the_rows_as_torch():
    torch = pytest.importorskip("torch", reason="needs the extra peers")
    rng = np.random.default_rng(5)
    z, y, c = rng.normal(size=(20, 4)), rng.integers(0, 4, 20), rng.uniform(0.1, 3.0, 4)
    expected = torch.nn.functional.multi_margin_loss(torch.tensor(z), torch.tensor(y), weight=torch.tensor(c))
    np.testing.assert_allclose(fl.multi_margin(z, y, class_weight=c), float(expected), rtol=1e-14)
