"""Losses of several arrays: values, derivatives, reductions, layouts, threads and errors, for each in the catalogue."""

import numpy as np
import pytest
from array_cases import (
    NAMES,
    SAMPLES,
    counts,
    differentiable,
    each_case,
    each_dtype,
    each_loss,
    inputs,
    mean,
    slopes,
    truth,
)

import fastloss as fl
from fastloss.cpu.runtime import units

TOLERANCE = {np.float32: 4e-6, np.float64: 4e-14}


def several(grads):
    return grads if isinstance(grads, tuple) else (grads,)


def close(got, expected, tolerance, size=1.0):
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * size)


def size_of(a):
    return max(1.0, float(np.abs(a).max(initial=0.0)))


def test_every_loss_has_a_sample():
    assert set(NAMES) == set(SAMPLES)


# Values and derivatives ----------------------------------------------------------------------------------------------


@each_dtype
@each_case
def test_values_of_the_reference(name, variant, dtype):
    loss, given = fl.LOSSES[name], inputs(name, dtype)
    tolerance = TOLERANCE[dtype] * SAMPLES[name].condition
    expected = truth(name, given, variant)
    values = loss(**given, **variant, reduction="none")
    assert values.dtype == dtype
    assert values.shape == expected.shape
    close(values, expected, tolerance, size_of(expected))
    weight = np.random.default_rng(1).integers(0, 3, expected.shape) / 2 if expected.ndim else np.array(0.5)
    counted, ones = counts(name, given, variant, expected.shape), np.ones(expected.shape)
    for how, result in {
        (): mean(expected, ones, counted),
        ("weight",): mean(expected, weight, counted),
        ("sum",): expected.sum(),
        ("divisor",): expected.sum() / 3.5,
        ("sum", "weight"): (weight * expected).sum(),
    }.items():
        options = {"weight": weight} if "weight" in how else {}
        options |= {"reduction": "sum"} if "sum" in how else {}
        options |= {"divisor": 3.5} if "divisor" in how else {}
        got = loss(**given, **variant, **options)
        assert isinstance(got, float)
        close(got, result, tolerance, max(size_of(expected), np.abs(expected).sum() if "sum" in how else 1.0))
        close(loss.value_and_grad(**given, **variant, **options)[0], got, tolerance, size_of(expected))


@each_case
def test_derivatives_by_differences_of_the_reference(name, variant):
    loss, given = fl.LOSSES[name], inputs(name)
    rng = np.random.default_rng(2)
    shape = truth(name, given, variant).shape
    weight = rng.integers(0, 3, shape) / 2 if shape else np.array(1.5)
    value, grads = loss.value_and_grad(**given, **variant, weight=weight, divisor=2.0)

    held = SAMPLES[name].held(**given, **variant) if SAMPLES[name].held else {}

    def reduced(moved):
        return float((weight * truth(name, moved, {**variant, **held})).sum()) / 2.0

    close(value, reduced(given), 1e-12, size_of(value))
    keys = differentiable(name, given)
    assert len(several(grads)) == len(keys)
    for key, grad in zip(keys, several(grads), strict=True):
        assert grad.shape == given[key].shape
        assert grad.dtype == np.float64
        places = [np.unravel_index(i, grad.shape) for i in rng.permutation(grad.size)[:12]]
        expected = slopes(reduced, given, key, places)
        got = np.array([grad[p] for p in places])
        scale = max(float(np.abs(grad).max()), abs(value), 1e-3)
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=2e-9 * scale * SAMPLES[name].condition, err_msg=key)


@each_case
def test_single_precision_follows_double(name, variant):
    loss, given = fl.LOSSES[name], inputs(name, np.float32)
    wide = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in given.items()}
    for a, b in zip(
        several(loss.value_and_grad(**given, **variant)[1]),
        several(loss.value_and_grad(**wide, **variant)[1]),
        strict=True,
    ):
        assert a.dtype == np.float32
        top = max(float(np.abs(b).max()), 1e-30)
        close(a, b, 4e-6 * SAMPLES[name].condition, top)


