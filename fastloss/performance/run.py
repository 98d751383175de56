"""Measurement of a case: all contestants in one process, in turn, round after round."""

import dataclasses
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import roof
from .agree import agreeing
from .cases import Case, draw
from .contestants import OURS, Contestant, contestants
from .machine import Others, reuse_memory
from .timing import Sample, interleaved_samples

__all__ = ["Measured", "Timing", "measure"]

BUSY = 0.2
"""Number of cores used by other processes from which the machine counts as busy."""

FEWEST = 3
"""Least number of undisturbed rounds for which disturbed rounds are left out."""

COUNTED = ("fastloss", "no-out", "numpy", "numexpr", "scikit-learn")
"""Contestants that allocate memory through NumPy, which reports it."""


@dataclass(frozen=True)
class Timing:
    """Time of a contestant's call (seconds), and its ratio to fastloss's."""

    median: float
    p20: float
    p80: float
    ratio: float
    """Median over the rounds of the ratio to fastloss within a round; above 1 fastloss is faster."""
    memory: int | None = None
    """Peak memory of a call beyond its inputs (bytes)."""
    disturbed: float = 0.0
    """Share of the samples during which a thread of this process had to wait for a core."""


@dataclass(frozen=True)
class Measured:
    """Measurements of one case."""

    case: Case
    timings: dict[str, Timing]
    errors: dict[str, str]
    """Reasons that contestants were not timed, by contestant."""
    roofs: dict[str, float]
    """Times of the case (seconds) at the speed of the copy, of the triad, and of its arithmetic in cache."""
    compile: dict[str, float] = field(default_factory=dict)
    """Times of a first call (seconds): `cold`, and `cached` with the kernel from disk."""
    others: float | None = None
    """Number of cores that other processes used meanwhile; None without system counters."""

    @property
    def is_busy(self) -> bool:
        """Whether other processes took enough of the machine to disturb calls on all cores."""
        return self.others is not None and self.others > BUSY

    def is_doubtful(self, name: str) -> bool:
        """Whether most samples of a contestant were disturbed."""
        return name in self.timings and self.timings[name].disturbed > 0.5

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth of the call (bytes per second)."""
        return self.case.traffic / self.timings[OURS].median

    def fraction(self, limit: str) -> float:
        """Return the share of a roof's speed that the call reaches."""
        return self.roofs[limit] / self.timings[OURS].median

    @property
    def bound(self) -> str:
        """Resource that limits the case: "memory" or "arithmetic"."""
        return "arithmetic" if self.roofs["arithmetic"] > min(self.roofs["copy"], self.roofs["triad"]) else "memory"

    @property
    def of_roof(self) -> float:
        """Share that the call reaches of the roof that limits the case."""
        limit = max(min(self.roofs["copy"], self.roofs["triad"]), self.roofs["arithmetic"])
        return limit / self.timings[OURS].median

    @property
    def lost(self) -> list[str]:
        """Contestants that are faster than fastloss."""
        return [n for n, t in self.timings.items() if n not in (OURS, "no-out") and t.ratio < 1.0]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-compatible values, which `read` converts back."""
        return dataclasses.asdict(self)

    @staticmethod
    def read(given: dict[str, Any]) -> "Measured":
        """Return the measurements that `to_dict` wrote, also after JSON."""
        case = {**given["case"], "parameters": tuple((k, v) for k, v in given["case"]["parameters"])}
        timings = {k: Timing(**v) for k, v in given["timings"].items()}
        return Measured(**{**given, "case": Case(**case), "timings": timings})


def measure(
    case: Case,
    names: Iterable[str],
    rounds: int = 15,
    budget: float | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> Measured:
    """Check that the contestants agree, then time them in turn, within a budget of seconds.

    fastloss always takes part, and so do the kernels that only move memory.
    """
    reuse_memory()
    progress("drawing data")
    data = draw(case)
    with np.errstate(all="ignore"):
        progress("starting contestants")
        entrants = contestants(case, data, dict.fromkeys([OURS, *names]))
        progress("checking results")
        entrants, errors = agreeing(case, data, entrants)
        moves = roof.memory(case)
        calls = {n: c.call for n, c in entrants.items()} | {n: move.call for n, move in moves.items()}
        progress("timing")
        others = Others()
        samples = interleaved_samples(calls, rounds, budget=budget)
        used = others.cores()
        memory = {n: _peak(c) for n, c in entrants.items() if n in COUNTED}
    timings = {n: _timing(samples[n], samples[OURS], memory.get(n)) for n in entrants}
    roofs: dict[str, float] = {}
    for n, move in moves.items():
        seconds = float(np.median([s.seconds for s in samples[n]])) / move.size * case.traffic
        roofs[move.roof] = min(seconds, roofs.get(move.roof, seconds))
    return Measured(case, timings, errors, {**roofs, "arithmetic": roof.arithmetic(case)}, others=used)


def _timing(samples: Sequence[Sample], ours: Sequence[Sample], memory: int | None) -> Timing:
    """Return percentiles over the undisturbed rounds of a contestant and fastloss, or over all where these are few."""
    rounds = list(zip(samples, ours, strict=True))
    quiet = [r for r in rounds if not any(s.is_disturbed for s in r)]
    theirs, mine = np.array([[s.seconds for s in r] for r in (quiet if len(quiet) >= FEWEST else rounds)]).T
    median, p20, p80 = (float(x) for x in np.percentile(theirs, (50, 20, 80)))
    disturbed = sum(s.is_disturbed for s in samples) / len(samples)
    return Timing(median, p20, p80, float(np.median(theirs / mine)), memory, disturbed)


def _peak(contestant: Contestant) -> int:
    tracemalloc.start()
    try:
        contestant.call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
