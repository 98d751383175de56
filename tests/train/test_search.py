"""Search for losses: held-out metrics grow, wrong derivatives are never trained, and the winner is an ordinary loss."""

import io
import pickle
import sys

import numpy as np
import pytest

import fastloss as fl
from fastloss.train.search import run as module
from fastloss.train.search.signs import leads_to_target
from fastloss.train.search.taylor import taylor


def rare(n, seed):
    """Samples of which 6 in 100 are positive, with noise in the labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return np.c_[x, np.ones(n)], (2 * x @ [1.0, -1.0, 0.5, 0.0] - 5.0 + rng.normal(size=n) > 0).astype(float)


def fit(loss, x, y):
    w = np.zeros(5)
    opt = fl.optim.Adam([w], lr=0.1)
    for _ in range(200):
        opt.step([x.T @ loss.value_and_grad(x @ w, y)[1]])
    return w


def f1(w, x, y):
    found = x @ w > 0
    return 2 * (found * y).sum() / (found.sum() + y.sum())


@pytest.mark.parametrize(
    ("loss", "over", "method"),
    [
        (fl.bce_with_logits, {"pos_weight": (0.2, 50.0, "log")}, "reinforce"),
        (fl.focal.bind(alpha=0.5), {"gamma": (0.0, 4.0), "alpha": (0.05, 0.95)}, "cma"),
        ("taylor", None, "cma"),
    ],
)
def test_the_winner_beats_cross_entropy_by_more_than_its_spread_on_new_data(loss, over, method):
    train, held_out = rare(2000, 0), rare(4000, 1)
    found = fl.search(loss, lambda x: f1(fit(x, *train), *held_out), over, method=method, budget=40)
    assert found.value > found.log[0].value
    scores = []
    for seed in range(8):
        again, test = rare(2000, 100 + seed), rare(10_000, 200 + seed)
        scores.append([f1(fit(x, *again), *test) for x in (fl.bce_with_logits, found.loss)])
    plain, searched = np.array(scores).T
    # Means of 0.69 and 0.74, with a deviation of 0.036 from one training set to the next.
    assert searched.mean() - plain.mean() > plain.std(ddof=1)


@pytest.mark.parametrize("method", ["cma", "reinforce"])
def test_a_known_optimum_is_found_and_a_seed_repeats_it(method):
    def metric(loss):
        return -((loss.defaults["gamma"] - 2.3) ** 2) - 10 * (loss.defaults["alpha"] - 0.4) ** 2

    runs = [
        fl.search(fl.focal, metric, {"gamma": (0.0, 5.0), "alpha": (0.05, 0.95)}, method=method, budget=80, seed=seed)
        for seed in (0, 0, 1)
    ]
    first, again, other = runs
    assert first.log[0].parameters == {"gamma": 2.0, "alpha": 0.25}
    assert first.parameters["gamma"] == pytest.approx(2.3, abs=0.2)
    assert first.parameters["alpha"] == pytest.approx(0.4, abs=0.06)
    assert first.value == metric(first.loss) == max(t.value for t in first.log)
    assert dict(first.loss.defaults) == pytest.approx(first.parameters)
    assert [t.parameters for t in first.log] == [t.parameters for t in again.log] != [t.parameters for t in other.log]
    assert pickle.loads(pickle.dumps(first.loss)) == first.loss


@pytest.mark.parametrize("method", ["cma", "reinforce"])
def test_losses_of_the_wrong_sign_are_never_trained(method):
    seen = []

    def metric(loss):
        seen.append(loss.defaults["s"])
        return -abs(loss.defaults["s"])

    found = fl.search(fl.formula("s * (z - t)**2", s=0.2), metric, {"s": (-1.0, 1.0)}, method=method, budget=30)
    assert len(seen) == 30
    assert min(seen) > 0.0
    rejected = [t for t in found.log if t.value is None]
    assert rejected
    assert all(t.parameters["s"] <= 0.0 for t in rejected)
    assert len(found.log) == 30 + len(rejected)
    assert found.parameters["s"] < 0.1


OTHER = ("hinge_embedding", "contrastive_distance", "wasserstein_critic", "gan_hinge")
"""Losses of distances and of scores without a right side."""

TRIED = [
    name
    for name, loss in fl.LOSSES.items()
    if loss.record.family == "elementwise" and loss.record.target is not None and len(loss.record.predictions) == 1
    if name not in OTHER
]
"""Losses of one prediction and a target."""


def test_derivatives_of_the_catalogue_lead_to_the_target():
    assert len(TRIED) > 25
    for name in TRIED:
        assert leads_to_target(fl.LOSSES[name]), name
    # One loss for each set of probes: each of these compiles a kernel of its own.
    for name in ("mse", "bce_with_logits", "hinge", "brier", "poisson"):
        assert not leads_to_target(-1.0 * fl.LOSSES[name]), name
    for name in ("cross_entropy", "softmax_focal", "generalized_cross_entropy", "gaussian_nll", "dice", "l1", *OTHER):
        assert leads_to_target(fl.LOSSES[name]), name
    assert not leads_to_target(fl.formula("0 * z + t"))
    own = fl.row_loss(name="backwards")(lambda log_p, t: t * log_p)
    assert not leads_to_target(own)


def test_taylor_is_the_polynomial_of_the_paper():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a = rng.normal(size=8)
    z, t = rng.normal(size=20), rng.integers(0, 2, 20).astype(float)
    leaf = torch.tensor(z, requires_grad=True)
    y, x = torch.sigmoid(leaf) - a[1], torch.tensor(t) - a[0]
    terms = [y, y**2 / 2, y**3 / 6, x * y, x * y**2 / 2, x**2 * y / 2]
    total = -sum(c * term for c, term in zip(a[2:], terms, strict=True)).mean()
    total.backward()
    value, grad = taylor().value_and_grad(z, t, **{f"a{i}": v for i, v in enumerate(a)})
    assert value == pytest.approx(total.item(), rel=1e-12)
    np.testing.assert_allclose(grad, leaf.grad, rtol=1e-9, atol=1e-14)
    # By default, the squared error without t^2.
    error = ((1 / (1 + np.exp(-z)) - t) ** 2 - t**2).mean()
    assert taylor()(z, t) == pytest.approx(error, rel=1e-12)


def test_weights_of_a_sum():
    both = fl.combine({"fit": fl.mse, "tail": (0.5, fl.mae)})

    def metric(loss):
        return abs(loss(np.array([2.0]), np.array([0.0]), parts=True)[0] - 5.0)

    found = fl.search(both, metric, {"tail_weight": (0.0, 1.0)}, method="reinforce", budget=60, maximize=False, seed=1)
    # 4 + 2 w is 5 at a weight of 1/2, where the search began.
    assert found.value == 0.0
    assert found.parameters == {"tail_weight": 0.5}
    assert found.loss == both


def test_numbers_that_are_not_finite_count_as_worst():
    values = iter([np.nan, 1.0, np.inf, *[0.5] * 20])
    found = fl.search(fl.huber, lambda loss: next(values), {"delta": (0.5, 2.0)}, method="cma", budget=12)
    assert found.value == 1.0
    with pytest.raises(fl.CallValueError, match="search: metric returned no finite number for any of 3 losses"):
        fl.search(fl.huber, lambda loss: np.nan, {"delta": (0.5, 2.0)}, method="reinforce", budget=3)


def test_no_candidate_is_accepted():
    with pytest.raises(fl.CallValueError, match="search accepted none of 201 candidates"):
        fl.search(fl.huber, lambda loss: 1.0, {"delta": (0.5, 2.0)}, method="reinforce", accept=lambda loss: False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress(monkeypatch):
    seen = []
    options = {"method": "reinforce", "budget": 3}
    fl.search(fl.huber, lambda loss: 1.0, {"delta": (0.5, 2.0)}, progress=lambda *x: seen.append(x), **options)
    assert seen == [(1, 3, 1.0), (2, 3, 1.0), (3, 3, 1.0)]
    clock = iter(range(200))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(sys, "stderr", Terminal())
    fl.search(fl.huber, lambda loss: 0.5, {"delta": (0.5, 2.0)}, **options)
    shown = sys.stderr.getvalue()
    assert "search: 1 of 3 losses trained, best 0.5, 6 s left" in shown
    assert shown.endswith("\r")
    monkeypatch.setattr(sys, "stderr", Terminal())
    fl.search(fl.huber, lambda loss: 0.5, {"delta": (0.5, 2.0)}, progress=False, **options)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "tailor"}, "search: loss is 'tailor'; allowed: 'taylor'"),
        ({"loss": 3}, "search: loss is 3; expected a loss such as fl.focal"),
        ({"metric": 3}, "search: metric is 3; expected a function of a loss"),
        ({"metric": lambda loss: "good"}, "search: metric returned 'good'; expected a number"),
        (
            {"over": None},
            r"search: over is None; expected a dictionary such as .* of the parameters of focal: alpha, gamma",
        ),
        (
            {"over": {"gama": (0, 1)}},
            "search: over names 'gama', which is not a parameter of focal; did you mean gamma",
        ),
        ({"over": {"gamma": 2.0}}, r"search: over\['gamma'\] is 2.0; expected bounds \(low, high\)"),
        ({"over": {"gamma": (2.0, 1.0)}}, r"search: over\['gamma'\] is \(2.0, 1.0\); expected low < high"),
        ({"over": {"gamma": (0.0, 1.0, "log")}}, r"search: over\['gamma'\] is .*; expected 0 < low < high"),
        ({"over": {"gamma": (-1.0, 1.0)}}, r"search: over\['gamma'\] has the bound -1; allowed: \[0, inf\)"),
        ({"loss": fl.poisson, "over": {"full": (0, 1)}}, r"search: over\['full'\] is no number"),
        ({"method": "grid"}, "search: method is 'grid'; allowed: 'cma', 'reinforce'"),
        ({"budget": 0}, "search: budget is 0; allowed: integers from 1 on"),
        ({"seed": -1}, "search: seed is -1; allowed: integers from 0 on"),
    ],
)
def test_errors(change, message):
    given = {"loss": fl.focal, "metric": lambda loss: 1.0, "over": {"gamma": (0.0, 1.0)}, **change}
    with pytest.raises(fl.CallError, match=message):
        fl.search(**given)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ImportError, match=r"fastloss\[search\]"):
        fl.search(fl.focal, lambda loss: 1.0, {"gamma": (0.0, 1.0)})
