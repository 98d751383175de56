"""Distances between histograms, samples and clouds: SciPy, linear programming and torch as judges."""

from functools import partial

import numpy as np
import pytest
from transport_cases import program

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
    from fastloss.cpu.math.order import FEW, ordered

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
    from fastloss.cpu.transport import samples

    loss = fl.LOSSES[name]
    x, y = rng.normal(0, 2, (2, 30)).round(0), rng.normal(1, 3, (2, 23)).round(0)
    x[0], y[1] = rng.normal(size=30), 7.0
    expected, grads = loss.value_and_grad(x, y, reduction="none")
    monkeypatch.setattr(samples, "BLOCK", block)

    def plain(template, helpers, name, units, work):
        return partial(plain_kernel(template, template.__name__, name, None, helpers), units, work)

    monkeypatch.setattr(samples, "_bound", plain)
    # A loss of its own, whose plans know this length of a block.
    values, others = type(loss)(loss.record).value_and_grad(x, y, reduction="none")
    np.testing.assert_allclose(values, expected, rtol=1e-14)
    for a, b in zip(others, grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def plain_kernel(template, name, dtype, formula=None, helpers=()):
    """The kernel as plain Python, with its module as it is now."""
    from fastloss.cpu.runtime import units
    from fastloss.cpu.runtime.slots import fill
    from fastloss.cpu.runtime.specialize import bind
    from fastloss.cpu.transport import samples

    found = {"T": np.dtype(dtype).type}
    names = {"factor_of": units.factor_of, "BLOCK": samples.BLOCK}
    for helper in helpers:
        names[helper.__name__] = bind(helper, fill(helper, found), **names)
    return lambda units, work, *arrays: bind(template, fill(template, found), **names)(0, units, *arrays)


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
    monkeypatch.setattr("fastloss.cpu.transport.sliced.TOGETHER", 300)
    again, others = fl.sliced_wasserstein.value_and_grad(x, y, seed=5)
    assert again == pytest.approx(value, rel=1e-14)
    for a, b in zip(others, grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.oracle
def test_projections_are_as_pot_couples_them(rng):
    ot = pytest.importorskip("ot", reason="needs POT")
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(21, 4)) + 0.5
    u = np.random.default_rng(0).standard_normal((50, 4))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for p in (1, 2):
        expected = ot.sliced_wasserstein_distance(x, y, projections=u.T, p=p)
        assert fl.sliced_wasserstein(x, y, p=p) == pytest.approx(expected, rel=1e-12)
        some = u[10:17]
        expected = ot.sliced_wasserstein_distance(x, y, projections=some.T, p=p)
        value, grads = fl.sliced_wasserstein.value_and_grad(x, y, some, p=p)
        assert value == pytest.approx(expected, rel=1e-12)
        assert len(grads) == 2
        h = 1e-6 * np.eye(30)[3][:, None] * np.eye(4)[1]
        change = [fl.sliced_wasserstein(x + s * h, y, projections=some, p=p) for s in (1, -1)]
        assert grads[0][3, 1] == pytest.approx((change[0] - change[1]) / 2e-6, rel=1e-6)
    with pytest.raises(ValueError, match=r"sliced_wasserstein: projections has shape \(4, 7\)"):
        fl.sliced_wasserstein(x, y, some.T)


@pytest.mark.oracle
def test_the_plan_is_the_gradient_by_the_cost(rng):
    ot = pytest.importorskip("ot", reason="needs POT")
    a, b, cost = rng.random(5) + 0.1, rng.random(4) + 0.1, rng.random((5, 4))
    plan = fl.sinkhorn.value_and_grad(a, b, cost, epsilon=0.2)[1][2]
    expected = ot.solve(cost, a / a.sum(), b / b.sum(), reg=0.2, reg_type="KL", tol=1e-12).plan
    np.testing.assert_allclose(plan, expected, rtol=1e-5, atol=1e-9)


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
