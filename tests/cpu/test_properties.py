"""Any shape, values and layout: values and gradients against NumPy in float64, and what holds of reductions."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from logistic import sigmoid, softmax

import fastloss as fl
from fastloss import reference

pytestmark = pytest.mark.jit

settings.register_profile("properties", deadline=None, max_examples=60, derandomize=True)
properties = settings(settings.get_profile("properties"))

ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53}


# (reference, gradient, size of the terms that may cancel in the value, and in the gradient)
LOSSES = {
    "mse": (
        reference.mse,
        lambda z, t: 2 * (z - t),
        lambda z, t: (np.abs(z) + np.abs(t)) ** 2,
        lambda z, t: 2 * (np.abs(z) + np.abs(t)),
    ),
    "huber": (
        reference.huber,
        lambda z, t: np.clip(z - t, -1, 1),
        lambda z, t: np.abs(z) + np.abs(t) + 1,
        lambda z, t: np.abs(z) + np.abs(t),
    ),
    "bce_with_logits": (
        reference.bce_with_logits,
        lambda z, t: sigmoid(z) - t,
        lambda z, t: np.abs(z) + 1,
        lambda z, t: np.ones_like(z),
    ),
}

shapes = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)


def numbers(dtype, low=-1e4, high=1e4):
    width = 32 if dtype == np.float32 else 64
    low, high = float(dtype.type(low)), float(dtype.type(high))
    return st.floats(low, high, width=width, allow_nan=False, allow_infinity=False)


def lay_out(draw, x):
    """The same numbers in a memory layout of hypothesis's choice."""
    kind = draw(st.sampled_from(["C", "F", "strided", "reversed", "swapped", "read-only"]))
    if kind == "F":
        return np.asfortranarray(x)
    if kind == "strided":
        room = np.zeros((*x.shape[:-1], 3 * x.shape[-1]), x.dtype)
        room[..., 1::3] = x
        return room[..., 1::3]
    if kind == "reversed":
        return x[::-1].copy()[::-1]
    if kind == "swapped":
        return x.astype(x.dtype.newbyteorder())
    x = x.copy()
    x.flags.writeable = kind != "read-only"
    return x


@st.composite
def problems(draw, min_size=0):
    """(name, prediction, target, weight): the arrays in any shape and layout."""
    name = draw(st.sampled_from(list(LOSSES)))
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64"])))
    shape = draw(shapes)
    assume(math.prod(shape) >= min_size)
    target = numbers(dtype, 0, 1) if name == "bce_with_logits" else numbers(dtype)
    p = draw(arrays.arrays(dtype, shape, elements=numbers(dtype)))
    t = draw(arrays.arrays(dtype, shape, elements=target))
    w = draw(arrays.arrays(dtype, shape, elements=st.sampled_from([0.0, 0.25, 1.0, 3.0])))
    return name, lay_out(draw, p), lay_out(draw, t), lay_out(draw, w)


def near(got, expected, size, ulps=16):
    """Within a few roundings of the terms that it was made from."""
    got, expected = np.asarray(got), np.asarray(expected)
    kind = got.dtype.name  # the same for either byte order
    slack = ulps * ROUNDING[kind] * np.asarray(size) + 1e-37
    assert (np.abs(got.astype(np.float64) - expected) <= slack).all(), (got, expected, slack)


@properties
@given(problems())
def test_values_and_gradients(problem):
    name, p, t, w = problem
    loss, (value, slope, size, slope_size) = fl.LOSSES[name], LOSSES[name]
    held = [x.tobytes() for x in (p, t, w)]
    z, y, v = (np.array(x, np.float64) for x in (p, t, w))
    near(loss(p, t, reduction="none"), value(z, y), size(z, y))
    near(loss(p, t, weight=w, reduction="none"), v * value(z, y), v * size(z, y))
    total, grad = loss.value_and_grad(p, t, reduction="sum", weight=w)
    near(np.array(total, p.dtype), (v * value(z, y)).sum(), (v * size(z, y)).sum())
    near(grad, v * slope(z, y), v * slope_size(z, y))
    assert grad.dtype == p.dtype
    assert grad.shape == p.shape
    g, _ = loss.grad_and_hess(p, t, weight=w)
    near(g, v * slope(z, y), v * slope_size(z, y))
    assert [x.tobytes() for x in (p, t, w)] == held


