"""History of a project's ratios: one line of JSON per commit, and a chart."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from ..evaluation.columns import InputError
from .changes import one_line
from .intervals import Interval, of_pairs
from .records import Record, whole

__all__ = ["Entry", "add", "draw", "read"]

COLOURS = ("#3b6fb6", "#d9772b", "#3f9b58", "#c2474c", "#7d62b0", "#8c6248", "#c965a5", "#5f6b76", "#a39a24", "#2c9fae")

SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "color": "#6b7683"}


class Entry(NamedTuple):
    """Ratios of one commit."""

    commit: str
    date: str
    machine: str
    cases: dict[str, Interval]


def read(path: str) -> list[Entry]:
    """Return the entries of a file, oldest first; an empty list where there is no file."""
    if not Path(path).exists():
        return []
    entries = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            found = json.loads(line)
            cases = {n: _interval(c) for n, c in found["cases"].items()}
            entry = Entry(found["commit"], found["date"], found["machine"], cases)
            if not all(isinstance(text, str) for text in entry[:3]):
                raise TypeError("commit, date and machine are texts")
            entries.append(entry)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
            raise InputError(f"{path}, line {number} is no entry of a history: {line[:60]}") from None
    return entries


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is no history; expected lines of JSON in UTF-8") from None


def _interval(given: Any) -> Interval:
    """Return a ratio with its bounds; raise unless all are positive and finite."""
    ratio, low, high = (float(x) for x in given)
    if not 0 < low <= ratio <= high < math.inf:
        raise ValueError("an interval has a ratio between its bounds")
    return Interval(ratio, low, high)


def add(path: str, record: Record, commit: str | None) -> None:
    """Append a record's ratios as one line, replacing the file atomically."""
    entries = [*read(path), _entry(record, commit or _commit())]
    lines = [json.dumps(e._asdict(), separators=(",", ":"), allow_nan=False) for e in entries]
    with whole(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _entry(record: Record, commit: str) -> Entry:
    machine = record.machine
    cases = {n: Interval(*(float(f"{x:.4g}") for x in of_pairs(record.ratios(n)))) for n in record.cases}
    unsure = [n for n, i in cases.items() if not math.isfinite(i.high)]
    if unsure:
        raise InputError(
            f"the record has too few undisturbed processes for an interval of {unsure[0]!r}; record it again on a"
            " machine that is less busy, or with more --processes"
        )
    return Entry(commit, str(machine.get("date", "")), str(machine.get("processor", "")), cases)


def _commit() -> str:
    """Return the commit that a workflow runs on, or the one checked out in the folder."""
    if os.environ.get("GITHUB_SHA"):
        return os.environ["GITHUB_SHA"]
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def draw(entries: list[Entry], path: str) -> None:
    """Draw every case over the commits, with its interval as a shaded band."""
    kind = Path(path).suffix[1:]
    if kind not in ("svg", "png"):
        raise InputError(f"plot is {path}; expected FILE.svg or FILE.png")
    if not entries:
        raise InputError("there is nothing to draw: the history is empty; append to it with --add RECORD.json")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError('drawing needs matplotlib: pip install "fastloss[track]"') from None
    names = sorted({n for e in entries for n in e.cases}, key=lambda n: _last(entries, n))
    figure = Figure(figsize=(11, max(4.4, 0.24 * len(names) + 2.0)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for colour, name in zip(_cycle(len(names)), names, strict=True):
        _line(axes, entries, name, colour)
    _frame(axes, entries)
    _labels(axes, [(n, _last(entries, n), c) for n, c in zip(names, _cycle(len(names)), strict=True)])
    # Text as text: a third of the size, and found by a search.
    with whole(path) as file, rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastloss"}):
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else {})


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _last(entries: list[Entry], name: str) -> float:
    return next(e.cases[name].ratio for e in reversed(entries) if name in e.cases)


def _line(axes: Any, entries: list[Entry], name: str, colour: str) -> None:
    missing = Interval(math.nan, math.nan, math.nan)
    ratio, low, high = zip(*(e.cases.get(name, missing) for e in entries), strict=True)
    x = range(len(entries))
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    if len(entries) < 3:  # a shade needs width
        axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=2.0)
    axes.plot(x, ratio, color=colour, linewidth=1.8, marker="o", markersize=3.5 if len(entries) < 60 else 0)


def _frame(axes: Any, entries: list[Entry]) -> None:
    """Draw the axes, the commits, the reference line and the changes of machine."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    count = len(entries)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}x"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axhline(1.0, color="#3c4650", linewidth=1.0, linestyle=(0, (4, 3)))
    axes.annotate("the reference", (0.0, 1.0), xycoords=("axes fraction", "data"), xytext=(2, 3), **SMALL)
    step = max(1, math.ceil(count / 9))
    ticks = list(range(count - 1, -1, -step))[::-1]
    axes.set_xticks(ticks, [_tick(entries[i]) for i in ticks], parse_math=False)
    for i in range(1, count):
        if entries[i].machine != entries[i - 1].machine:
            axes.axvline(i - 0.5, color="#9aa5b1", linewidth=0.9, linestyle=":")
            axes.annotate("other machine", (i - 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -8), **SMALL)
    axes.set_xlim(-0.3, max(count - 1, 1) + 0.02 * count)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors="#3c4650", labelsize=8.5)
    axes.set_title("Time over that of the reference (1x), with 95% intervals: lower is faster", loc="left", fontsize=11)


def _tick(entry: Entry) -> str:
    return f"{one_line(entry.commit)[:7]}\n{one_line(entry.date)}"


def _labels(axes: Any, ends: list[tuple[str, float, str]]) -> None:
    """Write names beside the ends of their lines, moved apart until none overlap."""
    axes.figure.canvas.draw()
    low, high = (math.log(y) for y in axes.get_ylim())
    places = [(math.log(y) - low) / (high - low) for _, y, _ in ends]
    gap = 9.5 * axes.figure.dpi / 72 / axes.get_window_extent().height
    for _ in range(200):
        for i in range(1, len(places)):
            short = gap - (places[i] - places[i - 1])
            if short > 1e-6:
                places[i - 1] -= short / 2
                places[i] += short / 2
    for (name, y, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            f"{one_line(name)}  {y:.3g}x",
            (1.0, (math.log(y) - low) / (high - low)),
            parse_math=False,  # a dollar in a name is no formula
            xycoords="axes fraction",
            xytext=(1.03, place),
            textcoords="axes fraction",
            fontsize=8,
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 1},
        )
