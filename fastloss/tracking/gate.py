"""Two revisions of a project on one machine: install both, time them in turn, compare.

The machine that measures is the same for both, and so is its mood: the revisions take turns sample by sample,
base head head base, in two processes of which one works while the other waits.

The addresses that a process is given make one of two equal codes faster for as long as it lives, by 8% at times, which
no number of rounds will tell from a change. So whatever is not unchanged is measured again by two new processes, and
a regression is one only when it is found twice.
"""

import contextlib
import itertools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..evaluation.columns import InputError
from ..performance import timing
from .changes import Changes, Samples, paired, round_by_round, verdict
from .environment import Environment, checkout, install, project
from .intervals import fewest, of_median
from .workers import Worker, WorkerError, workers

__all__ = ["Settings", "gate"]

LEAST = 15
"""Rounds that every case has, whatever the budget."""

Report = Callable[[str, float], object]
"""Called with what is being done, and how much of it is: from 0 to 1."""


@dataclass(frozen=True)
class Settings:
    """What is compared with what, and for how long."""

    base: str
    head: str | None
    """None: the working tree."""
    cases: str
    rounds: int
    budget: float
    threshold: float


def gate(settings: Settings, report: Report = lambda text, done: None) -> Changes:
    """Compare two revisions; see the module."""
    root, folder = project()
    with tempfile.TemporaryDirectory(prefix="fastloss-gate-") as made, contextlib.ExitStack() as stack:
        work = Path(made).resolve()
        report("installing both revisions", 0.0)
        sources = []
        for side, revision in (("base", settings.base), ("head", settings.head)):
            if revision is None:
                sources.append((f"{side} (working tree)", folder, work / f"{side}-environment"))
            else:
                commit = stack.enter_context(checkout(root, revision, work / side))
                sources.append(
                    (f"{side} ({commit})", work / side / folder.relative_to(root), work / f"{side}-environment")
                )
        environments = install(sources)
        module = _source(settings.cases, root, root if settings.head is None else work / "head")
        changes = _session(environments, module, settings, work, None, report)
        if changes.suspects:
            changes = _confirmed(changes, _session(environments, module, settings, work, changes.suspects, report))
    title = f"{sources[1][0]} against {sources[0][0]}, timed in turn on one machine"
    return replace(changes, notes=[title, *changes.notes])


def _source(given: str, root: Path, head: Path) -> str:
    """The module of cases: a file of the repository is read as it is in the head, for both revisions."""
    if not given.endswith(".py"):
        return given
    path = Path(given).resolve()
    path = head / path.relative_to(root) if path.is_relative_to(root) else path
    if not path.is_file():
        raise InputError(f"there is no file {given} in the head")
    return str(path)


def _confirmed(first: Changes, second: Changes) -> Changes:
    """What was suspect as it was measured again; a regression that was none at first is only slower."""
    again = {row.case: row for row in second.rows}
    for name, row in again.items():
        if row.verdict == "regression" and name not in first.regressions:
            again[name] = row._replace(verdict="slower")
    note = f"measured a second time, by new processes: {', '.join(f'`{n}`' for n in again)}"
    rows = [again.get(row.case, row) for row in first.rows]
    rounds = min(first.rounds, second.rounds)
    return replace(first, rows=rows, rounds=rounds, notes=[*first.notes, *second.notes, note])


def _session(
    environments: list[Environment],
    source: str,
    settings: Settings,
    folder: Path,
    wanted: list[str] | None,
    report: Report,
) -> Changes:
    """Time cases, all or those that are wanted, by a new process for each revision."""
    with workers(environments, source, folder) as (base, head):
        before, after = base.ask("names"), head.ask("names")
        shared = [n for n in after if n in before and (wanted is None or n in wanted)]
        repeats: dict[str, dict[str, int]] = {}
        notes = []
        for i, name in enumerate(shared):
            report(f"warming up {name}", i / len(shared))
            calls = head.ask("prepare", name, timing.SAMPLE)
            try:
                other = base.ask("prepare", name, timing.SAMPLE)
            except WorkerError as error:
                before.remove(name)
                notes.append(f"`{name}` does not run in {error}")
                continue
            repeats[name] = {which: max(calls[which], other[which]) for which in calls}
        if not repeats:
            raise InputError(f"base and head share no case that runs; base has {before}, head has {after}")
        old, new = _sampled([base, head], repeats, settings, report)
    changes = paired((old, new), settings.threshold)
    added, removed = [n for n in after if n not in before], [n for n in before if n not in after]
    return replace(changes, added=added, removed=removed, notes=notes + _drifts(old, new, settings.threshold))


def _sampled(
    sides: list[Worker], repeats: dict[str, dict[str, int]], settings: Settings, report: Report
) -> list[dict[str, Samples]]:
    """Samples of both sides in turn, until each case is known well enough or the rounds or the budget are spent."""
    samples: list[dict[str, Samples]] = [{n: Samples() for n in repeats} for _ in sides]
    least = max(LEAST, fewest(len(repeats)))
    active, start = list(repeats), time.perf_counter()
    for k in itertools.count(1):
        for name in active:
            # References tell how large a time is, and that both sides run alike; the change is told without them.
            for which in ("candidate", "reference")[: 2 if k <= least else 1]:
                for i in (0, 1) if k % 2 else (1, 0):
                    seconds = sides[i].ask("sample", name, which, repeats[name][which])
                    getattr(samples[i][name], which).append(seconds)
        done = max(k / settings.rounds, (time.perf_counter() - start) / settings.budget)
        report(f"round {k}, {len(active)} of {len(repeats)} cases", min(1.0, done))
        if k >= least:
            active = [n for n in active if not _known(samples[0][n], samples[1][n], len(repeats), settings.threshold)]
            if not active or done >= 1:
                break
    return samples


def _known(old: Samples, new: Samples, cases: int, threshold: float) -> bool:
    """Whether the interval reaches less than a quarter of the threshold to either side.

    Its width says when to stop and its place does not, so that noise is not given one chance after another.
    """
    interval = of_median(round_by_round(old.candidate, new.candidate), cases)
    return math.log(interval.high / interval.low) < math.log1p(threshold) / 2


def _drifts(old: dict[str, Samples], new: dict[str, Samples], threshold: float) -> list[str]:
    """References that differ: their code is the same on both sides, so something else is not."""
    notes = []
    for name in old:
        interval = of_median(round_by_round(old[name].reference, new[name].reference), len(old))
        if verdict(interval, threshold) in ("regression", "faster"):
            notes.append(f"the reference of `{name}` changed too, by {100 * (interval.ratio - 1):+.0f}%")
    return notes
