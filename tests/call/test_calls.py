"""Every way to call a loss, and what goes in and comes out."""

import math

import numpy as np
import pytest
from array_likes import Column, Exporter

import fastloss as fl
from fastloss.spec.record import LOOPS

each_of_one_target = pytest.mark.parametrize(
    "name", [n for n, loss in fl.LOSSES.items() if loss.record.family != "arrays"]
)
"""Losses of a prediction and its target; test_arrays.py has the same tests for losses of several arrays."""


@pytest.fixture
def rng():
    return np.random.default_rng(61)


# Calling -------------------------------------------------------------------------------------------------------------


def test_reductions_and_the_divisor(rng):
    z, t = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    rows = (z - t) ** 2
    assert fl.mse(z, t) == fl.mse(z, t, reduction="mean") == pytest.approx(rows.mean(), rel=1e-14)
    assert fl.mse(z, t, reduction="sum") == pytest.approx(rows.sum(), rel=1e-14)
    np.testing.assert_allclose(fl.mse(z, t, reduction="none"), rows, rtol=1e-15)
    assert fl.mse(z, t, divisor=5) == pytest.approx(rows.sum() / 5, rel=1e-14)
    assert fl.mse(z, t, reduction="sum", divisor=5) == pytest.approx(rows.sum() / 5, rel=1e-14)
    # Two micro-batches over one divisor are the whole batch.
    parts = [fl.mse.value_and_grad(z[i : i + 2], t[i : i + 2], divisor=12) for i in (0, 2)]
    whole = fl.mse.value_and_grad(z, t)
    assert sum(p[0] for p in parts) == pytest.approx(whole[0], rel=1e-14)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), whole[1], rtol=1e-15)


def test_the_value_is_a_python_float(rng):
    z, t = rng.normal(size=5).astype(np.float32), rng.normal(size=5).astype(np.float32)
    for value in (fl.mse(z, t), fl.mse(z, t, weight=np.ones(5)), fl.mse(z[:0], t[:0]), fl.mse(z, t, reduction="sum")):
        assert type(value) is float
    labels = rng.integers(0, 5, 1)
    assert type(fl.cross_entropy(z[None], labels)) is float
    assert type(fl.cross_entropy(z[None], labels * 0 - 100)) is float


def test_several_predictions_by_tuple_by_list_and_by_name(rng):
    mean, var, t = rng.normal(size=6), rng.gamma(1.0, size=6), rng.normal(size=6)
    expected = fl.gaussian_nll.value_and_grad((mean, var), t, full=True)
    for value, grads in (
        fl.gaussian_nll.value_and_grad([mean, var], t, full=True),
        fl.gaussian_nll.value_and_grad(mean, t, var=var, full=True),
        fl.gaussian_nll.bind(full=True).value_and_grad(mean, t, var=var),
    ):
        assert value == expected[0]
        assert all(np.array_equal(a, b) for a, b in zip(grads, expected[1], strict=True))
    assert fl.gaussian_nll(mean, t, var=var, full=True) == expected[0]
    assert len(fl.gaussian_nll.grad_and_hess(mean, t, var=var)[1]) == 2
    with pytest.raises(TypeError, match="as a tuple or by name"):
        fl.gaussian_nll((mean, var), t, var=var)
    with pytest.raises(TypeError, match="as a tuple or by name"):
        fl.evidential_regression(mean, t, nu=var)


def test_penalties_take_no_target(rng):
    z = rng.normal(size=7)
    assert fl.l2(z) == pytest.approx(float((z**2).sum() / 2), rel=1e-15)
    value, grad = fl.l1.value_and_grad(z, reduction="mean")
    assert value == pytest.approx(np.abs(z).mean())
    assert np.array_equal(grad, np.sign(z) * (1 / 7))
    first, second = fl.elastic_net.grad_and_hess(z, l1_ratio=0.25)
    np.testing.assert_allclose(first, 0.25 * np.sign(z) + 0.75 * z, rtol=1e-15)
    assert (second == 0.75).all()


