"""Charts of a run: ratios to fastloss as bars, throughput against size, and the roofline. Needs matplotlib."""

import importlib.util
import io
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.columns import InputError
from ..evaluation.files import output, write_text
from .cases import power
from .contestants import OURS
from .report import Document, contestants, groups
from .run import Measured

__all__ = ["check", "draw", "draw_ratios"]

COLOURS = {
    "fastloss": "#0072B2",
    "no-out": "#56B4E9",
    "numpy": "#999999",
    "numexpr": "#F0E442",
    "scikit-learn": "#E69F00",
    "torch": "#D55E00",
    "torch.compile": "#CC79A7",
    "jax": "#009E73",
}
"""Colours of the contestants, from Okabe and Ito's palette, which colour-blind readers can distinguish."""

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LABELS = {"no-out": "fastloss without out="}
"""Legend names that differ from the contestants' names."""

WIDTH = 9.5
"""Width of the figures (inches)."""

BAR = 0.1
"""Height of a bar (inches): a label of 6 points (6/72) and a gap."""

FILLED = 0.84
"""Share of a row that its bars fill."""

MOST = 8
"""Most losses in a line chart."""

NAMED = 20
"""Most labelled points of the roofline, limited by space."""


def check(path: str) -> None:
    """Raise at once if matplotlib is missing or the file format is not supported."""
    if Path(path).suffix not in (".png", ".svg"):
        raise InputError(f"--plot is {path!r}; expected a file that ends in .png or .svg")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError('--plot needs matplotlib: pip install "fastloss[bench]"')


def draw(document: Document, path: str) -> None:
    """Draw the results of the first measured mode and dtype."""
    _save(path, lambda: _figure(document))


def draw_ratios(document: Document, path: str, labels: Collection[str]) -> None:
    """Draw only the bars of ratios, for the cases with these labels at their largest size."""
    _save(path, lambda: _bars(document, labels))


def _save(path: str, make: Callable[[], Any]) -> None:
    """Make a figure in the common style and write it as SVG or PNG."""
    import matplotlib

    settings: dict[str, Any] = {"font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 10}
    settings |= {"svg.hashsalt": "fastloss", "svg.fonttype": "none"}
    with matplotlib.rc_context({**settings, "axes.spines.top": False, "axes.spines.right": False}):
        figure = make()
        if Path(path).suffix == ".svg":
            write_text(path, _svg(figure))
        else:
            with output(path) as file:
                figure.savefig(file, format="png", dpi=150)


def _svg(figure: Any) -> str:
    """Return the figure as SVG, halved in size by fewer decimals and blanks."""
    text = io.StringIO()
    # No date: the same figures give the same file.
    figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"\n\s*", "\n", re.sub(r"(\d\.\d\d)\d+", r"\1", text.getvalue()))


def _figure(document: Document) -> Any:
    """Return the figure of all panels."""
    from matplotlib.figure import Figure

    title, results = _first(document)
    largest = _largest(results)
    bars = _height(largest)
    sweep = len({m.case.size for m in results}) > 1
    below = 3.6
    figure = Figure(figsize=(WIDTH, 0.5 + bars + below), layout="constrained")
    figure.suptitle(title, fontsize=10)
    top, bottom = figure.subfigures(2, 1, height_ratios=[bars, below])
    _ratios(top.subplots(), largest)
    panels = bottom.subplots(1, 2 if sweep else 1, squeeze=False)[0]
    if sweep:
        _throughput(panels[0], results)
    _roofline(panels[-1], largest)
    return figure


