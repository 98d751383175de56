"""Arrays of CuPy, and arrays lent by DLPack, on the simulated device: a module that poses as CuPy."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import fastloss as fl
from fastloss.cuda import libraries


class Array:
    """As much of a CuPy array as is asked for."""

    def __init__(self, a):
        self.a = np.asarray(a)
        self.dtype, self.shape = self.a.dtype, self.a.shape
        self.flags = SimpleNamespace(c_contiguous=self.a.flags.c_contiguous)
        self.device = SimpleNamespace(id=0)
        # What lies behind the address, in the order in which it lies there.
        behind = np.lib.stride_tricks.as_strided(self.a, (self.a.size,), (self.a.itemsize,))
        self.data = SimpleNamespace(ptr=behind)

    def get(self):
        return self.a


class Lent:
    """An array of a library that lends its memory."""

    def __init__(self, a):
        self.a = np.asarray(a)
        self.shape = self.a.shape

    def __dlpack_device__(self):
        return (libraries.DLPACK_CUDA, 0)


class Posing(libraries.CuPy):
    """CuPy, whose addresses are arrays of the simulator."""

    def address(self, x):
        return x.data.ptr


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    module = ModuleType("cupy")
    module.ndarray = Array
    module.empty = lambda shape, dtype: Array(np.empty(shape, dtype))
    module.asarray = Array
    module.ascontiguousarray = lambda x, dtype=None: Array(np.ascontiguousarray(x.a, dtype))
    module.broadcast_to = lambda x, shape: Array(np.broadcast_to(x.a, shape))
    module.from_dlpack = lambda x: Array(x.a)
    module.cuda = SimpleNamespace(get_current_stream=lambda device: SimpleNamespace(ptr=0))
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(libraries, "LIBRARIES", (Posing,))
    lender = ModuleType(Lent.__module__)
    lender.from_dlpack = lambda x: Lent(x.a)
    monkeypatch.setitem(sys.modules, Lent.__module__.split(".")[0], lender)


def test_results_are_arrays_of_cupy():
    p, t = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    loss, grad = fl.mse.value_and_grad(Array(p), Array(t))
    assert isinstance(loss, Array)
    assert loss.a == np.mean((p - t) ** 2)
    np.testing.assert_allclose(grad.a, (p - t) / 3)
    d = p.T - p.T[::-1]
    assert fl.mse(Array(p.T), Array(np.ascontiguousarray(p.T[::-1]))).a == pytest.approx(np.mean(d**2))
    weight = np.array([[1.0], [3.0]])
    expected = np.sum((p - t) ** 2 * weight) / (3 * weight.sum())
    assert fl.mse(Array(p), Array(t), weight=Array(weight)).a == pytest.approx(expected)


def test_what_is_lent_comes_back_as_what_it_was():
    p, t = Lent(np.arange(4.0)), Lent(np.ones(4))
    loss, grad = fl.mse.value_and_grad(p, t)
    assert isinstance(loss, Lent)
    assert loss.a == 1.5
    np.testing.assert_allclose(grad.a, (np.arange(4.0) - 1) / 2)


def test_what_is_lent_needs_a_library_to_take_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(libraries, "LIBRARIES", (libraries.Torch,))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TypeError, match="needs CuPy or torch to read an array of test_cupy"):
        fl.mse(Lent(np.ones(3)), Lent(np.ones(3)))
