"""What became of each case: slower, faster, unchanged, or nobody can tell; and the table that says so."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..evaluation.columns import InputError
from .intervals import ALPHA, Interval, between, fewest, of_median

__all__ = ["Change", "Changes", "Samples", "compared", "paired", "publish", "round_by_round", "verdict"]

ARROWS = {"regression": "▲", "slower": "▲", "faster": "▼", "inconclusive": "?", "unchanged": "="}
"""The verdicts, in the order in which a reader wants to see them."""


class Change(NamedTuple):
    """One case: the ratio of candidate to reference before and after, and the change between them."""

    case: str
    old: float
    new: float
    interval: Interval
    verdict: str


@dataclass(frozen=True)
class Changes:
    """All cases that two sides share, and the names of those that only one has."""

    rows: list[Change]
    threshold: float
    rounds: int
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def regressions(self) -> list[str]:
        """The cases that make a gate fail."""
        return [r.case for r in self.rows if r.verdict == "regression"]

    @property
    def suspects(self) -> list[str]:
        """The cases that are not known to be unchanged."""
        return [r.case for r in self.rows if r.verdict != "unchanged"]

    @property
    def code(self) -> int:
        """The exit code: 1 after a regression, 2 where not one case could be judged, else 0."""
        if self.regressions:
            return 1
        return 2 if all(r.verdict == "inconclusive" for r in self.rows) else 0

    def markdown(self, title: str) -> str:
        """A table for people: in a terminal, a pull request or a step summary."""
        order = list(ARROWS)
        rows = sorted(self.rows, key=lambda r: (order.index(r.verdict), -r.interval.ratio))
        cells = [["", "case", "before", "after", "change", "interval", "verdict"]]
        cells += [_cells(r) for r in rows]
        lines = [f"### {title}", "", self._headline(), "", *_table(cells), ""]
        lines += [f"- new, nothing to compare with: {_names(self.added)}"] if self.added else []
        lines += [f"- no longer there: {_names(self.removed)}"] if self.removed else []
        lines += [f"- {note}" for note in self.notes]
        lines += [
            f"- before, after: time of the candidate over that of its reference, median of {self.rounds} rounds or"
            f" more; the intervals hold together at {1 - ALPHA:.0%}",
        ]
        return "\n".join(lines) + "\n"

    def _headline(self) -> str:
        count, total = len(self.regressions), len(self.rows)
        noun = "case" if total == 1 else "cases"
        if count:
            return f"**{count} of {total} {noun} slower by more than {self.threshold:.0%}.**"
        if self.code == 2:
            return f"**Nothing could be judged: the noise hides a change of {self.threshold:.0%} in all cases.**"
        return f"No regression: of {total} {noun}, none became slower by more than {self.threshold:.0%}."


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{n}`" for n in names)


def _cells(row: Change) -> list[str]:
    ratio, low, high = (f"{100 * (x - 1):+.1f}%" for x in row.interval)
    strong = "**" if row.verdict == "regression" else ""
    figures = [f"{row.old:.3g}", f"{row.new:.3g}", f"{strong}{ratio}{strong}", f"{low} to {high}"]
    return [ARROWS[row.verdict], row.case.replace("|", "\\|"), *figures, f"{strong}{row.verdict}{strong}"]


def _table(cells: list[list[str]]) -> list[str]:
    """Columns of one width, as a terminal shows the same text."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = (False, False, True, True, True, True, False)
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return [lines[0], rule, *lines[1:]]


def verdict(interval: Interval, threshold: float) -> str:
    """What an interval says.

    Unchanged where all of it lies within the threshold. Otherwise slower or faster where 1 lies outside, and
    inconclusive where it does not. A regression is what is slower and by its estimate over the threshold.
    """
    ratio, low, high = interval
    if high < 1 + threshold and low > 1 / (1 + threshold):
        return "unchanged"
    if low > 1:
        return "regression" if ratio > 1 + threshold else "slower"
    return "faster" if high < 1 else "inconclusive"


@dataclass
class Samples:
    """Seconds per call of a case's candidate and of its reference, one a round."""

    candidate: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Candidate over reference, round by round."""
        return [c / r for c, r in zip(self.candidate, self.reference, strict=True)]


Sides = tuple[Mapping[str, Samples], Mapping[str, Samples]]
"""The cases of the older and of the newer side."""


def compared(sides: Sides, threshold: float) -> Changes:
    """Two sides that were measured apart, so that only their ratios to the reference can be compared."""

    def change(old: Samples, new: Samples, cases: int) -> tuple[float, float, Interval]:
        before, after = statistics.median(old.ratios), statistics.median(new.ratios)
        return before, after, between(old.ratios, new.ratios, cases)

    return _changes(sides, threshold, change)


def paired(sides: Sides, threshold: float) -> Changes:
    """Two sides whose candidates were timed next to each other, round by round.

    Time over time within a round is what machine and moment cancel from. To divide either by a reference first adds
    its noise: on a busy machine, that of the result grew two to eight times.
    """

    def change(old: Samples, new: Samples, cases: int) -> tuple[float, float, Interval]:
        interval = of_median(round_by_round(old.candidate, new.candidate), cases)
        before = statistics.median(old.candidate) / statistics.median(old.reference + new.reference)
        return before, before * interval.ratio, interval

    return _changes(sides, threshold, change)


def round_by_round(old: Sequence[float], new: Sequence[float]) -> list[float]:
    """The change in each round."""
    return [after / before for before, after in zip(old, new, strict=True)]


def _changes(
    sides: Sides, threshold: float, change: Callable[[Samples, Samples, int], tuple[float, float, Interval]]
) -> Changes:
    """Every case that both sides have; a comparison that could find nothing is an error, not a success."""
    old, new = sides
    names = [n for n in old if n in new]
    if not names:
        raise InputError("there is nothing to compare: no case is on both sides")
    counts = {n: min(len(side[n].candidate) for side in sides) for n in names}
    fewest_rounds = min(names, key=counts.__getitem__)
    if counts[fewest_rounds] < fewest(len(names)):
        raise InputError(
            f"{fewest_rounds} has {counts[fewest_rounds]} rounds; to judge {len(names)} cases, each needs at least"
            f" {fewest(len(names))}"
        )
    rows = []
    for name in names:
        before, after, interval = change(old[name], new[name], len(names))
        rows.append(Change(name, before, after, interval, verdict(interval, threshold)))
    added, removed = [n for n in new if n not in old], [n for n in old if n not in new]
    return Changes(rows, threshold, counts[fewest_rounds], added, removed)


def publish(text: str, markdown: str | None) -> None:
    """Print; write to a file where one is named, and to the summary of the step where a workflow runs this."""
    print(text, end="")
    if markdown is not None:
        Path(markdown).write_text(text, encoding="utf-8")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text + "\n")
