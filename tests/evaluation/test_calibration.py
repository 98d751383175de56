"""Calibration and confusion counts of evaluations: scikit-learn, and the formulas of the papers, as oracles."""

import itertools
import math

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError, Report
from fastloss.evaluation.details import calibration as of_calibration
from fastloss.evaluation.details.calibration import Calibration, folded, isotonic, wilson
from fastloss.evaluation.details.grid import GRID, WIDTHS, parts

RNG = np.random.default_rng(71)
N = 3000
LOGIT = 2.0 * RNG.normal(size=N) - 1.0
LABEL = (RNG.random(N) < 1 / (1 + np.exp(-0.7 * LOGIT))).astype(int)
PROB = 1 / (1 + np.exp(-LOGIT))
WEIGHT = RNG.exponential(size=N)
GROUP = RNG.integers(0, 3, N)
ASKED = {"calibration": True, "confusion": True, "threshold": [0.2, 0.5]}


@pytest.fixture(autouse=True)
def _own_draws(request):
    """Draws of each test that do not depend on the tests before it."""
    global RNG
    RNG = np.random.default_rng(len(request.node.name))


@pytest.fixture
def counting(monkeypatch):
    """Adds up cells from the first hundred rows on, as of large data."""
    monkeypatch.setattr(of_calibration, "EXACT", 100)


def evaluated(*more, rows=slice(None), **options):
    """The report of some rows."""
    data = tuple(a[rows] for a in (LOGIT, LABEL, *more))
    return fl.evaluate(data, "bce_with_logits", **{**ASKED, **options})


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("bins", [5, 15])
def test_reliability_of_scikit_learn(strategy, bins):
    from sklearn.calibration import calibration_curve

    observed, predicted = calibration_curve(LABEL, PROB, n_bins=bins, strategy=strategy)
    table = evaluated(calibration=bins).calibration.table({"uniform": "width", "quantile": "mass"}[strategy])
    found = [b for b in table if b.rows]
    np.testing.assert_allclose([b.observed for b in found], observed, rtol=1e-13)
    np.testing.assert_allclose([b.predicted for b in found], predicted, rtol=1e-13)
    assert sum(b.rows for b in table) == N


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("weight", [(), (WEIGHT,)], ids=["", "weighted"])
def test_bins_of_equal_width_are_exact_in_cells(weight):
    found = evaluated(*weight, calibration=15).calibration
    assert not found.exact
    w = weight[0] if weight else np.ones(N)
    place = np.searchsorted(np.arange(1, 15) / 15, PROB)
    for k, b in enumerate(found.table()):
        rows = place == k
        assert b.rows == rows.sum()
        assert b.predicted == pytest.approx(np.average(PROB[rows], weights=w[rows]), rel=1e-12)
        assert b.observed == pytest.approx(np.average(LABEL[rows], weights=w[rows]), rel=1e-12)
    # Bins of equal mass consist of whole cells of 1/64 of a probability at the most.
    edges = np.quantile(PROB, np.arange(1, 15) / 15)
    near = [b.upper for b in found.table("mass")][:-1]
    np.testing.assert_allclose(near, edges, rtol=1 / 16, atol=1 / 60)


def test_the_cell_of_a_probability():
    """Kernels look cells up by the bits of p or 1 - p; the edges say where they begin and end."""
    p = np.concatenate(
        [GRID.edges, np.nextafter(GRID.edges, 2)[:-1], np.nextafter(GRID.edges, -1)[1:], [5e-324, 1e-12]]
    )
    p = np.concatenate([p, np.exp(-30 * RNG.random(2000)), 1 - np.exp(-30 * RNG.random(2000))])
    from fastloss.evaluation.details.kernels import bin_probabilities

    codes = np.empty(len(p), np.int32)
    bin_probabilities(
        p, np.zeros(len(p)), GRID.first, GRID.split, np.zeros((GRID.cells, 4), np.int64), np.zeros(2, np.int64), codes
    )
    np.testing.assert_array_equal(codes, np.maximum(np.searchsorted(GRID.edges, p) - 1, 0))
    assert all(np.isin(parts(n), GRID.edges).all() for n in WIDTHS)
    np.testing.assert_array_equal(parts(10), np.array([1, 2, 3, 4, 5, 6, 7, 8, 9]) / 10)


