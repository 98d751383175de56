"""Damaged copies of a file of every format, and what `fastloss eval` says about them.

By hand: `python tests/fuzz/damage.py FORMAT[,FORMAT] [COUNT [FIRST_SEED]]`; `all` stands for every format. A seed and a
format give the same damage wherever they run.
"""

import contextlib
import io
import json
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

ROWS, CLASSES = 60, 3
COLUMNS = ["--pred", "logit_*", "--target", "t", "--weight", "w", "--loss", "cross_entropy", "--json", "-"]
ARRAYS = ["--pred", "z.npy", "--target", "t.npy", "--loss", "mse", "--json", "-"]
LISTS = ["--pred", "rows", "--target", "t", "--weight", "w", "--loss", "cross_entropy", "--json", "-"]
CHECKED = ("npz", "npz-compressed")
"""Formats with a checksum over all values: what is evaluated without an error has the figures of the sound file."""


def table(lists=False, coded=True):
    """A table of scores, labels and weights, with a column of text that no loss needs."""
    import pyarrow as pa

    rng = np.random.default_rng(11)
    scores = rng.normal(size=(ROWS, CLASSES))
    columns = {f"logit_{k}": scores[:, k] for k in range(CLASSES)}
    if lists:
        columns = {"rows": pa.array(scores.tolist(), pa.list_(pa.float64()))}
    labels = pa.array(rng.integers(0, CLASSES, ROWS))
    columns["t"] = labels.dictionary_encode() if lists and coded else labels
    columns["w"] = np.ones(ROWS)
    columns["name"] = [f"row {i}" for i in range(ROWS)]
    return pa.table(columns)


def _npz(path, write, order="C"):
    t = table()
    arrays = {c: t[c].to_numpy() for c in t.column_names if c != "name"}
    arrays["matrix"] = np.asarray(np.ones((ROWS, 2)), order=order)
    write(path, **arrays)


def _stream(path, lists=False, coded=True):
    import pyarrow as pa

    t = table(lists, coded).unify_dictionaries()
    with pa.OSFile(str(path), "wb") as f, pa.ipc.new_stream(f, t.schema) as writer:
        writer.write_table(t, max_chunksize=25)


def _feather(path, compression, lists=False, coded=True):
    import pyarrow.feather as feather

    feather.write_feather(table(lists, coded).unify_dictionaries(), str(path), compression=compression, chunksize=25)


def _parquet(path, lists=False, **options):
    import pyarrow.parquet as pq

    pq.write_table(table(lists), path, row_group_size=25, **options)


def _csv(path, delimiter=","):
    import pyarrow.csv as csv

    csv.write_csv(table(), path, csv.WriteOptions(delimiter=delimiter))


def _npy(path):
    np.save(path.parent / "t.npy", np.zeros(ROWS))
    np.save(path, np.linspace(-1, 1, ROWS))


FORMATS = {
    "npy": ("z.npy", _npy, ARRAYS),
    "npz": ("data.npz", lambda p: _npz(p, np.savez), COLUMNS),
    "npz-compressed": ("data.npz", lambda p: _npz(p, np.savez_compressed), COLUMNS),
    "csv": ("data.csv", _csv, COLUMNS),
    "tsv": ("data.tsv", lambda p: _csv(p, "\t"), COLUMNS),
    "parquet": ("data.parquet", _parquet, COLUMNS),
    "parquet-plain": (
        "data.parquet",
        lambda p: _parquet(p, compression="none", use_dictionary=False, data_page_version="2.0"),
        COLUMNS,
    ),
    "parquet-pages": ("data.parquet", _parquet, COLUMNS),
    "parquet-pages-lists": ("data.parquet", lambda p: _parquet(p, lists=True, data_page_size=200), LISTS),
    "parquet-lists": ("data.parquet", lambda p: _parquet(p, lists=True), LISTS),
    "feather": ("data.feather", lambda p: _feather(p, "lz4"), COLUMNS),
    "feather-lists": ("data.feather", lambda p: _feather(p, "zstd", lists=True), LISTS),
    "arrow": ("data.arrow", lambda p: _feather(p, "uncompressed"), COLUMNS),
    "arrow-lists": ("data.arrow", lambda p: _feather(p, "uncompressed", lists=True), LISTS),
    "arrow-parts": ("data.arrow", lambda p: _feather(p, "uncompressed"), COLUMNS),
    "arrow-parts-lists": ("data.arrow", lambda p: _feather(p, "uncompressed", lists=True, coded=False), LISTS),
    "stream-parts-lists": ("data.arrow", lambda p: _stream(p, lists=True, coded=False), LISTS),
    "stream": ("data.arrow", _stream, COLUMNS),
    "stream-lists": ("data.arrow", lambda p: _stream(p, lists=True), LISTS),
}
"""Name of the file, how to write it, and the options that evaluate it."""


