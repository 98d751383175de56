"""Verdict on each case (slower, faster, unchanged or undecided), and the table of verdicts."""

import math
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .._terminal import printable
from ..evaluation.columns import InputError
from ..evaluation.files import write_text
from .intervals import ALPHA, Interval, between, fewest, fewest_pairs, of_pairs
from .sampling import Samples

__all__ = [
    "CANNOT_TELL",
    "Change",
    "Changes",
    "code",
    "compared",
    "one_line",
    "pair_by_pair",
    "paired",
    "publish",
    "verdict",
]

CANNOT_TELL = "cannot tell"

ARROWS = {"regression": "▲", CANNOT_TELL: "?", "faster": "▼", "not slower": "≤", "unchanged": "="}
"""Symbols of the verdicts, most important first."""


class Change(NamedTuple):
    """Change of one case: the ratio of candidate to reference before and after, and their quotient."""

    case: str
    old: float
    new: float
    interval: Interval
    verdict: str


@dataclass(frozen=True)
class Changes:
    """Changes of the cases that two sides share, and the names of cases that only one side has."""

    rows: list[Change]
    threshold: float
    processes: int
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def regressions(self) -> list[str]:
        """Cases that make a gate fail."""
        return [r.case for r in self.rows if r.verdict == "regression"]

    @property
    def untold(self) -> list[str]:
        """Cases that could not be judged."""
        return [r.case for r in self.rows if r.verdict == CANNOT_TELL]

    @property
    def code(self) -> int:
        """Exit code: 1 after a regression, 2 where no case could be judged, else 0."""
        if self.regressions:
            return 1
        return 2 if len(self.untold) == len(self.rows) else 0

    def markdown(self, title: str) -> str:
        """Return a Markdown table for a terminal, a pull request or a step summary."""
        order = list(ARROWS)
        rows = sorted(self.rows, key=lambda r: (order.index(r.verdict), -np.nan_to_num(r.interval.ratio)))
        cells = [["", "case", "before", "after", "change", "interval", "verdict"]]
        cells += [_cells(r) for r in rows]
        lines = [f"### {title}", "", self._headline(), "", *_table(cells), ""]
        lines += [f"- new, nothing to compare with: {_names(self.added)}"] if self.added else []
        lines += [f"- no longer there: {_names(self.removed)}"] if self.removed else []
        lines += [f"- {note}" for note in self.notes]
        lines += [
            f"- before, after: time of the candidate over that of its reference, median of {self.processes} processes"
            f" or more; the intervals hold together at {1 - ALPHA:.0%}",
        ]
        return "\n".join(lines) + "\n"

    def _headline(self) -> str:
        count, total = len(self.regressions), len(self.rows)
        noun = "case" if total == 1 else "cases"
        if count:
            return f"**{count} of {total} {noun} slower by more than {self.threshold:.0%}.**"
        if self.code == 2:
            return f"**Nothing could be judged: the noise hides a change of {self.threshold:.0%} in all cases.**"
        if self.untold:
            judged = total - len(self.untold)
            return (
                f"No regression found: {judged} of {total} {noun} could be judged, and none of these became"
                f" slower by more than {self.threshold:.0%}."
            )
        return f"No regression: of {total} {noun}, none became slower by more than {self.threshold:.0%}."


def one_line(text: object) -> str:
    """Return a name without control characters and line breaks; "?" where the result would be empty."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split()) or "?"


def code(text: object, in_table: bool = False) -> str:
    """Return a name as a Markdown code span on one line, free of markup, links and mentions."""
    flat = one_line(text).replace("|", "\\|" if in_table else "|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    room = " " if len(fence) > 1 else ""
    return f"{fence}{room}{flat}{room}{fence}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(code(n) for n in names)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%" if math.isfinite(ratio) else "?"


def _cells(row: Change) -> list[str]:
    ratio, low, high = (_percent(x) for x in row.interval)
    strong = "**" if row.verdict == "regression" else ""
    interval = f"{low} to {high}" if math.isfinite(row.interval.high) else "unknown"
    figures = [f"{row.old:.3g}", f"{row.new:.3g}", f"{strong}{ratio}{strong}", interval]
    return [ARROWS[row.verdict], code(row.case, in_table=True), *figures, f"{strong}{row.verdict}{strong}"]


def _table(cells: list[list[str]]) -> list[str]:
    """Return a Markdown table with padded columns, legible in a terminal."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = (False, False, True, True, True, True, False)
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return [lines[0], rule, *lines[1:]]


