"""Measure inputs of `fl.evaluate`: `python bench/eval_inputs.py speed|memory|kills|dask`.

speed: CSV and JSON lines, plain and compressed, beside Polars' scan with the same expression.
memory: the most memory that a Parquet file of 2 GB in row groups as large as they get takes.
kills: an evaluation with `resume=` that is killed at random 50 times, and its bits in the end.
dask: two workers beside this process on files of 60 million rows.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import fastloss as fl

OPTIONS = {"losses": "mse", "pred": "z", "target": "t"}
ENDINGS = ("csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "jsonl.zst")


def rows(count, seed=0):
    """Return a table of predictions and targets."""
    rng = np.random.default_rng(seed)
    return pa.table({"id": np.arange(count), "z": rng.normal(size=count), "t": rng.integers(0, 2, count)})


def speed(folder, count=1_000_000):
    """Print the time of each ending, and the ratio to Polars."""
    import polars

    table = rows(count)
    pa.csv.write_csv(table, folder / "a.csv")
    polars.from_arrow(table).write_ndjson(folder / "a.jsonl")
    for ending in ("csv", "jsonl"):
        data = (folder / f"a.{ending}").read_bytes()
        for packed, codec in (("gz", "gzip"), ("zst", "zstd")):
            (folder / f"a.{ending}.{packed}").write_bytes(pa.compress(data, codec, asbytes=True))

    def by_polars(path):
        scan = polars.scan_csv if "csv" in path.name else polars.scan_ndjson
        difference = polars.col("z") - polars.col("t")
        chosen = (difference**2).alias("l")
        figures = [polars.col("l").mean(), polars.col("l").std().alias("s"), polars.col("l").max().alias("m")]
        return scan(path).select(chosen).select(figures).collect(engine="streaming")

    print("| Input | fastloss (s) | Polars (s) | ratio |\n|---|---|---|---|")
    for ending in ENDINGS:
        path, times = folder / f"a.{ending}", {"fastloss": [], "polars": []}
        for _ in range(6):
            for name, call in (("fastloss", lambda p: fl.evaluate(p, **OPTIONS)), ("polars", by_polars)):
                begun = time.perf_counter()
                call(path)
                times[name].append(time.perf_counter() - begun)
        mine, theirs = (median(t[1:]) for t in times.values())
        print(f"| {ending} | {mine:.3f} | {theirs:.3f} | {mine / theirs:.2f} |", flush=True)


def memory(folder, count=134_000_000):
    """Print the most memory of evaluating a file of row groups as large as pyarrow writes them, 67 million rows."""
    path, step = folder / "big.parquet", 2_000_000
    schema = pa.schema([("z", pa.float64()), ("t", pa.float64())])
    rng, code = np.random.default_rng(0), "import sys; from bench.eval_inputs import evaluated; evaluated(sys.argv[1])"
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:

        def batches():
            for _ in range(count // step):
                yield pa.RecordBatch.from_arrays([pa.array(rng.normal(size=step)) for _ in range(2)], schema=schema)

        writer.writer.write_table(pa.Table.from_batches(batches(), schema), row_group_size=count)
    groups = pq.read_metadata(path).num_row_groups
    print(f"{path.stat().st_size / 1e9:.2f} GB in {groups} row group(s)", flush=True)
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def evaluated(path):
    """Evaluate a file and print time and memory."""
    fl.evaluate((np.ones(10), np.ones(10)), "mse")
    begun = time.perf_counter()
    report = fl.evaluate(path, **OPTIONS)
    # Not that of getrusage, which of a child begins with its parent's.
    status = Path("/proc/self/status").read_text()
    most = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(f"{report.rows:,} rows, {time.perf_counter() - begun:.1f} s, at most {most:.0f} MB")


RESUMED = """
import sys, fastloss as fl
fl.evaluate(sys.argv[2:], ["mse", "mae"], pred="z", target="t", worst=5, resume=sys.argv[1],
            progress=lambda done, total: print(done, flush=True))
"""


def kills(folder, count=50):
    """Kill an evaluation at random, and compare the report of the last with one that was not killed."""
    chance, files = random.Random(0), [folder / f"part-{i}.parquet" for i in range(24)]
    for i, file in enumerate(files):
        pq.write_table(rows(200_000, i), file)
    command, killed = [sys.executable, "-c", RESUMED, str(folder / "kept"), *map(str, files)], 0
    while killed < count:
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.3))
        killed += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.communicate()
    done = len([p for p in (folder / "kept").iterdir() if p.suffix == ".json"]) - 1
    options = {"losses": ["mse", "mae"], "pred": "z", "target": "t", "worst": 5}
    same = fl.evaluate(files, resume=folder / "kept", **options) == fl.evaluate(files, **options)
    print(f"killed {killed} times, {done} of {len(files)} files finished by then, the same bits: {same}")
    sys.exit(not same)


def dask(folder, count=3_750_000):
    """Print the time of two workers beside this process, on 16 files."""
    from distributed import Client, LocalCluster

    files = [folder / f"part-{i}.parquet" for i in range(16)]
    for i, file in enumerate(files):
        pq.write_table(rows(count, i).select(["z", "t"]), file)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        times = {"local": [], "dask": []}
        for _ in range(4):
            for name, more in (("local", {}), ("dask", {"scheduler": client})):
                begun = time.perf_counter()
                report = fl.evaluate(folder, **OPTIONS, **more)
                times[name].append(time.perf_counter() - begun)
    local, two = (median(t[1:]) for t in times.values())
    print(f"{report.rows:,} rows: local {local:.2f} s, two workers {two:.2f} s, ratio {two / local:.2f}")


def main():
    """Measure what is named."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        {"speed": speed, "memory": memory, "kills": kills, "dask": dask}[sys.argv[1]](Path(folder))


if __name__ == "__main__":
    main()
