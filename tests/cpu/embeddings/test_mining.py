"""Mined triplets: against loops and torch over several tiles, ties, batches without triplets, extremes."""

import numpy as np
import pytest
from array_cases import SAMPLES

import fastloss as fl
from fastloss import reference

LOSSES = [fl.batch_hard_triplet, fl.batch_all_triplet, fl.semi_hard_triplet]
each = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def batch(n=40, d=5, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[labels], labels


def torch_losses(torch, x, labels, margin, soft, squared):
    """The three losses by masks over all triplets, as differentiable tensors."""
    square = ((x[:, None] - x[None]) ** 2).sum(2)
    d = square if squared else torch.sqrt(torch.where(square > 0, square, torch.ones_like(square))) * (square > 0)
    same = labels[:, None] == labels
    positive, negative = same & ~torch.eye(len(x), dtype=torch.bool), ~same

    def cost(gap):
        return torch.logaddexp(gap, torch.zeros_like(gap)) if soft else torch.relu(gap + margin)

    far = torch.where(positive, d, -torch.inf).max(1).values
    near = torch.where(negative, d, torch.inf).min(1).values
    valid = positive.any(1) & negative.any(1)
    hard = cost(far[valid] - near[valid]).mean()
    gap = d[:, :, None] - d[:, None, :]
    every = cost(gap)[positive[:, :, None] & negative[:, None, :]]
    beyond = torch.where(negative[:, None, :] & (d[:, None, :] > d[:, :, None]), d[:, None, :], torch.inf).min(2).values
    last = torch.where(negative, d, -torch.inf).max(1, keepdim=True).values
    semi = cost(d - torch.where(torch.isinf(beyond), last, beyond))[positive & negative.any(1, keepdim=True)]
    return {"batch_hard_triplet": hard, "batch_all_triplet": every[every > 0].mean(), "semi_hard_triplet": semi.mean()}


@each
@pytest.mark.parametrize("options", [(1.0, False, False), (0.2, False, True), (0.0, True, False), (0.0, True, True)])
def test_values_and_gradients_of_torch(loss, options):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    x, labels = batch()
    leaf = torch.from_numpy(x).requires_grad_()
    expected = torch_losses(torch, leaf, torch.from_numpy(labels), *options)[loss.name]
    expected.backward()
    margin, soft, squared = options
    value, grad = loss.value_and_grad(x, labels, margin=margin, soft=soft, squared=squared)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-13)
    np.testing.assert_allclose(grad, leaf.grad.numpy(), rtol=1e-11, atol=1e-15)


@each
@pytest.mark.parametrize(("n", "classes"), [(31, 2), (65, 1), (34, 33), (33, 20)])
def test_sizes_that_fill_no_tile_and_classes_of_any_size(loss, n, classes):
    x, labels = batch(n, 3, classes)
    expected = np.array(getattr(reference, loss.name)(x, labels))
    np.testing.assert_allclose(loss(x, labels, reduction="none"), expected, rtol=1e-13, atol=1e-15)
    count = SAMPLES[loss.name].counted(x, labels).sum()
    np.testing.assert_allclose(loss(x, labels), expected.sum() / count if count else 0.0, rtol=1e-13)


@each
def test_weights_weigh_anchors(loss):
    x, labels = batch(40)
    weight = np.random.default_rng(1).integers(0, 3, len(x)) / 2
    value, grad = loss.value_and_grad(x, labels, weight=weight, reduction="sum")
    parts = [loss.value_and_grad(x, labels, weight=np.eye(len(x))[i], reduction="sum") for i in range(len(x))]
    np.testing.assert_allclose(value, sum(w * v for w, (v, _) in zip(weight, parts, strict=True)), rtol=1e-13)
    np.testing.assert_allclose(grad, sum(w * g for w, (_, g) in zip(weight, parts, strict=True)), atol=1e-13)


# Nothing to mine -----------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("labels", [np.zeros(4, int), np.arange(4)], ids=["one class", "no positives"])
def test_without_triplets_the_loss_is_zero(loss, labels):
    x = np.random.default_rng(0).normal(size=(4, 3))
    for options in ({}, {"soft": True}):
        value, grad = loss.value_and_grad(x, labels, **options)
        assert value == 0.0
        assert not grad.any()
        assert not loss(x, labels, reduction="none", **options).any()


def test_without_active_triplets_the_loss_is_zero():
    x = np.array([[0.0, 0.0], [0.1, 0.0], [50.0, 0.0], [50.1, 0.0]])
    for loss in LOSSES:
        value, grad = loss.value_and_grad(x, np.array([0, 0, 1, 1]))
        assert value == 0.0
        assert not grad.any()


