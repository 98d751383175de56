"""The reduction "batchmean": the sum over the length of the first axis, as torch's `kl_div` has it."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def log_rows(rng, shape):
    z = rng.normal(size=shape)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_divergences_as_torch(rng, shape):
    lp, target = log_rows(rng, shape), np.exp(log_rows(rng, shape))
    x = torch.tensor(lp, requires_grad=True)
    theirs = F.kl_div(x, torch.tensor(target), reduction="batchmean")
    theirs.backward()
    for _ in range(2):
        value, grad = fl.kl_div.value_and_grad(lp, target, reduction="batchmean")
        assert value == pytest.approx(theirs.item(), rel=1e-12)
        np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-12)
    bound = fl.kl_div.bind(reduction="batchmean")
    assert bound(lp, target) == pytest.approx(theirs.item(), rel=1e-12)
    # The axis of the classes does not change that of the batch.
    turned = [np.moveaxis(a, -1, 1) for a in (lp, target)]
    assert bound(*turned, axis=1) == pytest.approx(theirs.item(), rel=1e-12)


def test_each_family_divides_by_the_first_axis_alone(rng):
    z, t, w = (rng.normal(size=(6, 5)) for _ in range(3))
    w = np.abs(w)
    assert fl.mse(z, t, weight=w, reduction="batchmean") == pytest.approx((w * (z - t) ** 2).sum() / 6, rel=1e-12)
    labels = np.array([0, 1, -100, 3, -100, 4])
    rows = F.cross_entropy(torch.tensor(z), torch.tensor(labels), reduction="sum").item()
    assert fl.cross_entropy(z, labels, reduction="batchmean") == pytest.approx(rows / 6, rel=1e-12)
    boxes = np.concatenate([z[:, :2], z[:, :2] + 1.0 + w[:, :2]], axis=1)
    moved = boxes + 0.1
    value, grad = fl.iou.value_and_grad(boxes, moved, reduction="batchmean")
    assert value == pytest.approx(fl.iou(boxes, moved, reduction="none").sum() / 6, rel=1e-12)
    np.testing.assert_allclose(grad, fl.iou.value_and_grad(boxes, moved, divisor=6.0)[1], rtol=1e-12)


def test_sums_and_autograd(rng):
    z, t = (rng.normal(size=(6, 5)) for _ in range(2))
    expected = (0.5 * (z - t) ** 2 + np.abs(z - t)).sum() / 6
    assert (0.5 * fl.mse + fl.mae)(z, t, reduction="batchmean") == pytest.approx(expected, rel=1e-12)
    x = torch.tensor(z, requires_grad=True)
    loss = fl.torch.mse(x, torch.tensor(t), reduction="batchmean")
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (z - t) / 6, rtol=1e-12)


def test_nothing_to_average_and_errors():
    assert fl.mse(np.empty((0, 3)), np.empty((0, 3)), reduction="batchmean") == 0.0
    with pytest.raises(ValueError, match="mse: divisor is given with reduction='batchmean'"):
        fl.mse(np.ones(2), np.zeros(2), reduction="batchmean", divisor=2.0)
    with pytest.raises(ValueError, match="mse: reduction is 'batchmean', and the prediction is a scalar"):
        fl.mse(1.0, 0.0, reduction="batchmean")