# Reductions ----------------------------------------------------------------------------------------------------------


@each_loss
def test_the_mean_is_the_sum_over_what_counts(name):
    loss, given = fl.LOSSES[name], inputs(name)
    mean_value, mean_grads = loss.value_and_grad(**given)
    total, grads = loss.value_and_grad(**given, reduction="sum")
    counted = counts(name, given, {}, truth(name, given, {}).shape).sum()
    close(mean_value * counted, total, 1e-13, size_of(total))
    for a, b in zip(several(mean_grads), several(grads), strict=True):
        close(a * counted, b, 1e-12, size_of(b))


@each_loss
def test_of_nothing_the_mean_is_zero(name):
    if SAMPLES[name].empty is None:
        pytest.skip("its batch cannot be empty")
    value, grads = fl.LOSSES[name].value_and_grad(**SAMPLES[name].empty())
    assert value == SAMPLES[name].of_nothing
    assert not any(g.any() for g in several(grads))


@each_loss
def test_a_weight_of_zero_leaves_a_value_out(name):
    loss, given = fl.LOSSES[name], inputs(name)
    if not (SAMPLES[name].independent and loss.record.units):
        pytest.skip("its values share their inputs")
    shape = truth(name, given, {}).shape
    key = differentiable(name, given)[0]
    weight = np.ones(shape)
    weight[1] = 0.0
    expected, slopes = loss.value_and_grad(**given, weight=weight)
    given[key][1] = np.nan
    value, grads = loss.value_and_grad(**given, weight=weight)
    assert value == expected
    for a, b in zip(several(grads), several(slopes), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isnan(loss(**given))


# What comes in and goes out ------------------------------------------------------------------------------------------


@each_loss
def test_inputs_are_never_written_and_out_is_returned_itself(name):
    loss, given = fl.LOSSES[name], inputs(name)
    before = {k: a.copy() for k, a in given.items()}
    for a in given.values():
        a.flags.writeable = False
    expected, grads = loss.value_and_grad(**given)
    out = tuple(np.full(given[k].shape, np.nan) for k in differentiable(name, given))
    value, got = loss.value_and_grad(**given, out=out if len(out) > 1 else out[0])
    assert value == expected
    for a, b, c in zip(several(got), out, several(grads), strict=True):
        assert a is b
        np.testing.assert_array_equal(a, c)
    assert all(np.array_equal(given[k], before[k]) for k in given)
    for a in given.values():
        a.flags.writeable = True
    key = differentiable(name, given)[0]
    over = tuple(given[k] if k == key else np.empty(given[k].shape) for k in differentiable(name, given))
    with pytest.raises(ValueError, match="overlaps an input"):
        loss.value_and_grad(**given, out=over if len(over) > 1 else over[0])
    with pytest.raises(ValueError, match="has no second derivative"):
        loss.grad_and_hess(**given)


@each_loss
def test_layouts_change_no_bit(name):
    loss, given = fl.LOSSES[name], inputs(name)
    expected, grads = loss.value_and_grad(**given)

    def spread(a):
        wide = np.zeros((*a.shape, 2), a.dtype) if a.ndim else a
        if a.ndim:
            wide[..., 0] = a
        return wide[..., 0] if a.ndim else a

    for change in (spread, lambda a: a.copy(order="F"), lambda a: a.astype(a.dtype.newbyteorder(">"))):
        value, got = loss.value_and_grad(**{k: change(a) for k, a in given.items()})
        assert value == expected
        for a, b in zip(several(got), several(grads), strict=True):
            np.testing.assert_array_equal(a, b)


@each_loss
def test_half_precision_is_computed_in_single(name):
    loss, given = fl.LOSSES[name], inputs(name, np.float16)
    single = {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in given.items()}
    value, grads = loss.value_and_grad(**given)
    expected, exact = loss.value_and_grad(**single)
    assert value == expected
    for a, b in zip(several(grads), several(exact), strict=True):
        assert a.dtype == np.float16
        np.testing.assert_array_equal(a, b.astype(np.float16))


@each_loss
def test_tensors_come_back_as_tensors(name):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    loss, given = fl.LOSSES[name], inputs(name)
    expected, grads = loss.value_and_grad(**given)
    value, got = loss.value_and_grad(**{k: torch.from_numpy(a) for k, a in given.items()})
    assert value == expected
    for a, b in zip(several(got), several(grads), strict=True):
        assert isinstance(a, torch.Tensor)
        np.testing.assert_array_equal(a.numpy(), b)


@each_loss
def test_arrays_in_order_and_predictions_as_a_tuple(name):
    loss, given = fl.LOSSES[name], inputs(name)
    order = [given.get(k) for k in loss.record.inputs]
    expected = loss(**given)
    assert loss(*order) == expected
    assert loss(tuple(order[:2]), *order[2:]) == expected


@pytest.mark.jit
@each_dtype
@each_loss
def test_the_number_of_threads_changes_no_bit(name, dtype, monkeypatch):
    monkeypatch.setattr("fastloss.cpu.dispatch.PARALLEL_FROM", 1)
    for name_of in (
        "runtime.units.WORK",
        "runtime.units.SHARED",
        *(f"embeddings.products.{k}" for k in ("TILE", "WIDE", "LEAST")),
    ):
        monkeypatch.setattr(f"fastloss.cpu.{name_of}", 16)
    monkeypatch.setattr("fastloss.cpu.runtime.blas.UNTHREADED", 0)
    loss, given = fl.LOSSES[name], inputs(name, dtype)
    # What earlier calls bound runs in one thread.
    loss._plans.clear()
    loss._recent.clear()
    units.launch_of.cache_clear()
    before = fl.get_num_threads()
    results = []
    try:
        for n in range(1, before + 1):
            fl.set_num_threads(n)
            results.append(loss.value_and_grad(**given))
    finally:
        fl.set_num_threads(before)
        units.launch_of.cache_clear()
    for value, grads in results[1:]:
        assert value == results[0][0]
        for a, b in zip(several(grads), several(results[0][1]), strict=True):
            np.testing.assert_array_equal(a, b)


# Errors --------------------------------------------------------------------------------------------------------------


@each_loss
def test_what_cannot_be_is_refused(name):
    loss, given = fl.LOSSES[name], inputs(name)
    key = differentiable(name, given)[0]
    with pytest.raises(TypeError, match=f"{name} needs"):
        loss()
    with pytest.raises(TypeError, match=f"{name} takes"):
        loss(*[given[key]] * (len(loss.record.inputs) + 1))
    with pytest.raises(TypeError, match=f"{name}: unheard_of is not a parameter"):
        loss(**given, unheard_of=1.0)
    with pytest.raises(TypeError, match=f"{key} has dtype bool; expected float64"):
        loss(**{**given, key: given[key].astype(bool)})
    with pytest.raises(TypeError, match=f"{key} has dtype complex128"):
        loss(**{**given, key: given[key].astype(np.complex128)})
    any_rank = "+" in loss.record.inputs[key].dims
    with pytest.raises(ValueError, match=f"{name}: .* has shape"):
        loss(**{**given, key: np.ones(()) if any_rank else np.ones((2, 2, 2, 2, 2, 2, 2))[..., :0]})
    with pytest.raises(ValueError, match="reduction is 'average'; allowed"):
        loss(**given, reduction="average")
    shape = truth(name, given, {}).shape
    with pytest.raises(ValueError, match="weight"):
        loss(**given, weight=np.full(shape, -1.0))
    with pytest.raises(ValueError, match="weight has shape"):
        loss(**given, weight=np.ones((3, *shape, 7)))