@each
def test_collapsed_embeddings_have_no_gradient_and_no_nan(loss):
    x, labels = np.full((6, 3), 0.3), np.array([0, 0, 0, 1, 1, 1])
    for squared in (False, True):
        value, grad = loss.value_and_grad(x, labels, squared=squared)
        assert value == 1.0
        assert not grad.any()
    x[3:] += 0.25
    assert np.isfinite(loss.value_and_grad(x, labels)[1]).all()
    assert loss(x, labels, reduction="none").tolist() == pytest.approx(list(getattr(reference, loss.name)(x, labels)))


def test_on_the_kink_a_triplet_is_not_active():
    x, labels = np.array([[0.0], [1.0], [2.0]]), np.array([0, 0, 1])
    # Distances 1 and 2, and 1 and 1: with a margin of 1 the first costs nothing.
    assert fl.batch_all_triplet(x, labels, reduction="none").tolist() == [0.0, 1.0, 0.0]
    assert fl.batch_all_triplet(x, labels) == 1.0


def test_semi_hard_takes_the_nearest_farther_negative_else_the_farthest():
    x, labels = np.array([[0.0], [3.0], [1.0], [4.0], [7.0]]), np.array([0, 0, 1, 2, 3])
    # From 0: its positive is 3 away, its negatives 1, 4 and 7. From 3: negatives 2, 1 and 4 away.
    values = fl.semi_hard_triplet(x, labels, margin=2.0, reduction="none")
    assert values.tolist() == [3 - 4 + 2, 3 - 4 + 2, 0, 0, 0]
    x, labels = np.array([[0.0], [3.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    assert fl.semi_hard_triplet(x, labels, reduction="none")[0] == 3 - 2 + 1


# Extremes ------------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float64, 2.0**-1040), (np.float64, 2.0**900), (np.float32, 2.0**-135), (np.float32, 2.0**120)],
)
def test_huge_and_tiny_embeddings_are_those_of_size_one(loss, dtype, size):
    x, labels = batch(20, 3, 4)
    x = np.round(x * 64) / 64
    expected, grad = loss.value_and_grad(x, labels, margin=0.25)
    small = (x * size).astype(dtype)
    assert np.array_equal(small.astype(np.float64) / size, x)
    value, got = loss.value_and_grad(small, labels, margin=0.25 * size)
    np.testing.assert_allclose(value / size, expected, rtol=1e-14 if size > 1e-300 else 1e-7)
    np.testing.assert_allclose(got, grad, rtol=4 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).eps)


@each
def test_a_common_offset_does_not_cancel(loss):
    x, labels = batch(24, 4, 4)
    x = np.round(x * 2**16) / 2**16
    expected, grad = loss.value_and_grad(x, labels)
    value, got = loss.value_and_grad(x + 2.0**30, labels)
    assert value == expected
    np.testing.assert_array_equal(got, grad)


@each
def test_nan_comes_through_and_is_not_mined_away(loss):
    x, labels = batch(40, 3, 4)
    x[17, 1] = np.nan
    for options in ({}, {"soft": True}):
        values, grad = loss.value_and_grad(x, labels, reduction="none", **options)
        assert np.isnan(values).all()
        assert np.isnan(grad).any(axis=1).all()
        assert np.isnan(loss(x, labels, **options))
    # An anchor that does not count has no part in it.
    labels[:] = np.where(np.arange(40) < 2, 0, np.arange(40))
    values, _ = loss.value_and_grad(x, labels, reduction="none")
    assert np.isnan(values[:2]).all()
    assert not values[2:].any()
    value, grad = loss.value_and_grad(x, labels, weight=np.zeros(40))
    assert value == 0.0
    assert not grad.any()


@each
def test_an_infinitely_far_negative_costs_nothing(loss):
    x, labels = np.array([[0.0, 0.0], [0.5, 0.0], [np.inf, 0.0]]), np.array([0, 0, 1])
    value, grad = loss.value_and_grad(x, labels)
    assert value == 0.0
    assert not grad.any()


@each
def test_labels_are_any_whole_numbers(loss):
    x, labels = batch(30)
    expected = loss.value_and_grad(x, labels)
    for other in (labels * 10**17 - 3 * 10**17, labels.astype(np.uint8), labels.astype(np.uint64) + np.uint64(2**63)):
        value, grad = loss.value_and_grad(x, other)
        assert value == expected[0]
        np.testing.assert_array_equal(grad, expected[1])
    with pytest.raises(TypeError, match=f"{loss.name}: labels has dtype float64; expected integers"):
        loss(x, labels.astype(float))
    with pytest.raises(ValueError, match=r"labels has shape \(29,\); expected \(30,\), as in embeddings"):
        loss(x, labels[:29])
