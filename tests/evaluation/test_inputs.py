"""Inputs beyond plain files of this machine: compressed text, JSON lines, standard input, labels, other libraries."""

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import sys

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
pq = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(5)
N = 500
Z = RNG.normal(size=N)
T = RNG.normal(size=N)
COLUMNS = {"pred": "z", "target": "t"}


def expected(*columns, **options):
    return fl.evaluate(columns, "mse", **options)


def written(kind):
    """Return the table as CSV or JSON lines, by Python's own writers of numbers."""
    rows = zip(Z.tolist(), T.tolist(), strict=True)
    if kind == "csv":
        return ("id,z,t\n" + "".join(f"a{i},{z!r},{t!r}\n" for i, (z, t) in enumerate(rows))).encode()
    return "".join(json.dumps({"id": i, "z": z, "t": t}) + "\n" for i, (z, t) in enumerate(rows)).encode()


def zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd, ".xz": lzma.compress}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "ndjson"])
@pytest.mark.parametrize("ending", PACKED)
def test_compressed_text(tmp_path, monkeypatch, kind, ending):
    monkeypatch.setattr("fastloss.evaluation.inputs.text.BLOCK", 1000)
    (tmp_path / f"a.{kind}{ending}").write_bytes(PACKED[ending](written(kind)))
    assert fl.evaluate(tmp_path, "mse", **COLUMNS) == expected(Z, T)
    found = fl.evaluate(tmp_path, "mse", worst=1, **COLUMNS).worst["mse"][0]
    assert found.row == int(np.argmax((Z - T) ** 2))
    if ending:
        (tmp_path / f"a.{kind}{ending}").write_bytes(PACKED[ending](written(kind))[:-40])
        with pytest.raises(InputError, match=rf"cannot read .*a\.{kind}{ending}: "):
            fl.evaluate(tmp_path, "mse", **COLUMNS)


def test_line_breaks_within_quotes(tmp_path, monkeypatch):
    monkeypatch.setattr("fastloss.evaluation.inputs.text.BLOCK", 64)
    text = "text,z,t\n" + "".join(f'"a ""b""\n{i}, c\n",{i},0\n' for i in range(50))
    (tmp_path / "a.csv").write_text(text)
    found = fl.evaluate(tmp_path, "mae", worst=50, show="text", **COLUMNS)
    assert (found.rows, found["mae"].mean) == (50, 24.5)
    assert [w.shown["text"] for w in found.worst["mae"]] == [f'a "b"\n{i}, c\n' for i in reversed(range(50))]


def test_types_that_only_later_blocks_show(tmp_path, monkeypatch):
    monkeypatch.setattr("fastloss.evaluation.inputs.text.BLOCK", 64)
    (tmp_path / "a.csv").write_text("z,t,flag\n" + "1,0,true\n" * 30 + "0.5,0,false\n,0,true\n")
    found = fl.evaluate(tmp_path / "a.csv", "mae", on_invalid="skip", **COLUMNS)
    assert (found["mae"].min, found.rows, found.null_rows) == (0.5, 32, 1)
    assert fl.evaluate(tmp_path / "a.csv", "mse", pred="flag", target="t")["mse"].mean == 31 / 32
    lines = ['{"z": [1, 2], "t": 0, "x": {"y": 1}}'] * 30 + ['{"t": 1, "z": [0.5, 2.5], "new": "x"}']
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    rows = np.array([[1.0, 2.0]] * 30 + [[0.5, 2.5]])
    wanted = fl.evaluate((rows, np.array([0] * 30 + [1])), "cross_entropy")
    assert fl.evaluate(tmp_path / "b.jsonl", "cross_entropy", **COLUMNS) == wanted


