"""Row-wise losses along any axis, their details per row, and the accumulation of long sums."""

import math

import numpy as np
import pytest
from numba import config
from row_cases import (
    CURVED,
    ROWS,
    each_dtype,
    kinds,
    scores,
    targets,
)

import fastloss as fl

# Layouts -------------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("name", [n for n in ROWS if n != "crps_ensemble"])
def test_classes_along_any_axis(name, k, dtype):
    """(N, C, H, W) against labels (N, H, W), as segmentation has them."""
    rng = np.random.default_rng(30)
    z = scores(rng, name, 2 * 3 * 4, k, dtype).reshape(2, 3, 4, k)
    dense = "labels" not in kinds(name) or name == "kl_div"
    t = targets(rng, name, "dense", 24, k, dtype).reshape(z.shape) if dense else rng.integers(0, k, (2, 3, 4))
    loss = ROWS[name]
    expected = loss.value_and_grad(z, t)
    rows, second = loss(z, t, reduction="none"), loss.grad_and_hess if name in CURVED else loss.value_and_grad
    details = second(z, t)
    for axis in (1, -3):
        moved = np.ascontiguousarray(np.moveaxis(z, -1, axis))
        goal = np.ascontiguousarray(np.moveaxis(t, -1, axis)) if dense else t
        before = moved.copy()
        value, grad = loss.value_and_grad(moved, goal, axis=axis)
        assert value == expected[0]
        assert grad.shape == moved.shape
        assert np.array_equal(grad, np.moveaxis(expected[1], -1, axis))
        assert np.array_equal(loss(moved, goal, axis=axis, reduction="none"), rows)
        for got, wanted in zip(second(moved, goal, axis=axis), details, strict=True):
            assert np.array_equal(got, np.moveaxis(wanted, -1, axis) if np.ndim(wanted) else wanted)
        out = np.full(moved.shape, np.nan, dtype)
        assert loss.value_and_grad(moved, goal, axis=axis, out=out)[1] is out
        assert np.array_equal(out, grad)
        assert np.array_equal(moved, before)


@pytest.mark.parametrize("k", [5, 40])
def test_strided_and_read_only_rows(k):
    rng = np.random.default_rng(31)
    whole, t = rng.normal(size=(60, 2 * k)), rng.integers(0, k, 30)
    z = whole[::2, ::-2]
    expected = fl.cross_entropy.value_and_grad(np.ascontiguousarray(z), t)
    whole.flags.writeable = False
    value, grad = fl.cross_entropy.value_and_grad(z, t)
    assert value == expected[0]
    assert np.array_equal(grad, expected[1])
    out = np.empty((30, 2 * k))[:, ::2]
    assert fl.cross_entropy.value_and_grad(z, t, out=out)[1] is out
    assert np.array_equal(out, expected[1])


@each_dtype
@pytest.mark.parametrize("k", [3, 10, 32, 33, 700])
def test_row_counts_around_tiles_and_chunks(k, dtype):
    """Each row by itself gives the same result as among others, whatever the tile."""
    rng = np.random.default_rng(32)
    most = 130 if config.DISABLE_JIT else 9001 if k < 50 else 200
    z = rng.normal(size=(most, k)).astype(dtype)
    t = rng.integers(0, k, most)
    rows, grads = fl.cross_entropy.value_and_grad(z, t, reduction="none")
    for n in (1, 63, 64, 65, 128, most):
        value, grad = fl.cross_entropy.value_and_grad(z[:n], t[:n], reduction="sum")
        again = fl.cross_entropy(z[:n], t[:n], reduction="none")
        np.testing.assert_allclose(again, rows[:n], rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad, grads[:n], rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps / 8)
        total = math.fsum(rows[:n].tolist())
        assert value == pytest.approx(total, rel=1e-6 if dtype is np.float32 else 1e-13)


# By-products ---------------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("k", [1, 2, 10, 33, 100])
@pytest.mark.parametrize("variant", [{}, {"temperature": 2.0, "label_smoothing": 0.1}], ids=["plain", "scaled"])
def test_details(k, variant, dtype):
    rng = np.random.default_rng(33)
    z = rng.normal(0, 3, (80, k)).astype(dtype)
    t = rng.integers(0, k, 80)
    t[5] = -100
    loss, grad, details = fl.cross_entropy.value_and_grad(z, t, details=True, **variant)
    assert loss == fl.cross_entropy.value_and_grad(z, t, **variant)[0]
    assert np.array_equal(grad, fl.cross_entropy.value_and_grad(z, t, **variant)[1])
    scaled = z.astype(np.float64) / variant.get("temperature", 1.0)
    np.testing.assert_allclose(details.logsumexp, np.logaddexp.reduce(scaled, axis=1), rtol=1e-5, atol=1e-6)
    assert np.array_equal(details.argmax, z.argmax(axis=1))
    keep = t >= 0
    rank = (z > z[np.arange(80), np.where(keep, t, 0)][:, None]).sum(axis=1)
    assert np.array_equal(details.rank[keep], rank[keep])
    assert details.rank[5] == k
    for top in (1, 2, 5):
        order = np.argsort(-z, axis=1, kind="stable")[:, :top]
        hits = (order == t[:, None]).any(axis=1)
        assert np.array_equal(details.top_k(top) & keep, hits & keep)
    np.testing.assert_allclose(details.loss, fl.cross_entropy(z, t, reduction="none", **variant), rtol=1e-6)
    alone = fl.cross_entropy.details(z, t, **variant)
    np.testing.assert_allclose(alone.loss, details.loss, rtol=1e-5 if dtype is np.float32 else 1e-13)
    assert np.array_equal(alone.rank, details.rank)