def flipped(data, rng):
    """The bytes with one to three bits turned, mostly near the ends, where formats keep their headers."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        near = int(rng.integers(0, min(len(data), 400)))
        at = [near, len(data) - 1 - near, int(rng.integers(0, len(data)))][int(rng.integers(0, 3))]
        data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def cut(data, rng):
    """The first part of the bytes, none of them now and then."""
    return data[: int(rng.integers(0, len(data)))]


def filled(data, rng):
    """The bytes with a stretch overwritten by zeros, ones or noise."""
    data, at = bytearray(data), int(rng.integers(0, len(data)))
    length = min(int(rng.integers(1, 65)), len(data) - at)
    data[at : at + length] = [bytes(length), b"\xff" * length, rng.bytes(length)][int(rng.integers(0, 3))]
    return bytes(data)


def lied(data, rng):
    """The bytes with a size replaced by one that is far too large, or negative."""
    data = bytearray(data)
    sizes = [-1, 1 << 20, (1 << 31) - 1, -(1 << 31), 1 << 40, (1 << 62) + 8, -(1 << 63)]
    size = sizes[int(rng.integers(0, len(sizes)))]
    wide = rng.random() < 0.5 or not -(1 << 31) <= size < 1 << 31
    packed = struct.pack("<q" if wide else "<i", size)
    near = int(rng.integers(0, max(1, min(len(data) - 8, 600))))
    at = near if rng.random() < 0.5 else max(0, len(data) - 8 - near)
    at -= at % 4
    data[at : at + len(packed)] = packed
    return bytes(data)


KINDS = {"flip": flipped, "cut": cut, "fill": filled, "lie": lied}


def damaged(data, form, kind, seed):
    """One damaged copy of a file's bytes."""
    rng = np.random.default_rng([zlib.crc32(f"{form} {kind}".encode()), seed])
    return KINDS[kind](data, rng)


def npy_header(shape, descr="'<f8'", fortran="False", version=(1, 0), text=None):
    """The head of a .npy file that says whatever it is told to."""
    text = text if text is not None else f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    raw = text.encode("utf-8", "surrogatepass")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(raw)) + raw


LIES = {
    "2**60 rows": npy_header(f"({2**60},)"),
    "2**70 rows": npy_header(f"({2**70},)"),
    "no rows": npy_header("()"),
    "true rows": npy_header("(True,)"),
    "minus one": npy_header("(-1,)"),
    "rows of nothing": npy_header(f"({2**60}, 0)"),
    "one endless row": npy_header(f"(1, {2**60})"),
    "three axes": npy_header("(2, 2, 2)"),
    "a float": npy_header("(8.0,)"),
    "a list": npy_header("[8]"),
    "no bytes each": npy_header(f"({2**60},)", "'|V0'"),
    "objects": npy_header("(8,)", "'|O'"),
    "dates": npy_header("(8,)", "'<M8[s]'"),
    "complex": npy_header("(4,)", "'<c16'"),
    "a type that is none": npy_header("(8,)", "'zz'"),
    "a type of types": npy_header("(8,)", "[('z', [('z', '<f8')])]"),
    "fields without end": npy_header("(8,)", "[('z', '<f8', (1099511627776,))]"),
    "fortran is a word": npy_header("(8,)", fortran="'no'"),
    "no dictionary": npy_header("", text="12"),
    "no key": npy_header("", text="{'descr': '<f8'}"),
    "cut text": npy_header("", text="{'descr': '<f8', 'shape': (8"),
    "a newline in a word": npy_header("", text="{'descr': '<f8\n', 'shape': (8,)}"),
    "deep": npy_header("", text="(" * 9000),
    "minus signs": npy_header("", text="-" * 9000 + "1"),
    "a call": npy_header("", text="__import__('os').abort()"),
    "zeros": npy_header("", text="\0" * 64),
    "long text": npy_header("", version=(2, 0), text=" " * 200_000),
    "another version": npy_header("(8,)", version=(9, 9)),
    "empty": b"",
    "magic": b"\x93NUMPY",
}
"""Headers of .npy files before 64 bytes of data; each is tried as a file and as a member of an archive."""


