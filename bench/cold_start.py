"""Seconds of `fastloss eval --sample`, from an empty and from a full kernel cache, alone and with helpers.

python -m bench.cold_start [rounds]

Each round runs all cases one after another, so that a busy machine slows all of them alike. Wall time is what a user
waits; processor time, which includes that of helpers, hardly depends on what else runs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [sys.executable, "-m", "fastloss", "eval", "--sample"]
CASES = {"empty cache, one thread": 1, "empty cache, helpers": 2, "full cache": 2}


def measured(folder: str, threads: int) -> tuple[float, float]:
    """Wall and processor time of one run (seconds)."""
    before, start = os.times(), time.perf_counter()
    variables = {**os.environ, "FASTLOSS_CACHE_DIR": folder, "FASTLOSS_NUM_THREADS": str(threads)}
    subprocess.run(COMMAND, env=variables, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start, used


def main(rounds: int) -> None:
    """Print the smallest and the median time of each case."""
    found: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            for (case, threads), folder in zip(CASES.items(), (one, two, two), strict=True):
                found[case].append(measured(folder, threads))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {rounds} rounds; seconds, smallest and median")
    for case, runs in found.items():
        wall, used = zip(*runs, strict=True)
        texts = [f"{what} {min(t):6.2f} {statistics.median(t):6.2f}" for what, t in (("wall", wall), ("cpu", used))]
        print(f"{case:<24} {'   '.join(texts)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
