"""Barlow Twins and VICReg: torch, more columns than rows, constant columns, extremes."""

import numpy as np
import pytest

import fastloss as fl
from fastloss import reference

LOSSES = [fl.barlow_twins, fl.vicreg]
each = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
# Fewer columns than rows, more, many more than a unit of the kernels, one row.
each_shape = pytest.mark.parametrize("shape", [(9, 4), (4, 9), (3, 300), (40, 270), (1, 3)])


def views(shape, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=shape) * rng.uniform(0.5, 1.5, shape[1])
    return first, first + noise * rng.normal(size=shape) + 0.1


def barlow_torch(torch, a, b, lam=0.0051):
    """The authors' code: batch normalisation without weights, then the cross-correlation."""
    normal = torch.nn.functional.batch_norm
    u, v = (z - z.mean(0) if len(z) == 1 else normal(z, None, None, training=True, eps=1e-5) for z in (a, b))
    c = u.T @ v / len(a)
    on = ((torch.diagonal(c) - 1) ** 2).sum()
    return on + lam * (c.flatten()[:-1].view(len(c) - 1, len(c) + 1)[:, 1:] ** 2).sum()


def vicreg_torch(torch, a, b):
    """The authors' code, but for the covariance of a single row."""
    value = 25 * torch.nn.functional.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        c = z.T @ z / max(len(z) - 1, 1)
        value = value + 25 * torch.relu(1 - torch.sqrt(torch.diagonal(c) + 1e-4)).mean() / 2
        value = value + (c.flatten()[:-1].view(len(c) - 1, len(c) + 1)[:, 1:] ** 2).sum() / len(c)
    return value


@each_shape
@each
def test_values_and_gradients_of_torch(loss, shape):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    given = views(shape)
    leaves = [torch.from_numpy(z).requires_grad_() for z in given]
    expected = (barlow_torch if loss is fl.barlow_twins else vicreg_torch)(torch, *leaves)
    expected.backward()
    value, grads = loss.value_and_grad(*given)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-13)
    assert loss(*given) == value
    for grad, leaf in zip(grads, leaves, strict=True):
        np.testing.assert_allclose(grad, leaf.grad.numpy(), rtol=1e-10, atol=1e-13 * np.abs(grad).max() + 1e-15)
    single, halves = loss.value_and_grad(*(z.astype(np.float32) for z in given))
    np.testing.assert_allclose(single, value, rtol=1e-6)
    for grad, half in zip(grads, halves, strict=True):
        np.testing.assert_allclose(half, grad, atol=4e-6 * np.abs(grad).max() + 1e-7)


def test_equal_decorrelated_views_are_the_minimum_of_barlow_twins():
    z = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    value, grads = fl.barlow_twins.value_and_grad(z, z, eps=0.0)
    assert value == 0.0
    assert not any(g.any() for g in grads)
    # In single precision too what is on the diagonal is exact.
    assert fl.barlow_twins(z.astype(np.float32), z.astype(np.float32)) == pytest.approx(2 * (1e-5 / 1.00001) ** 2, 1e-6)


@each
@pytest.mark.parametrize("eps", [0.0, None])
def test_constant_columns_are_finite(loss, eps):
    z1, z2 = views((6, 3))
    z1[:, 1] = 2.0
    options = {} if eps is None else {"eps": eps}
    value, grads = loss.value_and_grad(z1, z2, **options)
    # The reference divides by the deviation: an eps that vanishes beside all but 0 stands for none.
    plain = {} if eps is None else {"eps": 1e-300}
    assert value == pytest.approx(float(getattr(reference, loss.name)(z1, z2, **plain)), rel=1e-13)
    assert all(np.isfinite(g).all() for g in grads)
    if eps == 0.0:
        assert loss is fl.vicreg or not grads[0][:, 1].any()
    same = np.ones((4, 3))
    value, grads = loss.value_and_grad(same, same, **options)
    assert np.isfinite(value)
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("size", [2.0**-600, 2.0**600])
def test_barlow_twins_knows_no_scale(size):
    z1, z2 = views((8, 3))
    expected, grads = fl.barlow_twins.value_and_grad(z1, z2, eps=0.0)
    value, got = fl.barlow_twins.value_and_grad(z1 * size, z2 * size, eps=0.0)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    for a, b in zip(got, grads, strict=True):
        np.testing.assert_allclose(a * size, b, rtol=1e-12)


@each
def test_nan_comes_through_and_a_weight_of_zero_leaves_it_out(loss):
    z1, z2 = views((6, 3))
    z1[2, 1] = np.nan
    value, grads = loss.value_and_grad(z1, z2)
    assert np.isnan(value)
    assert np.isnan(grads[0][:, 1]).all()
    value, grads = loss.value_and_grad(z1, z2, weight=0.0)
    assert value == 0.0
    assert not any(g.any() for g in grads)


@each
@pytest.mark.parametrize("dtype", [">f8", np.float16])
def test_a_weight_of_zero_clears_gradients_that_are_converted(loss, dtype):
    z1, z2 = (z.astype(dtype) for z in views((6, 3)))
    for g in loss.value_and_grad(z1, z2, weight=0.0)[1]:
        assert g.dtype == dtype
        assert not g.any()