def test_a_scalar_target_stands_for_all(rng):
    z = rng.normal(size=(3, 4))
    for scalar in (0.5, 1, np.float32(0.25), np.array(0.75)):
        full = np.full(z.shape, scalar, float)
        assert fl.huber(z, scalar) == pytest.approx(fl.huber(z, full), rel=1e-14)
        assert np.array_equal(fl.huber.value_and_grad(z, scalar)[1], fl.huber.value_and_grad(z, full)[1])


def test_a_scalar_prediction():
    value, grad = fl.mse.value_and_grad(3.0, 1.0)
    assert value == 4.0
    assert grad.shape == ()
    assert grad == 4.0


def test_a_loss_is_bound_once_to_levels_however_they_are_given():
    bound = fl.quantile.bind(q=(0.1, 0.9))
    assert fl.quantile.bind(q=[0.1, 0.9]) is bound
    assert fl.quantile.bind(q=np.array([0.1, 0.9])) is bound
    for _ in range(2):
        with pytest.raises(TypeError, match="quantile: q is"):
            fl.quantile.bind(q=[[0.1, 0.9]])


@pytest.mark.parametrize("weighted", [False, True])
def test_quantile_levels_are_columns(weighted, rng):
    levels = [0.1, 0.5, 0.9]
    z, t = rng.normal(size=(20, 3)), rng.normal(size=20)
    w = rng.gamma(1.0, size=20) if weighted else None
    columns = np.stack([fl.quantile(z[:, j], t, q=q, reduction="none") for j, q in enumerate(levels)], axis=1)
    mass = 20 if w is None else w.sum()
    each = columns if w is None else columns * w[:, None]
    assert fl.quantile(z, t, q=levels, weight=w) == pytest.approx(each.sum() / (3 * mass), rel=1e-14)
    assert fl.quantile(z, t, q=levels, weight=w, reduction="sum") == pytest.approx(each.sum(), rel=1e-14)
    np.testing.assert_allclose(fl.quantile(z, t, q=levels, weight=w, reduction="none"), each, rtol=1e-14)
    slopes = np.where(z > t[:, None], 1 - np.array(levels), -np.array(levels)) * (1 if w is None else w[:, None])
    value, grad = fl.quantile.value_and_grad(z, t, q=np.array(levels), weight=w)
    assert value == pytest.approx(each.sum() / (3 * mass), rel=1e-14)
    np.testing.assert_allclose(grad, slopes / (3 * mass), rtol=1e-13)
    out = np.empty_like(z)
    assert fl.quantile.bind(q=levels).value_and_grad(z, t, weight=w, out=out)[1] is out
    assert np.array_equal(out, grad)
    first, second = fl.quantile.grad_and_hess(z, t, q=levels, weight=w, curvature="surrogate")
    np.testing.assert_allclose(first, slopes, rtol=1e-13)
    np.testing.assert_allclose(second, np.ones((20, 3)) * (1 if w is None else w[:, None]), rtol=1e-15)
    assert fl.expectile(z, t, q=levels) > 0.0
    with pytest.raises(ValueError, match="3 levels of q need as many columns"):
        fl.quantile(z[:, :2], t, q=levels)


def test_surrogate_and_exact_curvature(rng):
    z, t = rng.normal(size=5), rng.normal(size=5)
    assert not fl.mae.grad_and_hess(z, t)[1].any()
    assert (fl.mae.grad_and_hess(z, t, curvature="surrogate")[1] == 1.0).all()
    # Where there is no surrogate, the exact curvature serves for it.
    assert (fl.mse.grad_and_hess(z, t, curvature="surrogate")[1] == 2.0).all()


def row_target(record, labels):
    """A target of four rows of three."""
    loop = LOOPS[record.loop]
    return np.array(labels) if loop.labels else np.zeros(4) if loop.dense == "number" else np.full((4, 3), 1 / 3)


