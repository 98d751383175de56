"""Pictures of reports: bars of text for terminals, SVG for pages."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from ..details.calibration import Bin, Calibration
from ..details.distribution import Histogram
from .text import figure

__all__ = ["axis", "bars", "histogram_svg", "outer", "polygon", "reliability_svg", "ticks"]

BLOCKS, ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*#%@"

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 440, 180, 52, 30, 12
"""Sizes of a histogram (pixels): of all, and of the margins that hold labels."""

MOST_BARS = 400
"""Most bars of a picture: more than a screen shows."""


def heights(histogram: Histogram) -> Any:
    """Return the heights of a histogram's bars: sums of weights, or counts."""
    found = histogram.counts if histogram.weights is None else histogram.weights
    return np.asarray(found, np.float64)


def bars(histogram: Histogram, blocks: bool = True) -> str:
    """Return a histogram as one line of text; the least bar above nothing is visible."""
    marks = BLOCKS if blocks else ASCII
    tall = heights(histogram)
    top = tall.max(initial=0.0)
    if not top > 0.0 or not math.isfinite(top):
        return ""
    levels = np.ceil(tall / top * (len(marks) - 1)).astype(int)
    return "".join(marks[k] for k in levels.tolist())


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from low to high."""
    span = high - low
    if not (span > 0.0 and math.isfinite(span)):
        return [low] if math.isfinite(low) else []
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 1e-300 else raw
    step = next((m * power for m in (1.0, 2.0, 5.0) if m * power >= raw), 10.0 * power)
    if low + step == low:
        return [low]
    first, last = math.ceil(low / step), math.floor(high / step)
    return [k * step for k in range(first, last + 1)] if last - first <= 2 * most else [low, high]


def polygon(points: Sequence[tuple[float, float]], close: bool = False) -> str:
    """Return the path of a line through points."""
    text = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    return text + ("Z" if close else "")


def axis(low: float, high: float, start: float, stop: float, at: float) -> list[str]:
    """Return labels below a horizontal axis that shows low at `start` and high at `stop` (pixels)."""
    lines = [f'<path class="rule" d="M{start:.1f} {at:.1f}H{stop:.1f}"/>']
    span = high - low
    for value in ticks(low, high):
        x = start + (stop - start) * ((value - low) / span if span else 0.5)
        lines.append(f'<path class="rule" d="M{x:.1f} {at:.1f}v4"/>')
        lines.append(f'<text x="{x:.1f}" y="{at + 17:.1f}" text-anchor="middle">{figure(value)}</text>')
    return lines


def histogram_svg(name: str, histogram: Histogram) -> list[str]:
    """Return lines of an SVG of a histogram, and a sentence about its outer bins."""
    tall, edges = heights(histogram), histogram.edges
    count = len(tall)
    top = tall.max(initial=0.0)
    if not top > 0.0 or not math.isfinite(top) or not np.isfinite(edges[-1] - edges[0]):
        return []
    # The outer bins may reach far: they are drawn as wide as their neighbours.
    low, high = edges[0], edges[-1]
    if count > 2:
        width = (edges[-2] - edges[1]) / (count - 2)
        low, high = max(edges[0], edges[1] - width), min(edges[-1], edges[-2] + width)
    shown = np.concatenate([[low], edges[1:-1], [high]])
    x = LEFT + (WIDTH - LEFT - 16) * ((shown - low) / (high - low) if high > low else np.array([0.0, 1.0]))
    y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * tall / top
    path = "".join(
        f"M{x[i]:.1f} {HEIGHT - BOTTOM}V{y[i]:.1f}H{max(x[i + 1] - 0.8, x[i] + 0.4):.1f}V{HEIGHT - BOTTOM}Z"
        for i in range(count)
        if tall[i] > 0
    )
    label = f"Histogram of {name}: {histogram.counts.sum():,} values from {figure(edges[0])} to {figure(edges[-1])}"
    lines = [f'<svg class="plot" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(label)}">']
    lines.append(f'<path class="bars" d="{path}"/>')
    lines += axis(low, high, LEFT, WIDTH - 16, HEIGHT - BOTTOM)
    lines.append(f'<text x="{LEFT - 8}" y="{TOP + 4}" text-anchor="end">{short(top)}</text>')
    lines.append(f'<text x="{LEFT - 8}" y="{HEIGHT - BOTTOM}" text-anchor="end">0</text>')
    lines.append("</svg>")
    return lines


def outer(histogram: Histogram) -> str:
    """Return a sentence about outer bins that are wider than the others; empty where there are none."""
    edges, count = histogram.edges, len(histogram.counts)
    if count < 3:
        return ""
    width = 1.5 * (edges[-2] - edges[1]) / (count - 2)
    parts = []
    if edges[1] - edges[0] > width:
        parts.append(f"the first bin begins at {figure(edges[0])}")
    if edges[-1] - edges[-2] > width:
        parts.append(f"the last bin ends at {figure(edges[-1])}")
    return " and ".join(parts)


def short(value: float) -> str:
    """Return a count as a short text."""
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * power:
            return f"{value / power:.3g}{unit}"
    return f"{value:.4g}"


SIDE, MARGIN, COUNTS = 340, 46, 56
"""Sizes of a reliability diagram (pixels): side of the unit square, margin for labels, height of the counts below."""


class _Square(NamedTuple):
    """Place of the unit square in a picture (pixels)."""

    left: float = MARGIN
    bottom: float = 12.0 + SIDE

    def x(self, p: float) -> float:
        """Return the place of a predicted probability."""
        return self.left + SIDE * p

    def y(self, p: float) -> float:
        """Return the place of an observed share."""
        return self.bottom - SIDE * p


def reliability_svg(found: Calibration) -> list[str]:
    """Return lines of an SVG of a reliability diagram: bins with their intervals, isotonic regression, counts."""
    bins = [b for b in found.table() if b.rows and not math.isnan(b.observed)]
    if not bins:
        return []
    at = _Square()
    label = f"Reliability diagram: observed share by predicted probability, {found.count:,} rows"
    size = f"{SIDE + MARGIN + 16} {at.bottom + COUNTS + 54:.0f}"
    lines = [f'<svg class="plot square" role="img" viewBox="0 0 {size}" aria-label="{escape(label)}">']
    for b in bins:
        if not math.isnan(b.low):
            width, height = SIDE * (b.upper - b.lower), max(0.5, SIDE * (b.high - b.low))
            place = f'x="{at.x(b.lower):.1f}" y="{at.y(b.high):.1f}"'
            lines.append(f'<rect class="band" {place} width="{width:.1f}" height="{height:.1f}"/>')
    lines.append(f'<path class="rule" d="M{at.x(0)} {at.y(0)}V{at.y(1)}H{at.x(1)}V{at.y(0)}Z"/>')
    lines.append(f'<path class="ideal" d="M{at.x(0)} {at.y(0)}L{at.x(1)} {at.y(1)}"/>')
    lines.append(f'<path class="fit" d="{polygon(_steps(found, at))}"/>')
    lines += [f'<circle class="dot" cx="{at.x(b.predicted):.1f}" cy="{at.y(b.observed):.1f}" r="4"/>' for b in bins]
    for value in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f'<text x="{MARGIN - 8}" y="{at.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    turned = f'x="12" y="{at.y(0.5):.1f}" text-anchor="middle" transform="rotate(-90 12 {at.y(0.5):.1f})"'
    return [*lines, f"<text {turned}>observed share</text>", *_counts(bins, at), "</svg>"]


def _counts(bins: Sequence[Bin], at: _Square) -> list[str]:
    """Return lines of an SVG of the rows in each bin, below the unit square."""
    base, most = at.bottom + COUNTS + 12, max(b.rows for b in bins)
    lines = []
    for b in bins:
        height = max(1.0, COUNTS * b.rows / most)
        place = f'x="{at.x(b.lower) + 1:.1f}" y="{base - height:.1f}"'
        lines.append(f'<rect class="bars" {place} width="{SIDE * (b.upper - b.lower) - 2:.1f}" height="{height:.1f}"/>')
    lines += axis(0.0, 1.0, at.x(0), at.x(1), base)
    lines.append(f'<text x="{MARGIN - 8}" y="{base - COUNTS + 10:.1f}" text-anchor="end">{short(most)}</text>')
    lines.append(f'<text x="{at.x(0.5):.1f}" y="{base + 34:.1f}" text-anchor="middle">predicted probability</text>')
    return lines


def _steps(found: Calibration, at: _Square) -> list[tuple[float, float]]:
    """Return the isotonic regression as points: the ends of each level, a tenth of a pixel apart at the least."""
    points: list[tuple[float, float]] = []
    predicted, fitted = found.curve()
    ends = np.flatnonzero(np.diff(fitted)) if len(fitted) else np.zeros(0, int)
    kept = np.unique(np.concatenate([[0], ends, ends + 1, [len(fitted) - 1]])).astype(int)
    for p, share in zip(predicted[kept].tolist(), fitted[kept].tolist(), strict=True):
        point = round(at.x(p), 1), round(at.y(share), 1)
        if not points or point != points[-1]:
            points.append(point)
    return points
