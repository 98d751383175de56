"""Times functions side by side.

A machine changes speed from one second to the next. Contestants that are timed in turn, round after round, meet the
same weather, so that their ratio within a round holds where seconds do not.
"""

import gc
import time
from collections.abc import Callable, Mapping

__all__ = ["burst", "interleave", "repeats_for"]

SAMPLE = 1e-3
"""Seconds that one sample takes at least: a clock read costs 50 ns, and a short burst meets one interrupt or none."""

LONG = 20e-3
"""Seconds of a call from which what went on before it no longer matters.

The threads of a library spin for a while when their work is done: straight after torch and scikit-learn, a call of
0.6 ms took 0.9; one call later nothing of that was left.
"""


def repeats_for(function: Callable[[], object], least: float = SAMPLE) -> int:
    """How many calls in a row take at least this many seconds; the first call, which may compile, is not counted."""
    function()
    repeats = 1
    while True:
        seconds = burst(function, repeats)
        if seconds >= least:
            return repeats
        repeats = max(2 * repeats, int(1.2 * least / max(seconds, 1e-9) * repeats)) if seconds > 0 else 10 * repeats


def burst(function: Callable[[], object], repeats: int) -> float:
    """Seconds of so many calls in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - start


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    *,
    budget: float | None = None,
    least: float = SAMPLE,
    after_round: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, one sample a round.

    The order turns by one from round to round, so that none always follows the same neighbour. A short call is made
    once more, untimed, before its sample. A ``budget`` in seconds ends the rounds early, but never before the third.
    """
    names = list(contestants)
    repeats = {name: repeats_for(contestants[name], least) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for k in range(rounds):
            turn = k % len(names)
            for name in names[turn:] + names[:turn]:
                if not times[name] or times[name][-1] < LONG:
                    contestants[name]()
                times[name].append(burst(contestants[name], repeats[name]) / repeats[name])
            after_round()
            if budget is not None and k >= 2 and time.perf_counter() - start > budget:
                break
    finally:
        if collecting:
            gc.enable()
    return times
