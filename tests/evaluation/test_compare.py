"""Comparison of two predictions: paired intervals against SciPy, their coverage, joins, groups and clusters."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import command
from scipy import stats

import fastloss as fl
from fastloss.evaluation import InputError, lane
from fastloss.evaluation.compare import pairs
from fastloss.evaluation.compare.pairs import BUCKETS, Buckets
from fastloss.evaluation.intervals import adjusted, estimated, of_buckets, t_cdf, t_quantile

RNG = np.random.default_rng(77)
N = 900
T = RNG.normal(size=N)
NOISE = RNG.normal(size=N)
DATA = {
    "a": T + NOISE,
    "b": T + 1.05 * NOISE + 0.1 * RNG.normal(size=N),
    "t": T,
    "w": RNG.uniform(0, 2, N),
    "g": RNG.integers(0, 5, N),
    "u": RNG.integers(0, 60, N),
}
NAMES = {"pred": "a", "against": "b", "target": "t"}
A, B = (DATA["a"] - T) ** 2, (DATA["b"] - T) ** 2


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 19, 50, 333, 1999, 2001, 100_000])
def test_students_t(degrees):
    for t in (-6.0, -1.5, 0.0, 0.3, 2.0, 9.0):
        assert t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), rel=1e-9, abs=2e-9)
    for p in (0.6, 0.975, 0.9995):
        assert t_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-7)


def test_corrections_of_scipy_and_statsmodels():
    p = [0.001, 0.04, math.nan, 0.03, 0.5, 0.011]
    known = [x for x in p if not math.isnan(x)]
    expected = stats.false_discovery_control(known, method="bh")
    assert [x for x in adjusted(p, "bh") if not math.isnan(x)] == pytest.approx(expected)
    # By hand: sorted .001 .011 .03 .04 .5 times 5 4 3 2 1, never less than the one before.
    assert adjusted(p, "holm") == pytest.approx([0.005, 0.09, math.nan, 0.09, 0.5, 0.044], nan_ok=True)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_rows_by_the_paired_test_of_scipy(confidence):
    found = fl.compare(DATA, ["mse", "mae"], confidence=confidence, **NAMES)["mse"]
    expected = stats.ttest_rel(A, B)
    interval = expected.confidence_interval(confidence)
    assert (found.first, found.second) == (pytest.approx(A.mean()), pytest.approx(B.mean()))
    assert (found.low, found.high) == (pytest.approx(interval.low, rel=1e-7), pytest.approx(interval.high, rel=1e-7))
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.wins, found.ties, found.losses, found.rows) == ((A < B).sum(), 0, (A > B).sum(), N)
    # The power of a t test at its detectable difference, by the noncentral distribution.
    edge = stats.t.ppf(0.5 + confidence / 2, N - 1)
    power = stats.nct.sf(edge, N - 1, found.detectable / found.standard_error)
    assert power == pytest.approx(0.8, abs=0.002)


def test_pairs_find_what_two_means_do_not():
    """The p value of 220 questions in lm-evaluation-harness#3831 and #3868: .080 of two means, .008 of pairs."""
    both, first, second, neither = 158, 22, 7, 33
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, first, second, neither], axis=0).T
    # The z test that the harness used, and the exact paired test (McNemar) of questions that one of them got right.
    z = (right[0].mean() - right[1].mean()) / math.sqrt(sum(r.var(ddof=1) / 220 for r in right))
    assert 2 * stats.norm.sf(z) == pytest.approx(0.080, abs=0.002)
    assert stats.binomtest(first, first + second).pvalue == pytest.approx(0.008, abs=0.0005)
    data = {"a": 1.0 - right[0], "b": 1.0 - right[1], "t": np.zeros(220)}
    found = fl.compare(data, "mae", **NAMES)["mae"]
    assert found.p_value == pytest.approx(stats.ttest_rel(*right).pvalue, rel=1e-6)
    assert found.p_value < 0.008
    assert (found.wins, found.ties, found.losses) == (first, both + neither, second)


@pytest.mark.oracle
def test_clusters_by_the_sandwich_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    found = fl.compare(DATA, "mse", cluster_by="u", **NAMES)["mse"]
    fit = sm.OLS(A - B, np.ones(N)).fit(cov_type="cluster", cov_kwds={"groups": DATA["u"], "use_correction": False})
    clusters = len(np.unique(DATA["u"]))
    assert found.standard_error == pytest.approx(fit.bse[0] * math.sqrt(clusters / (clusters - 1)), rel=1e-9)


