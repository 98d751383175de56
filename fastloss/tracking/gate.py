"""Comparison of two revisions of a project on one machine: install both, time them in turn, compare.

Both revisions meet the same state of the machine, as they take turns sample by sample, in two processes of which one
works while the other waits. Several such pairs of processes run one after another, and each pair gives one value of a
case's change: the memory addresses of a process make one of two equal codes faster for the life of the process, by up
to 8%, which more rounds cannot distinguish from a change.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..evaluation.columns import InputError
from .changes import Changes, code, pair_by_pair, paired, verdict
from .environment import Environment, checkout, install, project, working_tree
from .intervals import fewest_pairs, of_pairs
from .sampling import SAMPLE, Samples, sampled
from .workers import Worker, WorkerError, workers

__all__ = ["Settings", "gate"]

Report = Callable[[str, float], object]
"""Progress callback, called with the current step and its completed share (0 to 1)."""


@dataclass(frozen=True)
class Settings:
    """Revisions, cases and time limits of a comparison."""

    base: str
    head: str | None
    """Newer revision; None for the working tree."""
    cases: str
    processes: int
    """Most pairs of processes."""
    rounds: int
    budget: float
    threshold: float


def gate(settings: Settings, report: Report = lambda text, done: None) -> Changes:
    """Install, time and compare two revisions."""
    root, folder = project()
    with tempfile.TemporaryDirectory(prefix="fastloss-gate-") as made, contextlib.ExitStack() as stack:
        work = Path(made).resolve()
        report("installing both revisions", 0.0)
        sources = []
        for side, revision in (("base", settings.base), ("head", settings.head)):
            if revision is None:
                stack.enter_context(working_tree(root, work / side))
                name = f"{side} (working tree)"
            else:
                name = f"{side} ({stack.enter_context(checkout(root, revision, work / side))})"
            sources.append((name, work / side / folder.relative_to(root), work / f"{side}-environment"))
        environments = install(sources)
        module = _source(settings.cases, root, work / "head")
        changes = _measured(environments, module, settings, work, report)
    title = f"{sources[1][0]} against {sources[0][0]}, timed in turn on one machine"
    return replace(changes, notes=[title, *changes.notes])


def _source(given: str, root: Path, head: Path) -> str:
    """Return the module of cases; a file of the repository is read from the head, for both revisions."""
    if not given.endswith(".py"):
        return given
    path = Path(given).resolve()
    path = head / path.relative_to(root) if path.is_relative_to(root) else path
    if not path.is_file():
        raise InputError(f"there is no file {given} in the head, or git ignores it")
    return str(path)


@dataclass
class _Found:
    """Samples from the pairs of processes so far."""

    sides: tuple[dict[str, list[Samples]], dict[str, list[Samples]]]
    only: tuple[list[str], list[str]]
    """Cases that only the base and only the head can run."""
    notes: list[str]


def _measured(
    environments: list[Environment], source: str, settings: Settings, folder: Path, report: Report
) -> Changes:
    """Time cases by one pair of processes after another, until each is known or the pairs or the budget are spent."""
    found = _Found(({}, {}), ([], []), [])
    start, wanted = time.perf_counter(), None
    for k in range(settings.processes):
        spent = (time.perf_counter() - start) / settings.budget
        done = min(1.0, max(k / settings.processes, spent))
        report(f"pair {k + 1} of processes" + (f", {len(wanted)} cases" if wanted else ""), done)
        with workers(environments, source, folder) as (base, head):
            repeats = _prepared(base, head, wanted, found, report)
            if wanted is None and settings.processes < (needed := fewest_pairs(len(repeats))):
                raise InputError(
                    f"--processes is {settings.processes}; expected at least {needed}, by the number of cases"
                )
            left = settings.budget * (k + 1) / settings.processes - (time.perf_counter() - start)
            for side, samples in zip(found.sides, sampled([base, head], repeats, settings.rounds, left), strict=True):
                for name in repeats:
                    side.setdefault(name, []).append(samples[name])
        wanted = list(found.sides[0]) if wanted is None else wanted
        if k + 1 >= fewest_pairs(len(found.sides[0])):
            wanted = [n for n in wanted if not _is_known(found, n, settings.threshold)]
            if not wanted or time.perf_counter() - start > settings.budget:
                break
    changes = paired(found.sides, settings.threshold)
    drifts = _drifts(found, settings.threshold)
    return replace(changes, added=found.only[1], removed=found.only[0], notes=[*found.notes, *changes.notes, *drifts])


def _prepared(
    base: Worker, head: Worker, wanted: list[str] | None, found: _Found, report: Report
) -> dict[str, dict[str, int]]:
    """Warm up the cases on both sides; return the calls per sample. The first pair determines the runnable cases."""
    repeats: dict[str, dict[str, int]] = {}
    is_first = wanted is None
    if wanted is None:
        before, after = base.ask("names"), head.ask("names")
        wanted = [n for n in after if n in before]
        found.only = [n for n in before if n not in after], [n for n in after if n not in before]
    for name in wanted:
        if is_first:
            report(f"warming up {name}", 0.0)
        calls = head.ask("prepare", name, SAMPLE)
        try:
            other = base.ask("prepare", name, SAMPLE)
        except WorkerError as error:
            if not is_first:
                raise
            found.only[1].append(name)
            found.notes.append(f"{code(name)} does not run in {code(error)}")
            continue
        repeats[name] = {which: max(calls[which], other[which]) for which in calls}
    if not repeats:
        raise InputError(
            f"base and head share no case that runs; base alone has {found.only[0]}, head alone has {found.only[1]}"
        )
    return repeats


def _is_known(found: _Found, name: str, threshold: float) -> bool:
    """Whether the interval reaches less than half of the threshold to either side.

    Stopping depends on the interval's width and not on its position, so that noise gets no repeated chances.
    """
    interval = of_pairs(pair_by_pair(found.sides[0][name], found.sides[1][name]), len(found.sides[0]))
    return interval.low > 0 and math.log(interval.high / interval.low) < math.log1p(threshold)


def _drifts(found: _Found, threshold: float) -> list[str]:
    """Return references whose times differ although their code did not change: the machine was unstable."""
    notes = []
    for name in found.sides[0]:
        changes = pair_by_pair(found.sides[0][name], found.sides[1][name], "reference")
        interval = of_pairs(changes, len(found.sides[0]))
        if verdict(interval, threshold) in ("regression", "faster"):
            notes.append(f"the reference of {code(name)} changed too, by {100 * (interval.ratio - 1):+.0f}%")
    return notes
