"""Sampling of cases in one process of each side in turn."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..performance.timing import lower_quartile
from .workers import Worker

__all__ = ["SAMPLE", "SIDES", "Samples", "sampled"]

SIDES = ("candidate", "reference")

SAMPLE = 3e-4
"""Least duration of a sample (seconds). A process that waited for a request keeps its core for the next 3 to 4 ms, so
that short samples are mostly undisturbed even on a busy machine."""

ENOUGH = 3
"""Least number of undisturbed samples that give a time; taken of each case whatever the budget."""

TRIES, FEW_TRIES = 6, 2
"""Limits of rounds, as multiples of the requested rounds, for collecting undisturbed samples: in general, and where
fewer than one sample in ten was undisturbed."""


@dataclass
class Samples:
    """Undisturbed seconds per call of a case's candidate and of its reference, in one process."""

    candidate: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    disturbed: int = 0
    """Samples left out because the process had to wait for a core meanwhile."""

    def seconds(self, which: str) -> float:
        """Return the time of a call in this process (seconds); NaN where too few samples were undisturbed."""
        times: list[float] = getattr(self, which)
        return lower_quartile(times) if len(times) >= ENOUGH else math.nan

    @property
    def ratio(self) -> float:
        """Ratio of candidate to reference."""
        return self.seconds("candidate") / self.seconds("reference")


def sampled(
    sides: Sequence[Worker], repeats: Mapping[str, Mapping[str, int]], rounds: int, budget: float
) -> list[dict[str, Samples]]:
    """Time the cases in one process of each side, until each has enough undisturbed samples or the budget is spent.

    A round goes through all cases, so that a busy second is shared by every case. Within a case the sides take turns,
    and the first side of one round is the last of the next.
    """
    found = [{name: Samples() for name in repeats} for _ in sides]
    wanted = [(name, which) for name in repeats for which in reversed(SIDES)]
    start = time.perf_counter()
    for k in range(TRIES * rounds):
        for name, which in wanted:
            for side, samples in list(zip(sides, found, strict=True))[:: -1 if k % 2 else 1]:
                seconds, is_disturbed = side.ask("sample", name, which, repeats[name][which])
                if is_disturbed:
                    samples[name].disturbed += 1
                else:
                    getattr(samples[name], which).append(seconds)
        least = rounds if time.perf_counter() - start < budget else ENOUGH
        wanted = [(n, w) for n, w in wanted if _is_wanted(min(len(getattr(s[n], w)) for s in found), k + 1, least)]
        if not wanted:
            break
    return found


def _is_wanted(undisturbed: int, tries: int, rounds: int) -> bool:
    """Whether a case needs more samples and more rounds are likely to provide them."""
    return undisturbed < rounds and (tries < FEW_TRIES * rounds or 10 * undisturbed >= tries)
