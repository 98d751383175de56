"""Arrays of float16 and bfloat16, and the comparison with float32 copies of them."""

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")
FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
each_format = pytest.mark.parametrize("half", [FLOAT16, BFLOAT16], ids=str)


def draw(name, n, half, seed=0):
    """Prediction and target of an element-wise loss."""
    rng = np.random.default_rng(seed)
    z, t = rng.normal(0, 2, (2, n)).astype(half)
    if name == "gaussian_nll":
        return (z, (rng.random(n) + 0.1).astype(half)), t
    if name == "l1":
        return z, None
    return z, rng.random(n).astype(half) if name == "bce_with_logits" else t


def draw_rows(name, n, k, half, seed=0):
    """Prediction and target of a loss of rows."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, k))
    if name == "cross_entropy":
        return z.astype(half), rng.integers(0, k, n)
    z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
    t = rng.random((n, k)) * (rng.random((n, k)) < 0.8) + 1e-3
    return z.astype(half), (t / t.sum(axis=1, keepdims=True)).astype(half)


def wide(x):
    """A float32 copy of what comes in halves."""
    if isinstance(x, tuple):
        return tuple(wide(a) for a in x)
    return x.astype(np.float32) if hasattr(x, "dtype") and x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def rounded(x, dtype):
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(dtype)


def same(got, expected, dtype):
    """The same bits as a float32 result rounded once; any NaN for NaN."""
    assert got.dtype == dtype
    assert expected.dtype == np.float32
    assert got.shape == expected.shape
    expected = rounded(expected, got.dtype)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(bits(got)[~nan], bits(expected)[~nan])


def bits(x):
    return np.ascontiguousarray(x).view(np.uint16)


def each(x):
    return x if isinstance(x, tuple) else (x,)


def memory(*arrays):
    return [a.tobytes() for x in arrays if x is not None for a in each(x)]


def results(loss, prediction, target, options):
    """Every kind of call: the reduced values, and the arrays."""
    curvature = {k: v for k, v in options.items() if k != "divisor"}
    value = loss(prediction, target, **options)
    reduced, gradient = loss.value_and_grad(prediction, target, **options)
    values = loss(prediction, target, reduction="none", **curvature)
    again, slopes = loss.value_and_grad(prediction, target, reduction="none", **curvature)
    hess = loss.grad_and_hess(prediction, target, **curvature)
    arrays = (gradient, (values,), (again,), slopes, *hess)
    return (value, reduced), [a for group in arrays for a in each(group)]


def check(loss, prediction, target, **options):
    """Each result of a call on halves against that on float32 copies; the inputs stay as they are."""
    held = memory(prediction, target)
    dtype = each(prediction)[0].dtype
    values, arrays = results(loss, prediction, target, options)
    wide_options = {k: wide(v) for k, v in options.items()}
    wide_values, wide_arrays = results(loss, wide(prediction), wide(target), wide_options)
    np.testing.assert_allclose(values, wide_values, rtol=1e-6)
    for got, expected in zip(arrays, wide_arrays, strict=True):
        same(got, expected, dtype)
    assert memory(prediction, target) == held
