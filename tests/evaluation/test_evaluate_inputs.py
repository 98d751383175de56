"""What an evaluation reads: formats, columns of all types, invalid rows."""

import decimal
import os
import sys

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
feather = pytest.importorskip("pyarrow.feather")
pq = pytest.importorskip("pyarrow.parquet")
ds = pytest.importorskip("pyarrow.dataset")

RNG = np.random.default_rng(1)
N = 1000
Z = RNG.normal(size=N)
T = RNG.normal(size=N)
W = RNG.random(N)
LOGITS = RNG.normal(size=(N, 11)).astype(np.float32)
LABELS = RNG.integers(0, 11, N)


def expected(*columns, losses="mse", **options):
    return fl.evaluate(columns, losses, **options)


@pytest.fixture
def table():
    return pa.table({"z": Z, "t": T, "w": W})


def write(table, path):
    writers = {
        ".parquet": lambda: pq.write_table(table, path, row_group_size=300),
        ".feather": lambda: feather.write_feather(table, path),
        ".arrow": lambda: feather.write_feather(table, path, compression="uncompressed", chunksize=100),
        ".csv": lambda: csv.write_csv(table, path),
        ".tsv": lambda: csv.write_csv(table, path, csv.WriteOptions(delimiter="\t")),
        ".npz": lambda: np.savez(path, **{c: table[c].to_numpy() for c in table.column_names}),
    }
    writers[path.suffix]()
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".csv", ".tsv", ".npz"])
def test_every_format_gives_the_same_report(table, tmp_path, suffix):
    path = write(table, tmp_path / f"data{suffix}")
    columns = {"pred": "z", "target": "t", "weight": "w"}
    assert fl.evaluate(path, ["mse", "mae"], **columns) == expected(Z, T, W, losses=["mse", "mae"])