@properties
@given(problems())
def test_reductions_agree(problem):
    name, p, t, w = problem
    loss, size = fl.LOSSES[name], LOSSES[name][2]
    z, y, v = (np.array(x, np.float64) for x in (p, t, w))
    for weight, count, scale in ((None, p.size, size(z, y)), (w, v.sum(), v * size(z, y))):
        mean, total = (loss(p, t, weight=weight, reduction=r) for r in ("mean", "sum"))
        each = loss(p, t, weight=weight, reduction="none")
        assert math.isclose(mean * count, total, rel_tol=1e-14) if count else mean == 0.0
        near(np.array(total, p.dtype), each.sum(dtype=np.float64), scale.sum())
        assert loss.value_and_grad(p, t, weight=weight)[0] == mean


@properties
@given(problems(min_size=1))
def test_gradients_of_reductions(problem):
    name, p, t, w = problem
    loss = fl.LOSSES[name]
    total = loss.value_and_grad(p, t, weight=w, reduction="sum")[1].astype(np.float64)
    each = loss.value_and_grad(p, t, weight=w, reduction="none")[1]
    assert np.array_equal(each, total)
    mean = loss.value_and_grad(p, t, weight=w)[1]
    count = float(np.sum(w, dtype=np.float64))
    near(mean, total / count if count else 0 * total, np.abs(total) / max(count, 1e-30))


@properties
@given(problems())
def test_weights_of_one_are_no_weights(problem):
    name, p, t, _ = problem
    loss, size = fl.LOSSES[name], LOSSES[name][2]
    ones = np.ones(p.shape, p.dtype)
    scale = size(np.array(p, np.float64), np.array(t, np.float64)).sum()
    for reduction in ("mean", "sum", "none"):
        plain, grad = loss.value_and_grad(p, t, reduction=reduction)
        value, weighted = loss.value_and_grad(p, t, weight=ones, reduction=reduction)
        near(np.asarray(value, p.dtype), np.asarray(plain, np.float64), scale, ulps=4)
        near(weighted, grad.astype(np.float64), np.abs(grad.astype(np.float64)), ulps=4)


@properties
@given(problems(min_size=1), st.sampled_from([0.5, 2.0, 4.0]))
def test_weights_are_linear(problem, factor):
    # Powers of two: every rounding is the same but for the exponent.
    name, p, t, w = problem
    loss = fl.LOSSES[name]
    scaled = (w.astype(p.dtype.newbyteorder("=")) * p.dtype.type(factor)).astype(w.dtype)
    value, grad = loss.value_and_grad(p, t, weight=w, reduction="sum")
    assert math.isclose(loss(p, t, weight=scaled, reduction="sum"), factor * value, rel_tol=1e-12)
    assert math.isclose(loss(p, t, weight=scaled), loss(p, t, weight=w), rel_tol=1e-12)
    more = loss.value_and_grad(p, t, weight=scaled, reduction="sum")[1]
    near(more, factor * grad.astype(np.float64), factor * np.abs(grad.astype(np.float64)), ulps=2)


@properties
@given(problems(min_size=1), st.floats(1e-3, 1e6))
def test_divisor(problem, divisor):
    name, p, t, w = problem
    loss = fl.LOSSES[name]
    total, grad = loss.value_and_grad(p, t, weight=w, reduction="sum")
    for reduction in ("mean", "sum"):
        value, slope = loss.value_and_grad(p, t, weight=w, reduction=reduction, divisor=divisor)
        assert math.isclose(value, total / divisor, rel_tol=1e-13)
        near(slope, grad.astype(np.float64) / divisor, np.abs(grad.astype(np.float64)) / divisor)


