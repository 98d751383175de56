"""Evaluation of large files: many columns, large row groups and record batches, more data than memory."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
pq = pytest.importorskip("pyarrow.parquet")

from test_evaluate_inputs import LABELS, LOGITS, RNG, N, T, W, Z, expected, write  # noqa: E402


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".npz"])
def test_many_columns(tmp_path, suffix):
    # 256 rows a batch: one of 2 MB would hold 43, and what each column costs would be paid for every 43 rows.
    count, rows = 6_000, 300
    scores, labels = RNG.normal(size=(rows, count)), RNG.integers(0, count, rows)
    path = write(pa.table({"t": labels, **{f"s_{i}": scores[:, i] for i in range(count)}}), tmp_path / f"a{suffix}")
    batches = []
    found = fl.evaluate(path, "cross_entropy", pred="s_*", target="t", progress=lambda done, _: batches.append(done))
    assert found == expected(scores, labels, losses="cross_entropy")
    assert batches == [256, 300]


def test_large_row_groups_give_the_same_report(tmp_path, monkeypatch):
    from fastloss.evaluation import pages

    rows = [None if i == 3 else LOGITS[i].tolist() for i in range(N)]
    table = pa.table({"rows": pa.array(rows, pa.list_(pa.float32())), "t": LABELS, "z": Z, "w.x": W})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300, data_page_size=500)
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet")
    pq.write_table(table.slice(5, 400).select(["w.x", "t", "z", "rows"]), tmp_path / "c.parquet")
    asked = [("cross_entropy", "rows", "t", None), ("mse", "z", "w.x", "w.x")]

    def reports():
        return [
            fl.evaluate(tmp_path, loss, pred=p, target=t, weight=w, on_invalid="skip", worst=3)
            for loss, p, t, w in asked
        ]

    small = reports()
    read = []
    whole = pages.batches
    monkeypatch.setattr(pages, "GROUP_BYTES", 0)
    monkeypatch.setattr(pages, "batches", lambda *a: (read.append(b) or b for b in whole(*a)))
    assert reports() == small
    assert sum(b.num_rows for b in read) == 2 * (N + 400)


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
def test_large_record_batches_give_the_same_report(tmp_path, monkeypatch, new):
    from fastloss.evaluation import ipc

    rows = [None if i % 17 == 3 else LOGITS[i].tolist() for i in range(N)]
    columns = {
        "name": pa.array([f"row {i}" * (i % 4) for i in range(N)]),
        "view": pa.array([f"longer than a view holds: {i}" for i in range(N)], pa.string_view()),
        "lists": pa.array(rows, pa.list_(pa.float32())),
        "fixed": pa.array(rows, pa.list_(pa.float64(), 11)),
        "large": pa.array(rows, pa.large_list(pa.float64())),
        "z": pa.array([None if i % 13 == 2 else x for i, x in enumerate(Z.tolist())]),
        "flag": pa.array((T > 0).tolist()),
        "t": pa.array(LABELS.astype(np.int8)),
    }
    (whole,) = pa.table(columns).combine_chunks().to_batches()
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as f, new(f, whole.schema) as writer:
        for batch in (whole, whole.slice(8, 500), whole.slice(0, 0), whole.slice(3, 77)):
            writer.write_batch(batch)
    asked = [("cross_entropy", n, "t") for n in ("lists", "fixed", "large")]
    asked += [("mse", "z", "flag"), ("mse", "flag", "t")]

    def reports():
        options = {"on_invalid": "skip", "worst": 3}
        return [fl.evaluate(tmp_path / "a.arrow", loss, pred=p, target=t, **options) for loss, p, t in asked]

    small, read, parts = reports(), [], ipc.parts
    monkeypatch.setattr(ipc, "BLOCK_BYTES", 0)
    monkeypatch.setattr(ipc, "step_of", lambda *_: 43)
    monkeypatch.setattr(ipc, "parts", lambda *a: (read.append(b) or b for b in parts(*a)))
    assert reports() == small
    assert max(b.num_rows for b in read) == 40
    assert sum(b.num_rows for b in read) == len(asked) * (N + 577)


LARGE = """
    import sys
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    import fastloss as fl
    path, rows = sys.argv[1], int(sys.argv[2])
    def peak():
        # Not ru_maxrss: that of a child begins with the memory of the process that started it.
        return [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
    fl.evaluate((np.ones(9), np.zeros(9)), "mse")
    fl.evaluate(path + "/small.parquet", "mse", pred="z", target="t")
    before = peak()
    for name in ("large.parquet", "large.arrow"):
        report = fl.evaluate(path + "/" + name, "mse", pred="z", target="t")
        assert report["mse"].count == rows
    report = fl.evaluate([], "mse", pred=path + "/z.npy", target=path + "/t.npy")
    assert report["mse"].count == rows
    # Two row groups of 128 MB, of which a data set would hold four times as much; one record batch of 256 MB.
    for name in ("coarse.parquet", "coarse.arrow"):
        assert fl.evaluate(path + "/" + name, "mse", pred="z", target="t")["mse"].count == rows // 2
    print((peak() - before) // 1024)
"""


@pytest.mark.jit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_larger_than_the_memory_it_takes(tmp_path):
    groups, size = 32, 1_000_000
    part = RNG.normal(size=size)
    table = pa.table({"z": part, "t": part[::-1].copy()})
    with pq.ParquetWriter(tmp_path / "large.parquet", table.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(groups):
            writer.write_table(table)
    coarse = pa.concat_tables([table] * (groups // 2))
    pq.write_table(coarse, tmp_path / "coarse.parquet", compression="none", row_group_size=8 * size)
    feather.write_feather(coarse, str(tmp_path / "coarse.arrow"), compression="uncompressed", chunksize=16 * size)
    del coarse
    with pa.OSFile(str(tmp_path / "large.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
        for _ in range(groups):
            writer.write_table(table, max_chunksize=200_000)
    for name in ("z", "t"):
        mapped = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float64, (groups * size,))
        for i in range(groups):
            mapped[i * size : (i + 1) * size] = part
        mapped.flush()
        del mapped
    pq.write_table(table.slice(0, 1000), tmp_path / "small.parquet")
    script = textwrap.dedent(LARGE)
    command = [sys.executable, "-c", script, str(tmp_path), str(groups * size)]
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    grown = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)
    data = groups * size * 16 // 2**20
    assert grown < data / 2, f"{grown} MB for {data} MB of data"
