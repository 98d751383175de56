"""Tables of benchmark results, with the same cells for a terminal, a pipe and Markdown."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .cases import power
from .contestants import OURS
from .machine import sentence
from .run import Measured

__all__ = ["NOTES", "Document", "cells", "disturbances", "duration", "groups", "losing", "markdown"]

LOST = "!"
"""Mark of a contestant that is faster than fastloss."""

DOUBTFUL = "?"
"""Mark of times and ratios from disturbed samples."""

NOTES = (
    "Contestants: times as long as fastloss takes, the median over rounds; ! marks one that is faster.",
    "GB/s: what must be read and written. triad: speed relative to g = p - t on arrays of this size.",
    "roof: share of the limit's speed, that of (m)emory or of the loss's (a)rithmetic on data in cache.",
)


@dataclass(frozen=True)
class Document:
    """Benchmark run: the machine, and the measurements of each case."""

    machine: dict[str, Any]
    rounds: int
    results: list[Measured]
    startup: dict[str, float] = field(default_factory=dict)
    """Startup times of a process (seconds): `import`, and `first result`."""

    def to_json(self) -> str:
        """Return the document as JSON text."""
        results = [r.to_dict() for r in self.results]
        return json.dumps({**vars(self), "results": results}, indent=1)

    @staticmethod
    def read(text: str) -> "Document":
        """Return the document that `to_json` wrote."""
        given = json.loads(text)
        return Document(**{**given, "results": [Measured.read(r) for r in given["results"]]})

    @property
    def beginnings(self) -> str:
        """Return the startup times as one line; an empty string where they were not measured."""
        return ", ".join(f"{k}: {duration(v)}" for k, v in self.startup.items())


def duration(seconds: float) -> str:
    """Return a time in seconds as text of three digits in a suitable unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _spread(m: Measured) -> str:
    """Return the 20th and 80th percentiles, in per cent of the median."""
    t = m.timings[OURS]
    return f"{100 * (t.p20 / t.median - 1):+.0f} {100 * (t.p80 / t.median - 1):+.0f}%"


def ratio(m: Measured, name: str) -> str:
    """Return a contestant's time ratio to fastloss as text, or the reason that it is missing."""
    timing = m.timings.get(name)
    if timing is None:
        return "failed" if name in m.errors else "-"
    digits = 0 if timing.ratio >= 100 else 1 if timing.ratio >= 10 else 2
    doubtful = DOUBTFUL if m.is_doubtful(name) or m.is_doubtful(OURS) else ""
    return f"{timing.ratio:.{digits}f}{doubtful}{LOST if name in m.lost else ''}"


def memory(m: Measured, name: str) -> str:
    """Return the peak memory of a call as text."""
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
    ("median", lambda m: duration(m.timings[OURS].median) + (DOUBTFUL if m.is_doubtful(OURS) else "")),
    ("p20 p80", _spread),
    ("GB/s", lambda m: f"{m.bandwidth / 1e9:.3g}"),
    ("triad", lambda m: f"{m.fraction('triad'):.2f}"),
    ("roof", lambda m: f"{m.of_roof:.2f}{m.bound[0]}"),
]


def groups(results: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Return the results grouped by mode and dtype."""
    found: dict[str, list[Measured]] = {}
    for m in results:
        found.setdefault(f"{m.case.mode}, {m.case.dtype}", []).append(m)
    return found


def contestants(results: Iterable[Measured]) -> list[str]:
    """Return every contestant but fastloss, in order of appearance."""
    return list(dict.fromkeys(n for m in results for n in (*m.timings, *m.errors) if n != OURS))


def cells(results: Sequence[Measured]) -> list[list[str]]:
    """Return the heading and rows of a table of times."""
    columns: list[Column] = [*COLUMNS, *((n, partial(ratio, name=n)) for n in contestants(results))]
    return [[name for name, _ in columns], *([cell(m) for _, cell in columns] for m in results)]


def more(results: Sequence[Measured]) -> list[list[str]]:
    """Return the heading and rows of a table of memory and, where it was measured, of compilation."""
    counted = [n for n in (OURS, *contestants(results)) if any(memory(m, n) != "-" for m in results)]
    columns: list[Column] = [*COLUMNS[:2], *((n, partial(memory, name=n)) for n in counted)]
    if any(m.compile for m in results):
        columns += [(f"{k} start", partial(_start, kind=k)) for k in ("cold", "cached")]
    return [[name for name, _ in columns], *([cell(m) for _, cell in columns] for m in results)]


def losing(results: Iterable[Measured]) -> list[str]:
    """Return a line for each case in which a contestant is faster."""
    return [
        f"{m.case.id}: {', '.join(f'{n} takes {m.timings[n].ratio:.2f} of the time' for n in m.lost)}"
        for m in results
        if m.lost
    ]


def problems(results: Iterable[Measured]) -> list[str]:
    """Return the reasons that contestants are missing."""
    return [f"{m.case.id}: {error}" for m in results for error in m.errors.values()]


def disturbances(document: Document) -> list[str]:
    """Return lines that say whether other processes or the contestants' own threads disturbed the benchmark."""
    results = document.results
    lines = []
    busy = [m for m in results if m.is_busy]
    if busy:
        most = max(m.others or 0.0 for m in busy)
        lines.append(
            f"The machine was busy: other processes used up to {most:.1f} of {document.machine['cores']} cores, in"
            f" {len(busy)} of {len(results)} cases. Measure again when it is idle."
        )
    doubtful = {m.case.id: [n for n in m.timings if m.is_doubtful(n)] for m in results}
    if any(doubtful.values()):
        lines.append(
            f"{DOUBTFUL} marks times and ratios of contestants that waited for a core in most samples: they say little"
            " of the code."
        )
    for m in results:
        if doubtful[m.case.id] and not m.is_busy and m.others is not None:
            lines.append(
                f"{m.case.id}: the contestants' own threads disturbed each other ({', '.join(doubtful[m.case.id])})."
                " Name fewer contestants, or set --threads 1."
            )
    return lines


def markdown(document: Document) -> str:
    """Return the run as Markdown."""
    parts = [f"Measured on {sentence(document.machine)}."]
    for title, results in groups(document.results).items():
        parts += [f"**{title}**", _markdown_table(cells(results)), "Memory of a call:", _markdown_table(more(results))]
    parts += [
        "\n".join(
            f"- {n}"
            for n in [
                *filter(None, [document.beginnings]),
                *NOTES,
                *problems(document.results),
                *disturbances(document),
            ]
        )
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = rows
    align = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, align, *body))