def test_errors_of_text(tmp_path, monkeypatch):
    monkeypatch.setattr("fastloss.evaluation.inputs.text.BLOCK", 64)
    (tmp_path / "a.jsonl").write_text('{"z": 1, "t": 0}\n' * 20 + "{oops\n")
    with pytest.raises(InputError, match=r"cannot read .*a\.jsonl: JSON parse error.*\(after row \d+\)"):
        fl.evaluate(tmp_path / "a.jsonl", "mse", **COLUMNS)
    (tmp_path / "b.csv").write_text("z,t\n" + "1,2\n" * 20 + "3\n")
    with pytest.raises(InputError, match=r"cannot read .*b\.csv: CSV parse error.*\(after row \d+\)"):
        fl.evaluate(tmp_path / "b.csv", "mse", **COLUMNS)
    (tmp_path / "c.csv").write_text("z,t\n2026-01-01,0\n2026-01-02,1\n")
    with pytest.raises(InputError, match=r"column 'z' holds date32\[day\]; expected numbers"):
        fl.evaluate(tmp_path / "c.csv", "mse", **COLUMNS)
    (tmp_path / "d.jsonl").write_text("")
    assert fl.evaluate(tmp_path / "d.jsonl", "mse", **COLUMNS).rows == 0
    (tmp_path / "e.csv").write_text("z,t\n")
    assert fl.evaluate(tmp_path / "e.csv", "mse", **COLUMNS).rows == 0
    with pytest.raises(InputError, match=r"e\.csv has no column 'y' for pred"):
        fl.evaluate(tmp_path / "e.csv", "mse", pred="y", target="t")


def numbers():
    """Return texts of numbers: of random bits, halfway between doubles, of many digits, with exponents and zeros."""
    chance = random.Random(1)
    for _ in range(4000):
        yield repr(struct.unpack("d", struct.pack("Q", chance.getrandbits(64)))[0])
        yield repr(chance.gauss(0, 1))
        yield f"{chance.getrandbits(63)}e{chance.randint(-40, 40)}"
        yield f"-{2**53 + chance.randint(0, 99)}.5"
        yield str(2 * chance.getrandbits(53) + 1)
        yield "0." + "0" * chance.randint(0, 30) + str(chance.getrandbits(60))
    yield from (
        "0",
        "-0",
        "0.0",
        "-0.0e0",
        "1E5",
        "1e+2",
        "9007199254740993",
        "1e308",
        "2.2250738585072014e-308",
        "1e22",
    )


@pytest.mark.jit
def test_numbers_of_json_are_those_of_python():
    from fastloss.evaluation.inputs.numbers import json_numbers

    keys, starts, out = np.frombuffer(b"zt", np.uint8), np.array([0, 1, 2]), np.zeros((2, 1), np.uint64)
    left = 0
    for text in numbers():
        line = f'{{"x": "a\\"b", "t":{text}, "y":true , "z": 1}}\n'
        rows = json_numbers(np.frombuffer(line.encode(), np.uint8), keys, starts, out)
        left += rows < 0
        if rows == 1:
            got = out.view(float)[1, 0]
            assert (got, np.signbit(got)) == (float(text), text[0] == "-"), text
    # Numbers that are not normal, and a few that the method cannot decide.
    assert left < 60
    for line in (
        '{"z":1}',
        '{"z":1,"t":null}',
        '{"z":[1],"t":1}',
        '{"z":1,"t":1,"z":2}',
        '{"z":1 "t":2}',
        '{"z":1,"t":2',
        "x",
        '{"z":.5,"t":1}',
        '{"z":1.,"t":1}',
        '{"z":1,"t":1e}',
        '{"z":1,"t":1}{"z":1,"t":1}',
        '{"z":12345678901234567890,"t":1}',
    ):
        assert json_numbers(np.frombuffer(line.encode(), np.uint8), keys, starts, out) == -1, line


@pytest.mark.jit
def test_lines_that_the_kernel_leaves_to_arrow(tmp_path, monkeypatch):
    monkeypatch.setattr("fastloss.evaluation.inputs.text.BLOCK", 200)
    monkeypatch.setattr("fastloss.evaluation.inputs.text.FIRST_BLOCKS", 1)
    rows = [(i * 0.1, i) for i in range(100)]
    lines = [json.dumps({"z": z, "t": t, "text": f"row \u00e9 {t}"}) for z, t in rows]
    for odd in (None, '{"z": 4.0, "t": 40, "deep": {"a": [1]}}', '{"\\u007a": 4.0, "t": 40}'):
        lines[40] = odd or lines[40]
        (tmp_path / "a.jsonl").write_text("\n\n".join(lines) + "\n")
        expected = fl.evaluate((np.array([z for z, _ in rows]), np.array([t for _, t in rows])), "mse")
        assert fl.evaluate(tmp_path / "a.jsonl", "mse", **COLUMNS) == expected


