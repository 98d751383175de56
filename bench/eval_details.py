"""fastloss.evaluate with histograms, quantiles, calibration, confusion counts and gaps, against the plain run.

All take turns in one round after another; the figures are medians and ratios to the plain run of one loss.

    python -m bench.eval_details [--rows N] [--rounds N] [--file FILE.parquet] [--markdown FILE]
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

import fastloss as fl

from .eval_groups import LOSS, make

ASKED: dict[str, dict[str, Any]] = {
    "one loss": {},
    "quantiles": {"quantiles": [0.5, 0.9, 0.99]},
    "histograms of loss, prediction and label": {"hist": 50},
    "calibration": {"calibration": True},
    "confusion counts": {"confusion": True},
    "all of these": {"quantiles": [0.5, 0.9, 0.99], "hist": 50, "calibration": True, "confusion": True},
    "by 1,000 groups": {"by": "number"},
    "by 1,000 groups, gaps": {"by": "number", "gaps": True},
}


def polars(path: str) -> None:
    """Compute the same three quantiles of the loss in Polars, which keeps all values."""
    z, y = pl.col("logit").cast(pl.Float64), pl.col("label").cast(pl.Float64)
    loss = z.clip(lower_bound=0.0) - z * y + (1.0 + (-z.abs()).exp()).log()
    quantiles = [loss.quantile(q, "linear").alias(str(q)) for q in (0.5, 0.9, 0.99)]
    pl.scan_parquet(path).select(loss.mean().alias("mean"), *quantiles).collect(engine="streaming")


def main() -> None:
    """Measure, and print or write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--file", type=Path, help="Parquet file to use, written if it is not there")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder, "rows.parquet")
        if not path.exists():
            make(path, options.rows)
        data = str(path)
        found = {n: (lambda o=o: fl.evaluate(data, LOSS, pred="logit", target="label", **o)) for n, o in ASKED.items()}
        found["quantiles in Polars"] = lambda: polars(data)
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(options.rounds + 1):
            for name, run in found.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        rows = fl.evaluate(data, "mse", pred="logit", target="label").rows
    medians = {name: statistics.median(t[1:]) for name, t in times.items()}
    lines = [
        f"# Details of evaluations of {rows:,} rows",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, fastloss {fl.__version__}, "
        f"Polars {pl.__version__}; `python -m bench.eval_details`.",
        "Medians; ratios to one loss.",
        "",
        "| | seconds | ratio |",
        "|---|---:|---:|",
        *(f"| {name} | {t:.3f} | {t / medians['one loss']:.2f} |" for name, t in medians.items()),
    ]
    text = "\n".join(lines) + "\n"
    if options.markdown:
        options.markdown.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
