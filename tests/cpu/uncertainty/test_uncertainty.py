"""Losses of uncertain predictions against torch.distributions, quadrature, mpmath and the papers' definitions."""

import mpmath
import numpy as np
import pytest

import fastloss as fl

TOLERANCE = {"rtol": 1e-9, "atol": 1e-13}


def leaves(torch, *arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


# Divergences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [2, 4])
def test_divergence_of_gaussians_against_torch(given):
    torch = pytest.importorskip("torch")
    arrays = np.random.default_rng(0).normal(size=(given, 30))
    tensors = leaves(torch, *arrays)
    mean, log_var, other, other_log_var = [*tensors, torch.zeros(30), torch.zeros(30)][:4]
    pair = [torch.distributions.Normal(m, torch.exp(s / 2)) for m, s in ((mean, log_var), (other, other_log_var))]
    expected = torch.distributions.kl_divergence(*pair)
    expected.mean().backward()
    np.testing.assert_allclose(fl.kl_gaussian(*arrays, reduction="none"), expected.detach(), rtol=1e-10)
    value, grads = fl.kl_gaussian.value_and_grad(*arrays)
    assert value == pytest.approx(expected.mean().item(), rel=1e-12)
    for grad, tensor in zip(grads, tensors, strict=True):
        np.testing.assert_allclose(grad, tensor.grad, **TOLERANCE)


def test_a_prior_of_a_variance_alone_has_its_own_derivative():
    mean, log_var, prior = np.random.default_rng(1).normal(size=(3, 6))
    value, grads = fl.kl_gaussian.value_and_grad(mean, log_var, prior_log_var=prior)
    whole, (by_mean, by_log_var, _, by_prior) = fl.kl_gaussian.value_and_grad(mean, log_var, np.zeros(6), prior)
    assert value == whole
    np.testing.assert_array_equal(grads, [by_mean, by_log_var, by_prior])


@pytest.mark.parametrize("log_var", [-80.0, -0.5, -0.49, -1e-3, -1e-9, 1e-12, 0.3, 0.51, 20.0])
def test_divergence_of_nearly_equal_gaussians_keeps_its_digits(log_var):
    exact = (mpmath.expm1(mpmath.mpf(log_var)) - mpmath.mpf(log_var)) / 2
    assert fl.kl_gaussian(np.zeros(1), np.array([log_var])) == pytest.approx(float(exact), rel=3e-15)


def test_divergence_of_a_variational_model_sums_over_dimensions():
    torch = pytest.importorskip("torch")
    mean, log_var = np.random.default_rng(1).normal(size=(2, 5, 8))
    normal = torch.distributions.Normal(torch.tensor(mean), torch.exp(torch.tensor(log_var) / 2))
    each = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    assert fl.kl_gaussian(mean, log_var, reduction="sum", divisor=5.0) == pytest.approx(each.mean().item(), rel=1e-12)


@pytest.mark.parametrize("has_prior", [False, True])
def test_divergence_of_dirichlets_against_torch(has_prior):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    arrays = rng.gamma(2.0, 2.0, (1 + has_prior, 12, 5)) + 0.05
    alpha, prior = arrays[0], arrays[1] if has_prior else np.ones((12, 5))
    pair = [torch.distributions.Dirichlet(torch.tensor(a)) for a in (alpha, prior)]
    expected = torch.distributions.kl_divergence(*pair)
    np.testing.assert_allclose(fl.kl_dirichlet(*arrays, reduction="none"), expected, rtol=1e-9, atol=1e-12)
    # Derivatives by mpmath: torch's trigamma has ten digits.
    psi = np.vectorize(lambda order, x: float(mpmath.polygamma(order, mpmath.mpf(x))))
    whole = (alpha - prior).sum(axis=1) * psi(1, alpha.sum(axis=1))
    by_alpha = (alpha - prior) * psi(1, alpha) - whole[:, None]
    by_prior = psi(0, prior) - psi(0, alpha) - (psi(0, prior.sum(axis=1)) - psi(0, alpha.sum(axis=1)))[:, None]
    grads = fl.kl_dirichlet.value_and_grad(*arrays)[1]
    wanted = (by_alpha, by_prior) if has_prior else (by_alpha,)
    for grad, exact in zip(grads if has_prior else (grads,), wanted, strict=True):
        np.testing.assert_allclose(12 * grad, exact, rtol=1e-11, atol=1e-13)


def test_a_dirichlet_is_no_distance_from_itself():
    alpha = np.array([[0.3, 2.0, 50.0]])
    value, (by_alpha, by_prior) = fl.kl_dirichlet.value_and_grad(alpha, alpha)
    assert value == pytest.approx(0.0, abs=1e-13)
    np.testing.assert_allclose([by_alpha, by_prior], 0.0, atol=1e-13)
    with pytest.raises(fl.CallValueError, match=r"kl_dirichlet: alpha\[0, 1\] is 0; allowed: \(0, inf\)"):
        fl.kl_dirichlet(np.array([[1.0, 0.0]]))


# Intervals and quantiles ---------------------------------------------------------------------------------------------


def test_interval_score_of_gneiting_and_raftery():
    lower, upper = np.array([1.0, 1.0, 1.0]), np.array([3.0, 3.0, 3.0])
    # Inside, 0.5 below, 2 above: the width, and 2 / alpha times the distance.
    scores = fl.interval_score((lower, upper), np.array([2.0, 0.5, 5.0]), alpha=0.2, reduction="none")
    np.testing.assert_allclose(scores, [2.0, 2.0 + 10 * 0.5, 2.0 + 10 * 2.0], rtol=1e-14)
    value, (by_lower, by_upper) = fl.interval_score.value_and_grad(
        (lower, upper), np.array([2.0, 0.5, 5.0]), alpha=0.2, reduction="sum"
    )
    assert value == pytest.approx(31.0)
    np.testing.assert_allclose(by_lower, [-1.0, 9.0, -1.0])
    np.testing.assert_allclose(by_upper, [1.0, 1.0, -9.0])


def test_interval_score_is_least_for_quantiles():
    target = np.random.default_rng(3).gamma(2.0, size=999)
    steps = np.linspace(0.0, 8.0, 161)
    score = [[fl.interval_score((np.full(999, a), np.full(999, b)), target, alpha=0.2) for b in steps] for a in steps]
    lower, upper = np.unravel_index(np.argmin(score), (161, 161))
    assert [steps[lower], steps[upper]] == pytest.approx(np.quantile(target, [0.1, 0.9]), abs=0.05)


def test_ordered_quantiles_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    scores, target, levels = rng.normal(0, 2, (20, 4)), rng.normal(size=20), np.array([0.1, 0.4, 0.6, 0.9])
    (z,) = leaves(torch, scores)
    q = torch.cat([z[:, :1], torch.nn.functional.softplus(z[:, 1:])], dim=1).cumsum(dim=1)
    r = torch.tensor(target)[:, None] - q
    expected = torch.maximum(torch.tensor(levels) * r, (torch.tensor(levels) - 1) * r).mean()
    expected.backward()
    value, grad = fl.ordered_quantiles.value_and_grad(scores, target, levels)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grad, z.grad, **TOLERANCE)
    # The same as the quantile loss of the quantiles.
    assert value == pytest.approx(fl.quantile(q.detach().numpy(), np.tile(target[:, None], 4), q=levels), rel=1e-12)
    assert (np.diff(q.detach()) > 0).all()


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([0.5, 0.1], r"ordered_quantiles: levels\[1\] is 0.1, after 0.5; expected growing levels"),
        ([0.0, 0.1], r"ordered_quantiles: levels\[0\] is 0; allowed: \(0, 1\)"),
        ([0.1], r"ordered_quantiles: levels has shape \(1,\)"),
    ],
)
def test_levels(levels, message):
    with pytest.raises(fl.CallValueError, match=message):
        fl.ordered_quantiles(np.zeros((3, 2)), np.zeros(3), np.array(levels))


