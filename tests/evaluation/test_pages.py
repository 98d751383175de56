"""Reports as HTML, Markdown, CSV and tables: their figures, their escapes, and that they need nothing else."""

import csv
import io
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import command

import fastloss as fl

NASTY = "<script>alert('&')</script>|\x1b[31m"
PRED, TARGET = np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4)


class Page(HTMLParser):
    """Texts of the cells of every table, and the tags and attributes that a page has."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.attributes, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def report():
    table = pa.table({"p": PRED, "t": TARGET, NASTY: ["US", NASTY, None, "US"]})
    return fl.evaluate(table, ["mae", "mse"], pred="p", target="t", by=NASTY, worst=2)


def test_a_page_is_whole_and_needs_nothing():
    page = Page(report().to_html(NASTY))
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]
    statistics, groups, worst, _ = page.tables
    assert statistics[1][:2] == ["mae", "2.5"]
    assert groups[1] == ["<script>alert('&')</script>|\\x1b[31m", "2", "4", "1"]
    assert [row[0] for row in groups[2:]] == ["US", "null"]
    assert worst[1:] == [["-", "3", "4"], ["-", "2", "3"]]
    assert "\x1b" not in report().to_html(NASTY)


def test_a_page_of_many_groups_is_small():
    n = 100_000
    many = fl.evaluate(
        (np.arange(n) * 1.0, np.zeros(n)),
        ["mae", "mse", "huber"],
        by={"a": np.arange(n) % 50_000, "b": np.arange(n) % 999},
    )
    text = many.to_html()
    assert len(text) < 300_000
    assert "49,800 more groups are not shown" in text


def test_a_notebook_shows_tables():
    assert Page(report()._repr_html_()).tables[0][0][:2] == ["loss", "mean"]


def test_tables_of_arrow_and_pandas():
    table = report().to_arrow()
    assert table.column_names[:4] == ["by", "key", "loss", "mean"]
    assert table.num_rows == 2 * 4
    assert table.slice(0, 2)["mean"].to_pylist() == [2.5, 7.5]
    assert set(table.slice(2)["by"].to_pylist()) == {NASTY}


@pytest.mark.oracle
def test_a_frame_of_pandas():
    pytest.importorskip("pandas")
    frame = report().to_pandas()
    assert frame[(frame.key == "US") & (frame.loss == "mse")]["mean"].tolist() == [8.5]


def test_the_command_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"p": PRED, "t": TARGET, "g|h": ["a", "b", "a", "b"]}), path)

    def run(*options):
        return command("eval", path, "-l", "mae", "-p", "p", "-t", "t", "--by", "g|h", *options)

    written = list(csv.DictReader(io.StringIO(run("--html", "a.html", "--csv", "-").stdout)))
    assert [(row["by"], row["key"], row["mean"]) for row in written] == [
        ("", "", "2.5"), ("g|h", "a", "2.0"), ("g|h", "b", "3.0"),
    ]  # fmt: skip
    assert Page((tmp_path / "a.html").read_text()).tables[1][0] == ["g|h", "mae mean", "std", "min", "max", "count"]
    shown = run("--markdown", "-", "--sort", "mae").stdout.splitlines()
    assert shown[0] == "| loss | mean | std | min | max | count | non-finite |"
    assert shown[6:] == [
        "| g\\|h | mae mean | std | min | max | count |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| b | 3 | 1 | 2 | 4 | 2 |",
        "| a | 2 | 1 | 1 | 3 | 2 |",
    ]
    assert "several outputs are -" in run("--csv", "-", "--html", "-").stderr
    before = path.read_bytes()
    assert run("--html", str(path)).returncode == 2
    assert path.read_bytes() == before