def test_numpy_files(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, a in (("z", Z), ("t", T), ("logits", np.asfortranarray(LOGITS)), ("labels", LABELS)):
        np.save(f"{name}.npy", a)
    assert fl.evaluate([], "mse", pred="z.npy", target="t.npy") == expected(Z, T)
    assert fl.evaluate(tmp_path, "mse", pred="z.npy", target="t.npy") == expected(Z, T)
    rows = expected(LOGITS, LABELS, losses="cross_entropy")
    assert fl.evaluate([], "cross_entropy", pred="logits.npy", target="labels.npy") == rows
    np.savez_compressed("all.npz", logits=np.asfortranarray(LOGITS), c=LOGITS, labels=LABELS)
    assert fl.evaluate("all.npz", "cross_entropy", pred="logits", target="labels") == rows
    assert fl.evaluate("all.npz", "cross_entropy", pred="c", target="labels") == rows
    monkeypatch.setattr("fastloss.evaluation.npy.HELD_BYTES", 0)
    assert fl.evaluate("all.npz", "cross_entropy", pred="logits", target="labels") == rows
    fields = np.zeros(N, [("z", float), ("t", float)])
    fields["z"], fields["t"] = Z, T
    np.save("fields.npy", fields)
    assert fl.evaluate("fields.npy", "mse", pred="z", target="t") == expected(Z, T)
    with pytest.raises(InputError, match=r"no such file: .*nope\.npy"):
        fl.evaluate([], "mse", pred="nope.npy", target="t.npy")
    with pytest.raises(InputError, match="holds one array"):
        fl.evaluate("z.npy", "mse", pred="z", target="t")
    np.save("short.npy", Z[:5])
    with pytest.raises(InputError, match="shapes"):
        fl.evaluate([], "mse", pred="z.npy", target="short.npy")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects\.npy"):
        fl.evaluate([], "mse", pred="objects.npy", target="t.npy")


def test_objects_of_every_kind(table, tmp_path):
    whole = expected(Z, T)
    columns = {"pred": "z", "target": "t"}
    path = write(table, tmp_path / "a.parquet")
    for data in (
        table,
        table.to_batches(max_chunksize=77)[0].slice(0, 77),
        table.to_reader(max_chunksize=99),
        ds.dataset(path),
        {"z": Z, "t": T},
        {"z": Z.tolist(), "t": T.tolist()},
    ):
        report = fl.evaluate(data, "mse", **columns)
        assert report == (whole if report.rows == N else expected(Z[:77], T[:77]))
    assert fl.evaluate((Z.astype(">f8")[::-1], T[::-1]), "mse") == whole
    with pytest.raises(InputError, match="cannot evaluate a int"):
        fl.evaluate(3, "mse")
    with pytest.raises(InputError, match="shapes"):
        fl.evaluate((Z, T[:5]), "mse")


@pytest.mark.oracle
def test_polars(table):
    polars = pytest.importorskip("polars")
    assert fl.evaluate(polars.from_arrow(table), "mse", pred="z", target="t") == expected(Z, T)


@pytest.mark.oracle
def test_pandas(table):
    pandas = pytest.importorskip("pandas", minversion="2.2")
    frame = pandas.DataFrame({"z": Z, "t": T})
    assert fl.evaluate(frame, "mse", pred="z", target="t") == expected(Z, T)


def test_an_arrow_stream_in_a_file(table, tmp_path):
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    assert fl.evaluate(tmp_path, "mse", pred="z", target="t") == expected(Z, T)


def test_directories_and_globs_in_natural_order(table, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    bounds = [0, 100, 350, 350, 800, N]
    names = ["part-1.parquet", "part-2.parquet", "part-3.parquet", "part-10.parquet", "deep/er/part.parquet"]
    for name, low, high in zip(names, bounds, bounds[1:], strict=False):
        write(table.slice(low, high - low), tmp_path / name)
    (tmp_path / "_temporary.parquet").write_text("not read")
    (tmp_path / ".hidden.parquet").write_text("not read")
    (tmp_path / "README.txt").write_text("not read")
    columns = {"pred": "z", "target": "t"}
    assert fl.evaluate(tmp_path, "mse", **columns) == expected(Z, T)
    found = fl.evaluate(str(tmp_path / "part-*.parquet"), "mse", worst=N, **columns)
    assert found == expected(Z[:800], T[:800]) or found.rows == 800
    rows = [(os.path.basename(w.file), w.row) for w in found.worst["mse"]]
    assert len(set(rows)) == 800
    big = int(np.argmax((Z[350:800] - T[350:800]) ** 2))
    assert ("part-10.parquet", big) in rows
    files = [tmp_path / n for n in names]
    assert fl.evaluate(files, "mse", **columns) == expected(Z, T)
    with pytest.raises(InputError, match="named twice"):
        fl.evaluate([files[0], files[0]], "mse", **columns)
    with pytest.raises(InputError, match="no file matches"):
        fl.evaluate(str(tmp_path / "*.csv"), "mse", **columns)
    with pytest.raises(InputError, match="unknown ending"):
        fl.evaluate(tmp_path / "README.txt", "mse", **columns)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        fl.evaluate(tmp_path / "none", "mse", **columns)


def test_files_of_several_formats_and_types(tmp_path):
    write(pa.table({"z": Z[:400].astype(np.float32), "t": T[:400]}), tmp_path / "a.parquet")
    write(pa.table({"t": T[400:700], "z": Z[400:700], "more": T[400:700]}), tmp_path / "b.parquet")
    write(pa.table({"z": Z[700:], "t": T[700:]}), tmp_path / "c.feather")
    z = Z.copy()
    z[:400] = z[:400].astype(np.float32)
    assert fl.evaluate(tmp_path, "mse", pred="z", target="t") == expected(z, T)
    write(pa.table({"z": Z[:10]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet has no column 't'"):
        fl.evaluate(tmp_path, "mse", pred="z", target="t")


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
def test_rows_of_scores_in_lists(tmp_path, kind):
    flat = pa.array(LOGITS.reshape(-1))
    offsets = np.arange(0, LOGITS.size + 1, 11)
    column = {
        "list": lambda: pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), flat),
        "large_list": lambda: pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), flat),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 11),
    }[kind]()
    path = write(pa.table({"z": column, "t": LABELS}), tmp_path / "a.parquet")
    whole = expected(LOGITS, LABELS, losses="cross_entropy")
    assert fl.evaluate(path, "cross_entropy", pred="z", target="t") == whole
    assert fl.evaluate(pa.table({"z": column, "t": LABELS}), "cross_entropy", pred="z", target="t") == whole
    rows = column.to_pylist()
    rows[3], rows[5] = None, [None, *rows[5][1:]]
    holes = pa.table({"z": pa.array(rows, column.type), "t": LABELS})
    keep = np.delete(np.arange(N), [3, 5])
    found = fl.evaluate(holes, "cross_entropy", pred="z", target="t", on_invalid="skip")
    assert found.null_rows == 2
    assert found["cross_entropy"] == expected(LOGITS[keep], LABELS[keep], losses="cross_entropy")["cross_entropy"]


