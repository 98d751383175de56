"""A record: the raw samples of all cases in one run on one machine, as JSON."""

import json
import math
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

FORMAT = "fastloss track record, version 1"


@dataclass(frozen=True)
class Record:
    """What was measured, and on what."""

    machine: dict[str, Any]
    cases: dict[str, Samples]

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
    """Time every candidate beside its reference, for so many rounds or seconds a case."""
    found = load(source)
    if rounds < fewest(len(found)):
        raise InputError(f"rounds is {rounds}; to compare {len(found)} cases takes at least {fewest(len(found))}")
    samples = {}
    for i, (name, (candidate, reference)) in enumerate(found.items()):
        report(name, i / len(found))
        times = interleave({"candidate": candidate, "reference": reference}, rounds, budget=budget)
        samples[name] = Samples(**times)
    return Record(about(), samples)


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
