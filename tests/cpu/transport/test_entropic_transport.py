"""Entropic transport: SciPy, linear programming and torch as judges; masses, padding, convergence, errors."""

import warnings

import numpy as np
import pytest
from transport_cases import program

import fastloss as fl
from fastloss import reference


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_with_little_entropy_the_cost_is_that_of_linear_programming(rng):
    a, b, cost = rng.random(8), rng.random(6), rng.random((8, 6))
    a, b = a / a.sum(), b / b.sum()
    best, plan = program(a, b, cost)
    value, (_, _, entropic) = fl.sinkhorn.value_and_grad(a, b, cost, epsilon=1e-3, max_iterations=10000)
    # KL of the plan to a b^T lies between 0 and the entropies of a and b.
    assert best - 1e-6 <= value <= best + 1e-3 * -(a @ np.log(a) + b @ np.log(b))
    np.testing.assert_allclose(entropic, plan, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_small_epsilon_neither_overflows_nor_underflows(rng, dtype, scale, offset):
    a, b = rng.random(12), rng.random(9)
    cost = (scale * (rng.random((12, 9)) + offset)).astype(dtype)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value, grads = fl.sinkhorn.value_and_grad(a, b, cost, epsilon=1e-3 * max(1.0, scale / 1e3))
    best = program(a / a.sum(), b / b.sum(), cost.astype(np.float64))[0]
    assert [w.category for w in said] in ([], [RuntimeWarning])
    assert value == pytest.approx(best, rel=2e-2)
    assert all(np.isfinite(g).all() for g in grads)
    assert grads[2].min() >= 0.0
    # The columns are right after each iteration; the rows as far as it got.
    np.testing.assert_allclose(grads[2].sum(axis=0), b / b.sum(), rtol=1e-5)


def test_not_converged_is_said(rng):
    a, b, cost = rng.random(8), rng.random(6), rng.random((8, 6))
    text = r"sinkhorn: after 3 iterations the marginals are wrong by .*, more than the tolerance 1e-06; raise"
    with pytest.warns(RuntimeWarning, match=text) as said:
        fl.sinkhorn(a, b, cost, epsilon=1e-3, max_iterations=3)
    assert said[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="sinkhorn_points: after 2 iterations") as said:
        fl.sinkhorn_points.value_and_grad(rng.normal(size=(5, 2)), rng.normal(size=(4, 2)), max_iterations=2)
    assert said[0].filename == __file__


@pytest.mark.jit
def test_small_and_large_problems_iterate_alike(rng, monkeypatch):
    a, b, cost = rng.random(50), rng.random(40), rng.random((50, 40))
    expected, grads = fl.sinkhorn.value_and_grad(a, b, cost, epsilon=0.02)
    monkeypatch.setattr("fastloss.cpu.dispatch.PARALLEL_FROM", 1)
    value, others = fl.sinkhorn.value_and_grad(a, b, cost, epsilon=0.02)
    assert value == expected
    for x, y in zip(others, grads, strict=True):
        np.testing.assert_array_equal(x, y)


def test_bins_without_mass_have_potentials_and_no_plan(rng):
    a, b, cost = rng.random(7), rng.random(6), rng.random((7, 6))
    a[2] = b[1] = b[5] = 0.0
    value, (ga, gb, plan) = fl.sinkhorn.value_and_grad(a, b, cost, tolerance=1e-13)
    rows, columns = a > 0, b > 0
    _, (fa, fb, dense) = fl.sinkhorn.value_and_grad(a[rows], b[columns], cost[rows][:, columns].copy(), tolerance=1e-13)
    assert value == pytest.approx(reference.sinkhorn(a, b, cost), rel=1e-12)
    np.testing.assert_allclose(ga[rows], fa, atol=1e-11)
    np.testing.assert_allclose(gb[columns], fb, atol=1e-11)
    np.testing.assert_allclose(plan[rows][:, columns], dense, atol=1e-12)
    assert not plan[~rows].any()
    assert not plan[:, ~columns].any()
    # To the right of 0 the loss has derivatives there too.
    for k, (given, slope) in {0: (a, ga), 1: (b, gb)}.items():
        for i in np.flatnonzero(given == 0):
            ends = []
            for h in (1e-7, 2e-7):
                moved = [a.copy(), b.copy()]
                moved[k][i] = h
                ends.append(float(reference.sinkhorn(*moved, cost)))
            by_differences = (4 * ends[0] - 3 * float(reference.sinkhorn(a, b, cost)) - ends[1]) / 2e-7
            assert slope[i] == pytest.approx(by_differences, abs=1e-5)


def test_padding_without_mass_that_nothing_may_reach(rng):
    a, b, cost = rng.random(5), rng.random(4), rng.random((5, 4))
    expected, (ga, gb, plan) = fl.sinkhorn.value_and_grad(a, b, cost)
    wide_a, wide_b, wide = np.append(a, 0.0), np.append(b, [0.0, 0.0]), np.full((6, 6), np.inf)
    wide[:5, :4] = cost
    value, (ha, hb, padded) = fl.sinkhorn.value_and_grad(wide_a, wide_b, wide)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(ha[:5], ga, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(hb[:4], gb, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(padded[:5, :4], plan, rtol=1e-12)
    assert padded.sum() == pytest.approx(plan.sum(), rel=1e-12)


def test_costs_that_are_infinite_or_not_a_number(rng):
    a, b, cost = np.full(4, 0.25), np.array([0.4, 0.2, 0.2, 0.2]), rng.random((4, 4))
    cost[0, 1:] = np.inf
    value, (_, _, plan) = fl.sinkhorn.value_and_grad(a, b, cost)
    assert np.isfinite(value)
    np.testing.assert_array_equal(plan[0, 1:], 0.0)
    assert plan[0, 0] == pytest.approx(0.25, rel=1e-5)
    cost[0, 0] = np.nan
    assert np.isnan(fl.sinkhorn(a, b, cost))


def test_histograms_of_entropic_transport_that_cannot_be():
    a, cost = np.ones(2), np.ones((2, 2))
    with pytest.raises(ValueError, match="sinkhorn: b sums to 0; expected a positive sum"):
        fl.sinkhorn(a, np.zeros(2), cost)
    with pytest.raises(ValueError, match=r"a\[1\] is -1; allowed"):
        fl.sinkhorn(np.array([1.0, -1.0]), a, cost)
    with pytest.raises(ValueError, match=r"a has shape \(0,\) and b has shape \(2,\); expected both empty"):
        fl.sinkhorn(np.empty(0), a, np.empty((0, 2)))
    with pytest.raises(ValueError, match="epsilon is 0; allowed"):
        fl.sinkhorn(a, a, cost, epsilon=0)
    with pytest.raises(ValueError, match="x_weight sums to 0"):
        fl.sinkhorn_points(np.ones((2, 1)), np.ones((2, 1)), np.zeros(2))
    with pytest.raises(ValueError, match=r"max_iterations is 1\.5; allowed: whole numbers from 1"):
        fl.sinkhorn(a, a, cost, max_iterations=1.5)


def test_points_are_costs_written_out(rng):
    x, y, a = rng.normal(size=(8, 2)), rng.normal(size=(5, 2)), rng.random(8)
    cost = ((x[:, None] - y) ** 2).sum(axis=2)
    value, (gx, gy) = fl.sinkhorn_points.value_and_grad(x, y, a, epsilon=0.5)
    expected, (_, _, plan) = fl.sinkhorn.value_and_grad(a, np.ones(5), cost, epsilon=0.5)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gx, 2 * (plan[:, :, None] * (x[:, None] - y)).sum(axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gy, 2 * (plan[:, :, None] * (y - x[:, None])).sum(axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("debias", [False, True])
def test_points_without_mass_are_not_there(rng, debias):
    x, y, a, b = rng.normal(size=(6, 2)), rng.normal(size=(5, 2)), rng.random(6), rng.random(5)
    a[2] = b[4] = b[0] = 0.0
    rows, columns = a > 0, b > 0
    options = {"epsilon": 0.5, "debias": debias, "tolerance": 1e-12}
    value, (gx, gy) = fl.sinkhorn_points.value_and_grad(x, y, a, b, **options)
    expected, (fx, fy) = fl.sinkhorn_points.value_and_grad(x[rows], y[columns], a[rows], b[columns], **options)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gx[rows], fx, atol=1e-11)
    np.testing.assert_allclose(gy[columns], fy, atol=1e-11)
    assert not gx[~rows].any()
    assert not gy[~columns].any()