def test_rows_of_scores_in_several_columns_in_natural_order(tmp_path):
    order = RNG.permutation(11)
    path = write(pa.table({"t": LABELS, **{f"logit_{i}": LOGITS[:, i] for i in order}}), tmp_path / "a.parquet")
    found = fl.evaluate(path, "cross_entropy", pred="logit_*", target="t")
    assert found == expected(LOGITS, LABELS, losses="cross_entropy")
    with pytest.raises(InputError, match="no column 'z_\\*' for pred"):
        fl.evaluate(path, "cross_entropy", pred="z_*", target="t")


def test_ragged_and_nested_lists_raise():
    ragged = pa.table({"z": [[1.0, 2.0], [1.0]], "t": [0, 1]})
    with pytest.raises(InputError, match="lists of 2 and of 1"):
        fl.evaluate(ragged, "cross_entropy", pred="z", target="t")
    with pytest.raises(InputError, match="lists of lists"):
        fl.evaluate(pa.table({"z": [[[1.0]]], "t": [0]}), "cross_entropy", pred="z", target="t")


LABEL_COLUMNS = {
    "int8": pa.array([0, 1, 1], pa.int8()),
    "uint64": pa.array([0, 1, 1], pa.uint64()),
    "float32": pa.array([0, 1, 1], pa.float32()),
    "float16": pa.array(np.array([0, 1, 1], np.float16)),
    "bool": pa.array([False, True, True]),
    "decimal": pa.array([decimal.Decimal(x) for x in (0, 1, 1)], pa.decimal128(5, 2)),
    "dictionary": pa.array([0, 1, 1]).dictionary_encode(),
}


@pytest.mark.parametrize("name", LABEL_COLUMNS)
def test_labels_of_every_type(tmp_path, name):
    z, rows = np.array([0.5, -1.0, 2.0]), np.array([[1.0, 2.0], [0.5, 0.1], [3.0, 4.0]])
    t = np.array([0, 1, 1])
    table = pa.table({"z": z, "rows": rows.tolist(), "t": LABEL_COLUMNS[name]})
    pq.write_table(table, tmp_path / "a.parquet")
    for data in (table, tmp_path / "a.parquet"):
        assert fl.evaluate(data, "bce_with_logits", pred="z", target="t") == expected(z, t, losses="bce_with_logits")
        assert fl.evaluate(data, "cross_entropy", pred="rows", target="t") == expected(rows, t, losses="cross_entropy")


def test_columns_that_cannot_be_numbers():
    table = pa.table({"z": [1.0], "text": ["a"], "day": pa.array([0], pa.date32()), "half": [0.5], "s": [[1.0, 2.0]]})
    for column in ("text", "day"):
        with pytest.raises(InputError, match=f"column '{column}' holds"):
            fl.evaluate(table, "mse", pred="z", target=column)
    with pytest.raises(InputError, match=r"row 0: the label is 0\.5"):
        fl.evaluate(table, "cross_entropy", pred="s", target="half")
    with pytest.raises(InputError, match="no column 'qq' for pred; it has z, text"):
        fl.evaluate(table, "mse", pred="qq", target="half")
    with pytest.raises(InputError, match="has dtype <U1"):
        fl.evaluate((np.array(["a"]), np.ones(1)), "mse")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".feather"])
