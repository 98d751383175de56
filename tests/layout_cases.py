"""Every layout that an array can have, and the comparison of a call with contiguous NumPy."""

import numpy as np
import pytest
from logistic import sigmoid

import fastloss as fl
from fastloss import reference

TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-13}


class Case:
    """A loss, how to draw data for it, and what NumPy makes of them in float64: values and gradients, unreduced."""

    def __init__(self, loss, target, value, grad):
        self.loss = loss
        self.target = target
        self.value = value
        self.grad = grad


ELEMENTWISE = {
    "mse": Case(fl.mse, "real", reference.mse, lambda z, t: 2 * (z - t)),
    "bce_with_logits": Case(fl.bce_with_logits, "unit", reference.bce_with_logits, lambda z, t: sigmoid(z) - t),
    "huber": Case(fl.huber, "real", reference.huber, lambda z, t: np.clip(z - t, -1, 1)),
}
each_loss = pytest.mark.parametrize("name", ELEMENTWISE)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(case, shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    p = (2 * rng.standard_normal(shape)).astype(dtype)
    t = rng.standard_normal(shape) if case.target == "real" else rng.random(shape)
    return p, t.astype(dtype)


def doubles(*arrays):
    return [np.array(a, np.float64) for a in arrays]


def snapshot(*arrays):
    return [None if a is None else np.asarray(a).tobytes() for a in arrays]


def close(got, expected, dtype):
    tolerance = TOLERANCE[np.dtype(dtype).name]
    expected = np.asarray(expected)
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=tolerance, atol=tolerance * scale)


def filler(x):
    """What must not be read: NaN, or a label of no class."""
    return np.nan if x.dtype.kind == "f" else 99


def transposed(x):
    return np.ascontiguousarray(x.T).T


def reversed_memory(x):
    flip = tuple(slice(None, None, -1) for _ in x.shape)
    return x[flip].copy()[flip]


def strided(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), filler(x), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def rows_apart(x):
    tall = np.full((3 * x.shape[0], *x.shape[1:]), filler(x), x.dtype)
    tall[1::3] = x
    return tall[1::3]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def swapped(x):
    return x.astype(x.dtype.newbyteorder())


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    view = raw.view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned or x.size == 0 or x.dtype.alignment == 1
    return view


def offset(x):
    """Aligned to its items, not to a cache line."""
    room = np.zeros(x.size + 64, x.dtype)
    first = next(i for i in range(1, 64) if (room.ctypes.data + i * x.itemsize) % 64 == x.itemsize)
    view = room[first : first + x.size].reshape(x.shape)
    view[...] = x
    return view


def mapped(x, path="r"):
    raise NotImplementedError  # layouts_in has the folder that it needs


LAYOUTS = {
    f.__name__: f
    for f in (np.copy, transposed, reversed_memory, strided, rows_apart, read_only, swapped, unaligned, offset, mapped)
}


def layouts_in(folder):
    """A function that lays an array out in memory, by name; mapped files lie in the folder."""
    count = iter(range(100))

    def make(name, x):
        if name != "mapped":
            laid = LAYOUTS[name](x)
        else:
            path = folder / f"{next(count)}.bin"
            x.tofile(path)
            laid = np.memmap(path, x.dtype, "r", shape=x.shape)
        assert np.array_equal(laid, x)
        return laid

    return make


each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def draw_rows(n, k, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    y[rng.random(n) < 0.1] = -100
    return (2 * rng.standard_normal((n, k))).astype(dtype), y
