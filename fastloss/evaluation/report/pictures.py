"""Pictures of reports: bars of text for terminals, SVG for pages."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from ..details.distribution import Histogram
from .text import figure

__all__ = ["axis", "bars", "histogram_svg", "polygon", "ticks"]

BLOCKS, ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*#%@"

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 200, 56, 30, 12
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