def test_invalid_rows(tmp_path, suffix):
    z = pa.array([1.0, None, 3.0, float("nan"), 5.0, 6.0], pa.float64())
    t = pa.array([0.0, 0.0, 0.0, 0.0, float("inf"), None], pa.float64())
    path = write(pa.table({"z": z, "t": t}), tmp_path / f"a{suffix}")
    columns = {"pred": "z", "target": "t"}
    with pytest.raises(InputError, match=rf"a\{suffix}, row 1( \(line 3\))?: z is null"):
        fl.evaluate(path, "mse", **columns)
    skipped = fl.evaluate(path, ["mse", "mae"], on_invalid="skip", **columns)
    assert (skipped.rows, skipped.null_rows, skipped.non_finite_rows) == (6, 2, 2)
    assert (skipped["mse"].mean, skipped["mse"].count) == (5.0, 2)
    assert "2 of 6 rows with a null: left out" in repr(skipped)
    through = fl.evaluate(path, ["mse", "welsch"], on_invalid="propagate", **columns)
    assert np.isnan(through["mse"].mean)
    assert (through["mse"].count, through["mse"].non_finite) == (6, 4)
    assert (through.null_rows, through.non_finite_rows) == (2, 2)


def test_invalid_weights_labels_and_losses():
    with pytest.raises(InputError, match="row 1: the weight is -1"):
        fl.evaluate((np.ones(3), np.ones(3), np.array([1.0, -1.0, 1.0])), "mse")
    with pytest.raises(InputError, match="row 2: weight is nan"):
        fl.evaluate((np.ones(3), np.ones(3), np.array([1.0, 1.0, np.nan])), "mse")
    through = fl.evaluate((np.ones(3), np.ones(3), np.array([1.0, 1.0, np.nan])), "mse", on_invalid="propagate")
    assert np.isnan(through["mse"].mean)
    scores = np.ones((3, 2))
    through = fl.evaluate((scores, np.array([0.0, 1.0, np.nan])), "cross_entropy", on_invalid="propagate")
    assert (through["cross_entropy"].count, through["cross_entropy"].non_finite) == (3, 1)
    huge = np.array([1.0, 1e200])
    with pytest.raises(InputError, match="row 1: mse is inf here, of finite inputs"):
        fl.evaluate((huge, np.zeros(2)), "mse")
    skipped = fl.evaluate((huge, np.zeros(2)), ["mse", "mae"], on_invalid="skip")
    assert (skipped["mse"].mean, skipped["mse"].non_finite, skipped["mae"].non_finite) == (1.0, 1, 0)


@pytest.mark.jit
@pytest.mark.parametrize("threads", [1, 3])
def test_a_value_outside_the_domain_is_named_by_file_and_row(tmp_path, threads):
    p = RNG.random(300_000)
    p[[123_456, 250_000]] = 3.2
    pq.write_table(pa.table({"p": p[:5], "t": np.zeros(5)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"p": p, "t": np.zeros(p.size)}), tmp_path / "b.parquet", row_group_size=70_000)
    with pytest.raises(InputError, match=r"b\.parquet, row 123456: bce: prediction is 3\.2; allowed: \[0, 1\]"):
        fl.evaluate(tmp_path, "bce", pred="p", target="t", threads=threads)
    with pytest.raises(InputError, match="row 1: hinge: target is 0; allowed"):
        fl.evaluate((np.ones(2), np.array([1.0, 0.0])), "hinge")
    with pytest.raises(InputError, match="row 1: cross_entropy: target is 7; allowed: 0 to 1"):
        fl.evaluate((np.ones((2, 2)), np.array([1, 7])), "cross_entropy")


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv"])
def test_empty_files(table, tmp_path, suffix):
    write(table.slice(0, 0), tmp_path / f"a{suffix}")
    columns = {"pred": "z", "target": "t"}
    if suffix != ".csv":
        empty = fl.evaluate(tmp_path, "mse", **columns)
        assert (empty.rows, empty["mse"].count) == (0, 0)
        assert np.isnan(empty["mse"].mean)
    write(table, tmp_path / f"b{suffix}")
    assert fl.evaluate(tmp_path, "mse", **columns) == expected(Z, T)
    (tmp_path / "c.csv").write_text("")
    assert fl.evaluate(tmp_path, "mse", **columns) == expected(Z, T)


