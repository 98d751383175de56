"""Reductions, weights, outputs and long sums of compiled elementwise kernels."""

import math

import numpy as np
import pytest
from kernel_cases import (
    FEW,
    LOSSES,
    Oracle,
    columns,
    draw,
    each_dtype,
    each_loss,
    rows_of,
)
from sampling import flat

import fastloss as fl

MANY = [name for name, loss in LOSSES.items() if len(loss.record.predictions) > 1]
# Every weighted kernel is the same template with one more factor: one loss per shape of formula (polynomial, branches,
# exponentials, a penalty, margins, domain checks), and all that store several gradients. More would only add minutes.
WEIGHTED = ["mse", "huber", "elastic_net", "bce_with_logits", "bce", "hinge", *MANY]
weighted_loss = pytest.mark.parametrize("name", WEIGHTED)


# Reductions ----------------------------------------------------------------------------------------------------------


def close(got, expected, dtype, eps=4):
    np.testing.assert_allclose(got, expected, rtol=eps * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@each_dtype
@each_loss
def test_reductions(name, dtype):
    """All reductions are sums and multiples of what there is per element."""
    loss = LOSSES[name]
    n = 5 if FEW else 700
    prediction, target = draw(name, n, dtype, seed=3)
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    total = math.fsum(values.tolist())
    # A block's sum in lanes of float32 carries a few rounding errors of them, before it moves to float64.
    size = math.fsum(np.abs(values).tolist()) * (1e-6 if dtype is np.float32 else 1e-14)
    for reduction, divisor, scale in (
        ("sum", None, 1.0),
        ("mean", None, 1.0 / n),
        ("mean", 7.5, 1 / 7.5),
        ("sum", 7.5, 1 / 7.5),
    ):
        value, grad = loss.value_and_grad(prediction, target, reduction=reduction, divisor=divisor)
        assert type(value) is float
        assert value == pytest.approx(total * scale, abs=size * scale, rel=0)
        for g, per in zip(flat(grad), flat(grads), strict=True):
            assert g.dtype == dtype
            close(g, per * dtype(scale), dtype)
    default = loss.value_and_grad(prediction, target)[0]
    assert default == pytest.approx(total / (n if loss.record.reduction == "mean" else 1), abs=size, rel=0)


@each_loss
def test_value_alone(name):
    """Kernels of the value alone agree with those of value and gradient."""
    prediction, target = draw(name, 5 if FEW else 300, np.float32, seed=4)
    loss = LOSSES[name]
    value = loss(prediction, target, reduction="sum")
    assert type(value) is float
    values = loss.value_and_grad(prediction, target, reduction="none")[0]
    if name in WEIGHTED:
        close(loss(prediction, target, reduction="none"), values, np.float32)
    size = math.fsum(np.abs(values).tolist())
    assert value == pytest.approx(math.fsum(values.tolist()), abs=1e-6 * size, rel=0)


@each_dtype
@each_loss
def test_grad_and_hess_has_the_gradient(name, dtype):
    loss = LOSSES[name]
    prediction, target = draw(name, 5 if FEW else 60, dtype, seed=5)
    values = loss.value_and_grad(prediction, target, reduction="none")[0]
    for curvature in ("exact", "surrogate"):
        first, second = loss.grad_and_hess(prediction, target, curvature=curvature)
        # Not compared with value_and_grad: another kernel contracts other products and sums.
        Oracle(loss.record, dtype, {}).check([values, *flat(first)], rows_of(prediction, target))
        for h, p in zip(flat(second), flat(prediction), strict=True):
            assert h.dtype == dtype
            assert h.shape == p.shape
        if curvature == "surrogate" and loss.record.surrogate:
            assert all((h >= 0).all() for h in flat(second))


@each_dtype
@weighted_loss
def test_weights(name, dtype):
    loss = LOSSES[name]
    n = 6 if FEW else 600
    prediction, target = draw(name, n, dtype, seed=6)
    w = np.random.default_rng(7).gamma(1.0, size=n).astype(dtype)
    w[::5] = 0.0
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    mass = math.fsum(w.tolist())
    total = math.fsum((w.astype(np.float64) * values).tolist())
    size = math.fsum(np.abs(w * values).tolist()) * (1e-6 if dtype is np.float32 else 1e-14)
    weighted, first = loss.value_and_grad(prediction, target, weight=w, reduction="none")
    close(weighted, w * values, dtype)
    for reduction, divisor, scale in (("mean", None, 1 / mass), ("sum", None, 1.0), ("mean", 3.0, 1 / 3)):
        value, grad = loss.value_and_grad(prediction, target, weight=w, reduction=reduction, divisor=divisor)
        assert value == pytest.approx(total * scale, abs=size * scale, rel=0)
        for g, per in zip(flat(grad), flat(grads), strict=True):
            close(g, per * w * dtype(scale), dtype, 6)
    for g, per in zip(flat(first), flat(grads), strict=True):
        close(g, per * w, dtype)
    hess, weighted_hess = loss.grad_and_hess(prediction, target), loss.grad_and_hess(prediction, target, weight=w)
    for plain, times in zip(hess, weighted_hess, strict=True):
        for a, b in zip(flat(plain), flat(times), strict=True):
            close(b, a * w, dtype, 8)


def test_a_weight_broadcasts():
    rng = np.random.default_rng(8)
    z, t, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.random((4, 1))
    full = np.broadcast_to(w, z.shape)
    for a, b in zip(fl.mse.value_and_grad(z, t, weight=w), fl.mse.value_and_grad(z, t, weight=full), strict=True):
        assert np.array_equal(a, b)
    assert fl.mse(z, t, weight=2.5) == pytest.approx(fl.mse(z, t), rel=1e-15)
    assert fl.mse(z, t, weight=w) == pytest.approx(np.average((z - t) ** 2, weights=full), rel=1e-14)


# Outputs -------------------------------------------------------------------------------------------------------------


@each_loss
def test_out_is_written_and_returned(name):
    loss = LOSSES[name]
    prediction, target = draw(name, 5 if FEW else 100, np.float64, seed=9)
    many = type(prediction) is tuple
    copies = [x.copy() for x in columns(prediction, target)]

    def fresh():
        arrays = tuple(np.full_like(p, np.nan) for p in flat(prediction))
        return arrays if many else arrays[0]

    out = fresh()
    expected = loss.value_and_grad(prediction, target)
    value, grad = loss.value_and_grad(prediction, target, out=out)
    assert all(a is b for a, b in zip(flat(grad), flat(out), strict=True))
    assert value == expected[0]
    assert all(np.array_equal(a, b) for a, b in zip(flat(grad), flat(expected[1]), strict=True))
    pair = (fresh(), fresh())
    first, second = loss.grad_and_hess(prediction, target, out=pair)
    for got, given, wanted in zip((first, second), pair, loss.grad_and_hess(prediction, target), strict=True):
        assert all(a is b for a, b in zip(flat(got), flat(given), strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(flat(got), flat(wanted), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(copies, columns(prediction, target), strict=True))


# Nothing to average --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@each_dtype
@each_loss
def test_no_elements(name, dtype, reduction):
    loss = LOSSES[name]
    count = len(loss.record.predictions)
    for shape in ((0,), (0, 3), (2, 0)):
        x = np.empty(shape, dtype)
        value, grad = loss.value_and_grad(
            (x,) * count if count > 1 else x, None if loss.record.target is None else x, reduction=reduction
        )
        assert value == 0.0
        assert all(g.shape == shape and g.dtype == dtype for g in flat(grad))


@each_dtype
@weighted_loss
def test_no_weight(name, dtype):
    prediction, target = draw(name, 20, dtype, seed=14)
    value, grad = LOSSES[name].value_and_grad(prediction, target, weight=np.zeros(20, dtype), reduction="mean")
    assert value == 0.0
    assert not any(g.any() for g in flat(grad))


@each_dtype
@pytest.mark.parametrize("name", ["mse", "bce_with_logits", "gaussian_nll"])
def test_elements_of_no_weight_have_no_part(name, dtype):
    """Padding may hold anything, NaN and infinity too: its weight of 0 takes it out."""
    loss = LOSSES[name]
    prediction, target = draw(name, 20, dtype, seed=15)
    w = np.ones(20, dtype)
    w[[2, 7]] = 0.0
    padded = [p.copy() for p in flat(prediction)]
    padded[0][2], padded[0][7] = np.nan, np.inf
    padded = tuple(padded) if type(prediction) is tuple else padded[0]
    expected, expected_grads = loss.value_and_grad(prediction, target, weight=w)
    value, grads = loss.value_and_grad(padded, target, weight=w)
    assert value == expected
    assert all(np.array_equal(a, b) for a, b in zip(flat(grads), flat(expected_grads), strict=True))
    assert not any(g[[2, 7]].any() for g in flat(grads))


# Long sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("name", ["mse", "mae", "bce_with_logits", "exponential"])
def test_sums_of_float32_are_accumulated_in_float64(name):
    loss = LOSSES[name]
    rng = np.random.default_rng(16)
    z = rng.normal(size=1_000_000).astype(np.float32)
    t = rng.choice([-1.0, 1.0], z.size) if name == "exponential" else rng.random(z.size)
    t = t.astype(np.float32)
    values = loss(z, t, reduction="none")
    assert values.dtype == np.float32
    total = math.fsum(values.tolist())
    # Blocks of 512 elements are summed in float32 with an error of 3e-8 or so, of either sign: over 2000 blocks 1e-9.
    assert loss(z, t, reduction="sum") == pytest.approx(total, rel=2e-9)
    assert loss.value_and_grad(z, t)[0] == pytest.approx(total / z.size, rel=2e-9)
    # What a sum in float32 would give is off by more: the test can fail.
    assert np.cumsum(values)[-1] != pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [6, 700, pytest.param(70_000, marks=pytest.mark.jit)])
def test_a_mean_is_finite_where_a_sum_in_float32_overflows(n, weighted):
    z, t = np.full(n, 3e38, np.float32), np.zeros(n, np.float32)
    w = np.ones(n, np.float32) if weighted else None
    if FEW and n > 100:
        pytest.skip("slow without the compiler")
    expected = float(np.float32(3e38))
    assert fl.mae(z, t, weight=w) == pytest.approx(expected, rel=1e-12)
    value, grad = fl.mae.value_and_grad(z, t, weight=w)
    assert value == pytest.approx(expected, rel=1e-12)
    close(grad, np.full(n, 1 / n, np.float32), np.float32)
    assert fl.mae(z, t, weight=w, reduction="sum") == pytest.approx(n * expected, rel=1e-12)
    # An infinite element still is one.
    z[1] = np.inf
    assert fl.mae(z, t, weight=w) == math.inf


SIZES = [1, 2, 15, 16, 17, 31, 33, 511, 512, 513, 1025, 32767, 32768, 32769, 65535, 65536, 65537, 100_001]


@pytest.mark.jit
@pytest.mark.parametrize("name", ["mse", "bce_with_logits", "gaussian_nll"])
@each_dtype
def test_sizes_around_every_boundary(name, dtype):
    """Every element is counted once and written once, whatever the lanes, blocks, chunks and threads."""
    loss = LOSSES[name]
    prediction, target = draw(name, SIZES[-1], dtype, seed=17)
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    for n in SIZES:
        cut = tuple(p[:n] for p in prediction) if type(prediction) is tuple else prediction[:n]
        value, grad = loss.value_and_grad(cut, target[:n], reduction="sum")
        size = math.fsum(np.abs(values[:n]).tolist()) * (1e-6 if dtype is np.float32 else 1e-14)
        assert value == pytest.approx(math.fsum(values[:n].tolist()), abs=size, rel=0)
        rows, again = loss.value_and_grad(cut, target[:n], reduction="none")
        # An element behind the last whole vector goes through scalar code, which contracts other products and sums.
        close(rows, values[:n], dtype)
        for a, b, c in zip(flat(grad), flat(again), flat(grads), strict=True):
            close(b, c[:n], dtype, 8)
            close(a, c[:n], dtype, 8)


@pytest.mark.jit
@each_dtype
@pytest.mark.parametrize("name", ["mse", "huber", "hinge", "bce", "gaussian_nll"])
def test_the_result_does_not_depend_on_where_arrays_lie(name, dtype):
    """Side by side or far apart, the same bits.

    LLVM tests at run time whether arrays may overlap, unless told that they do not, and takes a scalar loop, which sums
    in another order, where they lie within a vector of each other.
    """
    loss = LOSSES[name]
    count = len(loss.record.predictions)
    for n in (5, 20, 50, 63, 70):
        prediction, target = draw(name, n, dtype, seed=18)
        data = columns(prediction, target)
        found = set()
        for apart in (0, 1, 4, 40, 1000):
            memory = np.empty((len(data) + count) * (n + apart), dtype)
            places = [memory[k * (n + apart) :][:n] for k in range(len(data) + count)]
            for turn in range(len(places)):
                inputs, outs = places[: len(data)], places[len(data) :]
                for a, x in zip(inputs, data, strict=True):
                    a[:] = x
                given, out = (tuple(inputs[:count]), tuple(outs)) if count > 1 else (inputs[0], outs[0])
                found.add(loss.value_and_grad(given, inputs[-1], out=out)[0])
                places = places[1:] + places[:1] if turn % 2 else places[::-1]
        assert len(found) == 1, n
