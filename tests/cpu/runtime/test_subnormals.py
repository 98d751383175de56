"""Probabilities below the smallest normal number: a softmax takes them for 0, since vector units are slow with them."""

import platform
import threading

import numpy as np
import pytest
from logistic import softmax

import fastloss as fl

X86 = platform.machine().lower() in ("x86_64", "amd64")
pytestmark = [pytest.mark.jit, pytest.mark.skipif(not X86, reason="other processors keep subnormal numbers")]

SPREAD = {np.float32: 22.0, np.float64: 170.0}
"""Standard deviations of logits at which many probabilities are subnormal."""

each_dtype = pytest.mark.parametrize("dtype", SPREAD)


def subnormal(a):
    """How many elements are neither 0 nor normal."""
    return np.count_nonzero((a != 0.0) & (abs(a) < np.finfo(a.dtype).tiny))


def peaked(dtype, n, k, seed=3):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, k)) * SPREAD[dtype]).astype(dtype), rng.integers(0, k, n)


def softmax_of(z, y):
    """The gradient but at the labels, wider than float64."""
    return softmax(z.astype(np.longdouble)) / len(y)


@each_dtype
@pytest.mark.parametrize("k", [10, 100, 6000])
def test_no_derivative_is_subnormal(dtype, k):
    z, y = peaked(dtype, 130 if k < 1000 else 9, k)
    expected = softmax_of(z, y)
    assert np.count_nonzero((expected != 0) & (abs(expected) < np.finfo(dtype).tiny)) > k // 10
    value, gradient = fl.cross_entropy.value_and_grad(z, y)
    assert subnormal(gradient) == 0
    others = np.arange(k) != y[:, None]
    tolerance, floor = {np.float32: 2e-5, np.float64: 1e-12}[dtype], 8 * np.finfo(dtype).tiny
    np.testing.assert_allclose(gradient[others], expected[others].astype(np.float64), rtol=tolerance, atol=floor)
    assert value == pytest.approx(float(fl.cross_entropy(z.astype(np.float64), y)), rel=1e-6)


@each_dtype
def test_products_meet_no_subnormal_number(dtype):
    rng = np.random.default_rng(0)
    hidden = (rng.normal(size=(64, 32)) * SPREAD[dtype]).astype(dtype)
    projection = (rng.normal(size=(500, 32)) / np.sqrt(32)).astype(dtype)
    _, grads = fl.linear_cross_entropy.value_and_grad(hidden, projection, rng.integers(0, 500, 64))
    assert [subnormal(g) for g in grads] == [0, 0]
    queries = (rng.normal(size=(64, 16)) * np.sqrt(SPREAD[dtype] / 4)).astype(dtype)
    _, grads = fl.info_nce.value_and_grad(queries, np.roll(queries, 1, axis=0), normalize=False, temperature=1.0)
    assert [subnormal(g) for g in grads] == [0, 0]


def test_threads_keep_subnormal_numbers_elsewhere():
    z, y = peaked(np.float32, 4000, 100)
    tiny = np.full(4, np.finfo(np.float32).tiny)
    found = []

    def call():
        fl.cross_entropy.value_and_grad(z, y)
        hidden = z[:, :16] / 22
        fl.linear_cross_entropy.value_and_grad(np.ascontiguousarray(hidden), np.ascontiguousarray(hidden[:300]), y)
        with pytest.raises(ValueError, match="cross_entropy"):
            fl.cross_entropy(z, y + 100)
        found.append(tiny * np.float32(0.25))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    call()
    assert len(found) == 2
    assert (np.array(found) > 0.0).all()
    # Kernels of other losses run on the threads of the first.
    small = np.full(1 << 17, 1e-39, np.float32)
    assert (fl.mse.value_and_grad(small, np.zeros_like(small), reduction="sum")[1] > 0.0).all()
