"""Evaluation by Dask, Polars and DuckDB: the bits of one process."""

import os
import pickle
import signal

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError

pytestmark = [pytest.mark.oracle, pytest.mark.jit]

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(9)
N = 2000
TABLE = pa.table(
    {"z": RNG.normal(size=N), "t": RNG.integers(0, 2, N), "g": RNG.choice(["a", "b"], N), "w": RNG.random(N)}
)
COLUMNS = {"pred": "z", "target": "t"}
OPTIONS = {"weight": "w", "by": "g", "worst": 9, "show": "g", **COLUMNS}
LOSSES = ["bce_with_logits", "focal:gamma=1.5"]
WHOLE = fl.evaluate(TABLE, LOSSES, **OPTIONS)


def test_reports_pickle():
    assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    from dask import config

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(**options, worker_dashboard_address=None, silence_logs=50) as made,
    ):
        yield made


def test_a_dask_data_frame():
    dask = pytest.importorskip("dask.dataframe")
    frame = dask.from_pandas(TABLE.to_pandas(), npartitions=5)
    assert fl.evaluate(frame, LOSSES, **OPTIONS) == WHOLE
    with pytest.raises(InputError, match="the data frame has no column 'y' for pred"):
        fl.evaluate(frame, "mse", pred="y", target="t")


def dies_once(frame, path):
    """Return a partition, but first end the worker that holds it, once."""
    if frame["w"].iloc[0] == TABLE["w"][800].as_py() and not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return frame


def dies(frame):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dask_cluster_whose_worker_dies(cluster, tmp_path):
    dask = pytest.importorskip("dask.dataframe")
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster):
        frame = dask.from_pandas(TABLE.to_pandas(), npartitions=5, sort=False)
        killing = frame.map_partitions(dies_once, str(tmp_path / "died"), meta=frame._meta)
        assert fl.evaluate(killing, LOSSES, **OPTIONS) == WHOLE
        assert (tmp_path / "died").exists()
        with pytest.raises(InputError, match="workers died again and again over one part"):
            fl.evaluate(frame.partitions[:1].map_partitions(dies, meta=frame._meta), "mse", **COLUMNS)


def test_files_by_a_scheduler(cluster, tmp_path):
    for i in range(4):
        pq.write_table(TABLE.slice(500 * i, 500), tmp_path / f"part-{i}.parquet")
    expected = fl.evaluate(tmp_path, LOSSES, **OPTIONS)
    assert fl.evaluate(tmp_path, LOSSES, scheduler=cluster.scheduler_address, **OPTIONS) == expected
    pq.write_table(pa.table({"z": ["x"], "t": [0], "g": ["a"], "w": [1.0]}), tmp_path / "part-9.parquet")
    with pytest.raises(InputError, match=r"part-9\.parquet: column 'z' holds string"):
        fl.evaluate(tmp_path, "mse", scheduler=cluster.scheduler_address, **COLUMNS)


def test_a_scheduler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("fastloss.evaluation.engines.cluster.PATIENCE", 0.5)
    pytest.importorskip("distributed")
    pq.write_table(TABLE, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no scheduler of Dask answers at tcp://127\.0\.0\.1:9"):
        fl.evaluate(tmp_path, "mse", scheduler="tcp://127.0.0.1:9", **COLUMNS)


def test_lazy_frames():
    polars = pytest.importorskip("polars")
    lazy = polars.from_arrow(TABLE).lazy().with_columns(other=polars.col("z") * 2)
    assert fl.evaluate(lazy, LOSSES, **OPTIONS) == WHOLE
    with pytest.raises(InputError, match="the lazy frame has no column 'y' for pred"):
        fl.evaluate(lazy, "mse", pred="y", target="t")
    with pytest.raises(InputError, match="cannot read the lazy frame: "):
        fl.evaluate(polars.scan_parquet("nowhere.parquet"), "mse", **COLUMNS)


def test_relations_and_queries(tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    testing = pytest.importorskip("typer.testing")
    from fastloss.command.commands import app

    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE, "a.parquet")
    relation = duckdb.connect().sql("select * from 'a.parquet'")
    assert fl.evaluate(relation, LOSSES, **OPTIONS) == WHOLE
    columns = ["-l", "mse", "-p", "z 2", "-t", "t"]
    sql = "select z * 2 as \"z 2\", t from 'a.parquet' where g = 'a'"
    done = testing.CliRunner().invoke(app, ["eval", "--sql", sql, *columns])
    chosen = TABLE.filter(pa.compute.equal(TABLE["g"], "a"))
    expected = fl.evaluate((chosen["z"].to_numpy() * 2, chosen["t"].to_numpy()), "mse")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{expected!r}\n", "")
    for wrong, said in (("select x from 'a.parquet'", "--sql: Binder Error"), ("selekt 1", "--sql: Parser Error")):
        done = testing.CliRunner().invoke(app, ["eval", "--sql", wrong, *columns])
        assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    done = testing.CliRunner().invoke(app, ["eval", "a.parquet", "--sql", sql, *columns])
    assert done.stderr == "fastloss: --sql names its own tables; expected no a.parquet beside it\n"
