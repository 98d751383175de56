"""A record: the raw samples of all cases in one run on one machine, as JSON."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.columns import InputError
from ..evaluation.files import beside, settle
from ..performance.machine import about
from ..performance.timing import interleave
from . import cases
from .changes import Samples
from .intervals import ALPHA, fewest, of_median

__all__ = ["Record", "measure", "read", "whole"]

SIDES = ("candidate", "reference")
AT_A_TIME = 10
"""Rounds of a case before the next one has its turn."""
FORMAT = "fastloss track record, version 1"


@dataclass(frozen=True)
class Record:
    """What was measured, and on what."""

    machine: dict[str, Any]
    cases: dict[str, Samples]

    @property
    def busy(self) -> bool:
        """Whether others kept the machine busy: then a loss on several threads waits for the one that has no core."""
        load, cores = self.machine.get("load"), self.machine.get("cores")
        return isinstance(load, (int, float)) and isinstance(cores, int) and load > cores / 2

    def to_json(self) -> str:
        """All samples, and the interval of each case by itself for those who only want to look."""
        found = {}
        for name, samples in self.cases.items():
            ratio, low, high = of_median(samples.ratios)
            found[name] = {"ratio": ratio, "low": low, "high": high, **samples.__dict__}
        document = {"format": FORMAT, "level": 1 - ALPHA, "machine": self.machine, "cases": found}
        return json.dumps(document, indent=1, allow_nan=False) + "\n"


def measure(
    source: str, rounds: int, budget: float, report: Callable[[str, float], object] = lambda text, done: None
) -> Record:
    """Time every candidate beside its reference, for so many rounds, or fewer once the seconds are spent.

    The cases come round and round again, a few rounds at a time. So a minute in which the machine is busy is a
    part of every case and not all of one; and threads that still spin after a case rarely meet the next.
    """
    found = load(source)
    if rounds < fewest(len(found)):
        raise InputError(f"rounds is {rounds}; to compare {len(found)} cases takes at least {fewest(len(found))}")
    machine, samples = about(), {name: Samples() for name in found}
    start = time.perf_counter()
    for done in range(0, rounds, AT_A_TIME):
        spent = (time.perf_counter() - start) / budget
        if spent > 1 and done >= fewest(len(found)):
            break
        for i, (name, pair) in enumerate(found.items()):
            report(f"{name}, from round {done + 1}", min(1.0, max(spent, (done + i / len(found)) / rounds)))
            times = interleave(dict(zip(SIDES, pair, strict=True)), min(AT_A_TIME, rounds - done))
            samples[name].candidate += times["candidate"]
            samples[name].reference += times["reference"]
    return Record(machine, samples)


def load(source: str) -> dict[str, cases.Case]:
    """The cases of a module; what is wrong with them is the user's to mend."""
    try:
        return cases.load(source)
    except cases.CasesError as error:
        raise InputError(str(error)) from None


@contextmanager
def whole(path: str) -> Iterator[Path]:
    """A file beside `path` to write to; in the end it takes that place, unless there was an error."""
    temporary = beside(Path(path))
    try:
        yield temporary
        settle(temporary, Path(path))
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str) -> Record:
    """A record from a file."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise InputError(f"{path} has the format {document['format']!r}; expected {FORMAT!r}")
        found = {n: Samples(c["candidate"], c["reference"]) for n, c in document["cases"].items()}
        sound = all(_sound(s) for s in found.values()) and isinstance(document["machine"], dict)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
        sound = False
    if not sound:
        raise InputError(f"{path} is no record; expected a file that fastloss track record wrote")
    return Record(document["machine"], found)


def _sound(samples: Samples) -> bool:
    """As many times of one as of the other, all positive and finite."""
    both = [*samples.candidate, *samples.reference]
    return len(samples.candidate) == len(samples.reference) and all(0 < x < math.inf for x in both)
