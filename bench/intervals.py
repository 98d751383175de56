"""Coverage of the intervals of fastloss.compare: how often a 95% interval holds the true difference.

Data sets are simulated whose true mean difference is known, with the losses of one prediction a constant. A share of
1,000 sets has a standard error of 0.7 of a percent.

    python -m bench.intervals [--sets N] [--only METHOD] [--markdown FILE]
"""

import argparse
import datetime
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastloss as fl
from fastloss.evaluation.compare.pairs import BUCKETS
from fastloss.evaluation.intervals import bootstrapped

SIGMA = 1.5
LEVEL = 0.95

Draw = Callable[[Any, int], Any]

DRAWS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "Student's t, 3 degrees": (lambda rng, n: rng.standard_t(3, size=n), 0.0),
    "lognormal, sigma 1.5": (lambda rng, n: rng.lognormal(0.0, SIGMA, size=n), math.exp(SIGMA**2 / 2)),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
}

CASES = [
    ("rows", "normal", 20, 0),
    ("rows", "normal", 1000, 0),
    ("rows", "Student's t, 3 degrees", 1000, 0),
    ("rows", "Student's t, 3 degrees", 5000, 0),
    ("rows", "lognormal, sigma 1.5", 5000, 0),
    ("clusters", "normal", 1000, 20),
    ("clusters", "normal", 1000, 100),
    ("clusters", "Student's t, 3 degrees", 5000, 20),
    ("clusters", "lognormal, sigma 1.5", 5000, 20),
    ("bootstrap", "normal", 20, 0),
    ("bootstrap", "normal", 1000, 0),
    ("bootstrap", "exponential", 100, 0),
    ("bootstrap", "Student's t, 3 degrees", 1000, 0),
    ("bootstrap", "Student's t, 3 degrees", 5000, 0),
    ("bootstrap", "lognormal, sigma 1.5", 5000, 0),
    ("bootstrap of clusters", "normal", 1000, 20),
    ("bootstrap of clusters", "normal", 1000, 100),
    ("bootstrap of clusters", "lognormal, sigma 1.5", 5000, 100),
]
"""Method, distribution, rows and clusters."""


def covers(rng: Any, method: str, kind: str, rows: int, clusters: int) -> tuple[bool, bool]:
    """Return whether the interval of one data set begins above the true difference, and whether it ends below it."""
    draw, true = DRAWS[kind]
    difference = draw(rng, rows)
    user = np.arange(rows) if not clusters else rng.integers(0, clusters, rows)
    if clusters:
        # Half of the variance of a normal difference, and less of the others, is that of the cluster.
        difference = difference + rng.normal(size=clusters)[user]
    if method.startswith("bootstrap"):
        # The interval of compare(bootstrap=True), without the pass over the rows: a quarter of the time.
        counts = np.bincount(user % BUCKETS)
        estimate = bootstrapped(np.bincount(user % BUCKETS, difference), counts.astype(float), LEVEL)
        return bool(estimate.low > true), bool(estimate.high < true)
    # Far from 0, where absolute errors are the values themselves.
    data = {"a": 1e4 + difference, "b": np.full(rows, 1e4), "t": np.zeros(rows), "user": user}
    options = {"cluster_by": "user"} if clusters else {}
    found = fl.compare(data, "mae", pred="a", against="b", target="t", confidence=LEVEL, **options)["mae"]
    return bool(found.low > true), bool(found.high < true)


def main() -> None:
    """Simulate, and print or write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--only", default="", help="beginning of the names of intervals, such as bootstrap")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    lines = [
        f"# Coverage of 95% intervals in {options.sets:,} simulated data sets",
        "",
        f"{datetime.date.today()}, fastloss {fl.__version__}, NumPy {np.__version__}, Python "
        f"{platform.python_version()}; `python -m bench.intervals`.",
        "Shares of sets whose interval holds the true difference, lies above it, and below it.",
        "",
        "| intervals | differences | rows | clusters | hold it | above | below |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for number, (method, kind, rows, clusters) in enumerate(CASES):
        if not method.startswith(options.only):
            continue
        rng = np.random.default_rng([2026, number])
        found = np.array([covers(rng, method, kind, rows, clusters) for _ in range(options.sets)])
        above, below = found.mean(axis=0)
        held = 1.0 - above - below
        shown = f"{clusters}" if clusters else ""
        lines.append(f"| {method} | {kind} | {rows:,} | {shown} | {held:.1%} | {above:.1%} | {below:.1%} |")
        print(lines[-1], flush=True)
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
