"""Evaluation by group: keys of every type, and the bits of an evaluation of each group's rows alone."""

import datetime
import math
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import command

import fastloss as fl
from fastloss.evaluation import InputError, Report
from fastloss.evaluation.groups import kernels, keys, tables

RNG = np.random.default_rng(15)
N = 5000
CODES = RNG.integers(0, 7, N)
TARGET = RNG.normal(size=N)

PREDICTIONS = {
    "ordinary": RNG.normal(size=N),
    "of all exponents": np.ldexp(RNG.normal(size=N), RNG.integers(-500, 300, N)),
    "at borders of levels": np.ldexp(np.where(RNG.random(N) < 0.5, 1.0, 1 - 2.0**-53), RNG.integers(-140, 150, N)),
    "equal to the target": TARGET,
}


def same(a: Report, b: Report) -> bool:
    """Whether two reports have the same counts and exact sums."""
    return a == b and a.to_json() == b.to_json()


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_group_has_the_bits_of_its_rows_alone(name, weighted):
    pred, weight = PREDICTIONS[name], RNG.uniform(0, 3, N)
    more = (weight,) if weighted else ()
    report = fl.evaluate((pred, TARGET, *more), ["mae", "mse"], by=CODES, on_invalid="propagate")
    assert list(report.groups) == list(range(7))
    for key, found in report.groups.items():
        rows = key == CODES
        alone = tuple(a[rows] for a in (pred, TARGET, *more))
        assert same(found, fl.evaluate(alone, ["mae", "mse"], on_invalid="propagate")), key
    assert report.groups[0].merge(*(report.groups[k] for k in range(1, 7)))["mae"] == report["mae"]


@pytest.mark.parametrize("on_invalid", ["skip", "propagate"])
def test_invalid_rows_are_counted_by_group(on_invalid):
    pred = np.where(RNG.random(N) < 0.1, RNG.choice([np.nan, np.inf, -np.inf], N), TARGET + 1)
    mask = RNG.random(N) < 0.05
    data = {"p": np.ma.masked_array(pred, mask), "t": TARGET, "g": CODES}
    options = {"losses": ["mse"], "pred": "p", "target": "t", "on_invalid": on_invalid}
    report = fl.evaluate(data, by="g", **options)
    assert report.groups[3].null_rows == (mask & (CODES == 3)).sum() > 0
    for key, found in report.groups.items():
        alone = fl.evaluate({k: v[key == CODES] for k, v in data.items()}, **options)
        assert same(found, alone)


def test_ignored_labels_are_counted_by_group():
    logits, labels = RNG.normal(size=(N, 3)), RNG.choice([0, 1, 2, -100], N)
    report = fl.evaluate((logits, labels), ["cross_entropy", "perplexity"], by=CODES)
    for key, found in report.groups.items():
        rows = key == CODES
        assert same(found, fl.evaluate((logits[rows], labels[rows]), ["cross_entropy", "perplexity"]))
        assert found["cross_entropy"].ignored == (labels[rows] == -100).sum()


def test_sweeps_and_threads_and_shards_change_no_bit(monkeypatch, tmp_path):
    table = pa.table({"p": PREDICTIONS["ordinary"], "t": TARGET, "g": CODES})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=400)
    options = {"losses": ["mse", "huber"], "pred": "p", "target": "t", "by": "g"}
    whole = fl.evaluate(str(tmp_path / "a.parquet"), threads=1, **options)
    assert same(fl.evaluate(str(tmp_path / "a.parquet"), threads=4, **options), whole)
    shards = [fl.evaluate(table.slice(start, 1700), **options) for start in range(0, N, 1700)]
    assert same(shards[2].merge(shards[0], shards[1]), whole)
    monkeypatch.setattr(kernels, "SWEEP", 500)
    assert same(fl.evaluate(table.slice(0, N), threads=1, **options), whole)


