"""Risks against linear programs, SciPy's optima, closed forms and differences."""

import pickle

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar
from scipy.special import logsumexp

import fastloss as fl
from fastloss.risk import KL, ChiSquare, CVaR, GroupDRO, Quantile, Tilted, Trimmed, WorstGroup

RISKS = [
    CVaR(0.13),
    CVaR(1.0),
    Trimmed(0.13),
    Trimmed(0.0),
    Quantile(0.4),
    Tilted(0.7),
    Tilted(-0.7),
    Tilted(0.0),
    ChiSquare(0.4),
    ChiSquare(0.0),
    KL(0.3),
    KL(0.0),
]
each_risk = pytest.mark.parametrize("risk", RISKS, ids=repr)
MEANS = [CVaR(1.0), Trimmed(0.0), Tilted(0.0), ChiSquare(0.0), KL(0.0)]


def sample(n=40, weighted=True, ties=True):
    rng = np.random.default_rng(3)
    losses = rng.gamma(1.0, 2.0, n)
    if ties:
        losses[: n // 3] = losses[n // 3 : 2 * (n // 3)]
    return losses, rng.integers(0, 4, n) / 2.0 if weighted else np.ones(n)


each_weight = pytest.mark.parametrize("weighted", [False, True])


def given(weight, weighted):
    return weight if weighted else None


@each_weight
@pytest.mark.parametrize("alpha", [0.01, 0.13, 0.5, 0.999])
def test_cvar_is_a_linear_program(alpha, weighted):
    losses, w = sample(weighted=weighted)
    p = w / w.sum()
    found = linprog(-losses, A_eq=np.ones((1, losses.size)), b_eq=[1.0], bounds=[(0.0, x / alpha) for x in p])
    assert CVaR(alpha)(losses, given(w, weighted)) == pytest.approx(-found.fun, rel=1e-9)
    q = CVaR(alpha).weights(losses, given(w, weighted))
    assert (q <= p / alpha * (1 + 1e-12)).all()
    assert q.sum() == pytest.approx(1.0, rel=1e-12)
    assert q @ losses == pytest.approx(-found.fun, rel=1e-9)


@each_weight
@pytest.mark.parametrize("rho", [1e-6, 0.1, 0.5, 3.0])
def test_chi_square_is_its_dual(rho, weighted):
    losses, w = sample(weighted=weighted)
    p = w / w.sum()

    def dual(eta):
        return eta + np.sqrt((1 + 2 * rho) * (p * np.maximum(losses - eta, 0.0) ** 2).sum())

    low = losses.mean() - 4 * losses.std() / np.sqrt(rho)
    found = minimize_scalar(dual, bounds=(low, losses.max()), method="bounded", options={"xatol": 1e-12})
    assert ChiSquare(rho)(losses, given(w, weighted)) == pytest.approx(found.fun, rel=1e-9)
    q = ChiSquare(rho).weights(losses, given(w, weighted))
    counted = p > 0
    assert 0.5 * ((q[counted] / p[counted] - 1) ** 2 * p[counted]).sum() == pytest.approx(rho, rel=1e-8)
    assert q @ losses == pytest.approx(found.fun, rel=1e-9)


@each_weight
@pytest.mark.parametrize("rho", [1e-6, 0.1, 0.5, 2.0])
def test_kl_is_its_dual(rho, weighted):
    losses, w = sample(weighted=weighted)
    p = w / w.sum()

    def dual(log_scale):
        scale = np.exp(log_scale)
        with np.errstate(divide="ignore"):
            return scale * (rho + logsumexp(losses / scale, b=p))

    found = minimize_scalar(dual, bounds=(-7.0, 12.0), method="bounded", options={"xatol": 1e-10})
    assert KL(rho)(losses, given(w, weighted)) == pytest.approx(found.fun, rel=1e-9)
    q = KL(rho).weights(losses, given(w, weighted))
    counted = q > 0
    assert (q[counted] * np.log(q[counted] / p[counted])).sum() == pytest.approx(rho, rel=1e-6)


@each_weight
@pytest.mark.parametrize("t", [-30.0, -1.0, -1e-9, 1e-9, 1.0, 30.0, 1e4])
def test_tilted_is_a_log_sum_of_exponentials(t, weighted):
    losses, w = sample(weighted=weighted)
    p = w / w.sum()
    expected = logsumexp(t * losses, b=p) / t if abs(t) > 1e-6 else p @ losses
    assert Tilted(t)(losses, given(w, weighted)) == pytest.approx(expected, rel=1e-8)
    assert Tilted(t).weights(losses, given(w, weighted)).sum() == pytest.approx(1.0, rel=1e-12)


@each_weight
@pytest.mark.parametrize("q", [0.1, 0.25, 0.3, 0.5, 0.7, 0.999, 1.0])
def test_quantile_is_that_of_numpy(q, weighted):
    losses, w = sample(weighted=weighted)
    if weighted and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("NumPy has no weighted quantiles before 2.0")
    weights = {"weights": w} if weighted else {}
    assert Quantile(q)(losses, given(w, weighted)) == np.quantile(losses, q, method="inverted_cdf", **weights)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 20, 100])
