"""Losses of several arrays on the simulated device, against NumPy's textbook form and differences of it."""

import numpy as np
import pytest
from array_cases import SAMPLES, counts, differentiable, inputs, mean, slopes, truth

import fastloss as fl
from fastloss.devices import RUNNERS

NAMES = [name for name in SAMPLES if fl.LOSSES[name].record.loop in RUNNERS]
CASES = [pytest.param(name, v, id=f"{name}-{v}" if v else name) for name in NAMES for v in SAMPLES[name].variants]
each_case = pytest.mark.parametrize(("name", "variant"), CASES)
each_loss = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def device(put, fetch):
    """Call a loss on the device with arrays in host memory; results in host memory."""

    def call(name, given, derivatives=True, **options):
        loss = fl.LOSSES[name].value_and_grad if derivatives else fl.LOSSES[name]
        result = loss(**{k: put(a) for k, a in given.items()}, **{k: put(a) for k, a in options.items()})
        if not derivatives:
            return fetch(result)
        value, grads = map(fetch, result)
        keys = differentiable(name, given)
        return value, dict(zip(keys, grads if len(keys) > 1 else (grads,), strict=True))

    return call


def close(got, expected, dtype=np.float64, condition=1.0):
    eps = condition * np.finfo(dtype).eps
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    np.testing.assert_allclose(got, expected, rtol=2000 * eps, atol=200 * eps * scale)


def weights_of(shape):
    w = np.random.default_rng(3).uniform(0.2, 2.0, shape)
    w.reshape(-1)[::4] = 0.0
    return w


@each_case
def test_values(name, variant, device):
    given = inputs(name)
    values = device(name, given, derivatives=False, reduction="none", **variant)
    expected = truth(name, given, variant)
    assert values.shape == expected.shape
    close(values, expected, condition=SAMPLES[name].condition)


@each_case
def test_gradients_are_those_of_the_cpu_and_of_differences(name, variant, device):
    given = inputs(name)
    expected = truth(name, given, variant)
    w, counted = weights_of(expected.shape), counts(name, given, variant, expected.shape)
    value, grads = device(name, given, weight=w, **variant)
    close(value, mean(expected, w, counted))
    _, wanted = fl.LOSSES[name].value_and_grad(**given, weight=w, **variant)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for (key, g), there in zip(grads.items(), wanted, strict=True):
        close(g, there, condition=10 * SAMPLES[name].condition)
        places = [tuple(p) for p in np.argwhere(np.ones(g.shape))[:: -(-g.size // 3)]]
        held = {} if SAMPLES[name].held is None else SAMPLES[name].held(**given, **variant)

        def loss(moved, held=held):
            return mean(truth(name, moved, {**variant, **held}), w, counted)

        found = slopes(loss, given, key, places)
        np.testing.assert_allclose([g[p] for p in places], found, rtol=1e-6, atol=1e-8)


@each_loss
def test_single_precision(name, device):
    given = inputs(name, np.float32)
    value, grads = device(name, given, reduction="sum")
    expected = truth(name, given, {})
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-4)
    assert value.dtype == np.float32
    assert value.shape == ()
    _, wanted = fl.LOSSES[name].value_and_grad(**given, reduction="sum")
    for g, there in zip(grads.values(), wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert g.dtype == np.float32
        np.testing.assert_allclose(g, there, rtol=1e-4, atol=1e-5 * np.abs(there).max())
