"""Gaps between groups of evaluations: fairlearn and SciPy as oracles, and the examples of papers."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.evaluation import Report
from fastloss.evaluation.details.gaps import RATES, of_difference, of_ratio

RNG = np.random.default_rng(83)
N = 4000
GROUP = RNG.choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1])
SECOND = RNG.integers(0, 2, N)
LOGIT = 2 * RNG.normal(size=N) + 0.3 * (GROUP == "b")
LABEL = (RNG.random(N) < 1 / (1 + np.exp(-0.7 * LOGIT))).astype(int)
WEIGHT = RNG.exponential(size=N)
TABLE = pa.table({"p": LOGIT, "t": LABEL, "w": WEIGHT, "g": GROUP, "h": SECOND})
LOSSES = ["bce_with_logits", "brier"]


@pytest.fixture(autouse=True)
def _own_draws(request):
    """Draws of each test that do not depend on the tests before it."""
    global RNG
    RNG = np.random.default_rng(len(request.node.name))


def evaluated(by="g", **options):
    """The report of the rows."""
    options = {"losses": "bce_with_logits", "pred": "p", "target": "t", "gaps": True, **options}
    return fl.evaluate(TABLE, by=by, **options)


def found(report):
    """Gaps by name, of the first threshold."""
    return {gap.of: gap for gap in reversed(report.gaps)}


@pytest.mark.oracle
@pytest.mark.parametrize("by", ["g", "g,h"])
@pytest.mark.parametrize("weight", [None, "w"])
def test_gaps_and_rates_of_fairlearn(by, weight):
    pytest.importorskip("fairlearn")
    from fairlearn import metrics as fair
    from sklearn import metrics

    decided = (1 / (1 + np.exp(-LOGIT)) >= 0.4).astype(int)
    functions = {
        "selection_rate": fair.selection_rate,
        "accuracy": metrics.accuracy_score,
        "precision": metrics.precision_score,
        "recall": fair.true_positive_rate,
        "false_positive_rate": fair.false_positive_rate,
        "bce_with_logits": lambda y, z, sample_weight: np.average(np.logaddexp(0, z) - y * z, weights=sample_weight),
    }
    w = np.ones(N) if weight is None else WEIGHT
    keys = GROUP if by == "g" else np.stack([GROUP, SECOND.astype(str)], axis=1)
    report = evaluated(by, weight=weight, threshold=0.4)
    gaps = found(report)
    for name, function in functions.items():
        frame = fair.MetricFrame(
            metrics=function,
            y_true=LABEL,
            y_pred=LOGIT if name == "bce_with_logits" else decided,
            sensitive_features=keys,
            sample_params={"sample_weight": w},
        )
        gap = gaps[name]
        assert gap.difference == pytest.approx(frame.difference(), rel=1e-9)
        assert gap.ratio == pytest.approx(frame.ratio(), rel=1e-9)
        assert gap.high_value == pytest.approx(frame.group_max(), rel=1e-9)
        assert gap.groups == len(frame.by_group) == len(report.groups)
        top = frame.by_group.idxmax()
        assert gap.highest == (top if by == "g" else (top[0], int(top[1])))
    given = {"sensitive_features": keys, "sample_weight": w}
    assert gaps["equalized_odds"].difference == pytest.approx(
        fair.equalized_odds_difference(LABEL, decided, **given), rel=1e-9
    )
    assert gaps["equalized_odds"].ratio == pytest.approx(fair.equalized_odds_ratio(LABEL, decided, **given), rel=1e-9)


def test_the_interval_of_two_means_is_scipys():
    """Of two groups, the intervals of the means have the half widths that SciPy gives, and the gap their root sum."""
    from scipy import stats

    report = evaluated("h")
    gap = found(report)["bce_with_logits"]
    loss = np.logaddexp(0, LOGIT) - LABEL * LOGIT
    halves = [
        np.subtract(*stats.t.interval(0.95, len(x) - 1, np.mean(x), stats.sem(x))[::-1]) / 2
        for x in (loss[k == SECOND] for k in (0, 1))
    ]
    assert gap.difference == pytest.approx(abs(loss[SECOND == 0].mean() - loss[SECOND == 1].mean()), rel=1e-9)
    assert gap.difference_high - gap.difference == pytest.approx(math.hypot(*halves), rel=1e-6)
    assert gap.difference - gap.difference_low == pytest.approx(math.hypot(*halves), rel=1e-6)
    # Fieller's interval of a ratio of two independent means: the root of (a - r b)^2 = h_a^2 + r^2 h_b^2.
    a, b = (report.groups[key]["bce_with_logits"].mean for key in (gap.lowest, gap.highest))
    h_a, h_b = (halves[key] for key in (gap.lowest, gap.highest))
    for end in (gap.ratio_low, gap.ratio_high):
        assert (a - end * b) ** 2 == pytest.approx(h_a**2 + end**2 * h_b**2, rel=1e-6)


def test_the_interval_of_two_shares_is_newcombes():
    """Newcombe (1998), Statistics in Medicine 17:873, table II: method 10 of 56/70 - 48/80 and 9/10 - 3/10."""
    from fastloss.evaluation.details.calibration import wilson

    for (k, n, j, m), expected in {
        (56, 70, 48, 80): (0.0524, 0.3339),
        (9, 10, 3, 10): (0.1705, 0.8090),
        (10, 10, 0, 20): (0.6791, 1.0),
    }.items():
        ends = (k / n, *wilson(k / n, n, 0.95)), (j / m, *wilson(j / m, m, 0.95))
        difference, low, high = of_difference(*ends)
        assert difference == pytest.approx(k / n - j / m)
        assert (low, high) == pytest.approx(expected, abs=5e-5)


def test_ratios_without_an_end():
    nan = math.nan
    assert of_ratio((0.0, 0.0, 0.1), (0.5, 0.4, 0.6))[:2] == (0.0, 0.0)
    for first, second in (((-1.0, -2.0, 0.0), (1.0, 0.5, 1.5)), ((0.0, 0.0, 0.1), (0.0, 0.0, 0.1))):
        assert all(math.isnan(x) for x in of_ratio(first, second))
    ratio, low, high = of_ratio((0.5, 0.2, 0.8), (1.0, -0.1, 2.1))
    assert (ratio, math.isnan(high)) == (0.5, True)
    assert 0.0 <= low < 0.5
    assert of_ratio((0.5, nan, nan), (1.0, nan, nan))[0] == 0.5


def test_intervals_cover_the_true_gaps():
    """In 400 samples of five groups with equal rates, the intervals of the largest gaps hold the true gap, 0."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(5), 80)
    held = {"selection_rate": 0, "mse": 0}
    for _ in range(400):
        p, y = rng.random(400), rng.integers(0, 2, 400)
        gaps = found(fl.evaluate((p, y), "mse", pred_is="prob", by=group, gaps=True, threads=1))
        for name in held:
            held[name] += gaps[name].difference_low <= 0.0 <= gaps[name].difference_high
    # At the nominal 95%, 370 would be rarer than one in ten thousand.
    assert min(held.values()) >= 370