def test_quantile_at_whole_counts(n):
    losses = np.random.default_rng(n).permutation(n).astype(float)
    for q in np.arange(1, n + 1) / n:
        assert Quantile(q)(losses) == np.quantile(losses, q, method="inverted_cdf")


@each_weight
@pytest.mark.parametrize("fraction", [0.01, 0.13, 0.5, 0.95])
def test_trimmed_and_cvar_make_up_the_mean(fraction, weighted):
    losses, w = sample(weighted=weighted)
    parts = fraction * CVaR(fraction)(losses, given(w, weighted))
    parts += (1.0 - fraction) * Trimmed(fraction)(losses, given(w, weighted))
    assert parts == pytest.approx((w * losses).sum() / w.sum(), rel=1e-12)


@each_weight
@each_risk
def test_weights_are_the_derivative(risk, weighted):
    losses, w = sample(weighted=weighted, ties=False)
    w = given(w, weighted)
    h = 1e-6
    steps = h * np.eye(losses.size)
    found = [(risk(losses + s, w) - risk(losses - s, w)) / (2 * h) for s in steps]
    np.testing.assert_allclose(risk.weights(losses, w), found, atol=2e-8)


def difference(function, x, places, h=1e-6):
    found = []
    for place in places:
        up, down = x.copy(), x.copy()
        up[place] += h
        down[place] -= h
        found.append((function(up) - function(down)) / (2 * h))
    return np.array(found)


def elementwise_call():
    rng = np.random.default_rng(0)
    return fl.huber, rng.normal(size=(5, 6)), {"target": rng.normal(size=(5, 6)), "weight": rng.integers(0, 3, (5, 6))}


def columns_call():
    rng = np.random.default_rng(0)
    loss = fl.quantile.bind(q=[0.1, 0.5, 0.9])
    return loss, rng.normal(size=(9, 3)), {"target": rng.normal(size=9), "weight": rng.integers(0, 3, 9)}


def rows_call():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (5, 6))
    labels[1, 2:4] = -100
    return fl.cross_entropy, rng.normal(size=(5, 4, 6)), {"target": labels, "axis": 1, "label_smoothing": 0.1}


def weighted_rows_call():
    loss, z, options = rows_call()
    rng = np.random.default_rng(1)
    return loss, z, {**options, "weight": rng.integers(0, 3, (5, 6)), "class_weight": rng.uniform(0.5, 2.0, 4)}


def boxes_call():
    rng = np.random.default_rng(0)
    low = rng.uniform(0.0, 1.0, (12, 2))
    boxes = np.concatenate([low, low + rng.uniform(1.0, 2.0, (12, 2))], 1)
    return fl.giou, boxes, {"target": boxes + rng.normal(0.0, 0.2, boxes.shape), "weight": rng.integers(0, 3, 12)}


