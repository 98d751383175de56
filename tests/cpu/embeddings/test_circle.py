"""Circle loss: the paper's gradient, pytorch-metric-learning's form, extremes."""

import mpmath
import numpy as np
import pytest

import fastloss as fl

mp = mpmath.mp.clone()
mp.dps = 50


def batch(n=40, d=6, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, d)) + rng.normal(size=(classes, d))[labels], labels


def circle_torch(torch, x, labels, m, gamma, detach):
    """As published: relu of the detached cosines as weights, two log-sum-exps, softplus of their sum."""
    unit = torch.nn.functional.normalize(x, dim=1)
    s = unit @ unit.T
    same = labels[:, None] == labels
    positive, negative = same & ~torch.eye(len(x), dtype=torch.bool), ~same
    held = s.detach() if detach else s
    by_p = -gamma * torch.relu(1 + m - held) * (s - (1 - m))
    by_n = gamma * torch.relu(held + m) * (s - m)
    infinity = torch.tensor(-torch.inf, dtype=x.dtype)
    near = torch.logsumexp(torch.where(positive, by_p, infinity), 1)
    far = torch.logsumexp(torch.where(negative, by_n, infinity), 1)
    valid = positive.any(1) & negative.any(1)
    return torch.logaddexp((near + far)[valid], torch.zeros(1, dtype=x.dtype)).mean()


@pytest.mark.parametrize(("m", "gamma", "detach"), [(0.25, 256.0, False), (0.25, 256.0, True), (0.4, 80.0, True)])
def test_values_and_gradients_of_torch(m, gamma, detach):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    x, labels = batch()
    leaf = torch.from_numpy(x).requires_grad_()
    expected = circle_torch(torch, leaf, torch.from_numpy(labels), m, gamma, detach)
    expected.backward()
    value, grad = fl.circle.value_and_grad(x, labels, m=m, gamma=gamma, detach=detach)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-13)
    # An error of 1e-16 in a cosine is one of gamma times that in the exponent.
    np.testing.assert_allclose(grad, leaf.grad.numpy(), atol=1e-12 * np.abs(grad).max())


def test_far_from_violation_the_loss_keeps_its_digits():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    value = fl.circle(x, np.array([0, 0, 1]), reduction="sum")
    # Cosines 1 and -1: exponents -256 / 16 and 0, of which the second's weight is 0.
    assert value == pytest.approx(2 * float(mp.log1p(mp.exp(-16))), rel=1e-15)


@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 2.0**-130), (np.float64, 2.0**-1030), (np.float64, 2.0**1000)]
)
def test_the_length_of_embeddings_does_not_matter(dtype, size):
    x, labels = batch(12, 3, 3)
    x = np.round(x * 16) / 16
    expected, grad = fl.circle.value_and_grad(x, labels, gamma=8.0)
    value, got = fl.circle.value_and_grad((x * size).astype(dtype), labels, gamma=8.0)
    assert value == expected
    if size > 1.0:
        np.testing.assert_allclose(got * size, grad, rtol=1e-13)
    else:
        # The gradient is as much larger, beyond the range.
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(got, (grad / size).astype(dtype), rtol=1e-6)


def test_zero_vectors_and_missing_partners_are_finite():
    x, labels = batch(10, 3, 3)
    x[4] = 0.0
    value, grad = fl.circle.value_and_grad(x, labels)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert not grad[4].any()
    for lonely in (np.zeros(10, int), np.arange(10)):
        value, grad = fl.circle.value_and_grad(x, lonely)
        assert value == 0.0
        assert not grad.any()


def test_nan_comes_through():
    x, labels = batch(36, 3, 3)
    x[20, 1] = np.nan
    values, grad = fl.circle.value_and_grad(x, labels, reduction="none")
    assert np.isnan(values).all()
    assert np.isnan(grad).all()
