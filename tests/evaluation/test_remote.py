"""Object stores: an S3 of the package moto, and a file system of fsspec."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError

pytestmark = [pytest.mark.oracle]

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")
remote = pytest.importorskip("fastloss.evaluation.inputs.remote")

RNG = np.random.default_rng(11)
Z, T = RNG.normal(size=400), RNG.normal(size=400)
COLUMNS = {"pred": "z", "target": "t"}
WHOLE = fl.evaluate((Z, T), "mse")


def parts():
    """Return the bytes of four files of a hundred rows each, of four formats."""
    table = pa.table({"z": Z, "t": T})
    sinks = [pa.BufferOutputStream() for _ in range(2)]
    pq.write_table(table.slice(0, 100), sinks[0])
    feather.write_feather(table.slice(100, 100), sinks[1])
    rows = list(zip(Z.tolist(), T.tolist(), strict=True))
    csv = "z,t\n" + "".join(f"{z!r},{t!r}\n" for z, t in rows[200:300])
    lines = "".join(f'{{"z": {z!r}, "t": {t!r}}}\n' for z, t in rows[300:])
    return {
        "run/part-1.parquet": sinks[0].getvalue().to_pybytes(),
        "run/part-2.feather": sinks[1].getvalue().to_pybytes(),
        "run/day=3/part-3.csv.gz": pa.compress(csv.encode(), "gzip", asbytes=True),
        "run/part-10.jsonl": lines.encode(),
        "run/_SUCCESS": b"",
        "run/.hidden/part-5.parquet": b"not read",
    }


@pytest.fixture(scope="module")
def bucket():
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    moto = server.ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    endpoint = f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        given = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ENDPOINT_URL": endpoint}
        for name, value in {**given, "EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(f"AWS_{name}", value)
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        for key, data in parts().items():
            client.put_object(Bucket="bucket", Key=key, Body=data)
        remote._connected.cache_clear()
        yield client
        remote._connected.cache_clear()
    moto.stop()


def test_files_directories_and_globs_of_a_bucket(bucket):
    assert fl.evaluate("s3://bucket/run", "mse", **COLUMNS) == WHOLE
    assert (
        fl.evaluate([f"s3://bucket/{k}" for k in parts() if "part-" in k and "hidden" not in k], "mse", **COLUMNS)
        == WHOLE
    )
    found = fl.evaluate("s3://bucket/run/part-*", "mse", worst=1, **COLUMNS)
    assert found.rows == 300
    assert found.worst["mse"][0].file.startswith("s3://bucket/run/part-")
    assert fl.evaluate("s3://bucket/**/part-3.*", "mse", by="day", **COLUMNS).groups[3].rows == 100


def test_a_resumed_evaluation_of_a_bucket(bucket, tmp_path):
    for _ in range(2):
        assert fl.evaluate("s3://bucket/run", "mse", resume=tmp_path, **COLUMNS) == WHOLE


def test_errors_of_a_bucket(bucket, monkeypatch):
    for uri in ("s3://bucket/nothing.csv", "s3://nowhere/a.csv"):
        with pytest.raises(InputError, match=f"no such file or directory: {uri}"):
            fl.evaluate(uri, "mse", **COLUMNS)
    with pytest.raises(InputError, match=r"no file matches s3://bucket/run/\*\.npz"):
        fl.evaluate("s3://bucket/run/*.npz", "mse", **COLUMNS)
    from fastloss.evaluation import sources

    def vanish(paths):
        found = expand(paths)
        bucket.delete_object(Bucket="bucket", Key="run/gone.csv")
        return found

    expand = sources.expand
    monkeypatch.setattr(sources, "expand", vanish)
    bucket.put_object(Bucket="bucket", Key="run/gone.csv", Body=b"z,t\n1,2\n")
    with pytest.raises(
        InputError, match=r"no such file: s3://bucket/run/gone\.csv|cannot read s3://bucket/run/gone\.csv"
    ):
        fl.evaluate("s3://bucket/run/gone.csv", "mse", **COLUMNS)


def test_a_missing_credential_says_what_to_set():
    with (
        pytest.raises(
            InputError, match=r"s3://b/a\.csv: access denied; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ),
        remote.accessible("s3://b/a.csv"),
    ):
        raise OSError("When reading information for key: AWS Error ACCESS_DENIED during HeadObject operation")


def test_a_file_system_of_fsspec():
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for key, data in parts().items():
        store.pipe(f"/place/{key}", data)
    assert fl.evaluate("memory://place/run", "mse", **COLUMNS) == WHOLE
    assert fl.evaluate("memory://place/run/*.parquet", "mse", **COLUMNS).rows == 100
    store.rm("/place", recursive=True)
