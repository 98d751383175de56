"""Cross-entropy of capped logits (Gemma 2), against torch."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional


def test_value_and_derivatives_as_torch():
    rng = np.random.default_rng(9)
    z, labels, cw = rng.normal(0, 20, (9, 6)), rng.integers(0, 6, 9), rng.uniform(0.5, 2.0, 6)
    labels[3] = -100
    given = {"label_smoothing": 0.1, "class_weight": cw}

    def loss(x):
        tensors = {"weight": torch.tensor(cw), "label_smoothing": 0.1}
        return F.cross_entropy(30.0 * torch.tanh(x / 30.0), torch.tensor(labels), **tensors)

    x = torch.tensor(z, requires_grad=True)
    theirs = loss(x)
    theirs.backward()
    out = np.empty_like(z)
    value, grad = fl.cross_entropy.value_and_grad(z, labels, softcap=30.0, out=out, **given)
    assert grad is out
    assert value == pytest.approx(theirs.item(), rel=1e-12)
    np.testing.assert_allclose(grad, x.grad, rtol=1e-9, atol=1e-15)
    assert fl.cross_entropy(z, labels, softcap=30.0, **given) == pytest.approx(value, rel=1e-15)
    small = fl.cross_entropy.value_and_grad(z.astype(np.float32), labels, softcap=30.0, **given)
    assert small[1].dtype == np.float32
    np.testing.assert_allclose(small[1], grad, rtol=2e-5, atol=1e-7)
    # Columns of classes, another axis, and no cap.
    turned = fl.cross_entropy.value_and_grad(z.T.copy(), labels, softcap=30.0, axis=0, **given)
    np.testing.assert_allclose(turned[1].T, grad, rtol=1e-13)
    assert fl.cross_entropy(z, labels, softcap=None, **given) == fl.cross_entropy(z, labels, **given)


def test_curvature_and_details():
    rng = np.random.default_rng(10)
    z, labels = rng.normal(0, 5, (3, 4)), np.array([0, 2, 1])

    def loss(x):
        return F.cross_entropy(4.0 * torch.tanh(x / 4.0), torch.tensor(labels), reduction="sum")

    hessian = torch.autograd.functional.hessian(loss, torch.tensor(z)).reshape(12, 12).diagonal().reshape(3, 4)
    grad, hess = fl.cross_entropy.grad_and_hess(z, labels, softcap=4.0)
    np.testing.assert_allclose(hess, hessian, rtol=1e-9, atol=1e-14)
    found = fl.cross_entropy.details(z, labels, softcap=4.0)
    np.testing.assert_allclose(found.logsumexp, np.log(np.exp(4 * np.tanh(z / 4)).sum(1)), rtol=1e-13)
    x = torch.tensor(z, requires_grad=True)
    fl.torch.cross_entropy(x, torch.tensor(labels), softcap=4.0, reduction="sum").backward()
    np.testing.assert_allclose(x.grad, grad, rtol=1e-12)
    with pytest.raises(ValueError, match=r"cross_entropy: softcap is -1; allowed: \(0, inf\)"):
        fl.cross_entropy(z, labels, softcap=-1)


def test_a_slope_far_beyond_the_cap():
    """Where tanh rounds to 1, its slope does not round to 0."""
    grad = fl.cross_entropy.value_and_grad(np.array([[25.0, 0.0]]), np.array([1]), softcap=1.0)[1]
    assert grad[0, 0] == pytest.approx(4 * np.exp(-50) / (1 + np.exp(-1)), rel=1e-6)