class Standard:
    """A stand-in for sys.stdin that gives few bytes at a time, as a pipe does."""

    def __init__(self, data):
        self.buffer = io.BufferedReader(io.BytesIO(data), 64)


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=99)
    return sink.getvalue().to_pybytes()


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_standard_input(monkeypatch):
    table = pa.table({"z": Z, "t": T})
    given = {"": written("csv"), "csv": written("csv"), "jsonl": written("jsonl")}
    given |= {"tsv": written("csv").replace(b",", b"\t"), "arrow": stream(table), "parquet": parquet(table)}
    for form, data in given.items():
        monkeypatch.setattr(sys, "stdin", Standard(data))
        assert fl.evaluate("-", "mse", format=form, **COLUMNS) == expected(Z, T), form
    monkeypatch.setattr(sys, "stdin", Standard(b"z,t\nx,1\n"))
    with pytest.raises(InputError, match=r"standard input: column 'z' holds string; expected numbers"):
        fl.evaluate("-", "mse", **COLUMNS)
    for form in ("arrow", "parquet"):
        monkeypatch.setattr(sys, "stdin", Standard(b"neither of them"))
        with pytest.raises(InputError, match="cannot read standard input: "):
            fl.evaluate("-", "mse", format=form, **COLUMNS)
    with pytest.raises(InputError, match="format is 'xls'; allowed: csv, tsv, jsonl"):
        fl.evaluate("-", "mse", format="xls", **COLUMNS)


def test_a_format_that_the_ending_does_not_say(tmp_path):
    (tmp_path / "a.log").write_bytes(written("jsonl"))
    assert fl.evaluate(tmp_path / "a.log", "mse", format="jsonl", **COLUMNS) == expected(Z, T)
    with pytest.raises(InputError, match=r"a\.log has an unknown ending; .*format='csv' names another"):
        fl.evaluate(tmp_path / "a.log", "mse", **COLUMNS)


def test_whole_numbers_as_predictions(tmp_path):
    z, t = np.arange(5), np.zeros(5, np.int8)
    pq.write_table(pa.table({"z": z, "t": t}), tmp_path / "a.parquet")
    assert fl.evaluate(tmp_path / "a.parquet", "mse", **COLUMNS) == fl.evaluate((z * 1.0, t), "mse")
    assert fl.evaluate((z, t), "mse") == fl.evaluate((z * 1.0, t), "mse")


def test_remote_paths_that_cannot_be_read():
    with pytest.raises(
        InputError, match=r"nope:// is no scheme that is known; expected such as s3://|nope:// needs fsspec"
    ):
        fl.evaluate("nope://bucket/a.csv", "mse", **COLUMNS)
    with pytest.raises(InputError, match=r"s3:///a\.csv names no bucket"):
        fl.evaluate("s3:///a.csv", "mse", **COLUMNS)


def test_a_directory_of_columns(tmp_path):
    for i, country in enumerate(("DE", "FR")):
        folder = tmp_path / f"country={country}"
        folder.mkdir()
        (folder / "part.csv.gz").write_bytes(gzip.compress(written("csv")))
        pq.write_table(pa.table({"z": Z + i, "t": T}), folder / "part.parquet")
    found = fl.evaluate(tmp_path, "mse", by="country", **COLUMNS)
    assert list(found.groups) == ["DE", "FR"]
    assert found.groups["DE"]["mse"] == expected(Z, T).merge(expected(Z, T))["mse"]
    assert found.groups["FR"]["mse"] == expected(Z, T).merge(expected(Z + 1, T))["mse"]
