"""Losses of a user's own on the simulated device: formulas, functions, classes, points and sums."""

import numpy as np
import pytest

import fastloss as fl


@fl.loss
def skewed(z, t, ratio=3.0):
    r = z - t
    return np.where(r > 0, r * r, ratio * np.log1p(r * r))


@fl.row_loss()
def own_focal(lp, t, gamma=2.0):
    return -t * (1 - np.exp(lp)) ** gamma * lp


@fl.array_loss("points", inputs={"a": 2, "b": 2}, grad=("a",))
def far(x, y, u, v, scale=2.0):
    return scale * np.sqrt((x - u) ** 2 + (y - v) ** 2)


TEXT = fl.formula("delta**2 * (sqrt(1 + (r / delta)**2) - 1)", r="z - t", delta=1.0)
ELEMENTS = {
    "text": TEXT,
    "function": skewed,
    "bound": skewed.bind(ratio=5.0),
    "sum": 0.7 * fl.mse + 0.3 * skewed,
    "many weights": fl.combine({f"n{i}": (0.1 * (i + 1), fl.huber.bind(delta=1.0 + i)) for i in range(4)}),
}


def numbers(dtype, n=37):
    return np.random.default_rng(0).normal(size=(2, n)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ELEMENTS)
def test_elements(name, dtype, put, fetch):
    loss, (z, t) = ELEMENTS[name], numbers(dtype)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    if name == "many weights":
        with pytest.warns(RuntimeWarning, match="runs on the CPU, with copies"):
            value, grad = loss.value_and_grad(put(z), put(t))
    else:
        value, grad = loss.value_and_grad(put(z), put(t))
        assert on_the_device(grad)
    expected, slope = loss.value_and_grad(z, t)
    assert float(fetch(value)) == pytest.approx(expected, rel=tolerance)
    np.testing.assert_allclose(fetch(grad), slope, rtol=tolerance, atol=tolerance)


def on_the_device(x):
    """Whether a result lies on the simulated device."""
    return hasattr(x, "copy_to_host")


@pytest.mark.parametrize("k", [4, 70])
def test_classes(k, put, fetch):
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(5, k)), rng.integers(0, k, 5)
    value, grad = own_focal.value_and_grad(put(z), put(labels), gamma=1.5)
    assert on_the_device(grad)
    # The built-in loss of the same mathematics.
    expected, slope = fl.softmax_focal.value_and_grad(z, labels, gamma=1.5)
    assert float(fetch(value)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(fetch(grad), slope, rtol=1e-9, atol=1e-14)


def test_points(put, fetch):
    a, b = np.random.default_rng(2).normal(size=(2, 7, 2))
    value, grad = far.value_and_grad(put(a), put(b), scale=3.0)
    assert on_the_device(grad)
    length = np.linalg.norm(a - b, axis=1)
    assert float(fetch(value)) == pytest.approx(3.0 * length.mean(), rel=1e-12)
    np.testing.assert_allclose(fetch(grad), 3.0 * (a - b) / length[:, None] / 7, rtol=1e-10)


def test_second_derivatives_and_values_of_each_element(put, fetch):
    z, t = numbers(np.float64)
    grad, hess = TEXT.grad_and_hess(put(z), put(t), delta=2.0)
    root = np.sqrt(1 + ((z - t) / 2.0) ** 2)
    np.testing.assert_allclose(fetch(grad), (z - t) / root, rtol=1e-10)
    np.testing.assert_allclose(fetch(hess), root**-3, rtol=1e-10)
    values = TEXT(put(z), put(t), delta=2.0, reduction="none", weight=put(np.full(37, 0.5)))
    assert on_the_device(values)
    np.testing.assert_allclose(fetch(values), 0.5 * 4.0 * (root - 1), rtol=1e-9)


def test_an_input_left_out_before_another(put, fetch):
    mean, log_var, prior = np.random.default_rng(3).normal(size=(3, 6))
    grads = fl.kl_gaussian.value_and_grad(put(mean), put(log_var), prior_log_var=put(prior))[1]
    expected = fl.kl_gaussian.value_and_grad(mean, log_var, np.zeros(6), prior)[1]
    for grad, slope in zip(grads, (*expected[:2], expected[3]), strict=True):
        np.testing.assert_allclose(fetch(grad), slope, rtol=1e-10)
