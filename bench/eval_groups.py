"""fastloss.evaluate by groups and fastloss.compare on a large Parquet, against merely reading it and against Polars.

All take turns in one round after another; the figures are medians, and ratios to reading the same three columns with
pyarrow.dataset (of comparisons, to two evaluations).

    python -m bench.eval_groups [--rows N] [--rounds N] [--dir DIR | --file FILE] [--markdown FILE]
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import fastloss as fl

GROUP = 1_000_000
LOSS = "bce_with_logits"


def make(path: Path, rows: int) -> None:
    """Write logits of two classifiers, labels, and keys: 1,000 whole numbers, 1,000 texts, 50,000 whole numbers."""
    rng = np.random.default_rng(0)
    names = pa.array([f"user {i}" for i in range(1000)])
    writer = None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        z = (rng.normal(size=n) * 3).astype(np.float32)
        key = rng.integers(0, 1000, n).astype(np.int32)
        table = pa.table(
            {
                "logit": z,
                "other": z + rng.normal(size=n).astype(np.float32) * np.float32(0.1),
                "label": (rng.random(n) < 1 / (1 + np.exp(-z))).astype(np.int8),
                "number": key,
                "text": names.take(pa.array(key)),
                "many": rng.integers(0, 50_000, n).astype(np.int32),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=GROUP)
    assert writer is not None
    writer.close()


def read(path: str, *columns: str) -> None:
    """Read columns, and do nothing with them."""
    for _ in ds.dataset(path).to_batches(columns=["logit", "label", *columns]):
        pass


def polars(path: str, key: str) -> None:
    """Compute the same means by groups in Polars, streaming."""
    z, y = pl.col("logit").cast(pl.Float64), pl.col("label").cast(pl.Float64)
    loss = z.clip(lower_bound=0.0) - z * y + (1.0 + (-z.abs()).exp()).log()
    pl.scan_parquet(path).group_by(key).agg(loss.mean()).collect(engine="streaming")


def contestants(path: str) -> dict[str, tuple[Callable[[], object], str]]:
    """Return what is measured, and what each is measured against."""

    def by(key: str | None, pred: str = "logit") -> object:
        return fl.evaluate(path, LOSS, pred=pred, target="label", by=key)

    def compared(**options: str) -> object:
        return fl.compare(path, LOSS, pred="logit", against="other", target="label", **options)

    keys = ("number", "text", "many")
    found: dict[str, tuple[Callable[[], object], str]] = {
        f"read, with {k}": (lambda k=k: read(path, k), "") for k in keys
    }
    found["no groups"] = (lambda: by(None), "read, with number")
    found |= {f"by {k}": (lambda k=k: by(k), f"read, with {k}") for k in keys}
    found |= {f"Polars by {k}": (lambda k=k: polars(path, k), f"read, with {k}") for k in keys}
    found["evaluate twice"] = (lambda: (by(None), by(None, "other")), "")
    found["compare"] = (compared, "evaluate twice")
    found["compare, clusters by number"] = (lambda: compared(cluster_by="number"), "evaluate twice")
    return found


def main() -> None:
    """Measure, and print or write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--file", type=Path, help="file of the rows, made where it does not exist and left there")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        path = options.file or Path(folder, "rows.parquet")
        if not path.exists():
            make(path, options.rows)
        options.rows = pq.read_metadata(path).num_rows
        found = contestants(str(path))
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(options.rounds + 1):
            for name, (run, _) in found.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t[1:]) for name, t in times.items()}
    lines = [
        f"# Groups and comparisons of {options.rows:,} rows",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, fastloss {fl.__version__}, "
        f"pyarrow {pa.__version__}, Polars {pl.__version__}; `python -m bench.eval_groups`.",
        "Medians; ratios to reading the same three columns, and of comparisons to two evaluations.",
        "",
        "| | seconds | ratio |",
        "|---|---:|---:|",
    ]
    for name, (_, against) in found.items():
        ratio = f"{medians[name] / medians[against]:.2f}" if against else ""
        lines.append(f"| {name} | {medians[name]:.3f} | {ratio} |")
    text = "\n".join(lines) + "\n"
    if options.markdown:
        options.markdown.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
