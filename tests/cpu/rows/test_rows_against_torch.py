"""Row-wise losses against torch."""

import numpy as np
import pytest
from row_cases import CLASSES, probabilities, targets

import fastloss as fl


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
