"""Clipping of gradients against torch."""

import math
import re

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)


def both(dtype, shapes=((5, 7), (), (0,), (9000,))):
    grads = [np.asarray(RNG.standard_normal(s)).astype(dtype) for s in shapes]
    params = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.from_numpy(g).dtype)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g.copy())
    return grads, params


@pytest.mark.parametrize("order", [2.0, 1.0, 3.5, math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [0.5, 1e6, 0.0])
def test_norms_are_those_of_torch(order, dtype, largest):
    # torch has no largest magnitude of nothing.
    grads, params = both(dtype, ((5, 7), (), (9000,)) if order == math.inf else ((5, 7), (), (0,), (9000,)))
    ours = fl.optim.clip_grad_norm_(grads, largest, norm_type=order)
    theirs = torch.nn.utils.clip_grad_norm_(params, largest, norm_type=order)
    bound = 1e-13 if dtype == np.float64 else 1e-5
    assert ours == pytest.approx(float(theirs), rel=bound)
    for g, p in zip(grads, params, strict=True):
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_those_of_torch(dtype):
    grads, params = both(dtype)
    grads[0][0, 0] = np.nan
    params[0].grad[0, 0] = math.nan
    fl.optim.clip_grad_value_(grads, 0.7)
    torch.nn.utils.clip_grad_value_(params, 0.7)
    for g, p in zip(grads, params, strict=True):
        np.testing.assert_array_equal(g, p.grad.numpy())


@pytest.mark.parametrize("order", [2.0, math.inf])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_norms_that_are_not_finite(order, value):
    g = np.array([1.0, value, 2.0])
    with pytest.raises(ValueError, match=r"the norm of the gradients is (nan|inf); expected a finite one"):
        fl.optim.clip_grad_norm_([g], 1.0, norm_type=order, error_if_nonfinite=True)
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    p.grad = torch.from_numpy(g.copy())
    np.testing.assert_equal(
        fl.optim.clip_grad_norm_([g], 1.0, norm_type=order),
        float(torch.nn.utils.clip_grad_norm_([p], 1.0, norm_type=order)),
    )
    np.testing.assert_array_equal(g, p.grad.numpy())


def test_layouts_and_containers():
    base = RNG.standard_normal((6, 6))
    for view in (base[::2], base.T, base[:, 1]):
        expected = np.clip(view, -0.3, 0.3)
        given = view.copy(order="K") if view is base.T else view
        fl.optim.clip_grad_value_({"w": given, "none": None}, 0.3)
        np.testing.assert_array_equal(given, expected)
    g = np.array([3.0, 4.0])
    assert fl.optim.clip_grad_norm_(g, 10.0) == 5.0
    assert fl.optim.clip_grad_norm_([], 1.0) == 0.0
    assert fl.optim.clip_grad_norm_(g[::-1], 2.5) == 5.0
    np.testing.assert_allclose(g, [1.5, 2.0], rtol=1e-6)


@pytest.mark.jit
def test_threads_change_no_bits():
    before, found = fl.get_num_threads(), set()
    g = RNG.standard_normal(1_000_003).astype(np.float32)
    try:
        for threads in range(1, before + 1):
            fl.set_num_threads(threads)
            copy = g.copy()
            found.add((fl.optim.clip_grad_norm_([copy], 1.0), copy.tobytes()))
    finally:
        fl.set_num_threads(before)
    assert len(found) == 1


WRONG = [
    ([1.0], {}, TypeError, "clip_grad_norm_: grads[0] is of type float; expected an array of float32 or float64"),
    (
        {"w": np.ones(2, int)},
        {},
        TypeError,
        "clip_grad_norm_: grads['w'] has dtype int64; expected an array of float32",
    ),
    ([np.broadcast_to(1.0, 3)], {}, ValueError, "clip_grad_norm_: grads[0] is read-only; expected an array to clip"),
    ([np.ones(2)], {"max_norm": -1.0}, ValueError, "clip_grad_norm_: max_norm is -1.0; allowed: [0, inf)"),
    ([np.ones(2)], {"norm_type": 0.0}, ValueError, "clip_grad_norm_: norm_type is 0.0; expected a positive"),
]


@pytest.mark.parametrize(("grads", "options", "error", "message"), WRONG)
def test_errors(grads, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fl.optim.clip_grad_norm_(grads, **{"max_norm": 1.0, **options})
