"""Details of a report as tables: columns for Arrow and CSV, text for terminals and pages."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..details.calibration import Bin, Calibration
from ..details.confusion import ARGMAX, Confusion
from ..details.gaps import RATES, Gap
from ..groups.keys import key_text
from .text import figure

if TYPE_CHECKING:
    from . import Report

__all__ = ["RELIABILITY", "SQUARE", "TABLES", "brief", "columns_of", "number", "text_tables"]

Table = tuple[str, list[tuple[str, ...]], int]
"""Title, rows (the first is the heading) and number of columns of text."""

RATE_NAMES = {
    "selection_rate": "selected",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "false_positive_rate": "FPR",
    "equalized_odds": "equalized odds",
}
"""Names of rates in tables."""

RELIABILITY = "reliability"
"""Title of the table of bins, beside which a page has a diagram."""

SQUARE = 10
"""Most classes whose whole matrix is shown as text; of more, as many of the most frequent errors."""


def _quantiles(report: "Report") -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"loss": [], "quantile": [], "value": []}
    for label, found in report.quantiles.items():
        for q, value in found.items():
            for name, each in zip(columns, (label, q, value), strict=True):
                columns[name].append(each)
    return columns


def _histogram(report: "Report") -> dict[str, list[Any]]:
    weighted = report.weighted
    columns: dict[str, list[Any]] = {n: [] for n in ("of", "lower", "upper", "count", *(["weight"] * weighted))}
    for name, found in report.histograms.items():
        columns["of"] += [name] * len(found.counts)
        columns["lower"] += found.edges[:-1].tolist()
        columns["upper"] += found.edges[1:].tolist()
        columns["count"] += found.counts.tolist()
        if weighted:
            columns["weight"] += found.weights.tolist()
    return columns


def _calibration(report: "Report") -> dict[str, list[Any]]:
    found = report.calibration
    assert found is not None
    columns: dict[str, list[Any]] = {n: [] for n in ("strategy", *Bin._fields)}
    for strategy in ("width", "mass"):
        for each in found.table(strategy):
            for name, value in zip(columns, (strategy, *each), strict=True):
                columns[name].append(value)
    return columns


def _calibration_figures(report: "Report") -> dict[str, list[Any]]:
    assert report.calibration is not None
    figures = report.calibration.figures()
    return {"figure": list(figures), "value": list(figures.values())}


def _confusion(report: "Report") -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {n: [] for n in ("by", "key", "threshold", "class", "decided", "count")}
    for by, key, part in _parts(report):
        for threshold, found in part.confusion.items():
            for (true, decided), count in np.ndenumerate(found.matrix):
                if count or len(found.matrix) == 2:
                    row = (by, key, None if threshold == ARGMAX else threshold, true, decided, count.item())
                    for name, value in zip(columns, row, strict=True):
                        columns[name].append(value)
    return columns


def _decisions(report: "Report") -> dict[str, list[Any]]:
    first = next(iter(report.confusion.values())).figures()
    columns: dict[str, list[Any]] = {n: [] for n in ("by", "key", "threshold", *first)}
    for by, key, part in _parts(report):
        for threshold, found in part.confusion.items():
            row = (by, key, None if threshold == ARGMAX else threshold, *found.figures().values())
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return columns


def _gaps(report: "Report") -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {n: [] for n in Gap._fields}
    for each in report.gaps:
        for name, value in zip(columns, each, strict=True):
            columns[name].append(_key(each, value) if name in ("highest", "lowest") else value)
    return columns


def _key(found: Gap, key: Any) -> str | None:
    """Return the key of a group as text; None where there is none."""
    if not found.groups:
        return None
    return ", ".join(map(key_text, key if "," in found.by else (key,)))


def _parts(report: "Report") -> list[tuple[str, str, "Report"]]:
    """Return names of columns and text of the key, with the report: of all rows (both empty), then of each group."""
    found = [("", "", report)]
    for names in report.groupings:
        for key, part in report.reports_by(names).items():
            parts = key if len(names) > 1 else (key,)
            found.append((",".join(names), ",".join(map(key_text, parts)), part))
    return found


TABLES = {"quantiles": _quantiles, "histogram": _histogram} | {
    "calibration": _calibration,
    "calibration_figures": _calibration_figures,
    "confusion": _confusion,
    "decisions": _decisions,
    "gaps": _gaps,
}
"""Tables of details, by name."""


def columns_of(report: "Report", table: str) -> dict[str, list[Any]]:
    """Return the columns of a table of details; empty where the report has none."""
    return TABLES[table](report) if table in report.tables else {}


def text_tables(report: "Report", most: int = 20) -> list[Table]:
    """Return title, rows (the first is the heading) and number of columns of text, for each table of details.

    Rates are shown of at most so many groups.
    """
    found: list[Table] = []
    quantiles = report.quantiles
    if quantiles:
        heading = ("loss", *(f"{100 * q:.6g}%" for q in next(iter(quantiles.values()))))
        body = [(label, *map(figure, each.values())) for label, each in quantiles.items()]
        found.append(("quantiles", [heading, *body], 1))
    if report.calibration is not None:
        found += _calibration_tables(report.calibration)
    for threshold, each in report.confusion.items():
        if threshold == ARGMAX:
            found += _class_tables(each)
    if report.confusion and ARGMAX not in report.confusion:
        found += _decision_tables(report.confusion)
    if report.gaps:
        found += _gap_tables(report, most)
    return found


def _calibration_tables(found: Calibration) -> list[Table]:
    """Return the figures of a calibration, and its bins of equal width."""
    errors = [
        (name, brief(found.error(strategy, norm)), brief(found.error(strategy, norm, debiased=True)))
        for name, strategy, norm in (
            (f"ECE, {found.bins} bins of equal width", "width", "mean"),
            (f"ECE, {found.bins} bins of equal mass", "mass", "mean"),
            ("root mean square error", "width", "rms"),
        )
    ]
    corp = found.corp()
    score = [("Brier score", brief(found.brier), "-")]
    signs = (("= miscalibration", "miscalibration"), ("- discrimination", "discrimination"))
    score += [(f"  {text}", brief(corp[name]), "-") for text, name in (*signs, ("+ uncertainty", "uncertainty"))]
    figures = [
        ("calibration", "value", "debiased"),
        *errors,
        ("largest gap", brief(found.error(norm="max")), "-"),
        *score,
    ]
    bins: list[tuple[str, ...]] = [("probability", "count", "predicted", "observed", "95% interval")]
    for b in found.table():
        interval = f"{brief(b.low, 3)} to {brief(b.high, 3)}" if b.rows else "-"
        bins.append(
            (f"{b.lower:.3g} to {b.upper:.3g}", f"{b.rows:,}", *map(brief, (b.predicted, b.observed)), interval)
        )
    return [(f"calibration of the {found.of}, {found.count:,} rows", [*figures], 1), (RELIABILITY, bins, 1)]


def _decision_tables(found: Mapping[Any, Confusion]) -> list[Table]:
    """Return counts and rates by threshold."""
    counts: list[tuple[str, ...]] = [("threshold", "TP", "FP", "FN", "TN")]
    names = ("selected", "accuracy", "precision", "recall", "FPR", "F1", "MCC")
    rates: list[tuple[str, ...]] = [("threshold", *names)]
    for threshold, each in found.items():
        counts.append((f"{threshold:g}", *(number(v) for v in (each.tp, each.fp, each.fn, each.tn))))
        rates.append((f"{threshold:g}", *map(brief, each.figures().values())))
    return [("confusion counts", counts, 1), ("decisions", rates, 1)]


def _gap_tables(report: "Report", most: int) -> list[Table]:
    """Return the largest gaps of each grouping, and the rates of its groups."""
    tables: list[Table] = []
    gaps = report.gaps
    decided = sorted({g.threshold for g in gaps if g.threshold is not None})
    only = f", decisions at {decided[0]:g}" if len(decided) == 1 else ""
    for names in report.groupings:
        rows: list[tuple[str, ...]] = [("largest gap", "highest", "lowest", "gap", "95% interval", "ratio")]
        for g in gaps:
            if g.by == ",".join(names) and g.groups:
                of = RATE_NAMES.get(g.of, g.of) + ("" if g.threshold is None or only else f" at {g.threshold:g}")
                ends = (
                    f"{_key(g, key)}: {brief(v)}" for key, v in ((g.highest, g.high_value), (g.lowest, g.low_value))
                )
                interval = f"{brief(g.difference_low, 3)} to {brief(g.difference_high, 3)}"
                rows.append((of, *ends, brief(g.difference), interval, brief(g.ratio)))
        tables.append((f"gaps by {', '.join(names)}{only}", rows, 3))
        groups = report.reports_by(names)
        thresholds = [t for t in (next(iter(groups.values())).confusion if groups else {}) if t != ARGMAX]
        for threshold in thresholds:
            rates: list[tuple[str, ...]] = [(*names, "rows", *(RATE_NAMES[n] for n in RATES))]
            for key in list(groups)[:most]:
                found = groups[key].confusion.get(threshold)
                parts = key if len(names) > 1 else (key,)
                if found is not None:
                    figures = [brief(getattr(found, name)) for name in RATES]
                    rates.append((*map(key_text, parts), f"{groups[key].rows:,}", *figures))
            more = f", {most} of {len(groups):,} groups" if len(groups) > most else ""
            tables.append((f"rates at {threshold:g} by {', '.join(names)}{more}", rates, len(names)))
    return tables


def _class_tables(found: Confusion) -> list[Table]:
    """Return the rates of classes, and the matrix or its largest entries beside the diagonal."""
    figures = found.figures()
    rates = [("accuracy", "precision", "recall", "F1", "MCC"), tuple(map(brief, figures.values()))]
    tables: list[Table] = [("decisions, by the largest score (means over classes)", rates, 0)]
    classes = len(found.matrix)
    if classes <= SQUARE:
        rows = [("class", *map(str, range(classes)))]
        rows += [(str(k), *map(number, row)) for k, row in enumerate(found.matrix.tolist())]
        return [*tables, ("confusion counts: classes down, decisions across", rows, 1)]
    wrong = found.matrix - np.diag(np.diag(found.matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:SQUARE]
    rows = [("class", "decided", "count", "of the class")]
    for true, decided in zip(*np.unravel_index(order, wrong.shape), strict=True):
        count = wrong[true, decided].item()
        if count:
            rows.append((str(true), str(decided), number(count), brief(count / found.matrix[true].sum())))
    return [*tables, (f"most frequent errors of {classes} classes", rows, 2)]


def brief(value: float, digits: int = 4) -> str:
    """Return a rate as text of a few digits."""
    return "-" if math.isnan(value) else "0" if value == 0 else f"{value:.{digits}g}"


def number(value: float) -> str:
    """Return a count, or a sum of weights, as text."""
    return f"{value:,}" if isinstance(value, int) else figure(value)
