"""Every elementwise loss on the simulated device, against NumPy's textbook form and the formula at fifty digits."""

import mpmath as mp
import numpy as np
import pytest
from oracles import MP_WORDS, carry, mp_number
from sampling import numbers, sample, variants

import fastloss as fl
from fastloss import reference

LOSSES = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"}
N = 21  # five groups of 128 bits and a tail in float32, ten and a tail in float64

each_loss = pytest.mark.parametrize("name", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def tuples(x):
    return x if isinstance(x, tuple) else (x,)


def draw(name, dtype, n=N, **variant):
    record = LOSSES[name].record
    predictions, target = sample(record, n, np.random.default_rng(1), dtype, **variant)
    return (predictions if len(predictions) > 1 else predictions[0]), target


def exact(record, variant, dtype, prediction, target):
    """Value, gradients, curvatures, surrogates per element at fifty digits."""
    eps, huge = (mp.mpf(float(x)) for x in (np.finfo(dtype).eps, np.finfo(dtype).max))
    formula = carry(record.function, mp_number, MP_WORDS | {"epsilon": lambda x: eps, "largest": lambda x: huge})
    columns = [*tuples(prediction), *(() if target is None else (target,))]
    parameters = [mp.mpf(float(dtype(p))) for p in numbers(record, variant)]
    rows = []
    for row in zip(*columns, strict=True):
        out = formula(*(mp.mpf(float(x)) for x in row), *parameters)
        rows.append([[float(x) for x in tuples(part)] for part in out])
    return [np.array(part, float) for part in zip(*rows, strict=True)]


def close(got, expected, dtype):
    # Formulas' rounding is measured in test_kernels; here the loop is: a wrong index is off by far more, and by the
    # median, as a few large values would hide the others.
    finite = np.abs(expected[np.isfinite(expected)])
    scale = np.median(finite) if finite.size else 0.0
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, expected, rtol=2000 * eps, atol=200 * eps * scale)


@each_dtype
@each_loss
def test_values_and_gradients(name, dtype, put, fetch):
    loss, record = LOSSES[name], LOSSES[name].record
    prediction, target = draw(name, dtype)
    values, grads = map(fetch, loss.value_and_grad(put(prediction), put(target), reduction="none"))
    expected = exact(record, {}, dtype, prediction, target)
    close(values, expected[0][:, 0], dtype)
    if dtype is np.float64:
        close(values, getattr(reference, name)(*tuples(prediction), *([] if target is None else [target])), dtype)
    for k, g in enumerate(tuples(grads)):
        close(g, expected[1][:, k], dtype)
        assert g.dtype == dtype


@each_loss
def test_reduced_under_weights(name, put, fetch):
    loss = LOSSES[name]
    prediction, target = draw(name, np.float32)
    weight = np.random.default_rng(2).random(N).astype(np.float32)
    weight[::5] = 0.0
    value, grads = map(fetch, loss.value_and_grad(put(prediction), put(target), weight=put(weight)))
    out = exact(loss.record, {}, np.float32, prediction, target)
    w = np.where(weight > 0, weight, 0.0).astype(float)
    kept = w > 0
    if loss.record.reduction == "mean":
        w /= w.sum()
    close(value, np.sum((w * out[0][:, 0])[kept]), np.float32)
    assert value.shape == ()
    for k, g in enumerate(tuples(grads)):
        close(g, np.where(kept, w * out[1][:, k], 0.0), np.float32)


@each_loss
def test_curvatures(name, put, fetch):
    loss, record = LOSSES[name], LOSSES[name].record
    prediction, target = draw(name, np.float64)
    expected = exact(record, {}, np.float64, prediction, target)
    for kind, order, there in (("exact", 2, record.second), ("surrogate", 3, record.surrogate is not None)):
        if not there:
            continue
        grads, hesses = map(fetch, loss.grad_and_hess(put(prediction), put(target), curvature=kind))
        for k, (g, h) in enumerate(zip(tuples(grads), tuples(hesses), strict=True)):
            close(g, expected[1][:, k], np.float64)
            close(h, expected[order][:, min(k, expected[order].shape[1] - 1)], np.float64)


@pytest.mark.parametrize("name", ["huber", "bce_with_logits", "tweedie", "gaussian_nll", "focal"])
def test_parameters(name, put, fetch):
    loss = LOSSES[name]
    for variant in variants(loss.record)[1:3]:
        prediction, target = draw(name, np.float64, **variant)
        values = fetch(loss(put(prediction), put(target), reduction="none", **variant))
        close(values, exact(loss.record, variant, np.float64, prediction, target)[0][:, 0], np.float64)


@pytest.mark.parametrize("block", [32, 64], indirect=True)
@pytest.mark.parametrize("n", [1, 3, 4, 31, 128, 129, 700])
def test_sizes(n, block, put, fetch):
    rng = np.random.default_rng(n)
    p, t = rng.normal(size=(2, n)).astype(np.float32)
    value, grad = map(fetch, fl.mse.value_and_grad(put(p), put(t)))
    d = p.astype(float) - t
    assert value == pytest.approx(np.mean(d * d), rel=2e-7)
    np.testing.assert_allclose(grad, 2 * d / n, rtol=3e-7)


def test_sum_is_exact_to_the_last_digit(put, fetch):
    # 1e8 swallows 1 in float32; the pair of numbers that is summed does not lose them.
    p = np.ones(513, np.float32)
    p[::64] = 1e4
    value = fetch(fl.mse(put(p), put(np.zeros_like(p)), reduction="sum"))
    assert value == np.float32(np.sum(p.astype(float) ** 2))


