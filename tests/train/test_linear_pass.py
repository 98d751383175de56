"""One pass over X against products of NumPy in float64."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.cpu.linear import element_pass, row_pass

TOLERANCE = {"float32": 3e-6, "float64": 1e-13}


def close(found, expected, dtype):
    """Assert that arrays agree within a multiple of the precision, relative to the largest element."""
    expected = np.asarray(expected)
    assert np.abs(found - expected).max() <= TOLERANCE[dtype] * max(np.abs(expected).max(), 1e-3)


def data(n, d, k, dtype, seed=0):
    """Return X with a column of ones in float64, X in the dtype, coefficients, and targets of 0 or 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(dtype)
    w = (rng.standard_normal((k, d + 1)) * 0.3).astype(dtype).astype(float)
    return np.column_stack([x.astype(float), np.ones(n)]), x, w, (rng.random(n * k) < 0.4).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (37, 1, 1), (300, 3, 1), (77, 8, 1), (200, 20, 3), (9, 100, 1), (150, 259, 1)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic(dtype, n, d, k, weighted):
    ones, x, w, y = data(n, d, k, dtype)
    weight = np.linspace(0.0, 2.0, n * k).astype(dtype) if weighted else None
    loss = fl.bce_with_logits
    value, grad, hess = element_pass(loss._compiled, loss._packed, True, x, y, weight)(w, True, "hess")
    z, t, m = (ones @ w.T).ravel(), y.astype(float), 1.0 if weight is None else weight.astype(float)
    p = 1.0 / (1.0 + np.exp(-z))
    close(value, (m * (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0.0) - z * t)).sum(), dtype)
    residual, curve = (m * (p - t)).reshape(n, k), (m * p * (1.0 - p)).reshape(n, k)
    close(grad, residual.T @ ones, dtype)
    close(hess, np.stack([(ones * curve[:, [c]]).T @ ones for c in range(k)]), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("k", "dense"), [(3, False), (3, True), (50, False)])
def test_softmax(dtype, k, dense):
    n, d = 300, 21
    ones, x, w, _ = data(n, d, k, dtype)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, k, n)
    shares = np.eye(k)[labels]
    if dense:
        shares = rng.random((n, k))
        shares /= shares.sum(axis=1, keepdims=True)
    empty = (np.empty(0, np.int64), np.ascontiguousarray(shares, dtype)) if dense else (labels, np.empty((0, 0), dtype))
    value, grad, _ = row_pass(fl.cross_entropy, x, k, *empty, None)(w)
    z = ones @ w.T
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    close(value, -(shares * log_p).sum(), dtype)
    close(grad, (np.exp(log_p) - shares).T @ ones, dtype)


def test_sums_and_formulas_of_users():
    ones, x, w, y = data(200, 5, 1, "float64")
    cube = fl.formula("abs(z - t)**3", name="cube")
    for loss, value, slope in (
        (cube, lambda r: np.abs(r) ** 3, lambda r: 3.0 * r * np.abs(r)),
        (0.5 * fl.mse + 2.0 * fl.mae, lambda r: 0.5 * r * r + 2.0 * np.abs(r), lambda r: r + 2.0 * np.sign(r)),
    ):
        found = element_pass(loss._compiled, loss._packed, loss._usual, x, y, None)(w)
        r = (ones @ w.T).ravel() - y
        close(found[0], value(r).sum(), "float64")
        close(found[1], slope(r)[None] @ ones, "float64")


def test_values_outside_the_domain_make_the_sum_infinite():
    _, x, w, y = data(50, 4, 1, "float64")
    run = element_pass(fl.msle._compiled, fl.msle._packed, True, x, y, None)
    assert run(w * 100.0, False)[0] == np.inf
    assert np.isfinite(run(w * 0.0, False)[0])


@pytest.mark.jit
def test_any_number_of_threads_gives_the_same_bits():
    _, x, w, y = data(20_000, 20, 1, "float32")
    loss = fl.bce_with_logits
    run = element_pass(loss._compiled, loss._packed, True, x, y, None)
    threads = fl.get_num_threads()
    found = [run(w, True, "hess")]
    try:
        fl.set_num_threads(1)
        found.append(run(w, True, "hess"))
    finally:
        fl.set_num_threads(threads)
    (value, grad, hess), (other, *others) = found
    assert value == other
    assert np.array_equal(grad, others[0])
    assert np.array_equal(hess, others[1])
