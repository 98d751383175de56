"""How often `fastloss track` raises a false alarm, and how often it finds a planted slowdown, on this machine.

Pairs of records of the same code are compared, then pairs in which the second record makes more calls a sample.

    python -m bench.track_pairs [--pairs N] [--slower PERCENT] [--processes N] [--json FILE]
"""

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

import fastloss as fl
from fastloss.tracking.changes import compared
from fastloss.tracking.records import Record, measure

CALLS = "BENCH_TRACK_CALLS"
"""Environment variable that holds the calls a candidate makes, read by the processes that measure."""

PLAIN = 20
THRESHOLD = 0.1
ROUNDS, BUDGET = 11, 120.0


def cases():
    """Four losses, each called several times by the candidate and as often by the reference, in NumPy."""
    calls = int(os.environ.get(CALLS, PLAIN))
    p, t = np.random.default_rng(0).normal(size=(2, 100))
    labels = (t > 0).astype(float)
    found = {}
    for name, target in (("mse", t), ("huber", t), ("log_cosh", t), ("bce_with_logits", labels)):

        def candidate(loss=fl.LOSSES[name], target=target):
            for _ in range(calls):
                loss(p, target)

        def reference(target=target):
            for _ in range(PLAIN):
                np.mean((p - target) ** 2)

        found[name] = candidate, reference
    return found


def record(calls: int, processes: int) -> Record:
    """A record of candidates that make this many calls."""
    os.environ[CALLS] = str(calls)
    return measure(str(Path(__file__)), processes, ROUNDS, BUDGET)


def verdicts(calls: int, pairs: int, processes: int) -> list[dict[str, str]]:
    """The verdict on each case in each pair; the second record of a pair makes this many calls."""
    found = []
    for i in range(pairs):
        before, after = record(PLAIN, processes), record(calls, processes)
        changes = compared((before.cases, after.cases), THRESHOLD, is_one_machine=True)
        found.append({row.case: row.verdict for row in changes.rows})
        busy = max(before.busy, after.busy)
        print(f"pair {i + 1}: {found[-1]}, {busy:.0%} of the samples disturbed", flush=True)
    return found


def sentence(what: str, found: list[dict[str, str]]) -> str:
    """The verdicts of all pairs, counted."""
    counts = Counter(v for pair in found for v in pair.values())
    return f"{what}, {len(found)} pairs: " + ", ".join(f"{v} {n}" for v, n in counts.most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--slower", type=int, default=30, metavar="PERCENT")
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    planted = PLAIN + round(PLAIN * options.slower / 100)
    same = verdicts(PLAIN, options.pairs, options.processes)
    slower = verdicts(planted, options.pairs, options.processes)
    print(sentence("unchanged", same))
    print(sentence(f"{planted / PLAIN - 1:.0%} more calls", slower))
    if options.json is not None:
        options.json.write_text(json.dumps({"unchanged": same, "slower": slower}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