@pytest.mark.parametrize("k", [4, 40])
def test_ties_go_to_the_first(k):
    z = np.zeros((3, k))
    details = fl.cross_entropy.details(z, np.array([0, 1, 3]))
    assert details.argmax.tolist() == [0, 0, 0]
    assert details.rank.tolist() == [0, 1, 3]


def test_details_of_images_have_their_shape():
    rng = np.random.default_rng(34)
    z, t = rng.normal(size=(2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))
    details = fl.cross_entropy.details(z, t, axis=1)
    assert {x.shape for x in details} == {(2, 3, 4)}
    assert np.array_equal(details.argmax, z.argmax(axis=1))


@pytest.mark.parametrize("name", ["nll", "multi_margin", "crps_ensemble"])
def test_no_details_without_a_softmax(name):
    t = np.array([0.0]) if name == "crps_ensemble" else np.array([0])
    with pytest.raises(ValueError, match="details"):
        ROWS[name].details(np.zeros((1, 3)), t)


# Long sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("k", [10, 100])
def test_rows_are_accumulated_in_float64(k):
    rng = np.random.default_rng(35)
    z = rng.normal(size=(200_000, k)).astype(np.float32)
    t = rng.integers(0, k, len(z))
    rows = fl.cross_entropy(z, t, reduction="none")
    assert fl.cross_entropy(z, t, reduction="sum") == pytest.approx(math.fsum(rows.tolist()), rel=2e-9)


def test_slopes_of_classes_are_accumulated_in_float64():
    z = np.random.default_rng(36).normal(size=(2, 128_000)).astype(np.float32)
    labels = np.array([5, 77_777])
    _, gradient = fl.multi_margin.value_and_grad(z, labels)
    for row, label in zip(gradient.tolist(), labels, strict=True):
        # Shifting all scores changes nothing: the label's slope is the sum of all others, negated.
        assert row.pop(label) == pytest.approx(-math.fsum(row), rel=1e-6)
    wide = fl.dirichlet_evidential.value_and_grad(z.astype(np.float64), labels)[1]
    gradient = fl.dirichlet_evidential.value_and_grad(z, labels)[1]
    np.testing.assert_allclose(gradient, wide, atol=1e-6 * abs(wide).max())


def test_classes_are_accumulated_in_float64():
    # Rounding errors of equal numbers all have one sign: sums of 128,000 in float32 were 2e-5 off.
    z = np.full((2, 128_000), 0.3, np.float32)
    z[:, ::7] *= np.float32(1.1)
    t = np.full_like(z, 1 / z.shape[1])
    wide = fl.cross_entropy.value_and_grad(z.astype(np.float64), t.astype(np.float64))
    value, gradient = fl.cross_entropy.value_and_grad(z, t)
    assert value == pytest.approx(wide[0], rel=1e-6)
    np.testing.assert_allclose(gradient, wide[1], atol=5e-5 * abs(wide[1]).max())


@each_dtype
def test_large_images_are_turned_by_kernels(dtype):
    rng = np.random.default_rng(32)
    # Not a whole number of the blocks in which pixels are turned.
    moved = rng.normal(size=(3, 7, 33, 101)).astype(dtype)
    z = np.ascontiguousarray(np.moveaxis(moved, 1, -1))
    labels, before = rng.integers(0, 7, (3, 33, 101)), moved.copy()
    for goal, t in ((labels, labels), (moved**2, z**2)):
        expected = fl.cross_entropy.value_and_grad(z, t)
        for axis in (1, -3):
            value, grad = fl.cross_entropy.value_and_grad(moved, goal, axis=axis)
            assert value == expected[0]
            assert np.array_equal(grad, np.moveaxis(expected[1], -1, axis))
    assert np.array_equal(moved, before)
    # Read-only and strided images are not turned, and give the same.
    moved.flags.writeable = False
    value, grad = fl.cross_entropy.value_and_grad(moved, labels, axis=1)
    again = fl.cross_entropy.value_and_grad(np.repeat(moved, 2, axis=3)[..., ::2], labels, axis=1)
    assert value == again[0] == fl.cross_entropy(z, labels)
    assert np.array_equal(grad, again[1])


@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("dense", [False, True])
def test_second_derivatives_at_temperatures_whose_square_leaves_float32(k, dense):
    rng = np.random.default_rng(33)
    for temperature in (1e-19, 1e-30):
        z = (rng.normal(size=(4, k)) * temperature).astype(np.float32)
        # A class that is out of the question has a curvature of 0, whatever the temperature.
        z[:, 1] = -2000.0 * temperature
        t = rng.dirichlet(np.ones(k), 4).astype(np.float32) if dense else np.array([0, 2, 0, 2])
        exact = fl.cross_entropy.grad_and_hess(z.astype(np.float64), t, temperature=temperature)[1]
        found = fl.cross_entropy.grad_and_hess(z, t, temperature=temperature)[1]
        with np.errstate(over="ignore"):
            expected = exact.astype(np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert (found[:, 1] == 0.0).all()
