"""Means under class weights: the cross-entropy is divided by these, a z_loss by the rows that count, as in Liger."""

import numpy as np
import pytest

import fastloss as fl

pytestmark = pytest.mark.jit


def expected(z, labels, class_weight, weight, smoothing, factor):
    """Value and gradient by torch."""
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    x = torch.tensor(z, requires_grad=True)
    kept, w = torch.tensor(labels != -100), torch.tensor(weight)
    own = torch.tensor(class_weight)
    entropy = torch.nn.functional.cross_entropy(
        x, torch.tensor(labels), weight=own, label_smoothing=smoothing, reduction="none"
    )
    mass = (w * own[torch.tensor(np.maximum(labels, 0))])[kept].sum()
    squares = torch.logsumexp(x, 1) ** 2
    loss = factor * (w * squares)[kept].sum() / w[kept].sum()
    loss = loss + ((w * entropy)[kept].sum() / mass if mass > 0.0 else 0.0)
    loss.backward()
    return loss.item(), x.grad.numpy()


@pytest.mark.parametrize("size", [0.0, 1e-300, 1.0, 10.0, 1e300])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_z_loss_is_a_mean_over_the_rows_that_count(size, smoothing):
    rng = np.random.default_rng(0)
    z, labels = rng.standard_normal((11, 4)), rng.integers(0, 4, 11)
    labels[[2, 7]] = -100
    class_weight, weight = size * rng.random(4), rng.random(11)
    for w in (None, weight):
        value, grad = expected(z, labels, class_weight, np.ones(11) if w is None else w, smoothing, 0.1)
        given = {"class_weight": class_weight, "label_smoothing": smoothing, "z_loss": 0.1, "weight": w}
        ours, slope = fl.cross_entropy.value_and_grad(z, labels, **given)
        assert ours == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(slope, grad, rtol=1e-11, atol=1e-16)
        linear, (by_hidden, _) = fl.linear_cross_entropy.value_and_grad(z, np.eye(4), labels, **given)
        assert linear == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(by_hidden, grad, rtol=1e-11, atol=1e-16)


def test_other_reductions_and_details_keep_the_class_weights():
    rng = np.random.default_rng(1)
    z, labels, class_weight = rng.standard_normal((6, 3)), np.array([0, 1, 2, -100, 1, 1]), np.array([0.5, 2.0, 7.0])
    lse = np.logaddexp.reduce(z, axis=1)
    rows = np.where(
        labels < 0,
        0.0,
        class_weight[np.maximum(labels, 0)] * (lse - z[np.arange(6), np.maximum(labels, 0)]) + 0.1 * lse**2,
    )
    given = {"class_weight": class_weight, "z_loss": 0.1}
    np.testing.assert_allclose(fl.cross_entropy(z, labels, reduction="none", **given), rows, rtol=1e-14)
    assert fl.cross_entropy(z, labels, reduction="sum", **given) == pytest.approx(rows.sum(), rel=1e-14)
    assert fl.cross_entropy(z, labels, divisor=7.0, **given) == pytest.approx(rows.sum() / 7.0, rel=1e-14)
    mean, _, details = fl.cross_entropy.value_and_grad(z, labels, details=True, **given)
    assert mean == fl.cross_entropy(z, labels, **given)
    np.testing.assert_allclose(details.loss, rows, rtol=1e-14)
