"""Reports as pages: HTML that needs nothing but itself, Markdown, CSV and tables of Arrow."""

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ..._terminal import printable
from ..groups.keys import key_text
from .pictures import bars, histogram_svg, outer, reliability_svg
from .tables import RELIABILITY, SQUARE, columns_of, number, text_tables
from .text import figure

if TYPE_CHECKING:
    from . import Report

__all__ = ["html_page", "html_tables", "markdown", "table_of", "written_csv"]

SHADED = 40
"""Most classes of a shaded matrix: 1,600 cells are 60 kB."""

GROUPS = 200
"""Most groups of a grouping on a page: three groupings of five losses stay below 300 kB."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5c6b7a; --line: #d8dee5; --page: #ffffff; --bar: #9cc3e6;
  --warn: #8a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --soft: #9aa8b5; --line: #34414d; --page: #12181f; --bar: #2f5f8a; --warn: #f0b35a; }
}
body { color: var(--ink); background: var(--page); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); } .warn { color: var(--warn); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: break-word; max-width: 28rem; }
th { font-weight: 600; }
svg.plot { display: block; width: 100%; max-width: 32rem; height: auto; } svg.plot text { fill: var(--soft); font: 12px
  system-ui, sans-serif; } .bars { fill: var(--bar); } .rule { stroke: var(--line); fill: none; }
svg.square { max-width: 25rem; } .band { fill: var(--bar); opacity: .45; } .dot { fill: var(--ink); }
.ideal { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; }
.fit { stroke: var(--warn); stroke-width: 2; fill: none; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.beside > :first-child { flex: 1 1 20rem; max-width: 25rem; } .beside > * { min-width: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2rem; }
h3 { font-size: 1rem; margin: .75rem 0 .25rem; }
.matrix td { background: color-mix(in srgb, var(--bar) var(--share), transparent); }
td.bar { background: linear-gradient(to right, var(--bar) var(--share), transparent 0)
  left bottom / 100% 3px no-repeat; }
"""


def _text(value: object) -> str:
    return escape(printable(value))


