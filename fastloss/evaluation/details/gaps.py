"""Gaps between groups: largest difference and ratio of losses and rates, with intervals that hold for all pairs."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..fixed_point import BIAS
from ..intervals import t_quantile
from .calibration import wilson

if TYPE_CHECKING:
    from ..report import Report

__all__ = ["RATES", "SMALL", "Gap", "gaps_of", "small_groups"]

NAN = math.nan

SMALL = 30
"""Rows below which a group is called small: its figures vary by more than most gaps."""

LEVEL = 0.95
"""Level of the intervals, for all pairs of groups together."""

ODDS = "equalized_odds"

RATES: dict[str, tuple[Any, Any]] = {
    "selection_rate": (np.array([[0, 1], [0, 1]]), np.array([[1, 1], [1, 1]])),
    "accuracy": (np.array([[1, 0], [0, 1]]), np.array([[1, 1], [1, 1]])),
    "precision": (np.array([[0, 0], [0, 1]]), np.array([[0, 1], [0, 1]])),
    "recall": (np.array([[0, 0], [0, 1]]), np.array([[0, 0], [1, 1]])),
    "false_positive_rate": (np.array([[0, 1], [0, 0]]), np.array([[1, 1], [0, 0]])),
}
"""Rates of decisions: the entries of a confusion matrix in the numerator, and in the denominator."""


class Gap(NamedTuple):
    """Largest difference of one figure between groups, and smallest ratio."""

    by: str
    """Columns of the grouping, joined by commas."""
    of: str
    """Label of a loss, or name of a rate; "equalized_odds" is the worse of recall and false positive rate."""
    threshold: float | None
    """Probability from which on decisions are positive; None for losses."""
    highest: Any
    """Key of the group with the largest value."""
    lowest: Any
    high_value: float
    low_value: float
    difference: float
    """Largest value less smallest."""
    difference_low: float
    """Ends of the interval, which holds at 95% for all pairs of groups at once (Bonferroni)."""
    difference_high: float
    ratio: float
    """Smallest value by largest; NaN unless both are positive, or the smallest is 0."""
    ratio_low: float
    ratio_high: float
    groups: int
    """Number of groups that have the figure."""


class Found(NamedTuple):
    """Figure of one group: its value, and what its interval takes."""

    key: Any
    value: float
    rows: float
    """Number of rows behind it; with weights the effective number (Kish, 1965)."""
    deviation: float
    """Standard deviation of the values averaged; NaN of a rate, whose interval is Wilson's."""


def gaps_of(by: tuple[str, ...], groups: Mapping[Any, "Report"]) -> list[Gap]:
    """Return the gaps of every loss, then of every rate of decisions, between the groups of one grouping."""
    reports = list(groups.items())
    if not reports:
        return []
    name = ",".join(by)
    found = [
        gap(name, label, None, [_of_loss(key, report, label) for key, report in reports]) for label in reports[0][1]
    ]
    decided = [(key, d.confusions) for key, report in reports if (d := report.details) and d.confusions]
    if not decided or decided[0][1].of_classes:
        return found
    keys = [key for key, _ in decided]
    tables = [each.tables() for _, each in decided]
    counts = np.array([table[0] for table in tables], np.float64)
    squares = np.array([table[-1] for table in tables], np.float64)
    for k, threshold in enumerate(decided[0][1].thresholds):
        rates = {rate: gap(name, rate, threshold, _of_rate(keys, counts, squares, k, rate)) for rate in RATES}
        found += [*rates.values(), _odds(rates["recall"], rates["false_positive_rate"])]
    return found


def _of_loss(key: Any, report: "Report", label: str) -> Found:
    statistics = report[label]
    rows = float(statistics.count)
    if statistics.weight_sum is not None:
        squares = report.details.squares if report.details else 0
        rows = statistics.weight_sum**2 / (squares / (1 << BIAS)) if squares else math.nan
    return Found(key, statistics.mean, rows, statistics.std)


