"""Measures a case: all contestants in one process, one after another, round after round."""

import dataclasses
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import roof
from .agree import agreeing
from .cases import Case, draw
from .contestants import OURS, Contestant, contestants
from .machine import reuse_memory
from .timing import interleave

__all__ = ["Measured", "Timing", "measure"]

COUNTED = ("fastloss", "no-out", "numpy", "numexpr", "scikit-learn")
"""Contestants whose memory is NumPy's, which reports what it takes."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a contestant's call, and how many times as long as fastloss's it takes."""

    median: float
    p20: float
    p80: float
    ratio: float
    """The median over the rounds of the ratio to fastloss within a round; above 1 fastloss is faster."""
    memory: int | None = None
    """Bytes that a call takes at its peak, beyond what it was given."""


@dataclass(frozen=True)
class Measured:
    """All that was measured of a case."""

    case: Case
    timings: dict[str, Timing]
    errors: dict[str, str]
    """By contestant, why it was not timed."""
    roofs: dict[str, float]
    """Seconds that the case would take at the speed of the copy, of the triad, and of its arithmetic in cache."""
    compile: dict[str, float] = field(default_factory=dict)
    """Seconds of a first call: `cold`, and `cached` where the kernel comes from disk."""

    @property
    def bandwidth(self) -> float:
        """Bytes per second that the call moves."""
        return self.case.traffic / self.timings[OURS].median

    def fraction(self, limit: str) -> float:
        """The share of a roof's speed that the call reaches."""
        return self.roofs[limit] / self.timings[OURS].median

    @property
    def bound(self) -> str:
        """What holds the case back: "memory" or "arithmetic"."""
        return "arithmetic" if self.roofs["arithmetic"] > min(self.roofs["copy"], self.roofs["triad"]) else "memory"

    @property
    def of_roof(self) -> float:
        """The share of the roof that bounds the case."""
        limit = max(min(self.roofs["copy"], self.roofs["triad"]), self.roofs["arithmetic"])
        return limit / self.timings[OURS].median

    @property
    def lost(self) -> list[str]:
        """The contestants that are faster than fastloss."""
        return [n for n, t in self.timings.items() if n not in (OURS, "no-out") and t.ratio < 1.0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `read` is the way back."""
        return dataclasses.asdict(self)

    @staticmethod
    def read(given: dict[str, Any]) -> "Measured":
        """The inverse of `to_dict`, also through JSON."""
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

    fastloss itself takes part in any case; the kernels that only move memory take part in its rounds.
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
        times = {n: np.array(t) for n, t in interleave(calls, rounds, budget=budget).items()}
        memory = {n: _peak(c) for n, c in entrants.items() if n in COUNTED}
    timings = {n: _timing(times[n], times[OURS], memory.get(n)) for n in entrants}
    roofs: dict[str, float] = {}
    for n, move in moves.items():
        seconds = float(np.median(times[n])) / move.size * case.traffic
        roofs[move.roof] = min(seconds, roofs.get(move.roof, seconds))
    return Measured(case, timings, errors, {**roofs, "arithmetic": roof.arithmetic(case)})


def _timing(seconds: Any, ours: Any, memory: int | None) -> Timing:
    median, p20, p80 = (float(x) for x in np.percentile(seconds, (50, 20, 80)))
    return Timing(median, p20, p80, float(np.median(seconds / ours)), memory)


def _peak(contestant: Contestant) -> int:
    tracemalloc.start()
    try:
        contestant.call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
