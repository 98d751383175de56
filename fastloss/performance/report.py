"""Figures as a table: the same cells for a terminal, a pipe and Markdown."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .cases import power
from .contestants import OURS
from .machine import sentence
from .run import Measured

__all__ = ["NOTES", "Document", "cells", "duration", "groups", "losing", "markdown"]

LOST = "!"
"""Marks a contestant that is faster than fastloss."""

NOTES = (
    "Contestants: times as long as fastloss takes, the median over rounds; ! marks one that is faster.",
    "GB/s: what must be read and written. triad: speed relative to g = p - t on arrays of this size.",
    "roof: share of the limit's speed, that of (m)emory or of the loss's (a)rithmetic on data in cache.",
)


@dataclass(frozen=True)
class Document:
    """A run: the machine, and what was measured of each case."""

    machine: dict[str, Any]
    rounds: int
    results: list[Measured]
    startup: dict[str, float] = field(default_factory=dict)
    """Seconds until a process can begin: `import`, and `first result`."""

    def to_json(self) -> str:
        """The document as JSON text."""
        results = [r.to_dict() for r in self.results]
        return json.dumps({**vars(self), "results": results}, indent=1)

    @staticmethod
    def read(text: str) -> "Document":
        """The inverse of `to_json`."""
        given = json.loads(text)
        return Document(**{**given, "results": [Measured.read(r) for r in given["results"]]})

    @property
    def beginnings(self) -> str:
        """How long a process takes to begin, in a line; empty where that was not measured."""
        return ", ".join(f"{k}: {duration(v)}" for k, v in self.startup.items())


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them, three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _spread(m: Measured) -> str:
    """The 20th and 80th percentiles, in per cent of the median."""
    t = m.timings[OURS]
    return f"{100 * (t.p20 / t.median - 1):+.0f} {100 * (t.p80 / t.median - 1):+.0f}%"


def ratio(m: Measured, name: str) -> str:
    """How many times as long a contestant takes, or why it is missing."""
    timing = m.timings.get(name)
    if timing is None:
        return "failed" if name in m.errors else "-"
    lost = LOST if name in m.lost else ""
    return f"{timing.ratio:.0f}" if timing.ratio >= 100 else f"{timing.ratio:.{2 if timing.ratio < 10 else 1}f}{lost}"


def memory(m: Measured, name: str) -> str:
    """What a call takes at its peak."""
    timing = m.timings.get(name)
    if timing is None or timing.memory is None:
        return "-"
    return next(f"{timing.memory / s:.3g} {u}" for u, s in (("MB", 1e6), ("kB", 1e3), ("B", 1)) if timing.memory >= s)


def _start(m: Measured, kind: str) -> str:
    return duration(m.compile[kind]) if kind in m.compile else "-"


Column = tuple[str, Callable[[Measured], str]]

COLUMNS: list[Column] = [
    ("loss", lambda m: m.case.label),
    ("n", lambda m: power(m.case.size)),
    ("median", lambda m: duration(m.timings[OURS].median)),
    ("p20 p80", _spread),
    ("GB/s", lambda m: f"{m.bandwidth / 1e9:.3g}"),
    ("triad", lambda m: f"{m.fraction('triad'):.2f}"),
    ("roof", lambda m: f"{m.of_roof:.2f}{m.bound[0]}"),
]


def groups(results: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Results by what was asked for: mode and precision."""
    found: dict[str, list[Measured]] = {}
    for m in results:
        found.setdefault(f"{m.case.mode}, {m.case.dtype}", []).append(m)
    return found


def contestants(results: Iterable[Measured]) -> list[str]:
    """Every contestant but fastloss, in the order in which they appear."""
    return list(dict.fromkeys(n for m in results for n in (*m.timings, *m.errors) if n != OURS))


def cells(results: Sequence[Measured]) -> list[list[str]]:
    """Heading and rows of a table of times."""
    columns: list[Column] = [*COLUMNS, *((n, partial(ratio, name=n)) for n in contestants(results))]
    return [[name for name, _ in columns], *([cell(m) for _, cell in columns] for m in results)]


def more(results: Sequence[Measured]) -> list[list[str]]:
    """Heading and rows of a table of memory and, where it was measured, of compilation."""
    counted = [n for n in (OURS, *contestants(results)) if any(memory(m, n) != "-" for m in results)]
    columns: list[Column] = [*COLUMNS[:2], *((n, partial(memory, name=n)) for n in counted)]
    if any(m.compile for m in results):
        columns += [(f"{k} start", partial(_start, kind=k)) for k in ("cold", "cached")]
    return [[name for name, _ in columns], *([cell(m) for _, cell in columns] for m in results)]


def losing(results: Iterable[Measured]) -> list[str]:
    """A line for each case in which a contestant is faster."""
    return [
        f"{m.case.id}: {', '.join(f'{n} takes {m.timings[n].ratio:.2f} of the time' for n in m.lost)}"
        for m in results
        if m.lost
    ]


def problems(results: Iterable[Measured]) -> list[str]:
    """Why contestants are missing."""
    return [f"{m.case.id}: {error}" for m in results for error in m.errors.values()]


def markdown(document: Document) -> str:
    """The run as Markdown."""
    parts = [f"Measured on {sentence(document.machine)}."]
    for title, results in groups(document.results).items():
        parts += [f"**{title}**", _markdown_table(cells(results)), "Memory of a call:", _markdown_table(more(results))]
    parts += ["\n".join(f"- {n}" for n in [*filter(None, [document.beginnings]), *NOTES, *problems(document.results)])]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = rows
    align = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, align, *body))
