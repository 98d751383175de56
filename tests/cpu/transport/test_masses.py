"""Histograms and weighted samples whose masses are huge, tiny or infinite."""

import numpy as np
import pytest

import fastloss as fl

MASSES = [1e308, 1.0, 1e-300, 5e-324]


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_histograms_of_huge_and_of_tiny_masses(p):
    ratio = np.array([1.0, 2.0, 0.0, 3.0]), np.array([2.0, 1.0, 1.0, 0.0])
    value, slope = fl.wasserstein_1d.value_and_grad(*(x[None] for x in ratio), p=p)
    for size in MASSES:
        a, b = (x * (size / 4 if size > 1e300 else size) for x in ratio)
        rows = np.array([a, ratio[0]]), np.array([b, ratio[1]])
        values, grad = fl.wasserstein_1d.value_and_grad(*rows, reduction="none", p=p)
        np.testing.assert_allclose(values, value, rtol=1e-14)
        # As long as no sum is rounded, the slope is that of masses that are smaller by the factor.
        with np.errstate(over="ignore"):
            expected = [slope[0] / (a[0] / ratio[0][0]), slope[0]]
        np.testing.assert_allclose(grad, expected, rtol=1e-13, atol=1e-322)
    whole = np.full(3, 1e308)
    assert fl.wasserstein_1d(whole, np.array([1.0, 0.0, 0.0]), p=1.0) == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_histograms_of_infinite_masses_have_no_distance(p):
    a, b = np.array([[np.inf, 1.0], [1.0, 2.0]]), np.array([[1.0, 1.0], [2.0, 1.0]])
    for pair in ((a, b), (b, a)):
        values, grad = fl.wasserstein_1d.value_and_grad(*pair, reduction="none", p=p)
        assert np.isnan(values).tolist() == [True, False]
        assert np.isnan(grad).all(axis=1).tolist() == [True, False]
        assert not np.isnan(grad[1]).any()


@pytest.mark.parametrize("name", ["wasserstein_samples", "energy_distance", "cramer"])
def test_samples_of_huge_and_of_tiny_masses(name):
    x, y, w, v = np.array([3.0, 0.5, 1.0]), np.array([2.0, 4.0]), np.array([1.0, 2.0, 1.0]), np.array([3.0, 1.0])
    loss = fl.LOSSES[name]
    value, slopes = loss.value_and_grad(x, y, x_weight=w, y_weight=v)
    for size in MASSES:
        scale = size / 2 if size > 1e300 else size
        found, grads = loss.value_and_grad(x, y, x_weight=w * scale, y_weight=v)
        assert found == pytest.approx(value, rel=1e-14)
        for a, b in zip(grads, slopes, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13)
    assert np.isnan(loss(x, y, x_weight=np.array([np.inf, 1.0, 1.0]), y_weight=v))
