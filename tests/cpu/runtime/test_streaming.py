"""Results written past the caches are those written through them, bit for bit, wherever the arrays lie."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.cpu import dispatch
from fastloss.losses import elementwise as elementwise_loss

pytestmark = pytest.mark.jit

SIZE = (1 << 16) + 2 * (1 << 15)


@pytest.fixture
def streaming(monkeypatch):
    def switch(on):
        monkeypatch.setattr(elementwise_loss, "streams", lambda *_: on)

    return switch


def placed(size, dtype, first):
    """An array whose first element lies some elements after a cache line."""
    memory = np.full(size + 64, np.nan, dtype)
    start = -(memory.ctypes.data // memory.itemsize) % (64 // memory.itemsize) + first
    return memory, memory[start : start + size]


@pytest.mark.parametrize("size", [SIZE, SIZE + 1, SIZE + 63, SIZE - 5])
@pytest.mark.parametrize("first", [0, 1, 4, 8, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient(streaming, dtype, first, size):
    rng = np.random.default_rng(size)
    p, t = rng.normal(size=(2, size)).astype(dtype)
    memory, out = placed(size, dtype, first)
    streaming(False)
    expected, gradient = fl.huber.value_and_grad(p, t)
    streaming(True)
    value, got = fl.huber.value_and_grad(p, t, out=out)
    assert value == expected
    np.testing.assert_array_equal(got, gradient)
    # Nothing is written beside it.
    assert np.isnan(memory).sum() == 64


@pytest.mark.parametrize("name", ["gaussian_nll", "mse", "hinge"])
def test_every_output(streaming, name):
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, SIZE + 7)).astype(np.float32)
    pred = (p, np.abs(t) + 1) if name == "gaussian_nll" else p
    target = np.sign(t) if name == "hinge" else t
    f, weight = fl.LOSSES[name], np.abs(t)

    def results():
        yield f(pred, target, reduction="none")
        yield from np.atleast_2d(f.value_and_grad(pred, target, reduction="none", weight=weight)[1])
        for group in f.grad_and_hess(pred, target):
            yield from np.atleast_2d(group)

    streaming(False)
    expected = list(results())
    streaming(True)
    for got, wanted in zip(results(), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_only_large_results_of_cheap_formulas_pass_the_caches(monkeypatch):
    monkeypatch.setattr(dispatch, "last_level", lambda: 1 << 20)
    small, large = np.zeros(1 << 16, np.float32), np.zeros(1 << 19, np.float32)
    assert dispatch.streams(fl.mse.record, (large,))
    assert not dispatch.streams(fl.mse.record, (small,), (small,))
    assert not dispatch.streams(fl.bce_with_logits.record, (large,))
