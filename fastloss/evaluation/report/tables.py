"""Details of a report as tables: columns for Arrow and CSV, text for terminals and pages."""

from typing import TYPE_CHECKING, Any

from .text import figure

if TYPE_CHECKING:
    from . import Report

__all__ = ["TABLES", "columns_of", "text_tables"]


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


TABLES = {"quantiles": _quantiles, "histogram": _histogram}
"""Tables of details, by name."""


def columns_of(report: "Report", table: str) -> dict[str, list[Any]]:
    """Return the columns of a table of details; empty where the report has none."""
    return TABLES[table](report) if table in report.tables else {}


def text_tables(report: "Report") -> list[tuple[str, list[tuple[str, ...]], int]]:
    """Return title, rows (the first is the heading) and number of columns of text, for each table of details."""
    found = []
    quantiles = report.quantiles
    if quantiles:
        heading = ("loss", *(f"{100 * q:.6g}%" for q in next(iter(quantiles.values()))))
        body = [(label, *map(figure, each.values())) for label, each in quantiles.items()]
        found.append(("quantiles", [heading, *body], 1))
    return found