def _bars(document: Document, labels: Collection[str]) -> Any:
    """Return the figure of the bars alone."""
    from matplotlib.figure import Figure

    title, results = _first(document)
    shown = [m for m in _largest(results) if m.case.label in labels]
    figure = Figure(figsize=(WIDTH, 0.5 + _height(shown)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    _ratios(figure.subplots(), shown)
    return figure


def _first(document: Document) -> tuple[str, Sequence[Measured]]:
    """Return the title and the results of the first mode and dtype."""
    title, results = next(iter(groups(document.results).items()))
    machine = document.machine
    return f"fastloss: {title}\n{machine['processor']}, {machine['threads']} threads, {machine['date']}", results


def _height(results: Sequence[Measured]) -> float:
    """Return the height of the bars (inches): each has room for its label."""
    return 0.9 + BAR * len(results) * max(3, len(_named(results))) / FILLED


def _named(results: Sequence[Measured]) -> list[str]:
    """Return the contestants that have bars, in the order of the legend."""
    return [n for n in contestants(results) if n != OURS]


def _largest(results: Sequence[Measured]) -> list[Measured]:
    """Return the results of each loss at its largest size."""
    found: dict[str, Measured] = {}
    for m in results:
        if m.case.label not in found or m.case.size >= found[m.case.label].case.size:
            found[m.case.label] = m
    return list(found.values())


def _ratios(axes: Any, results: Sequence[Measured]) -> None:
    """Draw the time ratio of each contestant to fastloss as bars."""
    names = _named(results)
    height = FILLED / max(1, len(names))
    for i, name in enumerate(names):
        shown = [(row, m.timings[name].ratio) for row, m in enumerate(results) if name in m.timings]
        ys, widths = [row + (i - (len(names) - 1) / 2) * height for row, _ in shown], [r for _, r in shown]
        label = LABELS.get(name, name)
        axes.barh(ys, [w - 1.0 for w in widths], height, left=1.0, color=COLOURS.get(name), label=label, linewidth=0)
        for y, w in zip(ys, widths, strict=True):
            # A bar to the left of 1 has its label on the right of the line, where nothing else is.
            text, place = f"{w:.3g}", (max(w, 1.0), y)
            axes.annotate(text, place, (2, 0), textcoords="offset points", va="center_baseline", fontsize=6)
    axes.set_xscale("log")
    axes.axvline(1.0, color=COLOURS[OURS], linewidth=1.5)
    axes.set_yticks(range(len(results)), [f"{m.case.label}, {power(m.case.size)}" for m in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlabel("time as a multiple of fastloss's, at each loss's largest n")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, fontsize=8, frameon=False, ncols=8)
    _plain_numbers(axes.xaxis)


def _plain_numbers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high < 200 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _throughput(axes: Any, results: Sequence[Measured]) -> None:
    """Draw throughput (elements per second) against size: fastloss solid, NumPy dotted."""
    losses: dict[str, list[Measured]] = {}
    for m in results:
        losses.setdefault(m.case.label, []).append(m)
    swept = [(label, sorted(ms, key=lambda m: m.case.size)) for label, ms in losses.items() if len(ms) > 1][:MOST]
    for colour, (label, ms) in zip(LINES, swept, strict=False):
        for name, style in ((OURS, "o-"), ("numpy", "x:")):
            points = [(m.case.size, m.case.size / m.timings[name].median / 1e9) for m in ms if name in m.timings]
            label_once = label if name == OURS else None
            axes.plot(*zip(*points, strict=True), style, color=colour, label=label_once, markersize=3.5, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("n, numbers predicted")
    axes.set_title("Throughput, billions a second (dotted: NumPy)", loc="left")
    axes.legend(fontsize=7, frameon=False)
    _plain_numbers(axes.yaxis)


def _roofline(axes: Any, results: Sequence[Measured]) -> None:
    """Draw speed against arithmetic intensity, both relative to the limit of memory bandwidth."""
    import numpy as np

    weights, speeds = [], []
    for m in results:
        memory = min(m.roofs["copy"], m.roofs["triad"])
        weights.append(m.roofs["arithmetic"] / memory)
        speeds.append(memory / m.timings[OURS].median)
    x = np.geomspace(min(0.3, *weights) / 15.0, max(10.0, *weights) * 2.0, 100)
    axes.plot(x, np.minimum(1.0, 1.0 / x), color="black", linewidth=1.2)
    axes.fill_between(x, np.minimum(1.0, 1.0 / x), 3.0, color="#eeeeee", linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(min(0.05, *speeds) / 2.0, 3.0)
    axes.set_xlim(x[0], x[-1])
    axes.plot(weights, speeds, "o", color=COLOURS[OURS], markersize=5)
    if len(results) <= NAMED:
        _labels(axes, [m.case.label for m in results], weights, speeds)
    axes.set_xlabel("time of the arithmetic / time of the memory")
    axes.set_title("Roofline: speed as a share of the memory's", loc="left")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)


def _labels(axes: Any, names: Sequence[str], xs: Sequence[float], ys: Sequence[float]) -> None:
    """Write the names of points in a column to their left, with leader lines that do not cross."""
    import numpy as np

    (left, right), (low, high) = np.log10(axes.get_xlim()), np.log10(axes.get_ylim())
    # In a square of side 1, in which lengths on both axes compare.
    points = np.column_stack(((np.log10(xs) - left) / (right - left), (np.log10(ys) - low) / (high - low)))
    x, line = float(points[:, 0].min()) - 0.05, 0.052
    slots = np.column_stack((np.full(len(names), x), float(points[:, 1].max()) - line * np.arange(len(names))))
    arrow = {"arrowstyle": "-", "linewidth": 0.4, "color": "#666666", "shrinkA": 0, "shrinkB": 2, "relpos": (1, 0.5)}
    for i, slot in enumerate(_uncrossed(points, slots)):
        at = (10 ** (left + x * (right - left)), 10 ** (low + slots[slot, 1] * (high - low)))
        axes.annotate(names[i], (xs[i], ys[i]), at, fontsize=7, va="center", ha="right", arrowprops=arrow)


def _uncrossed(points: Any, slots: Any) -> list[int]:
    """Return a slot for each point, so that the lines between them do not cross."""
    import numpy as np

    lengths = np.hypot(*(points[:, None] - slots[None]).transpose(2, 0, 1))
    chosen = list(range(len(points)))
    # Two lines that cross are longer together than the two that exchange their ends: none crosses where no exchange
    # shortens their sum, and each exchange shortens it, so that the search ends.
    improved = True
    while improved:
        improved = False
        for i in range(len(points)):
            for j in range(i):
                a, b = chosen[i], chosen[j]
                if lengths[i, b] + lengths[j, a] < lengths[i, a] + lengths[j, b] - 1e-9:
                    chosen[i], chosen[j], improved = b, a, True
    return chosen