@pytest.mark.parametrize("limit", [100, 10**6])
@pytest.mark.parametrize("weight", [(), (WEIGHT,)], ids=["", "weighted"])
def test_brier_score_and_its_corp_decomposition(weight, limit, monkeypatch):
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import brier_score_loss

    monkeypatch.setattr(of_calibration, "EXACT", limit)
    found = evaluated(*weight).calibration
    w = weight[0] if weight else None
    assert found.brier == pytest.approx(brier_score_loss(LABEL, PROB, sample_weight=w), rel=1e-12)
    fitted = IsotonicRegression().fit_transform(PROB, LABEL, sample_weight=w)
    base, score = np.average(LABEL, weights=w), np.average((fitted - LABEL) ** 2, weights=w)
    corp = found.corp()
    assert corp["miscalibration"] - corp["discrimination"] + corp["uncertainty"] == pytest.approx(found.brier)
    assert corp["uncertainty"] == pytest.approx(base * (1 - base), rel=1e-12)
    expected = found.brier - score, base * (1 - base) - score
    if limit > N:
        assert tuple(corp.values())[:2] == pytest.approx(expected, rel=1e-9)
    else:
        # Probabilities of one cell count as equal, so that less miscalibration is found.
        assert corp["miscalibration"] == pytest.approx(expected[0], abs=0.1 * expected[0] + 1e-4)
        assert corp["miscalibration"] <= expected[0]


def test_isotonic_regression_with_ties_and_weights():
    from sklearn.isotonic import IsotonicRegression

    for _ in range(20):
        weight = RNG.integers(1, 5, 30).astype(float)
        positive = np.minimum(weight, RNG.integers(0, 5, 30))
        expected = IsotonicRegression().fit_transform(np.arange(30), positive / weight, sample_weight=weight)
        np.testing.assert_allclose(isotonic(positive, weight), expected, rtol=1e-12)


def test_murphys_decomposition():
    """Forecasts of few values: reliability - resolution + uncertainty is the score, and nothing is left (1973)."""
    p = RNG.choice([0.05, 0.35, 0.75], N)
    y = (RNG.random(N) < 0.8 * p).astype(float)
    found = Calibration.of_rows(10, "", p, y > 0)
    base = y.mean()
    parts = [(np.mean(p == v), v, y[p == v].mean()) for v in (0.05, 0.35, 0.75)]
    expected = {
        "reliability": sum(n * (f - o) ** 2 for n, f, o in parts),
        "resolution": sum(n * (o - base) ** 2 for n, f, o in parts),
        "uncertainty": base * (1 - base),
        "within": 0.0,
    }
    assert found.murphy() == pytest.approx(expected, abs=1e-14)
    assert found.brier == pytest.approx(np.mean((p - y) ** 2), rel=1e-13)
    within = evaluated().calibration.murphy()["within"]
    place = np.searchsorted(np.arange(1, 10) / 10, PROB)
    by_bin = [(np.mean(place == k), PROB[place == k], LABEL[place == k]) for k in range(10)]
    expected_within = sum(n * (a.var() - 2 * np.mean((a - a.mean()) * (b - b.mean()))) for n, a, b in by_bin)
    assert within == pytest.approx(expected_within, abs=1e-13)


def test_calibration_errors_by_hand():
    found = evaluated().calibration
    place = np.searchsorted(np.arange(1, 10) / 10, PROB)
    n = np.array([(place == k).sum() for k in range(10)])
    gap = np.array([PROB[place == k].mean() - LABEL[place == k].mean() for k in range(10)])
    share = np.array([LABEL[place == k].mean() for k in range(10)])
    assert found.error() == pytest.approx(n @ abs(gap) / N, rel=1e-12)
    assert found.error(norm="rms") == pytest.approx(math.sqrt(n @ gap**2 / N), rel=1e-12)
    assert found.error(norm="max") == pytest.approx(abs(gap).max(), rel=1e-12)
    variance = share * (1 - share) / (n - 1)
    assert found.error(norm="rms", debiased=True) == pytest.approx(math.sqrt(n @ (gap**2 - variance) / N), rel=1e-12)
    # Kumar, Liang and Ma (2019) draw the noise; the sampling error of 20,000 draws is far below the tolerance.
    noise = np.abs(RNG.normal(gap, np.sqrt(variance), (20_000, 10))) @ n / N
    assert found.error(debiased=True) == pytest.approx(2 * found.error() - noise.mean(), abs=2e-4)


def test_debiased_errors_of_a_calibrated_model_are_near_zero():
    p = np.tile(RNG.random(2000), 100)
    y = RNG.random(len(p)) < p
    models = [Calibration.of_rows(20, "", p[k::100], y[k::100]) for k in range(100)]
    plain, mean, square = (
        np.mean([m.error(**o) for m in models]) for o in ({}, {"debiased": True}, {"norm": "rms", "debiased": True})
    )
    assert plain > 0.02
    assert mean < 0.65 * plain
    assert square < plain / 2