def test_weights():
    found = fl.compare(DATA, "mse", weight="w", **NAMES)["mse"]
    w = DATA["w"]
    assert found.difference == pytest.approx(np.average(A - B, weights=w))
    residual = w * (A - B - found.difference)
    assert found.standard_error == pytest.approx(math.sqrt((residual**2).sum() * N / (N - 1)) / w.sum(), rel=1e-9)


def test_bootstrap_of_scipy():
    found = fl.compare(DATA, "mse", bootstrap=True, **NAMES)["mse"]
    d = A - B
    expected = stats.bootstrap((d,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(3))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.08 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.08 * width)


SHAPES = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0, 60),
    "student 3": (lambda rng, n: rng.standard_t(3, size=n), 0.0, 500),
    "lognormal 1.5": (lambda rng, n: rng.lognormal(0, 1.5, n), math.exp(1.125), 5000),
}


@pytest.mark.parametrize("name", SHAPES)
def test_95_percent_intervals_cover(name):
    draw, truth, n = SHAPES[name]
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(1000):
        x = draw(rng, n)
        found = estimated(x.mean(), x.std(ddof=1) / math.sqrt(n), n - 1, 0.95)
        hits += found.low <= truth <= found.high
    assert 930 <= hits <= 970


@pytest.mark.parametrize("clusters", [20, 100])
def test_95_percent_intervals_of_clusters_cover(clusters):
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(1000):
        sizes = rng.integers(5, 40, clusters)
        sums = sizes * rng.normal(size=clusters) + np.sqrt(sizes) * rng.normal(size=clusters)
        found = estimated(*of_buckets(sums, sizes.astype(float)), 0.95)
        hits += found.low <= 0.0 <= found.high
    assert 930 <= hits <= 970


