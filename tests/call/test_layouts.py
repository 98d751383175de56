"""Inputs of elementwise losses in every layout and size: what contiguous NumPy gives, and no input is written."""

import math

import numpy as np
import pytest
from layout_cases import (
    ELEMENTWISE,
    TOLERANCE,
    close,
    doubles,
    draw,
    each_dtype,
    each_layout,
    each_loss,
    layouts_in,
    read_only,
    snapshot,
    strided,
    swapped,
)

import fastloss as fl
from fastloss.cpu.dispatch import CHUNK, PARALLEL_FROM
from fastloss.cpu.elementwise import BLOCK

pytestmark = pytest.mark.jit


def check_all(case, p, t, w=None, **call):
    """Value, gradient, per-element output and curvature of one layout against contiguous float64, inputs untouched."""
    z, y = doubles(p, t)
    n = z.size
    held = snapshot(p, t, w)
    weight = np.ones(z.shape) if w is None else np.broadcast_to(np.array(w, np.float64), z.shape)
    values, grads = weight * case.value(z, y), weight * case.grad(z, y)
    total = weight.sum()
    mean, slope = (values.sum() / total, grads / total) if n and total else (0.0, np.zeros_like(grads))
    dtype = np.asarray(p).dtype

    loss = case.loss
    for _ in range(2):  # the second call may take a shorter way
        assert math.isclose(loss(p, t, weight=w), mean, rel_tol=TOLERANCE[dtype.name], abs_tol=1e-300)
        value, grad = loss.value_and_grad(p, t, weight=w)
        assert math.isclose(value, mean, rel_tol=TOLERANCE[dtype.name], abs_tol=1e-300)
        assert grad.dtype == dtype
        assert grad.shape == z.shape
        # Relative to the largest: the gradient of a mean is small.
        close(grad * max(total, 1.0), slope * max(total, 1.0), dtype)
    close(loss(p, t, weight=w, reduction="sum"), values.sum(), dtype)
    each = loss(p, t, weight=w, reduction="none")
    assert each.dtype == dtype
    assert each.shape == z.shape
    close(each, values, dtype)
    g, h = loss.grad_and_hess(p, t, weight=w)
    close(g, grads, dtype)
    assert h.shape == z.shape
    assert snapshot(p, t, w) == held


@pytest.fixture
def lay_out(tmp_path):
    return layouts_in(tmp_path)


# Elementwise ---------------------------------------------------------------------------------------------------------


@each_loss
@each_dtype
@each_layout
def test_layouts(name, dtype, layout, lay_out):
    case = ELEMENTWISE[name]
    p, t = draw(case, (37, 29), dtype)
    check_all(case, lay_out(layout, p), lay_out(layout, t))
    check_all(case, p, lay_out(layout, t))
    check_all(case, lay_out(layout, p), t)


@each_dtype
@each_layout
def test_layouts_of_weights(dtype, layout, lay_out):
    case = ELEMENTWISE["huber"]
    p, t = draw(case, (37, 29), dtype)
    w = np.random.default_rng(1).random((37, 29)).astype(dtype)
    w[3] = 0.0
    check_all(case, p, t, lay_out(layout, w))
    check_all(case, lay_out(layout, p), lay_out(layout, t), lay_out(layout, w))


@pytest.mark.parametrize("shape", [(29,), (1, 29), (37, 1), (1, 1), (1,), ()], ids=str)
def test_weights_that_broadcast(shape):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (37, 29), "float32")
    w = np.random.default_rng(2).random(shape)
    check_all(case, p, t, w)
    check_all(case, strided(p), t, np.broadcast_to(w, p.shape))


@pytest.mark.parametrize("layout", ["transposed", "reversed_memory", "strided", "unaligned", "mapped"])
def test_layouts_of_a_large_array(layout, lay_out):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (331, 401), "float32")
    assert p.size > PARALLEL_FROM
    check_all(case, lay_out(layout, p), lay_out(layout, t))


@pytest.mark.parametrize(
    ("p_type", "t_type", "w_type"), [("float32", "float64", "int32"), ("float64", "float32", "bool")]
)
def test_mixed_dtypes(p_type, t_type, w_type):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (50,), "float64")
    check_all(case, p.astype(p_type), t.astype(np.float32).astype(t_type), (np.arange(50) % 3).astype(w_type))


@pytest.mark.parametrize("t_type", ["int8", "uint8", "int64", "uint64", "bool", "float16", "longdouble"])
def test_target_dtypes(t_type):
    case = ELEMENTWISE["bce_with_logits"]
    p, _ = draw(case, (50,), "float32")
    t = (np.arange(50) % 2).astype(t_type)
    check_all(case, p, t)