@each_of_one_target
def test_out_is_returned_itself(name, rng):
    loss = fl.LOSSES[name]
    record = loss.record
    if record.family == "rows":
        shape, count = (4, 3), 1
        t = row_target(record, [0, 1, 2, 1])
        prediction = np.log(np.full(shape, 1 / 3))
    else:
        shape, count = (4,), len(record.predictions)
        predictions = tuple(np.full(shape, 2.0 if d.high > 2 else 0.5) for d in record.prediction_domains)
        prediction = predictions if count > 1 else predictions[0]
        t = None if record.target is None else np.ones(shape)
    out = tuple(np.full(shape, np.nan) for _ in range(count)) if count > 1 else np.full(shape, np.nan)
    grad = loss.value_and_grad(prediction, t, out=out)[1]
    for a, b in zip(grad, out, strict=True) if count > 1 else [(grad, out)]:
        assert a is b
        assert np.isfinite(b).all()
    # A second call into the same memory, as a training loop makes it.
    assert (loss.value_and_grad(prediction, t, out=out)[1] is out) or count > 1


# What comes in and goes out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Column, Exporter, list, np.ndarray.tolist, memoryview], ids=lambda k: k.__name__)
def test_anything_array_like(kind, rng):
    z, t = rng.normal(size=6), rng.normal(size=6)
    value, grad = fl.huber.value_and_grad(kind(z), kind(t), weight=kind(np.ones(6)))
    assert type(grad) is np.ndarray
    expected = fl.huber.value_and_grad(z, t)
    assert value == pytest.approx(expected[0], rel=1e-15)
    np.testing.assert_allclose(grad, expected[1], rtol=1e-15)


def test_integer_targets_are_numbers(rng):
    z, t = rng.normal(size=6), rng.integers(0, 2, 6)
    for kind in (np.int64, np.uint8, np.bool_, np.float16):
        expected = fl.bce_with_logits(z, t.astype(float))
        assert fl.bce_with_logits(z, t.astype(kind)) == pytest.approx(expected, rel=1e-15)