def _of_rate(keys: list[Any], counts: Any, squares: Any, k: int, rate: str) -> list[Found]:
    """Return a rate at threshold k for every group, from counts (groups, thresholds + 1, label)."""
    part, whole = RATES[rate]

    def total(table: Any, chosen: Any) -> Any:
        # Axes of `chosen`: label, decision.
        return table[:, : k + 1].sum(axis=1) @ chosen[:, 0] + table[:, k + 1 :].sum(axis=1) @ chosen[:, 1]

    weight = total(counts, whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        values, rows = total(counts, part) / weight, weight * weight / total(squares, whole)
    return [Found(*each, math.nan) for each in zip(keys, values.tolist(), rows.tolist(), strict=True)]


def gap(by: str, of: str, threshold: float | None, found: Iterable[Found]) -> Gap:
    """Return the gap between the groups of largest and smallest value; groups without a value do not count."""
    known = [each for each in found if not math.isnan(each.value)]
    if not known:
        return Gap(by, of, threshold, None, None, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0)
    top, bottom = max(known, key=lambda each: each.value), min(known, key=lambda each: each.value)
    pairs = max(1, len(known) * (len(known) - 1) // 2)
    level = 1.0 - (1.0 - LEVEL) / pairs
    ends = (top.value, *_interval(top, level)), (bottom.value, *_interval(bottom, level))
    difference, ratio = of_difference(*ends), of_ratio(ends[1], ends[0])
    if len(known) == 1:
        difference, ratio = (0.0, math.nan, math.nan), (1.0, math.nan, math.nan)
    return Gap(by, of, threshold, top.key, bottom.key, top.value, bottom.value, *difference, *ratio, len(known))


def _interval(found: Found, level: float) -> tuple[float, float]:
    """Return the interval of one group's figure: Student's t of a mean, Wilson's of a rate."""
    if math.isnan(found.deviation):
        return wilson(found.value, found.rows, level) if 0.0 <= found.value <= 1.0 else (math.nan, math.nan)
    degrees = math.floor(found.rows) - 1 if math.isfinite(found.rows) else 0
    if degrees < 1:
        return math.nan, math.nan
    half = t_quantile(0.5 + level / 2, degrees) * found.deviation / math.sqrt(found.rows - 1)
    return found.value - half, found.value + half


def of_difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return first - second and its interval from their intervals (Newcombe, 1998; Zou and Donner, 2008)."""
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    return a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def of_ratio(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return first / second and its interval from their intervals (Donner and Zou, 2012); NaN where one has no end."""
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    if not (a >= 0.0 and b > 0.0):
        return math.nan, math.nan, math.nan
    product = (a * b) ** 2
    lower, upper = a_low * (2 * a - a_low), a_high * (2 * a - a_high)
    root = math.sqrt(max(0.0, product - lower * b_high * (2 * b - b_high)))
    low = max(0.0, lower / (a * b + root)) if a * b + root > 0.0 else 0.0
    high = math.nan
    if b_low > 0.0:
        bottom = b_low * (2 * b - b_low)
        high = (a * b + math.sqrt(max(0.0, product - upper * bottom))) / bottom
    return a / b, low if not math.isnan(a_low + b_high) else math.nan, high


def _odds(recall: Gap, false_positives: Gap) -> Gap:
    """Return the worse of two gaps: the larger difference, and the smaller ratio."""
    both = (recall, false_positives)
    known = [each for each in both if not math.isnan(each.difference)] or [recall]
    worse = max(known, key=lambda each: each.difference)
    ratios = [each for each in known if not math.isnan(each.ratio)] or [worse]
    least = min(ratios, key=lambda each: each.ratio)
    ratio = {name: getattr(least, name) for name in ("ratio", "ratio_low", "ratio_high")}
    return worse._replace(of=ODDS, **ratio)


def small_groups(groups: Mapping[Any, "Report"]) -> int:
    """Return the number of groups of few rows."""
    return sum(report.rows < SMALL for report in groups.values())
