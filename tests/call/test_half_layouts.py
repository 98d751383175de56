"""Layouts and outputs of float16 and bfloat16: strided, unaligned and read-only arrays, and either byte order."""

import numpy as np
import pytest
from half_cases import BFLOAT16, FLOAT16, check, draw, draw_rows, each_format, same, wide
from layout_cases import read_only, unaligned

import fastloss as fl


def strided(x):
    memory = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan).astype(x.dtype)
    memory[..., ::2] = x
    return memory[..., ::2]


def swapped(x):
    if x.dtype == BFLOAT16:
        pytest.skip("bfloat16 has one byte order")
    return x.astype(x.dtype.newbyteorder())


LAYOUTS = {
    "strided": strided,
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
    "fortran": np.asfortranarray,
    "unaligned": unaligned,
    "read-only": read_only,
    "swapped": swapped,
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@each_format
@each_layout
@pytest.mark.parametrize("name", ["mse", "cross_entropy", "kl_div"])
def test_layouts(name, layout, half):
    if name == "mse":
        p, t = (x.reshape(-1, 10) for x in draw(name, 700, half))
    else:
        p, t = draw_rows(name, 70, 10, half)
    change = LAYOUTS[layout]
    check(fl.LOSSES[name], change(p), t)
    check(fl.LOSSES[name], p, change(t) if name != "cross_entropy" else t)
    check(fl.LOSSES[name], change(p), change(t) if name != "cross_entropy" else t)


@each_format
@pytest.mark.parametrize("layout", ["plain", "strided", "reversed", "fortran", "unaligned"])
@pytest.mark.parametrize("name", ["mse", "cross_entropy", "kl_div"])
def test_outputs(name, layout, half):
    if name == "mse":
        p, t = (x.reshape(-1, 10) for x in draw(name, 700, half))
    else:
        p, t = draw_rows(name, 70, 10, half)
    loss = fl.LOSSES[name]
    blank = np.full(p.shape, np.nan).astype(half)
    out, *pair = (LAYOUTS.get(layout, np.copy)(blank) for _ in range(3))
    value, gradient = loss.value_and_grad(p, t, out=out)
    assert gradient is out
    expected, expected_gradient = loss.value_and_grad(wide(p), wide(t))
    assert value == pytest.approx(expected, rel=1e-6)
    same(out, expected_gradient, half)
    slopes, bends = loss.grad_and_hess(p, t, out=tuple(pair))
    assert slopes is pair[0]
    assert bends is pair[1]
    for got, wanted in zip(pair, loss.grad_and_hess(wide(p), wide(t)), strict=True):
        same(got, wanted, half)


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_an_output_in_the_other_byte_order(name):
    """As the prediction is, which a result of its type must be."""
    p, t = draw(name, 700, FLOAT16) if name == "mse" else draw_rows(name, 70, 10, FLOAT16)
    other = p.astype(FLOAT16.newbyteorder())
    out = np.full(p.shape, np.nan, other.dtype)
    value, gradient = fl.LOSSES[name].value_and_grad(other, t, out=out)
    assert gradient is out
    expected, expected_gradient = fl.LOSSES[name].value_and_grad(p, t)
    assert value == expected
    np.testing.assert_array_equal(out.astype(FLOAT16), expected_gradient)
    with pytest.raises(TypeError, match="out has dtype"):
        fl.LOSSES[name].value_and_grad(p, t, out=out)


@each_format
def test_outputs_of_two_predictions(half):
    prediction, t = draw("gaussian_nll", 200, half)
    outs = tuple(strided(np.zeros(200, half)) for _ in range(2))
    gradients = fl.gaussian_nll.value_and_grad(prediction, t, out=outs)[1]
    for got, out, expected in zip(
        gradients, outs, fl.gaussian_nll.value_and_grad(wide(prediction), wide(t))[1], strict=True
    ):
        assert got is out
        same(out, expected, half)


@each_format
@pytest.mark.parametrize("name", ["mse", "cross_entropy", "kl_div"])
@pytest.mark.parametrize("n", [1, 31, 64, 65, 1000])
def test_nothing_is_written_beside_the_output(n, name, half):
    k = 7
    p, t = draw(name, n * k, half) if name == "mse" else draw_rows(name, n, k, half)
    memory = np.full(n * k + 128, np.nan).astype(half)
    out = memory[61 : 61 + n * k].reshape(p.shape)
    fl.LOSSES[name].value_and_grad(p, t, out=out)
    assert np.isfinite(out).all()
    assert np.isnan(memory).sum() == 128
