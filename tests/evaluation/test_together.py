"""Elementwise losses of one evaluation in one pass: the bits, errors and rows of each loss alone."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.cpu import together
from fastloss.evaluation import InputError, lane
from fastloss.evaluation.accumulate import Partials
from fastloss.evaluation.losses import named
from fastloss.evaluation.plan import Plan

pytestmark = pytest.mark.jit

NAMES = ["bce_with_logits", "focal", "mse", "mae", "huber:delta=2"]
ROWS = 5000
RNG = np.random.default_rng(3)
Z = (3.0 * RNG.normal(size=ROWS)).astype(np.float32)
T = (RNG.random(ROWS) < 1.0 / (1.0 + np.exp(-Z))).astype(np.int8)


@pytest.fixture(params=["apart", "in one kernel"])
def mode(request, monkeypatch):
    monkeypatch.setattr(lane, "TOGETHER_FROM", 1 if request.param == "in one kernel" else 1 << 62)
    return request.param


def alone(name, z=Z, t=T):
    """The loss of each row, by the public function."""
    loss = named(name)[0].loss
    return loss(z.astype(float), t.astype(float), reduction="none")


@pytest.mark.parametrize("names", [NAMES, ["poisson", "mse", "log_cosh"]])
def test_one_kernel_gives_the_bits_of_each_loss(names):
    losses = [named(name)[0].loss for name in names]
    found = lane.Lane([named(name)[0] for name in names])
    partials = Partials(len(names), False)
    args = {"adds": False, "keeps": True, "strict": True}
    z, t = Z.astype(float), T.astype(float)
    assert found.run(z, t, partials, **args)[0] == ROWS
    apart = found._codes
    found._try(z, t)
    assert found._codes is not apart
    assert len(found._codes[0]) == 1
    done, kept = found.run(z, t, partials, **args)
    assert done == ROWS
    for loss, values in zip(losses, kept, strict=True):
        assert values.tobytes() == loss(z, t, reduction="none").tobytes(), loss.name


def test_a_kernel_with_other_bits_is_not_taken(monkeypatch):
    evaluated = named(["mse", "mae"])
    found = lane.Lane(evaluated)
    z, t = Z.astype(float), T.astype(float)
    found.run(z, t, Partials(2, False), adds=True, keeps=False, strict=True)
    swapped = [e.loss._compiled for e in evaluated[::-1]]
    other = together.together_chunk(swapped, [True, True])
    monkeypatch.setattr(together, "together_chunk", lambda records, usual: other)
    found._try(z, t)
    assert len(found._codes[0]) == 2
    _, kept = found.run(z, t, Partials(2, False), adds=False, keeps=True, strict=True)
    assert (kept[0] == alone("mse")).all()


def test_statistics_are_those_of_the_values(mode):
    report = fl.evaluate((Z, T), NAMES, worst=3)
    for name in NAMES:
        values = alone(name)
        found = report[name]
        assert (found.min, found.max, found.count) == (values.min(), values.max(), ROWS)
        assert found.mean == pytest.approx(values.mean(), rel=1e-13)
        assert found.std == pytest.approx(values.std(), rel=1e-12)
        assert found == fl.evaluate((Z, T), name)[name]
        assert [w.row for w in report.worst[name]] == np.argsort(-values, kind="stable")[:3].tolist()


def test_weights_and_groups_are_those_of_each_loss_alone(mode):
    weight, key = RNG.random(ROWS), RNG.integers(0, 7, ROWS)
    data = {"pred": Z, "target": T, "w": weight, "key": key}
    report = fl.evaluate(data, NAMES, weight="w", by="key")
    plain = fl.evaluate(data, NAMES, by="key")
    for name in NAMES:
        values = alone(name)
        assert report[name].mean == pytest.approx(np.average(values, weights=weight), rel=1e-13)
        assert report.groups[3][name].weight_sum == pytest.approx(weight[key == 3].sum(), rel=1e-13)
        assert plain.groups[3][name] == fl.evaluate((Z[key == 3], T[key == 3]), name)[name]


def test_a_refused_row_is_named_and_those_before_it_count(mode):
    target = T.astype(float)
    target[[4321, 4700]] = 1.5
    with pytest.raises(InputError, match=r"row 4321: bce_with_logits: target is 1.5"):
        fl.evaluate((Z, target), NAMES)
    with pytest.raises(InputError, match="row 4321: poisson is inf"):
        fl.evaluate((np.where(np.arange(ROWS) == 4321, 800.0, Z), T), ["mse", "poisson"])


def test_rows_that_are_skipped_or_propagate(mode):
    z = Z.copy()
    z[[5, 1030, 4999]] = np.nan, np.inf, np.nan
    kept = np.isfinite(z)
    skipped = fl.evaluate((z, T), NAMES, on_invalid="skip", worst=1)
    expected = fl.evaluate((z[kept], T[kept]), NAMES)
    passed = fl.evaluate((z, T), NAMES, on_invalid="propagate")
    for name in NAMES:
        assert skipped[name] == expected[name]
        assert np.isnan(passed[name].mean)
        assert passed[name].non_finite == 3
        row = np.flatnonzero(kept)[alone(name)[kept].argmax()]
        assert skipped.worst[name][0].row == row


def test_losses_of_other_kinds_go_beside_them():
    plan = Plan(named(["mse", "cross_entropy", "brier"], ""), False, "fail", 0, False)
    assert plan.lane.losses == (0, 2)
    assert Plan(named(["mse", "brier"], "logit"), False, "fail", 0, False).lane.losses == ()