def _table(rows: Sequence[Sequence[str]], left: int, shares: Sequence[float] | None = None, at: int = -1) -> list[str]:
    """Return lines of a table: the first columns are text; `shares` draws bars in one column, of 1 at the most."""
    heading, *body = rows
    lines = ['<div class="wide"><table>', "<thead><tr>"]
    lines += [f'<th{_class(i, left)} scope="col">{_text(name)}</th>' for i, name in enumerate(heading)]
    lines += ["</tr></thead>", "<tbody>"]
    for j, row in enumerate(body):
        cells = []
        for i, cell in enumerate(row):
            if shares is not None and i == at and math.isfinite(shares[j]):
                cells.append(f'<td class="bar" style="--share:{100 * shares[j]:.1f}%">{_text(cell)}</td>')
            else:
                cells.append(f"<td{_class(i, left)}>{_text(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return [*lines, "</tbody>", "</table></div>"]


def _class(column: int, left: int) -> str:
    return ' class="text"' if column < left else ""


def html_tables(report: "Report", sort: str = "", top: int = 0) -> list[str]:
    """Return lines of HTML: warnings, statistics, groups and worst rows of a report."""
    lines = [f'<p class="warn">{_text(warning)}</p>' for warning in report.warnings()]
    lines += _table(report.table(), 1)
    lines += [f'<p class="soft">{_text(note)}</p>' for note in report.notes()]
    lines += _details(report)
    for names in report.groupings:
        rows = report.group_table(names, sort, min(top or GROUPS, GROUPS))
        means = report.group_means(names, sort, len(rows) - 1)
        largest = max((m for m in means if math.isfinite(m) and m > 0), default=0.0)
        shares = [max(0.0, m) / largest if largest else 0.0 for m in means]
        lines += [f"<h2>By {_text(', '.join(names))}</h2>", *_table(rows, len(names), shares, len(names))]
        lines.append(f'<p class="soft">Bars: mean of {_text(next(iter(report)))}, beside the largest</p>')
        if left := report.group_count(names) - len(means):
            lines.append(f'<p class="soft">{left:,} more groups are not shown</p>')
    for label in report.worst:
        rows = report.worst_table(label)
        lines += [f"<h2>Rows of largest {_text(label)}</h2>", *_table(rows, len(rows[0]) - 1)]
    return lines


def _details(report: "Report") -> list[str]:
    """Return lines of HTML: tables and pictures of details."""
    lines = []
    for title, rows, left in text_tables(report, GROUPS):
        lines += [f"<h2>{_text(title[:1].upper() + title[1:])}</h2>"]
        if title == RELIABILITY and report.calibration is not None:
            picture = reliability_svg(report.calibration)
            caption = "Dots: bins, with 95% intervals. Line: isotonic regression. Bars: rows."
            lines += ['<div class="beside">', "<div>", *picture, f'<p class="soft">{caption}</p>', "</div>"]
            lines += [*_table(rows, left), "</div>"]
        else:
            lines += _table(rows, left)
    for found in report.confusion.values():
        if SQUARE < len(found.matrix) <= SHADED:
            lines += _matrix(found.matrix)
    histograms = report.histograms
    if not histograms:
        return lines
    lines += ["<h2>Histograms</h2>", '<div class="plots">']
    for name, histogram in histograms.items():
        lines += ["<div>", f"<h3>{_text(name)}</h3>", *histogram_svg(printable(name), histogram)]
        if note := outer(histogram):
            lines.append(f'<p class="soft">{_text(note[:1].upper() + note[1:])}</p>')
        lines.append("</div>")
    return [*lines, "</div>"]


def _matrix(matrix: Any) -> list[str]:
    """Return lines of a table of confusion counts, shaded by the share of the class."""
    classes = range(len(matrix))
    lines = ["<h2>Confusion counts: classes down, decisions across</h2>", '<div class="wide"><table class="matrix">']
    lines.append("<thead><tr><th></th>" + "".join(f'<th scope="col">{k}</th>' for k in classes) + "</tr></thead>")
    for k, row in enumerate(matrix.tolist()):
        whole = sum(row) or 1
        cells = [f'<td style="--share:{100 * v / whole:.0f}%">{number(v) if v else ""}</td>' for v in row]
        lines.append(f'<tr><th scope="row">{k}</th>{"".join(cells)}</tr>')
    return [*lines, "</table></div>"]


def html_page(reports: Sequence[tuple[str, "Report"]], sort: str = "", top: int = 0) -> str:
    """Return a page of one or several reports with their titles: no script, nothing from the network."""
    titles = [title for title, _ in reports if title]
    title = titles[0] if len(titles) == 1 else "Losses"
    lines = ["<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">']
    lines += ['<meta name="viewport" content="width=device-width, initial-scale=1">', f"<title>{_text(title)}</title>"]
    lines += [f"<style>{STYLE}</style>", "</head>", "<body>", f"<h1>{_text(title)}</h1>"]
    for name, report in reports:
        if name and name != title:
            lines.append(f"<h2>{_text(name)}</h2>")
        lines.append(f'<p class="soft">{report.rows:,} rows</p>')
        lines += html_tables(report, sort, top)
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    heading, *body = [[printable(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---" if i < left else "---:" for i in range(len(heading))]
    return [f"| {' | '.join(row)} |" for row in (heading, rule, *body)]


def markdown(reports: Sequence[tuple[str, "Report"]], sort: str = "", top: int = 0) -> str:
    """Return reports as tables of Markdown."""
    lines: list[str] = []
    for title, report in reports:
        lines += [f"## {printable(title)}", ""] if title else []
        lines += [f"**{printable(warning)}**\n" for warning in report.warnings()]
        lines += [*_markdown_table(report.table(), 1), ""]
        lines += [f"{printable(note)}\n" for note in report.notes()]
        for heading, rows, left in text_tables(report):
            lines += [f"### {printable(heading.capitalize())}", "", *_markdown_table(rows, left), ""]
        for name, histogram in report.histograms.items():
            ends = [figure(edge) for edge in histogram.edges[[0, -1]].tolist()] if len(histogram.edges) else ["", ""]
            lines += [f"### Histogram of {printable(name)}", "", f"{ends[0]} `{bars(histogram)}` {ends[1]}", ""]
        for names in report.groupings:
            rows = report.group_table(names, sort, top)
            lines += [f"### By {printable(', '.join(names))}", "", *_markdown_table(rows, len(names)), ""]
    return "\n".join(lines)


def table_of(report: "Report") -> dict[str, list[Any]]:
    """Return columns with a row for each loss of all rows, and for each loss of each group.

    `by` names the columns of a grouping and `key` its values as text; both are empty for all rows.
    """
    fields = ["mean", "std", "min", "max", "count", "non_finite", "ignored"]
    fields += ["weight_sum"] if report.weighted else []
    columns: dict[str, list[Any]] = {name: [] for name in ("by", "key", "loss", *fields)}
    everything: list[tuple[str, str, Report]] = [("", "", report)]
    for names in report.groupings:
        for key, found in report.reports_by(names).items():
            parts = key if len(names) > 1 else (key,)
            everything.append((",".join(names), ",".join(map(key_text, parts)), found))
    for by, text, found in everything:
        for label, statistics in found.items():
            for name, value in (("by", by), ("key", text), ("loss", label)):
                columns[name].append(value)
            for name in fields:
                columns[name].append(getattr(statistics, name))
    return columns


def written_csv(reports: Sequence[tuple[str, "Report"]], table: str = "losses") -> str:
    """Return a table of reports as CSV with full precision; of several, the first column is their title."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for i, (title, report) in enumerate(reports):
        columns = table_of(report) if table == "losses" else columns_of(report, table)
        first = ["data"] if len(reports) > 1 else []
        if not i:
            writer.writerow([*first, *columns])
        writer.writerows([*([title] if first else []), *row] for row in zip(*columns.values(), strict=True))
    return out.getvalue()