def lies():
    """Files made of whole lies: name, format, bytes."""
    for name, head in LIES.items():
        data = head + np.arange(8.0).tobytes()
        yield f"npy, {name}", "npy", data
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("logit_0.npy", data)
            for column in ("logit_1", "t", "w"):
                archive.writestr(f"{column}.npy", npy_header("(8,)") + np.ones(8).tobytes())
        yield f"npz, {name}", "npz", memory.getvalue()


def evaluated(path, options):
    """The exit code of `fastloss eval`, and what it wrote to its two streams."""
    from fastloss.command.commands import app

    out, err = io.StringIO(), io.StringIO()
    paths = [] if path.suffix == ".npy" else [str(path)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(["eval", *paths, *options], prog_name="fastloss")
            code = None
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = f"a traceback of {error!r}"
    return code, out.getvalue(), err.getvalue()


def judged(path, options, expected=None):
    """Evaluate a file; what is wrong with the answer, or None."""
    code, out, said = evaluated(path, options)
    if code == 0:
        if said:
            return f"exit 0, but {said!r}"
        return None if expected is None or json.loads(out) == expected else "exit 0 with other figures"
    if code != 2 or out:
        return f"exit {code}: {said!r}"
    if said.count("\n") != 1 or not said.startswith("fastloss: ") or "unexpected" in said:
        return f"no single sentence: {said!r}"
    return None if path.name in said else f"the file is not named: {said!r}"


def attack(form, kind, seeds, folder, say=lambda text: None):
    """Damage a file of a format in one way, once for each seed; the seeds that were answered badly, and how."""
    name, write, options = FORMATS[form]
    path, found = Path(folder) / name, []
    write(path)
    from fastloss.evaluation import ipc, pages

    # Every row group, or record batch, is large then.
    pages.GROUP_BYTES = 0 if "pages" in form else 1 << 25
    ipc.BLOCK_BYTES = 0 if "parts" in form else 1 << 26
    whole = path.read_bytes()
    code, out, said = evaluated(path, options)
    assert (code, said) == (0, ""), f"the sound {form} file: exit {code}, {said}"
    expected = json.loads(out) if form in CHECKED else None
    for seed in seeds:
        data = damaged(whole, form, kind, seed)
        path.write_bytes(data)
        say(f"{form} {kind} {seed}")
        complaint = judged(path, options, expected)
        if complaint is not None:
            found.append(f"damage.py: {form}, {kind}, seed {seed}: {complaint}")
    return found


def main(form, count=300, first=0):
    """Attack some formats (joined by commas), or all; print every bad answer with its seed, and a summary."""
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # The last line that was printed tells which damage ended the process, if one did.
        say = lambda text: print("trying", text, file=sys.stderr, flush=True)  # noqa: E731
        asked = [*FORMATS, "lies"] if form == "all" else form.split(",")
        for each in asked:
            if each == "lies":
                bad += lying(folder, say)
                continue
            for kind in KINDS:
                found = attack(each, kind, range(int(first), int(first) + int(count)), folder, say)
                print("\n".join([*found, f"{each}, {kind}: {len(found)} of {count} answered badly"]), flush=True)
                bad += len(found)
    return bad


def lying(folder, say=lambda text: None):
    """Try the whole lies; how many were answered badly."""
    bad = 0
    for name, form, data in lies():
        file, _, options = FORMATS[form]
        if form == "npy":
            FORMATS["npy"][1](Path(folder) / file)
        path = Path(folder) / file
        path.write_bytes(data)
        say(f"lie {name}")
        complaint = judged(path, options)
        if complaint is not None:
            print(f"damage.py: {name}: {complaint}", flush=True)
            bad += 1
    print(f"lies: {bad} answered badly", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
