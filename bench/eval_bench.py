"""fastloss.evaluate on a large Parquet of logits and labels, against merely reading it and against other engines.

Each engine runs in a process of its own (peak memory), then all take turns in one round after another (time); the
figures are medians and ratios to merely reading the two columns with pyarrow.dataset.

    python bench/eval_bench.py [--rows N] [--label int8|float32] [--rounds N] [--dir DIR | --file FILE] [--sklearn]
                               [--json FILE] [--markdown FILE]
    python bench/eval_bench.py --csv --rows 10000000                         the same rows as text
    python bench/eval_bench.py --memory --rows 200000000 --group 10000000    peak memory only, of large row groups
"""

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

GROUP = 1_000_000


def make(path: Path, rows: int, label: str, group: int = GROUP) -> None:
    """Logits of a useful classifier and labels drawn from its probabilities, in row groups of `group` rows."""
    rng = np.random.default_rng(0)
    kind = {"int8": pa.int8(), "float32": pa.float32()}[label]
    with pq.ParquetWriter(path, pa.schema([("logit", pa.float32()), ("label", kind)])) as writer:
        for start in range(0, rows, group):
            z = (rng.normal(size=min(group, rows - start)) * 3).astype(np.float32)
            y = (rng.random(z.size) < 1 / (1 + np.exp(-z))).astype(label)
            writer.write_table(pa.table({"logit": z, "label": y}), row_group_size=group)


def make_csv(path: Path, rows: int) -> None:
    """The same rows as text, beside a column of text that nobody reads."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        make(Path(folder) / "rows.parquet", rows, "int8")
        schema = pa.schema([("logit", pa.float32()), ("label", pa.int8()), ("note", pa.string())])
        with pyarrow.csv.CSVWriter(path, schema) as writer:
            for batch in ds.dataset(Path(folder) / "rows.parquet").to_batches():
                notes = pa.array(["a note of some words"] * batch.num_rows)
                writer.write_batch(pa.record_batch([*batch.columns, notes], schema=schema))


def _dataset(path: str) -> ds.Dataset:
    return ds.dataset(path, format="csv" if path.endswith(".csv") else "parquet")


def reading(path: str) -> float:
    for _ in _dataset(path).to_batches(columns=["logit", "label"]):
        pass
    return math.nan


def fastloss_evaluate(path: str) -> float:
    import fastloss as fl

    return fl.evaluate(path, "bce_with_logits", pred="logit", target="label")["bce_with_logits"].mean


def fastloss_five_losses(path: str) -> float:
    import fastloss as fl

    names = ["bce_with_logits", "focal", "mse", "mae", "huber"]
    return fl.evaluate(path, names, pred="logit", target="label")["bce_with_logits"].mean


def polars_streaming(path: str) -> float:
    import polars as pl

    z, y = pl.col("logit"), pl.col("label")
    loss = z.clip(0) - z * y + (-z.abs()).exp().log1p()
    scan = pl.scan_csv if path.endswith(".csv") else pl.scan_parquet
    return float(scan(path).select(loss.mean()).collect(engine="streaming").item())


def duckdb_sql(path: str) -> float:
    import duckdb

    loss = "greatest(logit, 0) - logit * label + ln(1 + exp(-abs(logit)))"
    return float(duckdb.sql(f"select avg({loss}) from '{path}'").fetchall()[0][0])


def sklearn_log_loss(path: str) -> float:
    from sklearn.metrics import log_loss

    table = _dataset(path).to_table()
    z = table["logit"].to_numpy()
    return float(log_loss(table["label"].to_numpy(), 1 / (1 + np.exp(-z.astype(float)))))


ENGINES: dict[str, Callable[[str], float]] = {
    f.__name__: f
    for f in (reading, fastloss_evaluate, fastloss_five_losses, polars_streaming, duckdb_sql, sklearn_log_loss)
}


def exact_mean(path: Path) -> Fraction:
    """The mean of the losses in double precision, added up without rounding."""
    total, rows = Fraction(0), 0
    for batch in _dataset(str(path)).to_batches(columns=["logit", "label"]):
        z, y = (batch[c].to_numpy().astype(float) for c in ("logit", "label"))
        # fsum rounds once a batch: an error of 1e-16 of a batch's sum.
        total += Fraction(math.fsum((np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))).tolist()))
        rows += z.size
    return total / rows


def peak_memory(name: str, path: Path) -> int:
    """Peak resident memory in MB of a fresh process that runs one engine."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import eval_bench as b; b.ENGINES[{name!r}]({str(path)!r});"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    # Not ru_maxrss: that of a child begins with the memory of the process that started it.
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(out.split()[-1]) // 1024


