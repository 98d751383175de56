"""What the loops around a formula must not do to it."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.losses.elementwise import ElementwiseLoss

pytestmark = pytest.mark.jit


def vanishing(z, t):
    """Zero, but for NaN and infinity."""
    return z - z, t - t, 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sum_does_not_cancel_inside_its_terms(dtype, bad):
    # With reassoc and nsz on the sum, LLVM turned s += z - z into s += 0, whatever z was.
    loss = ElementwiseLoss(fl.mse.record._replace(name="vanishing", function=vanishing))
    z = np.ones(1000, dtype)
    assert loss(z, z) == 0.0
    z[500] = bad
    assert np.isnan(loss(z, z))
    value, grad = loss.value_and_grad(z, z)
    assert np.isnan(value)
    assert np.isnan(grad[500])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [41, 60, 63, 100])
def test_a_row_has_the_same_bits_wherever_its_arrays_lie(dtype, k):
    # Where LLVM tests for overlap at run time, arrays closer than a vector get a scalar loop and other last bits.
    memory = np.empty(4 * k + 64, dtype)
    scores = np.random.default_rng(k).normal(size=(1, k)).astype(dtype) * 5
    expected, gradient = fl.cross_entropy.value_and_grad(scores, np.array([3]))
    for gap in (0, 1, 5, 16, 40):
        near = memory[:k].reshape(1, k)
        near[...] = scores
        out = memory[k + gap : 2 * k + gap].reshape(1, k)
        value, _ = fl.cross_entropy.value_and_grad(near, np.array([3]), out=out)
        assert value == expected
        np.testing.assert_array_equal(out, gradient)
