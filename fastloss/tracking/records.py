"""Record of the samples of all cases in several processes on one machine, as JSON."""

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluation.columns import InputError
from ..evaluation.files import output as whole
from ..performance.machine import about
from .intervals import ALPHA, fewest, of_pairs
from .sampling import SAMPLE, SIDES, Samples, sampled
from .workers import workers

__all__ = ["Record", "measure", "read", "whole"]

FORMAT = "fastloss track record, version 2"

SHORTEST, LONGEST = 1e-12, 1e9
"""Bounds of the times that a record may hold (seconds per call)."""

Processes = dict[str, list[Samples]]
"""Samples of each case, by process."""


@dataclass(frozen=True)
class Record:
    """Samples of all cases, and a description of the machine."""

    machine: dict[str, Any]
    cases: Processes

    @property
    def busy(self) -> float:
        """Share of the samples that other work disturbed."""
        samples = [s for processes in self.cases.values() for s in processes]
        disturbed = sum(s.disturbed for s in samples)
        total = disturbed + sum(len(getattr(s, which)) for s in samples for which in SIDES)
        return disturbed / total if total else 0.0

    def ratios(self, case: str) -> list[float]:
        """Return candidate over reference for every process that timed both."""
        return [s.ratio for s in self.cases[case] if not math.isnan(s.ratio)]

    def to_json(self) -> str:
        """Return all samples as JSON, with the interval of each case for readers."""
        found: dict[str, Any] = {}
        for name, processes in self.cases.items():
            interval = of_pairs(self.ratios(name))
            numbers = {k: v if math.isfinite(v) else None for k, v in interval._asdict().items()}
            found[name] = {**numbers, "processes": [asdict(s) for s in processes]}
        document = {"format": FORMAT, "level": 1 - ALPHA, "machine": self.machine, "cases": found}
        return json.dumps(document, indent=1, allow_nan=False) + "\n"


def measure(
    source: str,
    processes: int,
    rounds: int,
    budget: float,
    report: Callable[[str, float], object] = lambda text, done: None,
) -> Record:
    """Time every candidate beside its reference in several processes, one after another.

    Each process gets an equal part of the budget (seconds). The state of the memory, and the load on the machine, then
    vary from one value of a case to the next.
    """
    machine, cases = about(), Processes()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fastloss-record-") as folder:
        for k in range(processes):
            with workers([None], source, Path(folder)) as (worker,):
                names = worker.ask("names")
                if processes < fewest(len(names)):
                    needed = fewest(len(names))
                    raise InputError(f"--processes is {processes}; expected at least {needed}, by the number of cases")
                repeats = {}
                for i, name in enumerate(names):
                    report(f"process {k + 1}: warming up {name}", (k + i / len(names) / 2) / processes)
                    repeats[name] = worker.ask("prepare", name, SAMPLE)
                report(f"process {k + 1} of {processes}", (k + 0.5) / processes)
                left = budget * (k + 1) / processes - (time.perf_counter() - start)
                for name, samples in sampled([worker], repeats, rounds, left)[0].items():
                    cases.setdefault(name, []).append(samples)
    return Record(machine, cases)


def read(path: str) -> Record:
    """Read a record from a file."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
        if document["format"] != FORMAT:
            older = str(document["format"]).startswith(FORMAT.rsplit(" ", 1)[0])
            advice = "record it again with this version of fastloss" if older else f"expected {FORMAT!r}"
            raise InputError(f"{path} has the format {str(document['format'])[:60]!r}; {advice}")
        return Record(_machine(document["machine"]), {n: _processes(c) for n, c in document["cases"].items()})
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise InputError(f"{path} is no record; expected a file that fastloss track record wrote") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no time")


def _machine(given: Any) -> dict[str, Any]:
    """Return the description of a machine; comparisons use its processor and date."""
    if not all(isinstance(given.get(k, ""), str) for k in ("processor", "date")):
        raise TypeError("a machine is described by text")
    return dict(given)


def _processes(case: Any) -> list[Samples]:
    """Return the samples of a case; raise unless all are positive and finite."""
    found = []
    for process in case["processes"]:
        candidate, reference, disturbed = (
            _times(process["candidate"]),
            _times(process["reference"]),
            process["disturbed"],
        )
        if type(disturbed) is not int or disturbed < 0:
            raise TypeError("a count is a whole number")
        found.append(Samples(candidate, reference, disturbed))
    return found


def _times(given: Any) -> list[float]:
    if type(given) is not list or not all(type(x) in (int, float) and SHORTEST <= x <= LONGEST for x in given):
        raise ValueError("times are positive numbers of seconds")
    return [float(x) for x in given]
