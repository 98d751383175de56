"""Losses of transport: SciPy, linear programming and torch as judges; ties, empty sides, extremes, errors."""

import warnings

import numpy as np
import pytest

import fastloss as fl
from fastloss import reference


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def differences(function, a, h):
    """Derivatives of function(a) by every element of a, central."""
    found = np.empty(a.shape)
    for place in np.ndindex(a.shape):
        ends = []
        for step in (h, -h):
            moved = a.copy()
            moved[place] += step
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * h)
    return found


def program(a, b, cost):
    """The cheapest transport by linear programming: value and plan."""
    optimize = pytest.importorskip("scipy.optimize", reason="needs the peers extra")
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    found = optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    return found.fun, found.x.reshape(n, m)


# Histograms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 33])
def test_histograms_are_as_linear_programming_says(rng, k, p):
    a, b, u = rng.random((3, k)), rng.random((3, k)), np.sort(rng.normal(size=k))
    a[:, rng.integers(k)] += 1.0
    a[0, 0] = b[0, -1] = 0.0
    a[0, -1] = b[0, 0] = 1.0
    cost = np.abs(u[:, None] - u) ** p
    expected = [program(q / q.sum(), t / t.sum(), cost)[0] for q, t in zip(a, b, strict=True)]
    got = fl.wasserstein_1d(a, b, u, p=p, reduction="none")
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_histograms_of_batches_are_as_scipy_says_row_by_row(rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    a, b = rng.random((4, 5, 16)), rng.random((4, 5, 16))
    places = np.arange(16)
    got = fl.wasserstein_1d(a, b, reduction="none")
    for i in np.ndindex(4, 5):
        assert got[i] == pytest.approx(stats.wasserstein_distance(places, places, a[i], b[i]), rel=1e-13)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_one_histogram_moved_by_a_bin(p):
    a, b = np.array([0.0, 2.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 5.0])
    assert fl.wasserstein_1d(a, b, p=p) == 2.0**p
    assert fl.wasserstein_1d(a, b, np.array([0.0, 1.0, 1.5, 4.0]), p=p) == 3.0**p


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("factor", [1.0, 3.0, 0.1])
def test_equal_histograms_have_no_distance_and_no_slope(rng, p, factor):
    a = rng.random((20, 37))
    values, grad = fl.wasserstein_1d.value_and_grad(a, factor * a, p=p, reduction="none")
    assert values.max() <= 1e-13
    assert not grad.any()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_the_gradient_of_histograms_is_orthogonal_to_them_and_passes_a_softmax(rng, p):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    z = torch.tensor(rng.normal(size=(6, 12)), requires_grad=True)
    target = torch.tensor(rng.random((6, 12)))
    prediction = torch.softmax(z, dim=1)
    value, grad = fl.wasserstein_1d.value_and_grad(prediction.detach(), target, p=p)
    assert abs((grad * prediction.detach()).sum(dim=1)).max() < 1e-14
    prediction.backward(grad)

    def of_logits(logits):
        e = np.exp(logits)
        return reference.wasserstein_1d(e / e.sum(axis=1, keepdims=True), target.numpy(), p=p).mean()

    assert value == pytest.approx(of_logits(z.detach().numpy()), rel=1e-13)
    np.testing.assert_allclose(z.grad, differences(of_logits, z.detach().numpy(), 1e-6), atol=1e-8)


def test_histograms_without_mass():
    a, b = np.zeros((2, 3)), np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    assert fl.wasserstein_1d(a[:1], b[:1]) == 0.0
    for p in (1.0, 2.0):
        value, grad = fl.wasserstein_1d.value_and_grad(a, a, p=p)
        assert value == 0.0
        assert not grad.any()
    with pytest.raises(ValueError, match=r"prediction\[1\] has mass 0 and target\[1\] 3; expected mass in both or in"):
        fl.wasserstein_1d(a, b)
    with pytest.raises(ValueError, match="prediction has mass 3 and target 0"):
        fl.wasserstein_1d(b[1], a[1], p=2)


def test_histograms_and_positions_that_cannot_be():
    good = np.ones((2, 3))
    bad = good.copy()
    bad[1, 2] = -0.5
    for p in (1, 2):
        with pytest.raises(ValueError, match=r"wasserstein_1d: prediction\[1, 2\] is -0.5; allowed: \[0, inf\)"):
            fl.wasserstein_1d(bad, good, p=p)
        with pytest.raises(ValueError, match=r"target\[1, 2\] is -0.5; allowed"):
            fl.wasserstein_1d.value_and_grad(good, bad, p=p)
    with pytest.raises(ValueError, match=r"positions\[2\] is 0, below positions\[1\] = 1; expected"):
        fl.wasserstein_1d(good, good, np.array([0.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"positions\[1\] is inf; expected finite"):
        fl.wasserstein_1d(good, good, np.array([0.0, np.inf, np.inf]))
    with pytest.raises(ValueError, match=r"p is 3; allowed: \{1, 2\}"):
        fl.wasserstein_1d(good, good, p=3)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_not_a_number_in_a_histogram_comes_through_alone(rng, p):
    a, b = rng.random((40, 10)), rng.random((40, 10))
    expected, slopes = fl.wasserstein_1d.value_and_grad(a, b, p=p, reduction="none")
    a[17, 3] = np.nan
    values, grad = fl.wasserstein_1d.value_and_grad(a, b, p=p, reduction="none")
    others = np.arange(40) != 17
    assert np.isnan(values[17])
    assert np.isnan(grad[17]).all()
    np.testing.assert_array_equal(values[others], expected[others])
    np.testing.assert_array_equal(grad[others], slopes[others])


# Samples -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_rows_are_ordered_as_numpy_orders_them(rng, dtype):
    from fastloss.kernels.order import FEW, ordered

    x = rng.normal(0, 1e3, (6, FEW + 77)).astype(dtype)
    x[1] = x[1].round(-2)
    x[2] *= np.finfo(dtype).tiny
    x[3, ::3], x[3, ::7], x[3, 5], x[3, 6] = np.nan, -np.nan, np.inf, -np.inf
    x[4, ::2], x[4, 1::4] = 0.0, -0.0
    x[5] = 1.5
    places, order = ordered(np.dtype(dtype).name, x, True)
    expected = np.argsort(x, axis=1, kind="stable")
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(places, np.take_along_axis(x, expected, axis=1))
    assert np.isnan(places[3, -1])


@pytest.mark.parametrize("digits", [0, 1, 12])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (8, 8), (12, 18), (1500, 1100)])
def test_samples_are_as_scipy_says(rng, n, m, weighted, digits):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    x, y = rng.normal(0, 2, n).round(digits), rng.normal(1, 3, m).round(digits)
    weights = (rng.random(n) + 0.01, rng.random(m)) if weighted else (None, None)
    given = (x, y, *weights)
    assert fl.wasserstein_samples(*given) == pytest.approx(stats.wasserstein_distance(*given), rel=1e-12)
    energy = stats.energy_distance(*given)
    assert fl.energy_distance(*given) == pytest.approx(energy, rel=1e-12)
    assert fl.cramer(*given) == pytest.approx(energy / np.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("block", [1, 3, 8192])
@pytest.mark.parametrize("name", ["wasserstein_samples", "energy_distance", "cramer"])
def test_where_blocks_end_changes_nothing(rng, name, block, monkeypatch):
    # BLOCK is a constant of the kernels: the plain functions are asked.
    from fastloss.kernels import samples

    loss = fl.LOSSES[name]
    x, y = rng.normal(0, 2, (2, 30)).round(0), rng.normal(1, 3, (2, 23)).round(0)
    x[0], y[1] = rng.normal(size=30), 7.0
    expected, grads = loss.value_and_grad(x, y, reduction="none")
    monkeypatch.setattr(samples, "BLOCK", block)
    monkeypatch.setattr(samples, "kernel", plain_kernel)
    values, others = loss.value_and_grad(x, y, reduction="none")
    np.testing.assert_allclose(values, expected, rtol=1e-14)
    for a, b in zip(others, grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def plain_kernel(template, name, dtype, formula=None, helpers=()):
    """The kernel as plain Python, with its module as it is now."""
    from fastloss.kernels import blocks, samples
    from fastloss.kernels.specialize import bind

    bound = {"T": np.dtype(dtype).type, "factor_of": blocks.factor_of, "BLOCK": samples.BLOCK}
    for helper in helpers:
        bound[helper.__name__] = bind(helper, **bound)
    return lambda units, work, *arrays: bind(template, **bound)(0, units, *arrays)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_samples_of_different_number_are_as_linear_programming_says(rng, p):
    x, y, a, b = rng.normal(size=6), rng.normal(size=9), rng.random(6), rng.random(9)
    cost = np.abs(x[:, None] - y) ** p
    value, (gx, gy) = fl.wasserstein_samples.value_and_grad(x, y, a, b, p=p)
    expected, plan = program(a / a.sum(), b / b.sum(), cost)
    slope = plan * np.sign(x[:, None] - y) * p * np.abs(x[:, None] - y) ** (p - 1)
    assert value == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(gx, slope.sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(gy, -slope.sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("name", ["wasserstein_samples", "energy_distance", "cramer"])
@pytest.mark.parametrize("weighted", [False, True])
def test_equal_samples_have_no_distance_and_no_slope(rng, name, weighted):
    x = rng.normal(size=50).round(1)
    # The same distribution, written as twice as many samples in another order.
    twice = rng.permutation(np.repeat(np.arange(50), 2))
    w = rng.random(50) if weighted else None
    weights = {"x_weight": w, "y_weight": w[twice]} if weighted else {}
    value, grads = fl.LOSSES[name].value_and_grad(x, x[twice], **weights)
    assert value <= (1e-14 if weighted and name == "wasserstein_samples" else 0.0)
    for g in grads:
        np.testing.assert_allclose(g, 0.0, atol=1e-15)


@pytest.mark.parametrize("name", ["wasserstein_samples", "energy_distance", "cramer"])
def test_ties_share_their_gradient_whatever_their_order(rng, name):
    x, y = rng.normal(size=40).round(0), rng.normal(0.3, 1, size=25).round(0)
    w = np.ones(40)
    _, (gx, gy) = fl.LOSSES[name].value_and_grad(x, y, w)
    for value in np.unique(x):
        assert np.ptp(gx[x == value]) <= 1e-16
    order = rng.permutation(40)
    _, (again, other) = fl.LOSSES[name].value_and_grad(x[order], y)
    np.testing.assert_allclose(again, gx[order], rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(other, gy, rtol=1e-13, atol=1e-16)
    # Moved all together, samples that are equal are one sample of their mass.
    atom, mass = np.unique(x, return_counts=True)
    _, (of_atoms, _) = fl.LOSSES[name].value_and_grad(atom, y, mass.astype(float))
    np.testing.assert_allclose([gx[x == v].sum() for v in atom], of_atoms, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["wasserstein_samples", "energy_distance", "cramer"])
def test_no_samples_at_all_or_on_one_side(name):
    loss, none, some = fl.LOSSES[name], np.empty(0), np.ones(3)
    assert loss(none, none) == 0.0
    with pytest.raises(ValueError, match=rf"{name}: x has shape \(0,\) and y has shape \(3,\); expected both empty"):
        loss(none, some)
    with pytest.raises(ValueError, match=r"y has shape \(0,\) and x has shape \(3,\)"):
        loss.value_and_grad(some, none)
    with pytest.raises(ValueError, match="x_weight sums to 0; expected a positive sum"):
        loss(some, some, np.zeros(3))
    with pytest.raises(ValueError, match=r"y_weight\[1\] sums to 0; expected"):
        loss(np.ones((2, 3)), np.ones((2, 3)), None, np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"x_weight\[2\] is -1; allowed: \[0, inf\)"):
        loss(some, some, np.array([1.0, 2.0, -1.0]))
    value, grads = loss.value_and_grad(some, 2 * some, np.zeros(3), np.zeros(3))
    assert value == 0.0
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("name", ["wasserstein_samples", "energy_distance", "cramer"])
def test_samples_that_are_not_finite(rng, name):
    loss, x, y = fl.LOSSES[name], rng.normal(size=(3, 8)), rng.normal(size=(3, 6))
    expected = loss(x, y, reduction="none")
    x[1, 3], y[2, 4] = np.inf, np.nan
    values = loss(x, y, reduction="none")
    assert values[0] == expected[0]
    assert values[1] == np.inf
    assert np.isnan(values[2])
    assert np.isnan(loss(y, x, reduction="none")[2])


# Clouds --------------------------------------------------------------------------------------------------------------


def test_projections_on_one_line_are_the_samples(rng):
    x, y = rng.normal(size=(20, 1)), rng.normal(size=(13, 1))
    for p in (1.0, 2.0):
        expected = fl.wasserstein_samples(x[:, 0], y[:, 0], p=p) ** (1 / p)
        assert fl.sliced_wasserstein(x, y, p=p, n_projections=3) == pytest.approx(expected, rel=1e-14)


def test_directions_follow_their_seed(rng, monkeypatch):
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    value, grads = fl.sliced_wasserstein.value_and_grad(x, y, seed=5)
    assert fl.sliced_wasserstein(x, y, seed=5) == value
    assert fl.sliced_wasserstein(x, y, seed=6) != value
    # A few projections at a time.
    monkeypatch.setattr("fastloss.kernels.sliced.TOGETHER", 300)
    again, others = fl.sliced_wasserstein.value_and_grad(x, y, seed=5)
    assert again == pytest.approx(value, rel=1e-14)
    for a, b in zip(others, grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_projections_are_as_pot_couples_them(rng):
    ot = pytest.importorskip("ot", reason="POT is not among the extras")
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(21, 4)) + 0.5
    u = np.random.default_rng(0).standard_normal((50, 4))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for p in (1, 2):
        expected = ot.sliced_wasserstein_distance(x, y, projections=u.T, p=p)
        assert fl.sliced_wasserstein(x, y, p=p) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["sliced_wasserstein", "mmd", "sinkhorn_points"])
def test_a_cloud_beside_itself_and_beside_nothing(rng, name):
    loss, x = fl.LOSSES[name], rng.normal(size=(9, 3))
    options = {"mmd": {"unbiased": False}, "sinkhorn_points": {"debias": True, "epsilon": 1.0}}.get(name, {})
    value, grads = loss.value_and_grad(x, x.copy(), **options)
    assert abs(value) < 1e-9
    for g in grads:
        np.testing.assert_allclose(g, 0.0, atol=1e-6)
    with pytest.raises(ValueError, match=rf"{name}: x has shape \(0, 3\) and y has shape \(9, 3\); expected both"):
        loss(x[:0], x)
    with pytest.raises(ValueError, match=r"y has shape \(9, 2\); expected \(9, 3\), as in x"):
        loss(x, x[:, :2].copy())


@pytest.mark.jit
@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_is_as_torch_derives_it(rng, unbiased):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    sigmas = [0.5, 1.0, 4.0]
    # More points than a block of distances holds.
    x = torch.tensor(rng.normal(size=(30, 5)), requires_grad=True)
    y = torch.tensor(rng.normal(0.3, 1, size=(530, 5)), requires_grad=True)

    def within(a):
        k = kernel(a, a)
        n = len(a)
        return (k.sum() - torch.diag(k).sum()) / (n * (n - 1)) if unbiased else k.mean()

    def kernel(a, b):
        square = ((a[:, None] - b) ** 2).sum(dim=2)
        return sum(torch.exp(-square / (2 * s * s)) for s in sigmas)

    expected = within(x) + within(y) - 2 * kernel(x, y).mean()
    expected.backward()
    value, (gx, gy) = fl.mmd.value_and_grad(x.detach(), y.detach(), np.array(sigmas), unbiased=unbiased)
    assert value == pytest.approx(expected.item(), abs=1e-14)
    np.testing.assert_allclose(gx, x.grad, atol=1e-15)
    np.testing.assert_allclose(gy, y.grad, atol=1e-15)


def test_mmd_of_one_point_and_of_bandwidths_that_cannot_be(rng):
    x = rng.normal(size=(4, 2))
    with pytest.raises(ValueError, match="mmd: y has one point; unbiased=True needs at least two"):
        fl.mmd(x, x[:1])
    assert fl.mmd(x, x[:1], unbiased=False) > 0.0
    with pytest.raises(ValueError, match=r"bandwidths\[1\] is 0; allowed: \(0, inf\)"):
        fl.mmd(x, x, np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"sigma is 0\.0; allowed"):
        fl.mmd(x, x, sigma=0.0)


# Entropic transport --------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("fastloss.dispatch.PARALLEL_FROM", 1)
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
