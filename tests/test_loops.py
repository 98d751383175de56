"""What the loops around a formula must not do to it."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.loss import ElementwiseLoss

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