def test_the_precision_is_that_of_the_prediction(rng):
    z, t = rng.normal(size=9), rng.normal(size=9)
    value, grad = fl.mse.value_and_grad(z.astype(np.float32), t)
    assert grad.dtype == np.float32
    assert value == pytest.approx(fl.mse(z.astype(np.float32), t.astype(np.float32)), rel=1e-6)
    assert fl.mse.value_and_grad(z, t.astype(np.float32))[1].dtype == np.float64


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_computes_in_float32(kind, rng):
    dtype = np.dtype(np.float16 if kind == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    z, t = rng.normal(size=50).astype(dtype), rng.normal(size=50).astype(dtype)
    wide = fl.huber.value_and_grad(z.astype(np.float32), t.astype(np.float32))
    value, grad = fl.huber.value_and_grad(z, t)
    assert value == pytest.approx(wide[0], rel=1e-6)
    assert grad.dtype == dtype
    assert np.array_equal(grad, wide[1].astype(dtype))
    rows = fl.huber(z, t, reduction="none")
    assert rows.dtype == dtype
    out = np.empty(50, dtype)
    assert fl.huber.value_and_grad(z, t, out=out)[1] is out
    assert np.array_equal(out, grad)
    # A sum beyond the largest float16 is still a number.
    assert fl.mae(np.full(5000, 200.0, dtype), np.zeros(5000, dtype), reduction="sum") == 1e6
    logits, labels = rng.normal(size=(8, 5)).astype(dtype), rng.integers(0, 5, 8)
    value, grad = fl.cross_entropy.value_and_grad(logits, labels)
    wide = fl.cross_entropy.value_and_grad(logits.astype(np.float32), labels)
    assert value == pytest.approx(wide[0], rel=1e-6)
    assert np.array_equal(grad, wide[1].astype(dtype))


def test_torch_tensors(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    z, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    expected = fl.mse.value_and_grad(z, t)
    x, y = torch.tensor(z), torch.tensor(t)
    value, grad = fl.mse.value_and_grad(x, y)
    assert value == pytest.approx(expected[0], rel=1e-14)
    assert isinstance(grad, torch.Tensor)
    assert grad.dtype == torch.float64
    assert np.array_equal(grad.numpy(), expected[1])
    assert isinstance(fl.mse(x, y, reduction="none"), torch.Tensor)
    first, second = fl.mse.grad_and_hess(x, y)
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    # What comes back is the memory that was given.
    out = torch.empty_like(x)
    _, grad = fl.mse.value_and_grad(x, y, out=out)
    assert grad.data_ptr() == out.data_ptr()
    assert np.array_equal(out.numpy(), expected[1])
    half = x.to(torch.bfloat16)
    value, grad = fl.mse.value_and_grad(half, y.to(torch.bfloat16))
    wide = fl.mse(half.float().numpy(), y.to(torch.bfloat16).float().numpy())
    assert value == pytest.approx(wide, rel=1e-6)
    assert grad.dtype == torch.bfloat16


@each_of_one_target
def test_inputs_are_never_written(name, rng):
    loss = fl.LOSSES[name]
    record = loss.record
    if record.family == "rows":
        t = row_target(record, [0, 1, 2, -100])
        arrays = [np.log(rng.dirichlet(np.ones(3), 4)), t, np.ones(4)]
        prediction, target = arrays[0], arrays[1]
    else:
        predictions = tuple(np.full(4, 2.0 if d.high > 2 else 0.5) for d in record.prediction_domains)
        prediction = predictions if len(predictions) > 1 else predictions[0]
        target = None if record.target is None else np.ones(4)
        arrays = [*predictions, np.ones(4), *([target] if record.target else [])]
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    loss(prediction, target)
    loss.value_and_grad(prediction, target)
    if record.second:
        loss.grad_and_hess(prediction, target)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.mark.jit
def test_the_number_of_threads_changes_no_bit(rng):
    before = fl.get_num_threads()
    z, t = rng.normal(size=300_000), rng.random(300_000)
    results = []
    try:
        for n in range(1, before + 1):
            fl.set_num_threads(n)
            assert fl.get_num_threads() == n
            results.append(fl.bce_with_logits.value_and_grad(z, t))
    finally:
        fl.set_num_threads(before)
    for value, grad in results[1:]:
        assert value == results[0][0]
        assert np.array_equal(grad, results[0][1])
    with pytest.raises(ValueError, match="number of threads"):
        fl.set_num_threads(0)


# Compiling ahead -----------------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("name", ["huber", "gaussian_nll", "nll", "crps_ensemble"])
def test_warming_up_compiles_what_calls_use(name):
    from fastloss.cpu import dispatch

    loss = fl.LOSSES[name]
    loss.warmup(("float64",))
    before = set(dispatch._compiled)
    if name == "gaussian_nll":
        prediction, target = (np.ones(3), np.ones(3)), np.ones(3)
    elif name == "huber":
        prediction, target = np.ones(3), np.ones(3)
    else:
        prediction, target = np.zeros((2, 3)), np.zeros(2, np.int64) if name == "nll" else np.zeros(2)
    loss(prediction, target)
    loss.value_and_grad(prediction, target)
    loss.grad_and_hess(prediction, target)
    loss(prediction, target, reduction="none")
    assert set(dispatch._compiled) == before


def test_a_mean_of_nothing_is_zero_not_nan():
    for loss in (fl.mse, fl.bce_with_logits, fl.huber):
        value, grad = loss.value_and_grad(np.empty(0), np.empty(0))
        assert value == 0.0
        assert not math.isnan(value)
        assert grad.shape == (0,)