def groups_call():
    rng = np.random.default_rng(0)
    offsets = np.array([0, 1, 6, 12, 20, 24])
    return fl.listnet, rng.normal(size=24), {"relevance": rng.integers(0, 3, 24).astype(float), "offsets": offsets}


CALLS = [elementwise_call, columns_call, rows_call, weighted_rows_call, boxes_call, groups_call]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("risk", [CVaR(0.3), Tilted(1.0), KL(0.2), ChiSquare(0.3), Trimmed(0.2)], ids=repr)
def test_gradients_of_any_loss(call, risk):
    loss, x, options = call()
    value, grad = loss.value_and_grad(x, reduction=risk, **options)
    assert value == loss(x, reduction=risk, **options)
    places = [tuple(p) for p in np.random.default_rng(1).integers(0, x.shape, (12, x.ndim))]
    found = difference(lambda z: loss(z, reduction=risk, **options), x, places)
    np.testing.assert_allclose([grad[p] for p in places], found, atol=1e-7)


@pytest.mark.parametrize("call", [f for f in CALLS if f is not weighted_rows_call], ids=lambda call: call.__name__)
@pytest.mark.parametrize("risk", MEANS, ids=repr)
def test_risks_that_equal_the_mean(call, risk):
    loss, x, options = call()
    value, grad = loss.value_and_grad(x, reduction=risk, **options)
    mean, slope = loss.value_and_grad(x, reduction="mean", **options)
    assert value == pytest.approx(mean, rel=1e-12)
    np.testing.assert_allclose(grad, slope, rtol=1e-12, atol=1e-15)


def test_several_predictions_and_out():
    rng = np.random.default_rng(0)
    mean, log_variance, target = rng.normal(size=(3, 20))
    first = fl.gaussian_nll.record.predictions
    outs = np.empty(20), np.empty(20)
    variance = np.exp(log_variance)
    value, grads = fl.gaussian_nll.value_and_grad((mean, variance), target, reduction=CVaR(0.2), out=outs)
    assert len(first) == 2
    assert grads is outs
    each = fl.gaussian_nll((mean, variance), target, reduction="none")
    assert value == pytest.approx(np.sort(each)[-4:].mean())
    assert np.count_nonzero(grads[0]) == 4


@pytest.mark.parametrize("kind", ["plain", "ties", "one value"])
@each_weight
def test_a_level_of_many_samples(kind, weighted):
    rng = np.random.default_rng(5)
    losses = rng.normal(size=300_000).astype(np.float32)
    if kind == "ties":
        losses = np.maximum(losses, 0.0)
    if kind == "one value":
        losses[:] = 1.5
    w = rng.uniform(0.0, 2.0, losses.size) if weighted else None
    mass = np.ones(losses.size) if w is None else w
    order = np.argsort(-losses, kind="stable")
    x, reached = losses[order].astype(float), np.cumsum(mass[order])
    for alpha in (1e-6, 0.01, 0.3, 0.5, 0.7, 0.99):
        target = alpha * mass.sum()
        share = np.diff(np.minimum(reached, target), prepend=0.0)
        assert CVaR(alpha)(losses, w) == pytest.approx((share * x).sum() / target, rel=1e-6)


@pytest.mark.parametrize("risk", [CVaR(0.1), Tilted(1.0), ChiSquare(0.5), KL(0.5)], ids=repr)
def test_same_bits_on_any_number_of_threads(risk):
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 400_000)).astype(np.float32)
    threads = fl.get_num_threads()
    try:
        fl.set_num_threads(1)
        value, grad = fl.mse.value_and_grad(p, t, reduction=risk)
        fl.set_num_threads(2)
        again, other = fl.mse.value_and_grad(p, t, reduction=risk)
    finally:
        fl.set_num_threads(threads)
    assert value == again
    np.testing.assert_array_equal(grad, other)


