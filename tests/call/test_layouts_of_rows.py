"""Inputs and outputs of row-wise losses in every layout, along any axis and of any size."""

import math

import numpy as np
import pytest
from layout_cases import (
    TOLERANCE,
    close,
    draw_rows,
    each_layout,
    layouts_in,
    read_only,
    reversed_memory,
    snapshot,
    strided,
    swapped,
    transposed,
    unaligned,
)
from logistic import softmax

import fastloss as fl
from fastloss import reference
from fastloss.cpu.dispatch import CHUNK, PARALLEL_FROM

pytestmark = pytest.mark.jit


@pytest.fixture
def lay_out(tmp_path):
    return layouts_in(tmp_path)


def check_rows(p, y, w=None, axis=-1):
    z = np.moveaxis(np.array(p, np.float64), axis, -1)
    k = z.shape[-1]
    labels = np.array(y, np.int64).ravel()
    flat = z.reshape(-1, k)
    weight = np.ones(len(flat)) if w is None else np.broadcast_to(np.array(w, np.float64), z.shape[:-1]).ravel()
    kept = labels != -100
    weight = weight * kept
    hot = np.zeros_like(flat)
    np.put_along_axis(hot, np.where(kept, labels, 0)[:, None], 1.0, axis=1)
    values = weight * reference.cross_entropy(flat, hot)
    slopes = weight[:, None] * (softmax(flat) - hot)
    total = weight.sum()
    dtype = np.asarray(p).dtype
    held = snapshot(p, y, w)
    value, grad = fl.cross_entropy.value_and_grad(p, y, weight=w, axis=axis)
    assert math.isclose(value, values.sum() / total if total else 0.0, rel_tol=TOLERANCE[dtype.name], abs_tol=1e-300)
    assert math.isclose(value, fl.cross_entropy(p, y, weight=w, axis=axis), rel_tol=1e-6, abs_tol=1e-300)
    assert grad.shape == np.shape(p)
    assert grad.dtype == dtype
    close(np.moveaxis(grad, axis, -1) * max(total, 1.0), slopes.reshape(z.shape), dtype)
    each = fl.cross_entropy(p, y, weight=w, axis=axis, reduction="none")
    assert each.shape == z.shape[:-1]
    close(each, values.reshape(z.shape[:-1]), dtype)
    assert snapshot(p, y, w) == held


@each_layout
@pytest.mark.parametrize("k", [5, 40])
def test_layouts_of_rows(layout, k, lay_out):
    p, y = draw_rows(53, k)
    w = np.random.default_rng(3).random(53)
    check_rows(lay_out(layout, p), lay_out(layout, y), lay_out(layout, w))
    check_rows(p, lay_out(layout, y))
    check_rows(lay_out(layout, p), y)


@pytest.mark.parametrize("y_type", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint64"])
def test_label_dtypes(y_type):
    p, y = draw_rows(53, 5)
    check_rows(p, np.where(y < 0, 1, y).astype(y_type))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("layout", ["copy", "transposed", "strided", "swapped"])
def test_axes(axis, layout, lay_out):
    rng = np.random.default_rng(4)
    p = rng.standard_normal((6, 7, 8)).astype(np.float32)
    shape = [s for i, s in enumerate(p.shape) if i != axis % 3]
    y = rng.integers(0, p.shape[axis], shape)
    check_rows(lay_out(layout, p), lay_out("copy", y), axis=axis)


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 64])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65])
def test_sizes_of_rows(n, k):
    check_rows(*draw_rows(n, k, seed=n))


@pytest.mark.parametrize(
    ("n", "k"), [(CHUNK // 33 + d, 33) for d in (-1, 0, 1)] + [(PARALLEL_FROM // 8 + d, 8) for d in (-1, 0, 1)]
)
def test_rows_around_chunks(n, k):
    check_rows(*draw_rows(n, k, seed=n))


def test_a_row_wider_than_a_chunk():
    check_rows(*draw_rows(3, PARALLEL_FROM + 3))


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (2, 0, 5)], ids=str)
def test_no_rows(shape):
    p = np.zeros(shape, np.float32)
    value, grad = fl.cross_entropy.value_and_grad(p, np.zeros(shape[:-1], int))
    assert value == 0.0
    assert grad.shape == shape
    assert fl.cross_entropy(p, np.zeros(shape[:-1], int), reduction="none").shape == shape[:-1]


@pytest.mark.parametrize("layout", ["copy", "transposed", "strided", "unaligned"])
@pytest.mark.parametrize("axis", [-1, 0])
def test_outputs_of_rows(layout, axis, lay_out):
    p, _ = draw_rows(6, 5)
    y = np.arange(p.size // p.shape[axis]) % p.shape[axis]
    expected = fl.cross_entropy.value_and_grad(p, y, axis=axis)[1]
    out = lay_out(layout, np.zeros_like(p))
    assert fl.cross_entropy.value_and_grad(p, y, axis=axis, out=out)[1] is out
    assert np.array_equal(out, expected)
    g, h = (lay_out(layout, np.zeros_like(p)) for _ in range(2))
    got = fl.cross_entropy.grad_and_hess(p, y, axis=axis, out=(g, h))
    assert got[0] is g
    assert got[1] is h
    close(g, expected * len(y), "float32")


def test_layouts_of_probability_targets():
    p, _ = draw_rows(20, 7, "float64")
    t = softmax(np.random.default_rng(5).standard_normal((20, 7)))
    expected = reference.cross_entropy(p, t).mean()
    for lay in (np.copy, transposed, strided, reversed_memory, read_only, swapped, unaligned):
        held = snapshot(lay(t))
        laid = lay(t)
        assert math.isclose(fl.cross_entropy(lay(p), laid), expected, rel_tol=1e-13)
        assert math.isclose(fl.cross_entropy(lay(p).T, laid.T, axis=0), expected, rel_tol=1e-13)
        assert snapshot(laid) == held