# Noisy logits --------------------------------------------------------------------------------------------------------


def test_noisy_logits_of_two_classes_against_quadrature():
    rng = np.random.default_rng(5)
    logits, log_var, labels = rng.normal(size=(4, 2)), rng.normal(size=(4, 2)), np.array([0, 1, 1, 0])
    # The difference of two noisy logits is normal.
    side = 2 * labels - 1
    mean, deviation = side * (logits[:, 1] - logits[:, 0]), np.sqrt(np.exp(log_var).sum(axis=1))
    x, w = np.polynomial.hermite_e.hermegauss(80)
    p = (w / (1 + np.exp(-(mean[:, None] + deviation[:, None] * x)))).sum(axis=1) / w.sum()
    found = fl.heteroscedastic_cross_entropy(logits, log_var, labels, samples=40_000, reduction="none")
    # The mean of 40,000 probabilities has an error of at most 0.5 / 200.
    np.testing.assert_allclose(np.exp(-found), p, atol=4 * 0.0025)
    assert abs(np.exp(-found) - p).max() > 0.0


def test_gradient_of_noisy_logits_by_differences():
    rng = np.random.default_rng(6)
    logits, log_var, labels = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), np.array([0, 3, 1])

    def total(z, v):
        return fl.heteroscedastic_cross_entropy(z, v, labels, samples=5, seed=2, reduction="sum")

    grads = fl.heteroscedastic_cross_entropy.value_and_grad(logits, log_var, labels, samples=5, seed=2, reduction="sum")
    h, given = 1e-5, (logits, log_var)
    for k in (0, 1):
        for at in np.ndindex(3, 4):
            step = np.zeros((3, 4))
            step[at] = h
            ends = [total(*(a + s * step * (i == k) for i, a in enumerate(given))) for s in (1, -1)]
            assert grads[1][k][at] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)