@pytest.mark.oracle
def test_means_of_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"p": PREDICTIONS["ordinary"], "t": TARGET, "g": CODES, "h": RNG.integers(0, 50, N)})
    report = fl.evaluate(frame, ["mse"], pred="p", target="t", by=["g", ("g", "h")])
    assert list(report.groups) == ["g", "g,h"]
    error = (pl.col("p") - pl.col("t")) ** 2
    by_both = frame.group_by("g", "h").agg(error.mean().alias("mean"), error.std(ddof=0).alias("std"), pl.len())
    assert len(by_both) == len(report.groups["g,h"])
    for g, h, mean, std, count in by_both.iter_rows():
        found = report.groups["g,h"][g, h]["mse"]
        assert found.count == count == report.groups["g,h"][g, h].rows
        assert (found.mean, found.std) == (pytest.approx(mean, rel=1e-12), pytest.approx(std, rel=1e-12, abs=1e-12))


DAY, NOON = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 12)

COLUMNS = {
    "text": (pa.array(["b", "a", None, "b"]), ["a", "b", None]),
    "large text": (pa.array(["b10", "b9", "b10", "b9"], pa.large_string()), ["b9", "b10"]),
    "dictionary": (pa.array(["y", None, "x", "y"]).dictionary_encode(), ["x", "y", None]),
    "dictionary of doubles": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array(["x", "y", "x"])),
        ["x", "y"],
    ),
    "whole numbers": (pa.array([-3, 2**40, -3, 5]), [-3, 5, 2**40]),
    "small numbers": (pa.array([-128, 127, 0, 127], pa.int8()), [-128, 0, 127]),
    "unsigned numbers": (pa.array([2**64 - 1, 7, 7, 2**63], pa.uint64()), [7, 2**63, 2**64 - 1]),
    "numbers and a null": (pa.array([1, None, 2, 1]), [1, 2, None]),
    "booleans": (pa.array([True, False, None, True]), [False, True, None]),
    "fractions": (pa.array([0.5, -0.0, 0.0, 0.5]), [0.0, 0.5]),
    "dates": (pa.array([DAY, DAY, None, DAY]), [DAY, None]),
    "times": (pa.array([NOON, NOON, NOON, None]), [NOON, None]),
    "nulls": (pa.nulls(4), [None]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("through", ["table", "parquet"])
def test_keys_of_every_type(name, through, tmp_path):
    column, expected = COLUMNS[name]
    data = pa.table({"p": [1.0, 2.0, 3.0, 4.0], "t": [0.0] * 4, "g": column})
    values = column.to_pylist()
    if through == "parquet":
        pq.write_table(data, tmp_path / "a.parquet")
        data = str(tmp_path / "a.parquet")
    report = fl.evaluate(data, ["mae"], pred="p", target="t", by="g")
    assert list(report.groups) == expected
    for key in expected:
        rows = [i + 1.0 for i, v in enumerate(values) if v == key]
        assert report.groups[key]["mae"].mean == np.mean(rows)
        assert report.groups[key].rows == len(rows)
    again = Report.from_json(report.to_json())
    assert same(again, report)
    assert [type(k) for k in again.groups] == [type(k) for k in expected]


def test_any_nan_is_one_key():
    report = fl.evaluate((np.arange(4.0), np.zeros(4)), "mae", by=np.array([np.nan, 1.0, -np.nan, 1.0]))
    first, last = report.groups.items()
    assert (first[0], last[0], last[1].rows) == (1.0, pytest.approx(math.nan, nan_ok=True), 2)
    assert len(report.merge(Report.from_json(report.to_json())).groups) == 2


def test_numbers_far_apart_and_found_late(monkeypatch):
    """Codes come from a table of numbers while the range is narrow, and from a dictionary where it is not."""
    monkeypatch.setattr(keys, "DIRECT", 64)
    found = keys.Keys(("g",))
    seen = []
    for values in ([5, 6], [60, -3], [500], [1000, 5], [10**12, -3], [499, 6]):
        codes = found.codes([("g", np.array(values))], "", len(values))
        seen += zip(values, codes.tolist(), strict=True)
    assert [list(found)[code] for _, code in seen] == [value for value, _ in seen]
    assert len(found) == len({v for v, _ in seen})


def test_directories_are_columns(tmp_path):
    for country, year in (("US", 2024), ("a b%2F", 2025)):
        folder = tmp_path / f"country={country}" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"p": [1.0, year], "t": [0.0, 0.0], "g": [0, 1]}), folder / "part-0.parquet")
    options = {"losses": ["mae"], "pred": "p", "target": "t"}
    report = fl.evaluate(str(tmp_path), by=["country", "year,g"], **options)
    assert {k: r["mae"].count for k, r in report.groups["country"].items()} == {"US": 2, "a b/": 2}
    assert {k: r["mae"].mean for k, r in report.groups["year,g"].items()} == {
        (2024, 0): 1.0, (2024, 1): 2024.0, (2025, 0): 1.0, (2025, 1): 2025.0,
    }  # fmt: skip
    with pytest.raises(InputError, match="no column 'month' for by"):
        fl.evaluate(str(tmp_path), by="month", **options)