def measure(path: Path, names: list[str], rounds: int, times_only: bool) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {n: [] for n in names}
    values = {n: ENGINES[n](str(path)) for n in names}
    for _ in range(rounds):
        for n in names:
            start = time.perf_counter()
            ENGINES[n](str(path))
            times[n].append(time.perf_counter() - start)
    exact = math.nan if times_only else exact_mean(path)
    base = statistics.median(times["reading"])
    return {
        n: {
            "seconds": statistics.median(t),
            "fastest": min(t),
            "ratio": statistics.median(t) / base,
            "error": float(abs(Fraction(values[n]) - exact) / exact) if not math.isnan(values[n] + exact) else math.nan,
            "peak_mb": math.nan if times_only else peak_memory(n, path),
        }
        for n, t in times.items()
    }


def table(results: dict[str, dict[str, float]], about: str) -> str:
    """Return the figures as a page of Markdown."""
    lines = [
        f"# Evaluation of {about}",
        "",
        "Medians of rounds in which all take turns; ratios to merely reading the columns with pyarrow.dataset.",
        "",
        "| engine | seconds | ratio | relative error of the mean | peak memory (MB) |",
        "|---|---:|---:|---:|---:|",
    ]
    for n, r in results.items():
        error = "" if math.isnan(r["error"]) else f"{r['error']:.0e}"
        name, peak = n.replace("_", " "), "" if math.isnan(r["peak_mb"]) else f"{r['peak_mb']:.0f}"
        lines.append(f"| {name} | {r['seconds']:.3f} | {r['ratio']:.2f} | {error} | {peak} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=60_000_000)
    parser.add_argument("--label", choices=("int8", "float32"), default="int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--sklearn", action="store_true", help="also scikit-learn's log_loss: slow, and gigabytes")
    parser.add_argument("--group", type=int, default=GROUP, help="rows in a row group of the file")
    parser.add_argument("--memory", action="store_true", help="measure peak memory only")
    parser.add_argument("--times", action="store_true", help="neither errors nor peak memory, which take a minute")
    parser.add_argument("--csv", action="store_true", help="rows of text")
    parser.add_argument("--file", type=Path, help="file of the rows, made where it does not exist and left there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    names = [n for n in ENGINES if n != "sklearn_log_loss" or options.sklearn]
    names = [n for n in names if n == "reading" or importlib.util.find_spec(n.partition("_")[0])]
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        path = options.file or Path(folder) / ("logits.csv" if options.csv else "logits.parquet")
        if not path.exists():
            if options.csv:
                make_csv(path, options.rows)
            else:
                make(path, options.rows, options.label, options.group)
        size = path.stat().st_size
        about = (
            f"{options.rows:,} rows, {size / 1e6:.0f} MB, {platform.machine()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}, {datetime.date.today()}"
        )
        print(about)
        if options.memory:
            for n in names:
                print(f"{n:<22}{peak_memory(n, path):>9} MB at the peak")
            return
        results = measure(path, names, options.rounds, options.times)
    print(f"{'engine':<22}{'seconds':>9}{'ratio':>7}{'error':>10}{'peak MB':>9}")
    for n, r in results.items():
        print(f"{n:<22}{r['seconds']:>9.3f}{r['ratio']:>7.2f}{r['error']:>10.1e}{r['peak_mb']:>9}")
    if options.markdown is not None:
        options.markdown.write_text(table(results, f"{path.suffix[1:]}, {about}"))
    if options.json is not None:
        report = {"rows": options.rows, "bytes": size, "cores": os.cpu_count(), "engines": results}
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
