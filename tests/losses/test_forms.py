"""Calls in other libraries' forms: one CTC sequence, targets one after another, boxes in pairs."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(21)


def log_rows(rng, *shape):
    z = rng.normal(size=shape)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("lengths", [True, False])
def test_one_sequence_of_ctc(rng, lengths):
    lp, targets = log_rows(rng, 9, 5), np.array([1, 3, 3, 2])
    frames, symbols = (8, 3) if lengths else (9, 4)
    theirs = F.ctc_loss(torch.tensor(lp), torch.tensor(targets[:symbols]), [frames], [symbols], reduction="none")
    given = {"input_lengths": np.array(frames), "target_lengths": np.array([symbols])} if lengths else {}
    value, grad = fl.ctc.value_and_grad(lp, targets, **given)
    assert value == pytest.approx(theirs.item(), rel=1e-12)
    assert fl.ctc(lp, targets, reduction="none", **given) == pytest.approx(theirs.item(), rel=1e-12)
    batched = fl.ctc.value_and_grad(lp[:, None], targets[None], **{k: a.reshape(1) for k, a in given.items()})[1]
    np.testing.assert_array_equal(grad, batched[:, 0])


def test_targets_one_after_another(rng):
    lp, lengths = log_rows(rng, 12, 3, 5), np.array([2, 0, 4])
    targets = rng.integers(1, 5, 6)
    theirs = F.ctc_loss(torch.tensor(lp), torch.tensor(targets), [12] * 3, lengths.tolist(), reduction="none")
    values = fl.ctc(lp, targets, target_lengths=lengths, reduction="none")
    np.testing.assert_allclose(values, theirs, rtol=1e-12)
    x = torch.tensor(lp, requires_grad=True)
    fl.torch.ctc(x, torch.tensor(targets), target_lengths=torch.tensor(lengths)).backward()
    np.testing.assert_allclose(x.grad, fl.ctc.value_and_grad(lp, targets, target_lengths=lengths)[1])
    with pytest.raises(TypeError, match="ctc: target_lengths is missing"):
        fl.ctc(lp, targets)
    with pytest.raises(ValueError, match=r"ctc: target_lengths are \[2, 0, 3\]; expected .* 6"):
        fl.ctc(lp, targets, target_lengths=np.array([2, 0, 3]))


def ious(a, b):
    """torchvision's box_iou."""
    low, high = torch.max(a[:, None, :2], b[:, :2]), torch.min(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def boxes(rng, n):
    corners = rng.uniform(0, 3, (n, 2))
    return np.concatenate([corners, corners + rng.uniform(0.5, 3, (n, 2))], axis=1)


def test_boxes_in_pairs(rng):
    a, b = boxes(rng, 7), boxes(rng, 4)
    x = torch.tensor(a, requires_grad=True)
    theirs = 1 - ious(x, torch.tensor(b))
    np.testing.assert_allclose(fl.iou(a, b, pairwise=True, reduction="none"), theirs.detach(), rtol=1e-12, atol=1e-15)
    w = rng.uniform(0, 1, (7, 4))
    ((theirs * torch.tensor(w)).sum() / w.sum()).backward()
    value, grad = fl.iou.value_and_grad(a, b, pairwise=True, weight=w)
    assert value == pytest.approx((theirs.detach().numpy() * w).sum() / w.sum(), rel=1e-12)
    np.testing.assert_allclose(grad, x.grad, rtol=1e-9, atol=1e-15)
    # Every loss of boxes, pair by pair, and in more than one part.
    few = np.tile(a, (3000, 1))[:20000].astype(np.float32)
    for name in ("giou", "siou"):
        pairs = fl.LOSSES[name](few, b.astype(np.float32), pairwise=True, reduction="none")
        assert pairs.shape == (20000, 4)
        assert pairs.dtype == np.float32
        one = fl.LOSSES[name](few[-7:], np.tile(b[2].astype(np.float32), (7, 1)), reduction="none")
        np.testing.assert_array_equal(pairs[-7:, 2], one)
    assert fl.iou(a, b[:0], pairwise=True) == 0.0
    with pytest.raises(ValueError, match=r"iou: target has shape \(4,\); expected \(\.\.\., 4\) of two dimensions"):
        fl.iou(a, b[0], pairwise=True)


@pytest.mark.oracle
def test_boxes_in_pairs_elsewhere(rng):
    jax = pytest.importorskip("jax", reason="needs the extra jax")
    a, b = boxes(rng, 7).astype(np.float32), boxes(rng, 4).astype(np.float32)
    found = fl.jax.giou(jax.numpy.asarray(a), jax.numpy.asarray(b), pairwise=True, reduction="none")
    np.testing.assert_allclose(found, fl.giou(a, b, pairwise=True, reduction="none"), rtol=1e-6)
