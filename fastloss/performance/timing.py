"""Interleaved timing of functions.

A machine changes speed from one second to the next. Contestants that are timed in turn, round after round, meet the
same conditions, so that their ratio within a round is stable where seconds are not.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

# Windows has none.
resource = import_module("resource") if find_spec("resource") else None

__all__ = ["Sample", "burst", "interleave", "interleaved_samples", "lower_quartile", "repeats_for", "sample"]

SAMPLE = 1e-3
"""Least duration of a sample (seconds): a clock read costs 50 ns, and a short burst meets one interrupt or none."""

LONG = 20e-3
"""Duration of a call (seconds) from which earlier activity no longer matters.

The threads of a library spin for a while when their work is done: straight after torch and scikit-learn, a call of
0.6 ms took 0.9; one call later nothing of that was left.
"""

SLICE = 4e-3
"""Wait of a process each time it loses a core to another (seconds), the time slice of Linux of about 4 ms."""

TOLERATED = 0.02
"""Largest share of a sample that waiting for a core may have taken in an undisturbed sample."""

LONG_BURST = 0.1
"""Duration of a burst (seconds) from which the CPU times of all threads are precise enough to attribute the work."""


class Sample(NamedTuple):
    """Single measurement of a function."""

    seconds: float
    """Seconds per call."""
    is_disturbed: bool
    """Whether the process had to wait for a core during the sample."""


class _Usage(NamedTuple):
    """Resource counters of this process."""

    preemptions: int
    """Number of times that the system took a core away from a thread."""
    waits: int
    """Number of times that a thread waited voluntarily."""
    all_threads: float
    """CPU time of all threads (seconds)."""
    this_thread: float
    """CPU time of the measuring thread (seconds)."""


def _usage() -> _Usage:
    if resource is None:  # Windows does not count preemptions
        return _Usage(0, 0, 0.0, 0.0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return _Usage(used.ru_nivcsw, used.ru_nvcsw, time.process_time(), time.thread_time())


def sample(function: Callable[[], object], repeats: int) -> Sample:
    """Time `repeats` calls in a row; return the sample, marked if other work disturbed it.

    A disturbed sample says how the system shares its cores: with other work on one of two cores, a call of 0.5 ms on
    two threads took 8 to 40 ms, two to ten turns of 4 ms. A long burst of one thread that never waited of its own
    accord still has a time that holds: the CPU time of the thread.
    """
    before = _usage()
    seconds = burst(function, repeats)
    after = _usage()
    is_disturbed = (after.preemptions - before.preemptions) * SLICE > TOLERATED * seconds
    if is_disturbed and seconds >= LONG_BURST and after.waits == before.waits:
        alone = after.this_thread - before.this_thread
        if after.all_threads - before.all_threads - alone < TOLERATED / 2 * alone:
            return Sample(alone / repeats, False)
    return Sample(seconds / repeats, is_disturbed)


def repeats_for(function: Callable[[], object], least: float = SAMPLE) -> int:
    """Return the number of calls in a row that take at least `least` seconds.

    The first call, which may compile, is not counted. A short burst that other work disturbed is timed again: taken at
    its word, one wait of 4 ms made a sample of one call of 2 us, in which the reads of the clock took longer.
    """
    function()
    repeats = 1
    while True:
        seconds = _quickest(function, repeats, 50 * least)
        if seconds >= least:
            return repeats
        repeats = max(2 * repeats, int(1.2 * least / max(seconds, 1e-9) * repeats)) if seconds > 0 else 10 * repeats


def _quickest(function: Callable[[], object], repeats: int, enough: float) -> float:
    """Return the time of an undisturbed burst, or of one that takes `enough`, or of the quickest of ten (seconds)."""
    best = math.inf
    for _ in range(10):
        found = sample(function, repeats)
        best = min(best, found.seconds * repeats)
        if not found.is_disturbed or best >= enough:
            break
    return best


def lower_quartile(values: Sequence[float]) -> float:
    """Return the lower quartile of the values, interpolated.

    Other work only ever makes a call slower: from process to process, lower quartiles varied 0.7 times as much as
    medians.
    """
    ordered = sorted(values)
    position = (len(ordered) - 1) / 4
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def burst(function: Callable[[], object], repeats: int) -> float:
    """Return the time of `repeats` calls in a row (seconds)."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - start


def interleaved_samples(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    *,
    budget: float | None = None,
    least: float = SAMPLE,
) -> dict[str, list[Sample]]:
    """Return samples of each contestant, one per round.

    The order turns by one from round to round, so that none always follows the same neighbour. A short call is made
    once more, untimed, before its sample. A ``budget`` in seconds ends the rounds early, but never before the third.
    """
    names = list(contestants)
    repeats = {name: repeats_for(contestants[name], least) for name in names}
    found: dict[str, list[Sample]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for k in range(rounds):
            turn = k % len(names)
            for name in names[turn:] + names[:turn]:
                if not found[name] or found[name][-1].seconds < LONG:
                    contestants[name]()
                found[name].append(sample(contestants[name], repeats[name]))
            if budget is not None and k >= 2 and time.perf_counter() - start > budget:
                break
    finally:
        if collecting:
            gc.enable()
    return found


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    *,
    budget: float | None = None,
    least: float = SAMPLE,
) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant, one sample per round, without the marks of disturbed samples."""
    found = interleaved_samples(contestants, rounds, budget=budget, least=least)
    return {name: [s.seconds for s in samples] for name, samples in found.items()}
