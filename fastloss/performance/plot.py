"""Draws a run: ratios to fastloss as bars, throughput against size, and the roofline. Needs matplotlib."""

import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation.columns import InputError
from .cases import power
from .contestants import OURS
from .report import Document, contestants, groups
from .run import Measured

__all__ = ["check", "draw"]

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
"""By contestant: Okabe and Ito's palette, which colour-blind readers tell apart."""

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MOST = 8
"""Losses that a panel of lines can show."""

NAMED = 20
"""Points of the roofline that there is room to name."""


def check(path: str) -> None:
    """Refuse at once what could not be drawn in the end."""
    if Path(path).suffix not in (".png", ".svg"):
        raise InputError(f"--plot is {path!r}; expected a file that ends in .png or .svg")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError('--plot needs matplotlib: pip install "fastloss[bench]"')


def draw(document: Document, path: str) -> None:
    """Draw the results of the first mode and precision that were measured."""
    import matplotlib

    settings: dict[str, Any] = {"font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 10}
    settings |= {"svg.hashsalt": "fastloss", "svg.fonttype": "none"}
    title, results = next(iter(groups(document.results).items()))
    with matplotlib.rc_context({**settings, "axes.spines.top": False, "axes.spines.right": False}):
        figure = _figure(title, results, document)
        if Path(path).suffix == ".svg":
            Path(path).write_text(_svg(figure), encoding="utf-8")
        else:
            figure.savefig(path, dpi=150)


def _svg(figure: Any) -> str:
    """The figure as SVG without what makes it twice as large: six decimals of a pixel, and blanks."""
    text = io.StringIO()
    # No date: the same figures give the same file.
    figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"\n\s*", "\n", re.sub(r"(\d\.\d\d)\d+", r"\1", text.getvalue()))


def _figure(title: str, results: Sequence[Measured], document: Document) -> Any:
    from matplotlib.figure import Figure

    largest = _largest(results)
    bars = 0.35 + 0.07 * len(largest) * max(3, len(contestants(largest)))
    sweep = len({m.case.size for m in results}) > 1
    below = 3.6
    figure = Figure(figsize=(9.5, 1.0 + bars + below), layout="constrained")
    machine = document.machine
    where = f"{machine['processor']}, {machine['threads']} threads, {machine['date']}"
    figure.suptitle(f"fastloss: {title}\n{where}", fontsize=10)
    top, bottom = figure.subfigures(2, 1, height_ratios=[bars + 0.5, below])
    _ratios(top.subplots(), largest)
    panels = bottom.subplots(1, 2 if sweep else 1, squeeze=False)[0]
    if sweep:
        _throughput(panels[0], results)
    _roofline(panels[-1], largest)
    return figure


def _largest(results: Sequence[Measured]) -> list[Measured]:
    """Each loss at its largest size."""
    found: dict[str, Measured] = {}
    for m in results:
        if m.case.label not in found or m.case.size >= found[m.case.label].case.size:
            found[m.case.label] = m
    return list(found.values())


def _ratios(axes: Any, results: Sequence[Measured]) -> None:
    """Bars of how many times as long each contestant takes."""
    names = [n for n in contestants(results) if n != "no-out"]
    height = 0.84 / max(1, len(names))
    for i, name in enumerate(names):
        shown = [(row, m.timings[name].ratio) for row, m in enumerate(results) if name in m.timings]
        ys, widths = [row + (i - (len(names) - 1) / 2) * height for row, _ in shown], [r for _, r in shown]
        axes.barh(ys, [w - 1.0 for w in widths], height, left=1.0, color=COLOURS.get(name), label=name, linewidth=0)
        for y, w in zip(ys, widths, strict=True):
            at, side = (w, "left") if w >= 1 else (1.0, "left")
            axes.annotate(f"{w:.3g}", (at, y), (2, 0), textcoords="offset points", va="center", ha=side, fontsize=6)
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
    if high < 30 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _throughput(axes: Any, results: Sequence[Measured]) -> None:
    """Elements a second against size: solid fastloss, dotted NumPy."""
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
    """Speed against the weight of the arithmetic, both in units of what the memory allows."""
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
    """Names of points in a column to the left of all, in the order of their heights, so that lines hardly cross."""
    import numpy as np

    low, high = np.log10(axes.get_ylim())
    line = 0.052 * (high - low)
    at, below = min(xs) / 1.6, np.inf
    for i in sorted(range(len(names)), key=lambda i: (-round(np.log10(ys[i]) / line), xs[i])):
        y = min(np.log10(ys[i]), below - line)
        below = y
        arrow = {
            "arrowstyle": "-",
            "linewidth": 0.4,
            "color": "#666666",
            "shrinkA": 0,
            "shrinkB": 2,
            "relpos": (1, 0.5),
        }
        point = (xs[i], ys[i])
        axes.annotate(names[i], point, (at, 10.0**y), fontsize=7, va="center", ha="right", arrowprops=arrow)