def test_float16():
    case = ELEMENTWISE["bce_with_logits"]
    p, t = draw(case, (40, 30), "float16")
    check_all(case, p, t)
    check_all(case, strided(p), swapped(t))


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    p, t = draw(ELEMENTWISE["mse"], (40,), "float32")
    b = p.astype(ml_dtypes.bfloat16)
    wide = b.astype(np.float64)
    value, grad = fl.mse.value_and_grad(b, t)
    assert math.isclose(value, np.mean((wide - t) ** 2), rel_tol=1e-6)
    assert grad.dtype == b.dtype
    np.testing.assert_allclose(grad.astype(np.float64), (wide - t) / 20, rtol=2**-8)


def test_subclasses_and_lists():
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (4, 5), "float64")
    expected = case.value(p, t).mean()
    assert math.isclose(fl.mse(p.tolist(), t.tolist()), expected, rel_tol=1e-14)
    value, grad = fl.mse.value_and_grad(p.view(np.recarray), t)
    assert math.isclose(value, expected, rel_tol=1e-14)
    assert grad.shape == (4, 5)
    close(grad, 2 * (p - t) / 20, "float64")


# Sizes ---------------------------------------------------------------------------------------------------------------

EDGES = [n + d for n in (BLOCK, CHUNK, PARALLEL_FROM, 2 * CHUNK + BLOCK) for d in (-1, 0, 1)]
SMALL = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127]


@each_dtype
@pytest.mark.parametrize("n", sorted({*SMALL, *EDGES}))
def test_sizes(n, dtype):
    for name in ("mse", "bce_with_logits"):
        case = ELEMENTWISE[name]
        check_all(case, *draw(case, n, dtype, seed=n))


@pytest.mark.parametrize("n", EDGES)
def test_nothing_is_written_beyond_the_end(n):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, n, "float32")
    room = np.full(n + 64, 7.0, np.float32)
    out = room[32 : 32 + n]
    _, grad = fl.mse.value_and_grad(p, t, out=out)
    assert grad is out
    assert (room[:32] == 7.0).all()
    assert (room[32 + n :] == 7.0).all()
    close(out * n, 2 * (p.astype(np.float64) - t), "float32")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
@each_dtype
def test_zero_size(shape, dtype):
    case = ELEMENTWISE["mse"]
    p = np.zeros(shape, dtype)
    check_all(case, p, p.copy())
    check_all(case, p, p.copy(), np.ones(shape))
    check_all(case, read_only(p), swapped(p))
    assert fl.mse(p, p) == 0.0


@each_dtype
def test_zero_dimensions(dtype):
    case = ELEMENTWISE["huber"]
    p, t = np.array(3.0, dtype), np.array(1.0, dtype)
    check_all(case, p, t)
    out = np.zeros((), dtype)
    value, grad = fl.huber.value_and_grad(p, t, out=out)
    assert value == 1.5
    assert grad is out
    assert out == 1.0
    assert fl.huber(3.0, 1.0) == 1.5


def test_a_scalar_target_stands_for_all():
    p, _ = draw(ELEMENTWISE["mse"], (3, 4), "float32")
    assert fl.mse(p, 0.5) == fl.mse(p, np.full((3, 4), 0.5, np.float32))


@pytest.mark.parametrize("n", [1, 3, 49, 1000, PARALLEL_FROM + 1])
def test_every_call_has_the_same_bits(n):
    p, t = draw(ELEMENTWISE["mse"], n, "float32", seed=n)
    fresh = fl.mse.bind()
    fresh = type(fresh)(fresh.record)  # knows no short way yet
    results = [(fresh(p, t), *fresh.value_and_grad(p, t)) for _ in range(3)]
    for value, other, grad in results:
        assert value == other == results[0][0]
        assert grad.tobytes() == results[0][2].tobytes()
    ones = np.ones(n, np.float32)
    assert {fresh(ones, np.zeros(n, np.float32)) for _ in range(3)} == {1.0}


@pytest.mark.slow
def test_more_than_two_gigabytes():
    n = 2**29 + 3 * CHUNK + 5
    p, t = np.zeros((2, n), np.float32)  # pages of zeros take no memory until they are written
    assert p.nbytes > 2**31
    p[[0, 2**29 - 1, 2**29, 2**29 + 1]] = [1.0, 2.0, 3.0, 4.0]
    t[[2**29, n - 1]] = [-3.0, 5.0]
    assert fl.mse(p, t, reduction="sum") == 1 + 4 + 36 + 16 + 25
    assert fl.mse(p, t) == 82 / n