@each_risk
def test_nan_comes_through(risk):
    p = np.array([1.0, np.nan, 2.0, 3.0])
    value, grad = fl.mse.value_and_grad(p, np.zeros(4), reduction=risk)
    assert np.isnan(value)
    assert np.isnan(grad[1])
    value, grad = fl.mse.value_and_grad(p, np.zeros(4), reduction=risk, weight=[1.0, 0.0, 1.0, 1.0])
    kept, slope = fl.mse.value_and_grad(p[[0, 2, 3]], np.zeros(3), reduction=risk)
    assert value == pytest.approx(kept, rel=1e-12)
    np.testing.assert_allclose(grad, [slope[0], 0.0, *slope[1:]], rtol=1e-9)


@pytest.mark.parametrize("risk", [CVaR(0.3), Tilted(1.0), ChiSquare(0.4), KL(0.3)], ids=repr)
def test_an_infinite_loss(risk):
    losses = np.array([1.0, np.inf, 2.0])
    assert risk(losses) == np.inf
    np.testing.assert_array_equal(risk.weights(losses), [0.0, 1.0, 0.0])


@each_risk
def test_nothing_to_average(risk):
    value, grad = fl.mse.value_and_grad(np.empty(0), np.empty(0), reduction=risk)
    assert value == 0.0
    assert grad.shape == (0,)
    value, grad = fl.mse.value_and_grad(np.ones(3), np.zeros(3), reduction=risk, weight=np.zeros(3))
    assert value == 0.0
    np.testing.assert_array_equal(grad, 0.0)
    labels = np.full(2, -100)
    assert fl.cross_entropy(np.zeros((2, 3)), labels, reduction=risk) == 0.0