def test_groups_with_corrected_p_values():
    found = fl.compare(DATA, "mse", by="g", correction="bh", **NAMES)
    alone = [fl.compare({k: v[DATA["g"] == g] for k, v in DATA.items()}, "mse", **NAMES)["mse"] for g in range(5)]
    assert [each["mse"].low for each in found.groups.values()] == [each.low for each in alone]
    expected = stats.false_discovery_control([each.p_value for each in alone])
    assert [each["mse"].p_value for each in found.groups.values()] == pytest.approx(expected, rel=1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize("by", ["g", "u"])
def test_clusters_within_groups_by_the_sandwich_of_statsmodels(by):
    """Clusters may lie across groups, or be the groups' own."""
    sm = pytest.importorskip("statsmodels.api")
    data = {**DATA, "v": np.arange(N) % 41}
    found = fl.compare(data, ["mse", "mae"], by=by, cluster_by="v", **NAMES)
    assert found.method == "clusters"
    assert list(found.groups) == sorted(set(data[by].tolist()))
    for key, each in found.groups.items():
        rows = data[by] == key
        fit = sm.OLS((A - B)[rows], np.ones(rows.sum())).fit(
            cov_type="cluster", cov_kwds={"groups": data["v"][rows], "use_correction": False}
        )
        clusters = len(np.unique(data["v"][rows]))
        expected = fit.bse[0] * math.sqrt(clusters / (clusters - 1))
        assert each["mse"].standard_error == pytest.approx(expected, rel=1e-9)
        assert each["mse"].difference == pytest.approx((A - B)[rows].mean(), rel=1e-9)
        assert each["mse"].rows == rows.sum()
        half = stats.t.ppf(0.975, clusters - 1) * expected
        assert each["mse"].high - each["mse"].difference == pytest.approx(half, rel=1e-6)
    alone = {k: v[data[by] == 1] for k, v in data.items()}
    assert found.groups[1]["mae"].low == fl.compare(alone, "mae", cluster_by="v", **NAMES)["mae"].low


def test_weights_within_groups():
    found = fl.compare(DATA, "mse", by=["g", "g,u"], weight="w", **NAMES)
    for key, each in found.groups["g"].items():
        rows = DATA["g"] == key
        w, d, n = DATA["w"][rows], (A - B)[rows], rows.sum()
        assert each["mse"].difference == pytest.approx(np.average(d, weights=w))
        residual = w * (d - each["mse"].difference)
        expected = math.sqrt((residual**2).sum() * n / (n - 1)) / w.sum()
        assert each["mse"].standard_error == pytest.approx(expected, rel=1e-9)
        assert each["mse"].rows == n
    assert sum(each["mse"].rows for each in found.groups["g,u"].values()) == N


def test_bootstrap_within_groups_by_scipy():
    found = fl.compare(DATA, "mse", by="g", bootstrap=True, correction="bh", **NAMES)
    rows = DATA["g"] == 2
    expected = stats.bootstrap(
        ((A - B)[rows],), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    width = expected.high - expected.low
    assert found.groups[2]["mse"].low == pytest.approx(expected.low, abs=0.08 * width)
    assert found.groups[2]["mse"].high == pytest.approx(expected.high, abs=0.08 * width)


def test_clusters_within_groups_of_joined_inputs_and_few_of_them():
    ids = np.arange(N)
    first = {"id": ids, "p": DATA["a"], "t": DATA["t"], "g": DATA["g"], "u": DATA["u"]}
    second = {"id": ids[::-1], "p": DATA["b"][::-1], "t": DATA["t"][::-1]}
    joined = fl.compare(first, "mse", against=second, on="id", pred="p", target="t", by="g", cluster_by="u")
    assert joined.groups == fl.compare(DATA, "mse", by="g", cluster_by="u", **NAMES).groups
    few = fl.compare({**DATA, "u": ids % 7}, "mse", by="g", cluster_by="u", **NAMES)
    assert any("by g: 5 groups have fewer than 20 clusters" in note for note in few.notes)


def test_pairs_of_groups_and_buckets_have_a_limit(monkeypatch):
    monkeypatch.setattr(pairs, "CELLS", 100)
    with pytest.raises(InputError, match=r"by g finds more than 100 pairs of a group and a bucket"):
        fl.compare(DATA, "mse", by="g", bootstrap=True, **NAMES)


@pytest.mark.jit
@pytest.mark.parametrize("together", [1, 1 << 62])
def test_pairs_of_losses_have_the_bits_of_evaluations(together, monkeypatch):
    """One pass for both predictions, and rows that only one of them refuses."""
    monkeypatch.setattr(lane, "TOGETHER_FROM", together)
    names = ["mse", "mae", "huber"]
    rng = np.random.default_rng(4)
    z, other, t = rng.normal(size=(3, 5000))
    found = fl.compare({"a": z, "b": other, "t": t}, names, **NAMES)
    for name in names:
        loss = fl.LOSSES[name]
        x, y = (loss(p, t, reduction="none") for p in (z, other))
        assert found[name][:2] == tuple(fl.evaluate((p, t), name)[name].mean for p in (z, other))
        assert found[name][8:] == ((x < y).sum(), (x == y).sum(), (x > y).sum(), 5000)
        assert found[name].difference == pytest.approx((x - y).mean(), rel=1e-11)
        assert found[name].standard_error == pytest.approx(stats.sem(x - y), rel=1e-11)


def test_an_infinite_variance_is_doubted():
    rng = np.random.default_rng(8)
    heavy = {"a": rng.pareto(1.2, 5000), "b": np.zeros(5000), "t": np.zeros(5000)}
    (note,) = fl.compare(heavy, "mae", **NAMES).notes
    assert "of the squared differences, as where the variance is infinite" in note
    assert fl.compare(DATA, "mae", **NAMES).notes == []
    few = {**DATA, "u": DATA["u"] % 7}
    assert "7 clusters are few" in fl.compare(few, "mae", cluster_by="u", **NAMES).notes[0]


def test_buckets_do_not_depend_on_how_rows_are_batched():
    whole = Buckets(()).codes([], "part-1.parquet", 3 * BUCKETS)
    parts = [Buckets(()).codes([], "elsewhere/part-1.parquet", 1000, start) for start in range(0, 3 * BUCKETS, 1000)]
    assert np.array_equal(np.concatenate(parts)[: len(whole)], whole)
    assert all(np.array_equal(np.sort(run), np.arange(BUCKETS)) for run in whole.reshape(3, BUCKETS))


def tables():
    order = RNG.permutation(N)[:800]
    ids = np.array([f"q{i}" for i in range(N)])
    first = pa.table({"id": ids, "p": DATA["a"], "t": T, "g": DATA["g"]})
    second = pa.table({"id": ids[order], "p": DATA["b"][order], "t": T[order]})
    return first, second, np.sort(order)


def test_rows_of_two_inputs_are_joined():
    first, second, kept = tables()
    found = fl.compare(first, "mse", against=second, on="id", pred="p", target="t", by="g")
    expected = fl.compare({k: v[kept] for k, v in DATA.items()}, "mse", by="g", **NAMES)
    assert found["mse"] == expected["mse"]
    assert found.groups == expected.groups
    assert found.notes == ["100 rows of the first input have no id of the other: left out"]


def test_rows_of_scores_are_joined():
    logits, labels = RNG.normal(size=(50, 3)), RNG.integers(0, 3, 50)
    scores = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 3)
    first = pa.table({"id": np.arange(50), "z": scores, "y": labels})
    second = pa.table({"id": np.arange(50)[::-1], "z": scores.take(pa.array(np.arange(50)[::-1])), "y": labels[::-1]})
    found = fl.compare(first, "cross_entropy", against=second, on="id", pred="z", target="y")["cross_entropy"]
    assert (found.difference, found.ties, found.p_value) == (0.0, 50, 1.0)


def test_refusals_of_joins():
    first, second, _ = tables()
    options = {"losses": "mse", "on": "id", "pred": "p", "target": "t"}
    with pytest.raises(InputError, match="id 'q0' is in several rows of the first input; expected each once"):
        fl.compare(pa.concat_tables([first, first.slice(0, 1)]), against=second, **options)
    with pytest.raises(InputError, match="t differs between the inputs for some id"):
        fl.compare(first, against=second.set_column(2, "t", pa.array(np.zeros(800))), **options)
    with pytest.raises(InputError, match="no id is in both inputs"):
        fl.compare(
            first, against=second.set_column(0, "id", pa.array(["x"] * 799 + ["y"]).slice(0, 800)).slice(799), **options
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence is 95; expected a number between 0 and 1"),
        ({"correction": "none"}, "correction is 'none'; allowed: holm, bh"),
        ({"against": ["a", "b"]}, "against names 2 columns and pred 1; expected as many"),
        ({"on_invalid": "propagate"}, "on_invalid is 'propagate'; allowed: fail, skip"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        fl.compare(DATA, "mse", **NAMES | options)


def test_a_row_invalid_under_one_prediction_counts_under_neither():
    data = {"a": np.array([1.0, np.nan, 3.0]), "b": np.array([2.0, 2.0, 2.0]), "t": np.zeros(3)}
    found = fl.compare(data, "mae", on_invalid="skip", **NAMES)
    assert (found["mae"].first, found["mae"].second, found["mae"].rows) == (2.0, 2.0, 2)
    assert found.notes == ["1 of 3 rows with a null, a NaN or an infinity: left out"]
    infinite = {"a": np.array([0.0, 0.5]), "b": np.array([0.5, 0.5]), "t": np.ones(2)}
    skipped = fl.compare(infinite, "bce_with_logits", on_invalid="skip", pred_is="prob", **NAMES)["bce_with_logits"]
    assert (skipped.rows, skipped.first, skipped.difference) == (1, skipped.second, 0.0)


def test_the_command(tmp_path):
    pq.write_table(pa.table(DATA), tmp_path / "ab.parquet")

    def run(*options):
        return command("compare", tmp_path / "ab.parquet", "-l", "mse", "-t", "t", *options)

    shown = run("-p", "a", "-a", "b", "--by", "g").stdout.splitlines()
    assert shown[0].split() == ["loss", "first", "second", "difference", "95%", "interval", "p"]
    assert shown[4] == "mse by g"
    assert max(map(len, shown)) <= 80
    written = json.loads(run("-p", "a", "-a", "b", "--json", "-").stdout)
    assert written["losses"]["mse"]["p_value"] == fl.compare(DATA, "mse", **NAMES)["mse"].p_value
    assert run("-p", "a").stderr.startswith("fastloss: no --against; name the column of the other prediction")
