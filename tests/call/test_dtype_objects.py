"""Dtypes that equal NumPy's own and are other objects: from a byte order that was swapped back, or with metadata."""

import numpy as np
import pytest

import fastloss as fl

pytestmark = pytest.mark.jit

KINDS = {
    "swapped back": lambda name: np.dtype(name).newbyteorder(">").newbyteorder("="),
    "metadata": lambda name: np.dtype(name, metadata={"unit": "m"}),
}


def relabelled(x, kind):
    """The same memory under an equal dtype."""
    made = x.view(KINDS[kind](x.dtype.str[1:]))
    assert made.dtype == x.dtype
    assert made.dtype is not x.dtype
    return made


@pytest.fixture(params=KINDS)
def other(request):
    return lambda x: relabelled(x, request.param)


@pytest.mark.parametrize(("dtype", "axis"), [(np.float32, -1), (np.float32, 0), (np.float16, 0)])
def test_rows(other, dtype, axis):
    rng = np.random.default_rng(0)
    z, labels, w = rng.standard_normal((5, 5)).astype(dtype), rng.integers(0, 5, 5), rng.random(5).astype(dtype)
    for given in ({}, {"weight": w}, {"class_weight": w}):
        value, grad = fl.cross_entropy.value_and_grad(z, labels, axis=axis, **given)
        changed = {k: other(x) for k, x in given.items()}
        for _ in range(2):  # the second call may take a shorter way
            out = other(np.zeros((5, 5), dtype))
            ours, slope = fl.cross_entropy.value_and_grad(other(z), other(labels), axis=axis, out=out, **changed)
            assert ours == value
            assert slope is out
            assert np.array_equal(slope, grad)
            assert fl.cross_entropy(other(z), labels, axis=axis, **given) == value


@pytest.mark.parametrize("dtype", [np.float32])
def test_elements_and_arrays(other, dtype):
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((6, 3)).astype(dtype) for _ in range(2))
    for loss, given in (
        (fl.mse, (a, b)),
        (fl.cosine_distance, (a, b)),
        (fl.linear_cross_entropy, (a, b, np.arange(6))),
    ):
        value, grads = loss.value_and_grad(*given)
        for _ in range(2):
            ours, slopes = loss.value_and_grad(*map(other, given))
            assert ours == value
            np.testing.assert_array_equal(slopes, grads)
            each = loss(*map(other, given), reduction="none")
            np.testing.assert_array_equal(each, loss(*given, reduction="none"))