@each_risk
def test_equal_losses(risk):
    losses = np.full(5, 0.7)
    assert risk(losses) == pytest.approx(0.7, rel=1e-15)
    np.testing.assert_allclose(risk.weights(losses), 0.2, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_losses_of_narrow_predictions_are_not_rounded(dtype):
    p = np.array([300.0, 1.0, 2.0, 200.0], dtype)
    value, grad = fl.mse.value_and_grad(p, np.zeros(4, dtype), reduction=CVaR(0.5))
    assert value == 65000.0
    assert grad.dtype == dtype
    np.testing.assert_array_equal(grad, [300.0, 0.0, 0.0, 200.0])


def test_worst_group():
    pred, groups = np.array([1.0, 2.0, 6.0, 4.0, 9.0]), np.array([0, 0, 2, 2, 4])
    value, grad = fl.mae.value_and_grad(pred, np.zeros(5), reduction=WorstGroup(groups))
    assert value == 9.0
    np.testing.assert_array_equal(grad, [0, 0, 0, 0, 1.0])
    value, grad = fl.mae.value_and_grad(pred, np.zeros(5), reduction=WorstGroup(groups), weight=[1, 1, 1, 3, 0])
    assert value == 4.5
    np.testing.assert_array_equal(grad, [0, 0, 0.25, 0.75, 0.0])


def test_group_dro_follows_the_paper():
    pred, groups = np.array([1.0, 2.0, 6.0, 4.0]), np.array([0, 0, 0, 2])
    dro = GroupDRO(groups, eta=0.5)
    before = fl.mae(pred, np.zeros(4), reduction=dro)
    np.testing.assert_allclose(dro.group_weights, 1 / 3)
    value, grad = fl.mae.value_and_grad(pred, np.zeros(4), reduction=dro)
    # The mean of a group, not the share of its samples in the batch: one group has three samples, one none.
    q = np.exp(0.5 * np.array([3.0, 0.0, 4.0]))
    q /= q.sum()
    np.testing.assert_allclose(dro.group_weights, q)
    assert value == before == pytest.approx(q @ [3.0, 0.0, 4.0])
    np.testing.assert_allclose(grad, [q[0] / 3, q[0] / 3, q[0] / 3, q[2]])
    batch = dro.of(np.array([1, 2]))
    fl.mae.value_and_grad(np.ones(2), np.zeros(2), reduction=batch)
    assert batch.group_weights is dro.group_weights


def test_a_failed_call_leaves_the_weights_of_groups():
    dro = GroupDRO(np.array([0, 1]), eta=1.0)
    with pytest.raises(ValueError, match="out"):
        fl.mae.value_and_grad(np.array([1.0, 3.0]), np.zeros(2), reduction=dro, out=np.empty(3))
    np.testing.assert_array_equal(dro.group_weights, 0.5)


def test_tensors():
    torch = pytest.importorskip("torch")
    p = torch.tensor([1.0, 2.0, 3.0, 4.0])
    value, grad = fl.mse.value_and_grad(p, torch.zeros(4), reduction=CVaR(0.5))
    assert value == 12.5
    assert torch.equal(grad, torch.tensor([0.0, 0.0, 3.0, 4.0]))


@pytest.mark.parametrize("risk", [*RISKS, WorstGroup([0, 1]), GroupDRO([0, 1])], ids=lambda r: type(r).__name__)
def test_risks_are_immutable_and_pickle(risk):
    again = pickle.loads(pickle.dumps(risk))
    assert repr(again) == repr(risk)
    assert again([1.0, 2.0]) == risk([1.0, 2.0])
    with pytest.raises(AttributeError, match="immutable"):
        risk.alpha = 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CVaR(0.0), r"CVaR: alpha is 0\.0; allowed: \(0, 1\]"),
        (lambda: CVaR(1.5), r"CVaR: alpha is 1\.5; allowed: \(0, 1\]"),
        (lambda: Trimmed(1.0), r"Trimmed: fraction is 1\.0; allowed: \[0, 1\)"),
        (lambda: Quantile(np.nan), r"Quantile: q is nan; allowed: \(0, 1\]"),
        (lambda: Tilted(np.inf), r"Tilted: t is inf; allowed: \(-inf, inf\)"),
        (lambda: KL(-1.0), r"KL: rho is -1\.0; allowed: \[0, inf\)"),
        (lambda: ChiSquare("1"), r"ChiSquare: rho is '1'; expected a number"),
        (lambda: WorstGroup([0, -1]), r"WorstGroup: groups\[1\] is -1; allowed: integers from 0 on"),
        (lambda: WorstGroup([0.0]), r"WorstGroup: groups has dtype float64; expected integers from 0 on"),
        (lambda: GroupDRO([0, 3], group_weights=[0.5, 0.5]), r"GroupDRO: groups\[1\] is 3; allowed: 0 to 1"),
        (lambda: GroupDRO([0], group_weights=[0.5]), r"GroupDRO: group_weights is array\(\[0.5\]\); expected weights"),
        (
            lambda: fl.mse(np.ones(3), np.ones(3), reduction=WorstGroup([0, 1])),
            r"mse: groups of WorstGroup has shape \(2,\); expected \(3,\), one per loss",
        ),
        (
            lambda: fl.mse(np.ones(3), np.ones(3), reduction=CVaR(0.5), divisor=2.0),
            "mse: divisor is given with a risk",
        ),
        (
            lambda: fl.cross_entropy.value_and_grad(np.ones((1, 2)), [0], reduction=CVaR(0.5), details=True),
            "cross_entropy: details is given with a risk",
        ),
        (
            lambda: fl.mse(np.ones(2), np.ones(2), reduction=CVaR(0.5), weight=[1.0, -1.0]),
            r"mse: weight\[1\] is -1; allowed: \[0, inf\)",
        ),
        (
            lambda: fl.barlow_twins(np.ones((3, 2)), np.ones((3, 2)), reduction=CVaR(0.5)),
            "barlow_twins has one value for all its inputs, and a risk needs one per sample",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