def test_logits_without_noise_have_the_cross_entropy():
    rng = np.random.default_rng(7)
    logits, labels = rng.normal(0, 30, (6, 3)), rng.integers(0, 3, 6)
    value, (by_logits, by_log_var) = fl.heteroscedastic_cross_entropy.value_and_grad(
        logits, np.full((6, 3), -np.inf), labels
    )
    expected, slope = fl.cross_entropy.value_and_grad(logits, labels)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(by_logits, slope, **TOLERANCE)
    np.testing.assert_array_equal(by_log_var, 0.0)


def test_draws_depend_on_the_seed_and_the_row_alone():
    logits, log_var, labels = np.zeros((4000, 3)), np.zeros((4000, 3)), np.zeros(4000, int)
    loss = fl.heteroscedastic_cross_entropy
    one = loss(logits, log_var, labels, reduction="none")
    assert len(np.unique(one)) == 4000
    threads = fl.get_num_threads()
    try:
        fl.set_num_threads(1)
        np.testing.assert_array_equal(one, loss(logits, log_var, labels, reduction="none"))
    finally:
        fl.set_num_threads(threads)
    np.testing.assert_array_equal(one[:10], loss(logits[:10], log_var[:10], labels[:10], reduction="none"))
    assert not np.isin(one, loss(logits, log_var, labels, seed=1, reduction="none")).any()


# Calibration ---------------------------------------------------------------------------------------------------------


def sample(seed=8, n=500):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.01, 0.99, n)
    return confidence, (rng.random(n) < confidence**1.5).astype(int)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_sharp_bins_are_those_of_the_expected_calibration_error(p):
    confidence, correct = sample()
    edge = np.abs(confidence * 10 - np.round(confidence * 10)) > 0.05
    confidence, correct = confidence[edge], correct[edge]
    total = 0.0
    for b in range(10):
        own = (confidence > b / 10) & (confidence <= (b + 1) / 10)
        total += own.mean() * abs(correct[own].mean() - confidence[own].mean()) ** p
    found = fl.soft_calibration_error(confidence, correct, bins=10, temperature=1e-5, p=p)
    assert found == pytest.approx(total ** (1 / p), rel=1e-9)


@pytest.mark.parametrize(("p", "temperature"), [(1.0, 0.01), (2.0, 0.003), (2.5, 0.1)])
def test_soft_bins_against_torch(p, temperature):
    torch = pytest.importorskip("torch")
    confidence, correct = sample(9)
    (c,) = leaves(torch, confidence)
    a = torch.tensor(correct).double()
    centres = (torch.arange(15).double() + 0.5) / 15
    u = torch.softmax(-((c[:, None] - centres) ** 2) / temperature, dim=1)
    gaps = ((u * a[:, None]).sum(0) / u.sum(0) - (u * c[:, None]).sum(0) / u.sum(0)).abs()
    expected = (u.sum(0) / len(c) * gaps**p).sum() ** (1 / p)
    expected.backward()
    value, grad = fl.soft_calibration_error.value_and_grad(confidence, correct, temperature=temperature, p=p)
    assert value == pytest.approx(expected.item(), rel=1e-11)
    np.testing.assert_allclose(grad, c.grad, rtol=1e-7, atol=1e-12)


def test_a_step_down_calibrates():
    confidence, correct = sample(10, 5000)
    logit = np.log(confidence / (1 - confidence))
    offset = 0.0
    before = fl.soft_calibration_error(confidence, correct)
    for _ in range(60):
        p = 1 / (1 + np.exp(-(logit + offset)))
        value, grad = fl.soft_calibration_error.value_and_grad(p, correct)
        offset -= 2.0 * (grad * p * (1 - p)).sum()
    assert value < 0.5 * before