def test_nothing_and_infinities(put, fetch):
    empty = np.empty(0, np.float32)
    value, grad = map(fetch, fl.mse.value_and_grad(put(empty), put(empty)))
    assert value == 0.0
    assert grad.shape == (0,)
    p = np.array([np.inf, 1.0, 2.0], np.float32)
    assert fetch(fl.mse(put(p), put(np.zeros(3, np.float32)))) == np.inf
    assert np.isnan(fetch(fl.mse(put(p * np.float32(np.nan)), put(np.zeros(3, np.float32)))))
    weight = np.zeros(3, np.float32)
    assert fetch(fl.mse(put(p), put(p), weight=put(weight))) == 0.0


@pytest.mark.parametrize("name", ["mse", "bce_with_logits"])
def test_half_precision(name, put, fetch):
    rng = np.random.default_rng(3)
    p, t = rng.normal(size=21).astype(np.float16), rng.random(21).astype(np.float16)
    for target in (t, t.astype(np.float32)):
        value, grad = map(fetch, fl.LOSSES[name].value_and_grad(put(p), put(target)))
        wide, slope = fl.LOSSES[name].value_and_grad(p.astype(np.float64), t.astype(np.float64))
        assert value.dtype == np.float32
        assert value == pytest.approx(wide, rel=1e-6)
        assert grad.dtype == np.float16
        np.testing.assert_allclose(grad, slope, rtol=1e-3, atol=1e-6)


def test_violations_are_nan_and_reported_by_synchronize(put, fetch):
    p, t = np.zeros(9), np.ones(9)
    t[5], t[6] = -1.0, -2.0
    target = put(t)
    values, grads = map(fetch, fl.poisson.value_and_grad(put(p), target, reduction="none"))
    assert np.flatnonzero(np.isnan(values)).tolist() == [5, 6]
    assert np.flatnonzero(np.isnan(grads)).tolist() == [5, 6]
    with pytest.raises(ValueError, match=r"^poisson: target\[5\] is -1; allowed: \[0, inf\)$"):
        fl.synchronize()
    fl.synchronize()
    assert np.isnan(fetch(fl.poisson(put(p), target)))
    weight = put(np.array([1.0] * 8 + [-2.0]))
    assert np.isnan(fetch(fl.mse(put(p), put(t), weight=weight)))
    with pytest.raises(ValueError, match=r"^poisson: target\[5\]"):
        fl.synchronize()


def test_integer_predictions_in_host_memory():
    z, t = np.array([1, 2, 5]), np.array([1.0, 4.0, 2.0])
    value, grad = fl.mse.value_and_grad(z, t, backend="cuda")
    assert value == (0 + 4 + 9) / 3
    np.testing.assert_allclose(grad, np.array([0.0, -4.0, 6.0]) / 3, rtol=1e-15)
    logits, labels = np.array([[2, 0, 1]]), np.array([0])
    found = fl.cross_entropy(logits, labels, backend="cuda")
    np.testing.assert_allclose(found, np.log(np.exp([0.0, -2.0, -1.0]).sum()), rtol=1e-14)
    boxes = np.array([[0, 0, 2, 2]])
    assert fl.iou(boxes, boxes.astype(float), backend="cuda") == 0.0


def test_wrong_calls(put):
    p, t = put(np.zeros((3, 2))), put(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"target has shape \(2, 3\); expected \(3, 2\)"):
        fl.mse(p, t)
    with pytest.raises(TypeError, match="cannot convert a Numba device array of dtype int64"):
        fl.mse(put(np.zeros(3, np.int64)), put(np.zeros(3)))
    with pytest.raises(ValueError, match="all on a GPU or all in host memory"):
        fl.mse(p, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="allowed: 'mean', 'sum', 'none', 'batchmean'"):
        fl.mse(p, p, reduction="max")
    with pytest.raises(TypeError, match="out has dtype float32; expected float64"):
        fl.mse.value_and_grad(p, p, out=put(np.zeros((3, 2), np.float32)))
    with pytest.raises(ValueError, match="overlaps an input"):
        fl.mse.value_and_grad(p, p, out=p)
    with pytest.raises(ValueError, match=r"out has shape \(2, 3\); expected \(3, 2\)"):
        fl.mse.value_and_grad(p, p, out=t)
    with pytest.raises(ValueError, match="out is not contiguous"):
        fl.mse.value_and_grad(p, p, out=put(np.zeros((2, 3))).T)


def test_out_is_written_and_returned(put, fetch):
    p, t, out = put(np.arange(6.0)), put(np.ones(6)), put(np.zeros(6))
    _, grad = fl.mse.value_and_grad(p, t, out=out)
    assert grad is out
    np.testing.assert_allclose(fetch(out), 2 * (np.arange(6.0) - 1) / 6)


@pytest.mark.parametrize("target", [1.0, np.float64(1.0), np.array(1.0)])
def test_one_number_stands_for_all_targets_or_weights(target, put, fetch):
    p = np.arange(6.0).reshape(2, 3)
    value, grad = map(fetch, fl.mse.value_and_grad(put(p), target, weight=2.0))
    assert value == np.mean((p - 1) ** 2)
    np.testing.assert_allclose(grad, (p - 1) / 3)


def test_a_level_for_each_column_falls_back(put, fetch):
    p = np.arange(6.0).reshape(3, 2)
    with pytest.warns(
        RuntimeWarning,
        match="quantile runs on the CPU, with copies: quantile with a level per column has no CUDA kernel",
    ):
        value = fetch(fl.quantile(put(p), put(np.ones((3, 2))), q=[0.1, 0.9]))
    assert value == fl.quantile(p, np.ones((3, 2)), q=[0.1, 0.9])