def test_arrays_of_keys_beside_arrays():
    pred, target = np.arange(4.0), np.zeros(4)
    one = fl.evaluate((pred, target), "mae", by=["x", "y", "x", "y"])
    assert {k: r["mae"].mean for k, r in one.groups.items()} == {"x": 1.0, "y": 2.0}
    two = fl.evaluate((pred, target), "mae", by={"a": np.array([0, 0, 1, 1]), "b": np.array([True, True, True, False])})
    assert {k: list(v) for k, v in two.groups.items()} == {"a": [0, 1], "b": [False, True]}


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("missing", "the table has no column 'missing' for by"),
        ("list", "by 'list' holds list<item: int64>; expected text, numbers, booleans or dates"),
        (["g", "g"], "by g names a column or a grouping twice"),
        (3, "by is 3; expected names of columns"),
        ([], "by names no column"),
    ],
)
def test_refusals(by, message):
    table = pa.table({"pred": [1.0], "target": [0.0], "g": [1], "list": [[1]]})
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        fl.evaluate(table, "mae", by=by)


def test_too_many_groups(monkeypatch):
    data = (np.arange(50.0), np.zeros(50))
    monkeypatch.setattr(keys.Keys.__init__, "__defaults__", (49,))
    with pytest.raises(InputError, match="by key finds more than 49 groups"):
        fl.evaluate(data, "mae", by=np.arange(50))
    monkeypatch.setattr(tables, "WEIGHTED", 10)
    with pytest.raises(InputError, match="more than 10 groups of weighted rows"):
        fl.evaluate((*data, np.ones(50)), "mae", by=np.arange(50) % 20)


def test_reports_are_made_when_they_are_asked_for():
    data = (np.arange(40.0), np.zeros(40))
    report = fl.evaluate(data, "mae", by=np.arange(40) % 20)
    assert repr(report.groups) == "<reports of 20 groups: 0, 1, 2, 3, 4, ...>"
    assert len(report.group_table(("key",), top=3)) == 4
    assert len(report.groups._made) == 3
    again = pickle.loads(pickle.dumps(report))
    assert same(again, report)
    assert again.groups[7] == report.groups[7] == fl.evaluate((data[0][7::20], data[1][7::20]), "mae")


def test_reports_by_other_columns_do_not_merge():
    data = (np.ones(2), np.zeros(2))
    by, plain = fl.evaluate(data, "mae", by=[1, 2]), fl.evaluate(data, "mae")
    with pytest.raises(InputError, match="cannot merge reports by key and by none"):
        by.merge(plain)


def test_the_command_shows_groups(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"p": [1.0, 2, 3, 4], "t": [0.0] * 4, "country": ["US", "DE", None, "DE"], "m": [1, 1, 2, 2]}), path
    )
    call = ["eval", path, "-l", "mae", "-l", "mse", "-p", "p", "-t", "t"]
    options = ["--by", "country", "--by", "country,m", "--sort", "mse", "--top", "2"]
    shown = command(*call, *options).stdout
    by_country, crossed = shown.split("\n\n")[1:]
    assert by_country.splitlines() == [
        "by country",
        "country  mae  mse  count",
        "-------  ---  ---  -----",
        "DE         3   10      2",
        "null       3    9      1",
        "1 of 3 groups not shown; --top 0 shows all",
    ]
    assert crossed.splitlines()[3] == "DE       2    4   16      1"
    wrong = command(*call, "--by", "m", "--sort", "x")
    assert (wrong.returncode, wrong.stderr) == (2, "fastloss: --sort is 'x'; allowed: mae, mse, count\n")