def test_unreadable_files_are_named(tmp_path):
    for name in ("a.parquet", "a.feather", "a.npz"):
        (tmp_path / name).write_bytes(b"not what it says")
        with pytest.raises(InputError, match=rf"cannot read .*{name}") as info:
            fl.evaluate(tmp_path / name, "mse", pred="z", target="t")
        assert "\n" not in str(info.value)
    (tmp_path / "b.csv").write_text("z,t\n1,2\n3,oops\n")
    with pytest.raises(InputError, match=r"cannot read .*b\.csv|'t' holds"):
        fl.evaluate(tmp_path / "b.csv", "mse", pred="z", target="t")


@pytest.mark.jit
def test_csv_columns_that_begin_with_whole_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("z,t\n" + "1,0\n" * 200_000 + "0.5,0\nnan,0\n")
    found = fl.evaluate(tmp_path / "a.csv", "mae", pred="z", target="t", on_invalid="skip")
    assert (found["mae"].min, found["mae"].count, found.non_finite_rows) == (0.5, 200_001, 1)


@pytest.mark.parametrize("on_invalid", ["skip", "propagate"])
def test_per_sample_holds_every_row(tmp_path, on_invalid):
    z = Z.copy()
    z[[5, 700]] = np.nan
    pq.write_table(pa.table({"z": z[:600], "t": T[:600]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"z": z[600:], "t": T[600:]}), tmp_path / "b.parquet")
    out = tmp_path / "out" / "rows.parquet"
    out.parent.mkdir()
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    fl.evaluate(files, ["mse", "mae"], pred="z", target="t", on_invalid=on_invalid, per_sample=out)
    found = pq.read_table(out)
    assert found.column_names == ["file", "row", "mse", "mae"]
    assert found["row"].to_pylist() == [*range(600), *range(400)]
    assert found["file"].to_pylist() == [str(files[0])] * 600 + [str(files[1])] * 400
    assert found["mae"].null_count == (2 if on_invalid == "skip" else 0)
    np.testing.assert_array_equal(found["mae"].to_numpy(), np.abs(z - T))
    assert os.listdir(out.parent) == ["rows.parquet"]


@pytest.mark.jit
def test_per_sample_leaves_nothing_behind_when_it_fails(tmp_path):
    z = np.append(np.zeros(400_000), np.nan)
    out = tmp_path / "rows.parquet"
    with pytest.raises(InputError, match="row 400000"):
        fl.evaluate((z, z), "mse", per_sample=out)
    assert os.listdir(tmp_path) == []
    out.write_text("kept")
    with pytest.raises(InputError, match="row 400000"):
        fl.evaluate((z, z), "mse", per_sample=out)
    assert out.read_text() == "kept"
    with pytest.raises(InputError, match="cannot write"):
        fl.evaluate((z, z), "mse", per_sample=tmp_path / "none" / "rows.parquet")


def test_an_input_is_never_overwritten(table, tmp_path):
    path = write(table, tmp_path / "a.parquet")
    (tmp_path / "link.parquet").symlink_to(path)
    before = path.read_bytes()
    for data in (path, [path], tmp_path):
        for out in (path, str(path), tmp_path / "link.parquet"):
            with pytest.raises(InputError, match="is one of the inputs"):
                fl.evaluate(data, "mse", pred="z", target="t", per_sample=out)
    assert path.read_bytes() == before


def test_one_column_in_two_roles(table, tmp_path):
    path = write(table, tmp_path / "data.npz")
    assert fl.evaluate(path, "mse", pred="z", target="z")["mse"].max == 0.0
    assert fl.evaluate(path, "mse", pred="z", target="w", weight="w") == expected(Z, W, W)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = write(pa.table({"z": Z, "t": T}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "fastloss.evaluation.arrow", None)
    monkeypatch.delattr("fastloss.evaluation.arrow", raising=False)
    with pytest.raises(ImportError, match=r'pip install "fastloss\[eval\]"'):
        fl.evaluate(path, "mse", pred="z", target="t")
    monkeypatch.setitem(sys.modules, "fastloss.evaluation.per_sample", None)
    with pytest.raises(ImportError, match=r'pip install "fastloss\[eval\]"'):
        fl.evaluate((Z, T), "mse", per_sample=tmp_path / "rows.parquet")
    assert fl.evaluate((Z, T), "mse").rows == N
