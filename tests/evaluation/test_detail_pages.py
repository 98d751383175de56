"""Details on pages and on the command line: pictures, tables, files, escapes."""

import csv
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import command, environment

import fastloss as fl
from fastloss.evaluation.report.page import markdown as markdown_of
from fastloss.evaluation.report.pictures import bars, ticks


def body(page):
    """The body of a page, which is XML too."""
    return ElementTree.fromstring(f"<body>{page.partition('<body>')[2].partition('</body>')[0]}</body>")


def test_pages_of_details(monkeypatch):
    """Pictures and tables of details: without a script, small at 60 million rows' worth of cells, names escaped."""
    from fastloss.evaluation.details import calibration, distribution

    monkeypatch.setattr(distribution, "EXACT", 100)
    monkeypatch.setattr(calibration, "EXACT", 100)
    rng = np.random.default_rng(3)
    logit, group = 3 * rng.normal(size=5000), rng.integers(0, 500, 5000).astype(str)
    label = (rng.random(5000) < 1 / (1 + np.exp(-logit))).astype(int)
    table = {"p": logit, "t": label, "<script>": np.char.add("<b>", group)}
    asked = {"hist": 400, "quantiles": np.linspace(0, 1, 11), "calibration": 60, "confusion": True, "gaps": True}
    losses = ["bce_with_logits", "focal", "mse", "mae", "huber"]
    report = fl.evaluate(table, losses, pred="p", target="t", by="<script>", threshold=[0.1, 0.5], **asked)
    page = report.to_html()
    assert len(page.encode()) < 300_000
    assert "<script" not in page
    assert "<b>" not in page
    assert "http" not in page
    assert page.count("<svg") == 1 + 7
    xml = body(page)
    bars = [e for e in xml.iter("path") if e.get("class") == "bars"]
    for (name, histogram), path in zip(report.histograms.items(), bars, strict=True):
        assert path.get("d").count("M") == np.count_nonzero(histogram.counts), name
    dots = [e for e in xml.iter("circle") if e.get("class") == "dot"]
    assert len(dots) == sum(b.rows > 0 for b in report.calibration.table())
    first = report.calibration.table()[0]
    assert float(dots[0].get("cy")) == pytest.approx(352 - 340 * first.observed, abs=0.06)
    markdown = markdown_of([("", report)])
    for title in ("Quantiles", "Calibration", "Reliability", "Confusion counts", "Gaps by"):
        assert f"### {title}" in markdown


def test_a_page_of_many_classes():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 30, 3000)
    scores = rng.normal(size=(3000, 30))
    scores[np.arange(3000), labels] += 2
    report = fl.evaluate((scores, labels), "cross_entropy", confusion=True)
    page = report.to_html()
    xml = body(page)
    (matrix,) = [e for e in xml.iter("table") if e.get("class") == "matrix"]
    cells = [[int((c.text or "0").replace(",", "")) for c in row.iter("td")] for row in matrix.iter("tr")][1:]
    np.testing.assert_array_equal(cells, report.confusion["argmax"].matrix)


def test_details_of_the_command(tmp_path):
    rng = np.random.default_rng(5)
    logit, group = rng.normal(size=300), rng.choice(["x", "y"], 300)
    label = (rng.random(300) < 1 / (1 + np.exp(-logit))).astype(int)
    pq.write_table(pa.table({"p": logit, "t": label, "g": group}), tmp_path / "a.parquet")
    asked = ["--hist", "20", "--quantiles", ".5,.9", "--calibration", "--confusion", "--threshold", ".3,.6", "--gaps"]
    columns = ["-l", "bce_with_logits", "-p", "p", "-t", "t", "--by", "g"]
    done = command("eval", str(tmp_path / "a.parquet"), *columns, *asked, "--csv", str(tmp_path / "out.csv"))
    assert done.returncode == 0, done.stderr
    again = command("eval", str(tmp_path / "a.parquet"), *columns, *asked)
    for title in ("quantiles", "reliability", "decisions", "gaps by g", "rates at 0.6 by g", "histogram of target"):
        assert f"\n{title}\n" in again.stdout
    report = fl.evaluate(
        str(tmp_path / "a.parquet"),
        "bce_with_logits",
        pred="p",
        target="t",
        by="g",
        hist=20,
        quantiles=[0.5, 0.9],
        calibration=True,
        confusion=True,
        threshold=[0.3, 0.6],
        gaps=True,
    )
    for name in report.tables[1:]:
        with open(tmp_path / f"out.{name}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows == [
            {k: "" if v is None else str(v) for k, v in row.items()} for row in report.to_arrow(name).to_pylist()
        ]