@properties
@given(problems(min_size=2), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(problem, random):
    name, p, t, w = problem
    loss = fl.LOSSES[name]
    order = list(range(p.size))
    random.shuffle(order)
    p1, t1, w1 = (np.ascontiguousarray(x).reshape(-1)[order] for x in (p, t, w))
    value, grad = loss.value_and_grad(p, t, weight=w)
    other, moved = loss.value_and_grad(p1, t1, weight=w1)
    assert math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-37)
    near(moved, grad.reshape(-1)[order].astype(np.float64), np.abs(moved.astype(np.float64)), ulps=2)


# Rows ----------------------------------------------------------------------------------------------------------------


@st.composite
def row_problems(draw):
    """(logits, labels, weight, axis): classes along any axis."""
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64"])))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7))
    if draw(st.booleans()):
        shape = (*shape[:-1], draw(st.integers(30, 40)))  # either side of where the loop changes
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    k = shape[axis]
    rows = tuple(s for i, s in enumerate(shape) if i != axis % len(shape))
    p = draw(arrays.arrays(dtype, shape, elements=numbers(dtype, -100, 100), fill=numbers(dtype, -2, 2)))
    y = draw(arrays.arrays(np.int64, rows, elements=st.sampled_from([-100, 0, k - 1, k // 2])))
    w = draw(arrays.arrays(dtype, rows, elements=st.sampled_from([0.0, 0.5, 1.0])))
    return lay_out(draw, p), y, w, axis


@properties
@given(row_problems())
def test_cross_entropy(problem):
    p, y, w, axis = problem
    z = np.moveaxis(np.array(p, np.float64), axis, -1)
    k = z.shape[-1]
    flat, labels = z.reshape(-1, k), y.reshape(-1)
    v = np.array(w, np.float64).reshape(-1) * (labels != -100)
    hot = np.eye(k)[np.where(labels == -100, 0, labels)]
    values = v * reference.cross_entropy(flat, hot)
    slopes = v[:, None] * (softmax(flat) - hot)
    held = p.tobytes(), y.tobytes(), w.tobytes()

    options = {"weight": w, "axis": axis}
    near(fl.cross_entropy(p, y, reduction="none", **options), values.reshape(y.shape), 300)
    total, grad = fl.cross_entropy.value_and_grad(p, y, reduction="sum", **options)
    near(np.array(total, p.dtype), values.sum(), 300 * max(len(v), 1))
    assert grad.shape == p.shape
    # A logit of 100 has an error of half its last place before it is exponentiated.
    near(np.moveaxis(grad, axis, -1), slopes.reshape(z.shape), 1.0, ulps=256)
    mean = fl.cross_entropy(p, y, **options)
    assert math.isclose(mean * v.sum(), total, rel_tol=1e-13) if v.sum() else mean == 0.0
    if k > 1 and v.sum():
        dense = np.moveaxis(hot.reshape(z.shape), -1, axis)
        kept = (y != -100) * w
        near(np.array(fl.cross_entropy(p, dense, weight=kept, axis=axis), p.dtype), mean, 300)
    assert (p.tobytes(), y.tobytes(), w.tobytes()) == held


@properties
@given(row_problems(), st.sampled_from([-8.0, 0.5, 64.0]))
def test_cross_entropy_ignores_a_shift(problem, shift):
    p, y, w, axis = problem
    moved = p.astype(np.float64) + shift
    a = fl.cross_entropy(p.astype(np.float64), y, weight=w, axis=axis)
    b = fl.cross_entropy(moved, y, weight=w, axis=axis)
    assert abs(a - b) <= 1e-12 * 300
    grad = fl.cross_entropy.value_and_grad(moved, y, weight=w, axis=axis)[1]
    assert (np.abs(grad.sum(axis=axis)) <= 1e-13).all()