def test_folded_normal_and_wilson():
    from scipy import stats

    for mean, deviation in itertools.product((-0.4, 0.0, 0.03), (0.0, 0.1, 2.0)):
        expected = stats.foldnorm.mean(abs(mean) / deviation, scale=deviation) if deviation else abs(mean)
        assert folded(mean, deviation) == pytest.approx(expected, rel=1e-9)
    for k, n in ((0, 10), (3, 10), (10, 10), (81, 263)):
        interval = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert wilson(k / n, n, 0.95) == pytest.approx((interval.low, interval.high), abs=1e-12)
    # Newcombe (1998), table I: 81 of 263.
    assert wilson(81 / 263, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("weight", [(), (WEIGHT,)], ids=["", "weighted"])
def test_confusion_counts_of_scikit_learn(weight):
    from sklearn import metrics

    report = evaluated(*weight, by=GROUP, gaps=True)
    w = weight[0] if weight else np.ones(N)
    everything = [(report, np.ones(N, bool)), *((report.groups[k], k == GROUP) for k in range(3))]
    for (part, rows), threshold in itertools.product(everything, (0.2, 0.5)):
        found = part.confusion[threshold]
        y, d = LABEL[rows], PROB[rows] >= threshold
        given = {"sample_weight": w[rows]}
        np.testing.assert_allclose(found.matrix, metrics.confusion_matrix(y, d, **given), rtol=1e-12)
        assert found.accuracy == pytest.approx(metrics.accuracy_score(y, d, **given), rel=1e-12)
        assert found.precision == pytest.approx(metrics.precision_score(y, d, **given), rel=1e-12)
        assert found.recall == pytest.approx(metrics.recall_score(y, d, **given), rel=1e-12)
        assert found.f1 == pytest.approx(metrics.f1_score(y, d, **given), rel=1e-12)
        assert found.mcc == pytest.approx(metrics.matthews_corrcoef(y, d, **given), rel=1e-9)
        assert found.selection_rate == pytest.approx(np.average(d, weights=w[rows]), rel=1e-12)
        assert found.false_positive_rate == pytest.approx(found.fp / (found.fp + found.tn), rel=1e-12)


@pytest.mark.parametrize("weight", [(), (WEIGHT[:900],)], ids=["", "weighted"])
def test_classes(weight):
    from sklearn import metrics

    scores = RNG.normal(size=(900, 4))
    labels = RNG.choice([0, 1, 2, -100], 900, p=[0.5, 0.2, 0.2, 0.1])
    scores[np.arange(900), labels.clip(0)] += 1.0
    report = fl.evaluate((scores, labels, *weight), "cross_entropy", calibration=True, confusion=True)
    kept = labels != -100
    y, d = labels[kept], scores[kept].argmax(axis=1)
    given = {"sample_weight": weight[0][kept]} if weight else {}
    found = report.confusion["argmax"]
    np.testing.assert_allclose(found.matrix, metrics.confusion_matrix(y, d, labels=range(4), **given), rtol=1e-12)
    assert found.precision == pytest.approx(
        metrics.precision_score(y, d, average="macro", zero_division=0, **given), rel=1e-12
    )
    assert found.recall == pytest.approx(
        metrics.recall_score(y, d, average="macro", zero_division=0, **given), rel=1e-12
    )
    assert found.f1 == pytest.approx(metrics.f1_score(y, d, average="macro", **given), rel=1e-12)
    assert found.mcc == pytest.approx(metrics.matthews_corrcoef(y, d, **given), rel=1e-9)
    softmax = np.exp(scores[kept]) / np.exp(scores[kept]).sum(axis=1, keepdims=True)
    assert report.calibration.of == "top label"
    w = given.get("sample_weight")
    assert report.calibration.predicted == pytest.approx(np.average(softmax.max(axis=1), weights=w), rel=1e-12)
    assert report.calibration.positive == pytest.approx(np.average(d == y, weights=w), rel=1e-12)
    halves = [
        fl.evaluate(
            tuple(a[k::2] for a in (scores, labels, *weight)), "cross_entropy", calibration=True, confusion=True
        )
        for k in (0, 1)
    ]
    assert halves[1].merge(halves[0]) == report
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("limit", [100, 10**6])
@pytest.mark.parametrize("weight", [(), (WEIGHT,)], ids=["", "weighted"])
def test_any_order_and_split_give_the_same(weight, limit, monkeypatch):
    monkeypatch.setattr(of_calibration, "EXACT", limit)
    whole = evaluated(*weight, by=GROUP, gaps=True, threads=1)
    order = RNG.permutation(N)
    shards = [evaluated(*weight, rows=rows, by=GROUP[rows], gaps=True) for rows in np.array_split(order, 4)]
    assert shards[2].merge(shards[0], shards[3], shards[1]) == whole
    again = Report.from_json(whole.to_json())
    assert again == whole
    assert again.calibration.figures() == whole.calibration.figures()
    assert again.groups[1].confusion == whole.groups[1].confusion


@pytest.mark.parametrize(
    ("given", "predictions"),
    [
        ("prob", PROB),
        ("logit", LOGIT),
        ("log-prob", np.log(PROB)),
    ],
)
def test_scales(given, predictions):
    report = fl.evaluate((predictions, LABEL), "brier", pred_is=given, **ASKED)
    assert report.calibration.brier == pytest.approx(np.mean((PROB - LABEL) ** 2), rel=1e-12)
    assert report.calibration.brier == pytest.approx(report["brier"].mean, rel=1e-12)
    signed = fl.evaluate((predictions, 2 * LABEL - 1), "mse", pred_is=given, **ASKED)
    assert signed.calibration == report.calibration
    assert signed.confusion == report.confusion


def test_rows_left_out():
    pred = np.where(RNG.random(N) < 0.1, np.nan, LOGIT)
    good = ~np.isnan(pred)
    alone = evaluated(rows=good)
    for on_invalid in ("skip", "propagate"):
        report = fl.evaluate((pred, LABEL), "bce_with_logits", on_invalid=on_invalid, **ASKED)
        assert report.calibration == alone.calibration
        assert report.confusion == alone.confusion
    nothing = fl.evaluate((np.zeros(0), np.zeros(0)), "bce_with_logits", **ASKED)
    assert nothing.confusion == {}
    assert nothing.merge(alone) == alone
    assert "calibration" not in repr(nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": "mse", "calibration": True}, 'calibration takes probabilities; say .* pred_is="prob"'),
        ({"losses": ["brier", "bce_with_logits"], "confusion": True}, "confusion takes probabilities"),
        ({"losses": "brier", "calibration": True}, r"row 0: the prediction is -?\d.*; expected a probability, 0 to 1"),
        ({"losses": "bce_with_logits", "calibration": 7}, "calibration is 7; expected True, or bins: one of 2, 3, 4"),
        ({"losses": "bce_with_logits", "threshold": 1.5}, r"threshold has 1\.5"),
        ({"losses": "bce_with_logits", "threshold": []}, "threshold names no probability"),
        ({"losses": "bce_with_logits", "gaps": True}, "gaps are between groups; name their column"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        fl.evaluate((LOGIT, LABEL), **options)


def test_labels_that_are_none():
    target = LABEL.astype(float)
    target[17] = 0.25
    with pytest.raises(InputError, match=r"row 17: the target is 0\.25; expected a label, 0 or 1"):
        fl.evaluate((LOGIT, target), "bce_with_logits", confusion=True)


@pytest.mark.parametrize("on_invalid", ["fail", "propagate"])
def test_the_row_of_a_wrong_probability(on_invalid):
    p = np.array([0.5, np.nan if on_invalid == "propagate" else 0.25, 0.5, 1.5])
    with pytest.raises(InputError, match=r"row 3: the prediction is 1\.5; expected a probability"):
        fl.evaluate((p, np.zeros(4)), "mse", pred_is="prob", calibration=True, on_invalid=on_invalid)
    t = np.array([0.0, 1.0, 1.0, 3.0])
    with pytest.raises(InputError, match=r"row 3: the target is 3; expected a label"):
        fl.evaluate((p / 2, t), "mse", pred_is="prob", calibration=True, on_invalid=on_invalid)


def test_tables():
    report = evaluated(by=GROUP)
    assert report.tables == ["losses", "calibration", "calibration_figures", "confusion", "decisions"]
    counts = report.to_arrow("confusion").to_pylist()
    assert len(counts) == 4 * 2 * 4
    assert counts[-1] == {
        "by": "key", "key": "2", "threshold": 0.5, "class": 1, "decided": 1, "count": report.groups[2].confusion[0.5].tp
    }  # fmt: skip
    assert report.to_arrow("calibration")["strategy"].to_pylist() == ["width"] * 10 + ["mass"] * 10
    assert dict(zip(*report.to_arrow("calibration_figures").to_pydict().values(), strict=True))["brier"] > 0
    assert "confusion counts" in repr(report)