def test_resumed_files_have_the_same_details(tmp_path):
    rng = np.random.default_rng(6)
    table = pa.table({"p": rng.normal(size=600), "t": rng.integers(0, 2, 600), "g": rng.integers(0, 3, 600)})
    (tmp_path / "parts").mkdir()
    for k in range(3):
        pq.write_table(table.slice(200 * k, 200), tmp_path / "parts" / f"{k}.parquet")
    options = {"losses": "bce_with_logits", "pred": "p", "target": "t", "by": "g", "hist": 9, "quantiles": 0.5}
    options |= {"calibration": True, "confusion": True, "gaps": True}
    whole = fl.evaluate(table, **options)
    for _ in range(2):
        resumed = fl.evaluate(str(tmp_path / "parts"), resume=str(tmp_path / "done"), **options)
        assert resumed == whole
        assert resumed.gaps == whole.gaps


@pytest.mark.jit
@pytest.mark.parametrize("weighted", [False, True])
def test_the_kernels_of_details_are_compiled_ahead(weighted, tmp_path):
    """A process that has done the job meets no kernel in the evaluation that it has not compiled."""
    code = f"""
import numpy as np
from fastloss.cpu.runtime import cache
from fastloss.evaluation import ahead
from fastloss.evaluation.details import calibration, distribution
import fastloss as fl
calibration.EXACT = distribution.EXACT = 10
rows = [np.linspace(-1, 1, 50), np.arange(50.0) % 2] + [np.ones(50)] * {weighted}
def evaluate(**asked):
    return fl.evaluate(tuple(rows), "bce_with_logits", by=np.arange(50) % 3, **asked)
evaluate()
asked = dict(hist=5, quantiles=0.5, calibration=True, confusion=True, gaps=True)
ahead.perform(ahead.Job("details", "details", ([*asked], {weighted})))
missed = []
cache.missed.append(lambda: missed.append(1))
evaluate(**asked)
assert not missed, missed
"""
    variables = environment(FASTLOSS_CACHE_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_of_the_command_that_are_wrong(tmp_path):
    pq.write_table(pa.table({"p": [0.5], "t": [1.0]}), tmp_path / "a.parquet")
    columns = [str(tmp_path / "a.parquet"), "-l", "mse", "-p", "p", "-t", "t"]
    for options, message in (
        (["--calibration"], "calibration takes probabilities; say what predictions are, such as --pred-is prob"),
        (["--quantiles", "half"], "--quantiles is 'half'; expected numbers, such as .5,.9,.99"),
        (["--threshold", "2", "--confusion"], "--threshold has 2.0; expected numbers from 0 to 1"),
        (["--gaps"], "gaps are between groups; name their column, such as --by country"),
    ):
        done = command("eval", *columns, *options)
        assert done.returncode == 2
        assert message in done.stderr


def test_bars_and_ticks():
    histogram = fl.evaluate((np.array([0.0, 0.0, 0.0, 1.0, 2.0]), np.zeros(5)), "mae", hist=4).histograms["mae"]
    assert histogram.counts.tolist() == [3, 0, 1, 1]
    assert bars(histogram) == "█ ▃▃"
    assert bars(histogram, blocks=False) == "@ --"
    for low, high in ((0.0, 1.0), (-3.2, 17.0), (1e-9, 2e-9), (1e6, 1e6 + 1), (-1e300, 1e300)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 13
        assert all(low <= x * (1 + 1e-12 * np.sign(x)) and x * (1 - 1e-12 * np.sign(x)) <= high for x in found)
    assert ticks(5.0, 5.0) == [5.0]
