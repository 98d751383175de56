"""Details on the command line: options, and what is printed."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..._terminal import printable
from ..columns import InputError
from . import scale

if TYPE_CHECKING:
    from ..report import Report

__all__ = ["asked", "parsed", "print_details", "suited"]


def parsed(hist: int, quantiles: str, calibration: bool, confusion: bool, threshold: str, gaps: bool) -> dict[str, Any]:
    """Return the arguments of `evaluate` that options of the command stand for; those not given are left out."""
    found: dict[str, Any] = {
        "hist": hist,
        "quantiles": _numbers(quantiles, "--quantiles", ".5,.9,.99"),
        "calibration": calibration,
        "confusion": confusion,
        "threshold": _numbers(threshold, "--threshold", ".5"),
        "gaps": gaps,
    }
    return {name: value for name, value in found.items() if value}


def _numbers(text: str, option: str, example: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected numbers, such as {example}") from None


def asked(arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of the tables of details that arguments ask for."""
    names = {
        "hist": ("histogram",),
        "quantiles": ("quantiles",),
        "calibration": ("calibration", "calibration_figures"),
        "confusion": ("confusion", "decisions"),
        "gaps": ("gaps",),
    }
    return [table for name in arguments for table in names.get(name, ())]


def suited(arguments: Mapping[str, Any], losses: Sequence[Any], pred_is: str) -> dict[str, Any]:
    """Return arguments without those that losses of the sample cannot answer: they take no probabilities."""
    found = dict(arguments)
    if not (scale(losses, pred_is) or all(e.by_rows for e in losses)):
        found.pop("calibration", None)
        found.pop("confusion", None)
    return found


def print_details(console: Any, report: "Report", print_rows: Callable[..., None]) -> None:
    """Print the tables and histograms of a report."""
    from ..report.pictures import BLOCKS, bars
    from ..report.tables import text_tables
    from ..report.text import figure

    for title, rows, left in text_tables(report):
        console.print(f"\n{printable(title)}", style="bold")
        print_rows(console, rows, left)
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
        blocks = True
    except UnicodeEncodeError:
        blocks = False
    for name, histogram in report.histograms.items():
        console.print(f"\nhistogram of {printable(name)}", style="bold")
        if len(histogram.counts):
            low, high = (figure(edge) for edge in histogram.edges[[0, -1]].tolist())
            console.print(f"{low} {bars(histogram, blocks)} {high}", soft_wrap=True, markup=False, highlight=False)
