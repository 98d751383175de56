"""Histograms and quantiles of evaluations: NumPy and Polars as oracles, the same for any split of the rows."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.evaluation import InputError, Report
from fastloss.evaluation.details import distribution
from fastloss.evaluation.details.distribution import Distribution, Tally

RNG = np.random.default_rng(41)
N = 4000
SHARES = [0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0]

VALUES = {
    "normal": RNG.normal(size=N),
    "squares": RNG.normal(size=N) ** 2,
    "of all exponents": np.ldexp(RNG.normal(size=N), RNG.integers(-900, 900, N)),
    "few": RNG.choice([-2.0, -0.0, 0.0, 0.5, 3.0], N),
    "equal": np.full(N, -0.3),
    "tiny and zero": np.where(RNG.random(N) < 0.5, 0.0, 5e-324),
    "largest": RNG.choice([-1.7976931348623157e308, 1.7976931348623157e308], N),
    "one": np.array([2.5]),
    "none": np.zeros(0),
}


@pytest.fixture(autouse=True)
def _own_draws(request):
    """Draws of each test that do not depend on the tests before it."""
    global RNG
    RNG = np.random.default_rng(len(request.node.name))


@pytest.fixture
def counting(monkeypatch):
    """Counts cells from the first hundred values on, as of large data."""
    monkeypatch.setattr(distribution, "EXACT", 100)


def distributed(values, weights=None, threads=1):
    """The distribution of values, from tallies that take them in turn."""
    tallies = [Tally(weights is not None) for _ in range(threads)]
    for k, start in enumerate(range(0, len(values), 700)):
        part = slice(start, start + 700)
        tallies[k % threads].add(values[part], None if weights is None else weights[part])
    found = tallies[0].distribution()
    for tally in tallies[1:]:
        found = found.merge(tally.distribution())
    return found


@pytest.mark.parametrize("name", VALUES)
def test_kept_values_have_numpys_quantiles(name):
    values = VALUES[name]
    found = distributed(values)
    assert found.exact
    assert found.count == len(values)
    if len(values) and name != "largest":  # NumPy's own interpolation overflows there
        np.testing.assert_array_equal(found.quantile(SHARES), np.quantile(values, SHARES))
        assert (found.low, found.high) == (values.min(), values.max())
    elif not len(values):
        assert np.isnan(found.quantile(SHARES)).all()


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("name", VALUES)
def test_counted_quantiles_are_within_a_thousandth(name):
    values = VALUES[name]
    found = distributed(values)
    assert found.exact == (len(values) <= 100)
    if not len(values):
        return
    expected = np.quantile(values, SHARES, method="lower"), np.quantile(values, SHARES, method="higher")
    # Denormal numbers share the cell of 0.
    bound = [np.abs(e) / 1024 + 2.0**-1031 for e in expected]
    for share, e0, e1, b0, b1 in zip(SHARES, *expected, *bound, strict=True):
        with np.errstate(over="ignore"):
            assert e0 - b0 <= found.quantile(share) <= e1 + b1
    assert (found.quantile(0.0), found.quantile(1.0)) == (values.min(), values.max())


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("name", VALUES)
def test_counts_of_bins_are_those_of_numpy(name):
    values = VALUES[name]
    for found in (distributed(values), Distribution(np.sort(values + 0.0))):
        histogram = found.histogram(37)
        assert len(histogram.counts) <= 37
        assert histogram.counts.sum() == len(values)
        if len(values):
            assert (histogram.edges[0], histogram.edges[-1]) == (values.min(), values.max())
            np.testing.assert_array_equal(histogram.counts, np.histogram(values, histogram.edges)[0])


def test_bins_have_equal_widths_but_for_outliers():
    edges = distributed(VALUES["normal"]).histogram(50).edges
    np.testing.assert_allclose(edges, np.histogram_bin_edges(VALUES["normal"], 50), atol=1e-14)
    far = distributed(np.append(VALUES["normal"], [1e6, -1e9])).histogram(50).edges
    assert (far[0], far[-1]) == (-1e9, 1e6)
    np.testing.assert_allclose(np.diff(far[1:-1]), far[2] - far[1], rtol=1e-12)
    first, last = np.quantile(VALUES["normal"], [0.01, 0.99])
    assert far[1] == pytest.approx(first - (last - first) * (1 - 3 / 50), rel=0.02)


@pytest.mark.usefixtures("counting")
def test_edges_of_counted_bins_are_near_equal_widths():
    edges = distributed(VALUES["squares"]).histogram(50).edges
    width = (edges[-2] - edges[1]) / 48
    assert np.abs(edges[1:-1] - (edges[1] + width * np.arange(49))).max() < 0.11 * width


@pytest.mark.parametrize("limit", [100, 10**6])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["normal", "of all exponents", "few"])
def test_any_order_and_split_give_one_distribution(name, weighted, limit, monkeypatch):
    monkeypatch.setattr(distribution, "EXACT", limit)
    values = VALUES[name]
    weights = RNG.random(N) if weighted else None
    whole = distributed(values, weights)
    for order in (np.arange(N)[::-1], RNG.permutation(N)):
        other = distributed(values[order], None if weights is None else weights[order], threads=3)
        assert other == whole
        assert other.to_dict() == whole.to_dict()
    again = Distribution.from_dict(whole.to_dict())
    assert again == whole
    np.testing.assert_array_equal(again.quantile(SHARES), whole.quantile(SHARES))


@pytest.mark.parametrize("limit", [100, 10**6])
def test_weighted_quantiles_and_bins_are_numpys(limit, monkeypatch):
    monkeypatch.setattr(distribution, "EXACT", limit)
    values, weights = VALUES["normal"], np.where(RNG.random(N) < 0.2, 0.0, RNG.exponential(size=N))
    found = distributed(values, weights)
    expected = np.quantile(values, SHARES, weights=weights, method="inverted_cdf")
    np.testing.assert_allclose(found.quantile(SHARES), expected, rtol=0 if limit > N else 1 / 1024)
    histogram = found.histogram(20)
    np.testing.assert_array_equal(histogram.counts, np.histogram(values, histogram.edges)[0])
    np.testing.assert_allclose(histogram.weights, np.histogram(values, histogram.edges, weights=weights)[0], rtol=1e-12)


@pytest.mark.usefixtures("counting")
def test_values_that_are_not_finite_are_left_out():
    values = np.where(RNG.random(N) < 0.3, RNG.choice([np.nan, np.inf, -np.inf], N), VALUES["normal"])
    good = np.isfinite(values)
    assert distributed(values) == distributed(values[good])
    weights = RNG.random(N)
    assert distributed(values, weights) == distributed(values[good], weights[good])


# The whole pass.

PRED, TARGET = RNG.normal(size=N), RNG.normal(size=N)


@pytest.mark.parametrize("limit", [100, 10**6])
def test_reports_merge_and_travel(limit, monkeypatch, tmp_path):
    monkeypatch.setattr(distribution, "EXACT", limit)
    table = pa.table({"p": PRED, "t": TARGET, "w": RNG.random(N)})
    options = {"losses": ["mse", "mae"], "pred": "p", "target": "t", "hist": 20, "quantiles": [0.9, 0.5]}
    for weight in (None, "w"):
        whole = fl.evaluate(table, weight=weight, **options)
        assert list(whole.distributions) == ["mse", "mae"]
        assert list(whole.histograms) == ["mse", "mae", "prediction", "target"]
        parts = [fl.evaluate(table.slice(at, 1500), weight=weight, **options) for at in range(0, N, 1500)]
        assert parts[1].merge(parts[2], parts[0]) == whole
        assert Report.from_json(whole.to_json()) == whole
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=500)
        assert fl.evaluate(str(tmp_path / "a.parquet"), weight=weight, threads=4, **options) == whole
    assert whole.tables == ["losses", "quantiles", "histogram"]
    assert whole.to_arrow("quantiles").column_names == ["loss", "quantile", "value"]
    frame = whole.to_arrow("histogram")
    assert sum(frame["count"].to_pylist()) == 4 * N
    with pytest.raises(InputError, match="has no table 'bins'; it has losses, quantiles, histogram"):
        whole.to_arrow("bins")


def test_quantiles_of_a_report():
    report = fl.evaluate((PRED, TARGET), "mse", quantiles=SHARES)
    assert report.quantiles == {"mse": dict(zip(SHARES, np.quantile((PRED - TARGET) ** 2, SHARES), strict=True))}
    assert report.histograms == {}
    assert fl.evaluate((PRED, TARGET), "mse").quantiles == {}
    assert fl.evaluate((PRED, TARGET), "mse", quantiles=0.5).quantiles["mse"][0.5] == report.quantiles["mse"][0.5]


@pytest.mark.oracle
@pytest.mark.usefixtures("counting")
def test_quantiles_of_polars():
    pl = pytest.importorskip("polars")
    error = pl.DataFrame({"p": PRED, "t": TARGET}).select((pl.col("p") - pl.col("t")).abs().alias("e"))["e"]
    found = fl.evaluate((PRED, TARGET), "mae", quantiles=[0.5, 0.9, 0.99]).quantiles["mae"]
    for share, value in found.items():
        assert value == pytest.approx(error.quantile(share, interpolation="linear"), rel=1 / 1000)


def test_perplexity_has_a_distribution_of_its_own():
    logits, labels = RNG.normal(size=(500, 3)), RNG.choice([0, 1, 2, -100], 500)
    report = fl.evaluate((logits, labels), ["cross_entropy", "perplexity"], quantiles=[0.5])
    counted = labels != -100
    rows = np.exp(logits[counted])
    chosen = rows[np.arange(counted.sum()), labels[counted]] / rows.sum(axis=1)
    assert report.quantiles["cross_entropy"][0.5] == pytest.approx(np.median(-np.log(chosen)), rel=1e-12)
    assert report.quantiles["perplexity"][0.5] == pytest.approx(np.median(1 / chosen), rel=1e-12)


def test_rows_left_out_are_in_no_distribution():
    pred = np.where(RNG.random(N) < 0.1, np.nan, PRED)
    report = fl.evaluate((pred, TARGET), "mse", on_invalid="skip", hist=10, quantiles=[0.5])
    good = ~np.isnan(pred)
    assert report.quantiles["mse"][0.5] == np.median((pred[good] - TARGET[good]) ** 2)
    assert report.histograms["target"].counts.sum() == good.sum()
    nothing = fl.evaluate((np.zeros(0), np.zeros(0)), "mse", on_invalid="skip", hist=10, quantiles=[0.5])
    assert math.isnan(nothing.quantiles["mse"][0.5])
    assert nothing.merge(report) == report.merge(nothing)
    assert Report.from_json(nothing.to_json()) == nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hist": -1}, "hist is -1; expected a number of bins"),
        ({"hist": 2.5}, r"hist is 2\.5; expected a number of bins"),
        ({"quantiles": [0.5, 1.5]}, r"quantiles has 1\.5; expected numbers from 0 to 1"),
        ({"quantiles": ["a"]}, "quantiles has 'a'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        fl.evaluate((PRED, TARGET), "mse", **options)


def test_reports_of_other_details_do_not_merge():
    plain, some, other = (fl.evaluate((PRED, TARGET), "mse", **o) for o in ({}, {"hist": 5}, {"hist": 6}))
    with pytest.raises(InputError, match="with details"):
        plain.merge(some)
    with pytest.raises(InputError, match="of different details"):
        some.merge(other)