def verdict(interval: Interval, threshold: float) -> str:
    """Return the verdict on a confidence interval.

    A regression is slower by more than the threshold even at the lower end of its interval. Where only the upper end
    is beyond the threshold, the case is undecided. An interval within the threshold to either side is unchanged.
    """
    if interval.low > 1 + threshold:
        return "regression"
    if interval.high >= 1 + threshold:
        return CANNOT_TELL
    if interval.low > 1 / (1 + threshold):
        return "unchanged"
    return "faster" if interval.high < 1 else "not slower"


Sides = tuple[Mapping[str, Sequence[Samples]], Mapping[str, Sequence[Samples]]]
"""Cases of the older and the newer side, each with its samples by process."""


def compared(sides: Sides, threshold: float, is_one_machine: bool) -> Changes:
    """Compare two sides that were measured separately, by the ratios of their processes.

    On one machine a regression must show in seconds too. Otherwise a reference that became faster, or happened to run
    faster at the time, would count as a slower candidate.
    """

    def change(name: str, old: Sequence[Samples], new: Sequence[Samples], cases: int) -> tuple[Change, str]:
        before, after = ([s.ratio for s in side if not math.isnan(s.ratio)] for side in (old, new))
        interval = between(before, after, cases)
        found = verdict(interval, threshold)
        reason = _too_few(min(len(before), len(after)), fewest(cases), max(len(old), len(new)))
        if found == "regression" and is_one_machine:
            seconds = between(_known(old), _known(new), cases)
            if seconds.low <= 1:
                found, reason = CANNOT_TELL, f"its seconds changed by {_percent(seconds.ratio)}, not slower for certain"
        return Change(name, _centre(before), _centre(after), interval, found), reason

    return _changes(sides, threshold, change)


def paired(sides: Sides, threshold: float) -> Changes:
    """Compare two sides whose processes ran in pairs, sample by sample, by the seconds of their candidates.

    The state of the machine cancels in the ratio of times within a pair. Dividing each by a reference first adds the
    reference's noise: on a busy machine, the noise of the result grew two to eight times.
    """

    def change(name: str, old: Sequence[Samples], new: Sequence[Samples], cases: int) -> tuple[Change, str]:
        changes = pair_by_pair(old, new)
        interval = of_pairs(changes, cases)
        before = _centre([s.ratio for s in old if not math.isnan(s.ratio)])
        reason = _too_few(len(changes), fewest_pairs(cases), len(old))
        return Change(name, before, before * interval.ratio, interval, verdict(interval, threshold)), reason

    return _changes(sides, threshold, change)


def pair_by_pair(old: Sequence[Samples], new: Sequence[Samples], which: str = "candidate") -> list[float]:
    """Return the ratio of newer to older seconds for each pair of processes in which both were measured."""
    changes = [b.seconds(which) / a.seconds(which) for a, b in zip(old, new, strict=True)]
    return [x for x in changes if not math.isnan(x)]


def _known(processes: Sequence[Samples]) -> list[float]:
    times = [s.seconds("candidate") for s in processes]
    return [t for t in times if not math.isnan(t)]


def _centre(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def _too_few(count: int, needed: int, processes: int) -> str:
    """Return the reason that a case with disturbed processes is undecided."""
    if count >= needed:
        return ""
    return f"other work left {count} of {processes} processes undisturbed, of which it takes {needed}"


def _changes(
    sides: Sides,
    threshold: float,
    change: Callable[[str, Sequence[Samples], Sequence[Samples], int], tuple[Change, str]],
) -> Changes:
    """Return the changes of the cases that both sides have; raise where the sides have no case in common."""
    old, new = sides
    names = [n for n in old if n in new]
    if not names:
        raise InputError("there is nothing to compare: no case is on both sides")
    rows, notes = [], []
    for name in names:
        row, reason = change(name, old[name], new[name], len(names))
        rows.append(row)
        if reason and row.verdict == CANNOT_TELL:
            notes.append(f"cannot tell {code(name)}: {reason}")
    processes = min(len(side[n]) for side in sides for n in names)
    added, removed = [n for n in new if n not in old], [n for n in old if n not in new]
    return Changes(rows, threshold, processes, added, removed, notes)


def publish(text: str, markdown: str | None) -> None:
    """Print the table, and write it to the given file and to the step summary of a running workflow."""
    print("\n".join(map(printable, text.split("\n"))), end="")
    if markdown is not None:
        write_text(markdown, text)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text + "\n")
