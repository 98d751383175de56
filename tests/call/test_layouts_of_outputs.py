"""Outputs of elementwise losses in every layout: the results of contiguous NumPy, written where they belong."""

import numpy as np
import pytest
from layout_cases import (
    ELEMENTWISE,
    close,
    doubles,
    draw,
    each_dtype,
    each_loss,
    layouts_in,
    snapshot,
    strided,
    swapped,
)

import fastloss as fl

pytestmark = pytest.mark.jit


@pytest.fixture
def lay_out(tmp_path):
    return layouts_in(tmp_path)


@each_loss
@pytest.mark.parametrize(
    "layout", ["copy", "transposed", "reversed_memory", "strided", "rows_apart", "unaligned", "offset"]
)
@each_dtype
def test_layouts_of_outputs(name, layout, dtype, lay_out):
    case = ELEMENTWISE[name]
    p, t = draw(case, (37, 29), dtype)
    held = snapshot(p, t)
    expected = case.grad(*doubles(p, t))
    for _ in range(2):
        out = lay_out(layout, np.full((37, 29), 7.0, dtype))
        whole = out if out.base is None else out.base
        around = np.asarray(whole).tobytes() if layout in ("strided", "rows_apart") else None
        _, grad = case.loss.value_and_grad(p, t, out=out)
        assert grad is out
        close(out * out.size, expected, dtype)
        if around is not None:
            out[...] = 7.0
            assert np.asarray(whole).tobytes() == around
    g, h = (lay_out(layout, np.zeros((37, 29), dtype)) for _ in range(2))
    got = case.loss.grad_and_hess(p, t, out=(g, h))
    assert got[0] is g
    assert got[1] is h
    close(g, expected, dtype)
    close(h, case.loss.grad_and_hess(p, t)[1], dtype)
    assert snapshot(p, t) == held


def test_output_in_a_mapped_file(tmp_path):
    p, t = draw(ELEMENTWISE["mse"], (40,), "float32")
    out = np.memmap(tmp_path / "g", np.float32, "w+", shape=(40,))
    for _ in range(2):
        assert fl.mse.value_and_grad(p, t, out=out)[1] is out
    out.flush()
    close(np.fromfile(tmp_path / "g", np.float32) * 40, 2 * (p - t), "float32")


def test_output_of_a_swapped_prediction():
    p, t = draw(ELEMENTWISE["mse"], (40,), "float32")
    out = np.zeros(40, p.dtype.newbyteorder())
    assert fl.mse.value_and_grad(swapped(p), t, out=out)[1] is out
    close(out * 40, 2 * (p - t), "float32")


def test_outputs_of_several_predictions():
    rng = np.random.default_rng(0)
    mean, t = rng.standard_normal((2, 40))
    scale = rng.random(40) + 0.5
    fresh = fl.laplace_nll.value_and_grad((mean, scale), t)
    wide = np.zeros((40, 3))
    out = (np.zeros(40), wide[:, 1])
    value, grads = fl.laplace_nll.value_and_grad((strided(mean), swapped(scale).astype("<f8")), t, out=out)
    assert grads is out
    assert value == fresh[0]
    for got, expected in zip(out, fresh[1], strict=True):
        assert got.tobytes() == expected.tobytes()
    assert not wide[:, [0, 2]].any()
    close(out[1] * 40, 1 / scale - np.abs(mean - t) / scale**2, "float64")