@pytest.mark.parametrize("weight", [None, "w"])
def test_shards_files_and_threads_have_the_same_gaps(weight, tmp_path):
    whole = evaluated(["g", "g,h"], weight=weight, threshold=[0.3, 0.5], losses=LOSSES[:1])
    parts = [
        fl.evaluate(
            TABLE.slice(at, 1500),
            LOSSES[:1],
            pred="p",
            target="t",
            weight=weight,
            by=["g", "g,h"],
            gaps=True,
            threshold=[0.3, 0.5],
        )
        for at in range(0, N, 1500)
    ]
    merged = parts[2].merge(parts[0], parts[1])
    assert merged == whole
    assert merged.gaps == whole.gaps
    assert Report.from_json(whole.to_json()).gaps == whole.gaps
    for k, at in enumerate(range(0, N, 1000)):
        pq.write_table(TABLE.slice(at, 1000), tmp_path / f"{k}.parquet", row_group_size=300)
    options = {"pred": "p", "target": "t", "weight": weight, "by": ["g", "g,h"], "threshold": [0.3, 0.5]}
    options |= {"gaps": True, "calibration": True, "confusion": True}
    one, four = (fl.evaluate(str(tmp_path), LOSSES[0], threads=n, **options) for n in (1, 4))
    assert one == four
    assert four.gaps == whole.gaps
    assert len(whole.gaps) == 2 * (1 + 2 * (len(RATES) + 1))
    assert len(whole.to_arrow("gaps")) == len(whole.gaps)


def test_gaps_of_losses_alone():
    report = fl.evaluate((LOGIT, RNG.normal(size=N)), ["mse", "mae"], by=GROUP, gaps=True)
    assert [g.of for g in report.gaps] == ["mse", "mae"]
    assert report.confusion == {}


def test_equal_weights_change_no_interval():
    target = RNG.normal(size=N)
    plain = fl.evaluate((LOGIT, target), "mse", by=GROUP, gaps=True).gaps[0]
    weighted = fl.evaluate((LOGIT, target, np.full(N, 0.25)), "mse", by=GROUP, gaps=True).gaps[0]
    assert weighted[5:] == pytest.approx(plain[5:], rel=1e-12)


def test_small_and_single_groups_are_noted():
    few = np.where(np.arange(N) < 7, "rare", "common")
    report = fl.evaluate((LOGIT, LABEL), "bce_with_logits", by=few, gaps=True)
    assert "1 of 2 groups by key have fewer than 30 rows" in report.notes()
    one = fl.evaluate((LOGIT, LABEL), "bce_with_logits", by=np.zeros(N, int), gaps=True)
    gap = found(one)["recall"]
    assert (gap.groups, gap.difference, gap.ratio) == (1, 0.0, 1.0)
    assert math.isnan(gap.difference_low)
    alone = fl.evaluate((LOGIT[:1], LABEL[:1]), "bce_with_logits", by=[3], gaps=True)
    assert {g.of: g.groups for g in alone.gaps}["bce_with_logits"] == 1
    none = fl.evaluate((np.zeros(0), np.zeros(0)), "bce_with_logits", by=np.zeros(0, int), gaps=True)
    assert none.gaps == []
    assert "gaps" in none.tables
