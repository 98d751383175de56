"""Damaged files of every format end in one sentence that names the file, or are not damaged where it matters."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")

import damage
from children import environment

import fastloss as fl
from fastloss.evaluation import InputError

SCRIPT = Path(damage.__file__)
CACHE = {"FASTLOSS_CACHE_DIR": os.environ.get("FASTLOSS_CACHE_DIR")}


@pytest.mark.jit
@pytest.mark.parametrize("family", ["np", "csv tsv", "parquet", "feather", "arrow stream", "lies"])
def test_every_damaged_file_is_refused_by_name_or_gives_its_figures(family):
    form = ",".join(f for f in (*damage.FORMATS, "lies") if f.startswith(tuple(family.split())))
    # In a process of its own: a segmentation fault would end it, and its last line says on which seed.
    command = [sys.executable, "-W", "error", str(SCRIPT), form, "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(**CACHE))
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert done.returncode == 0, f"python tests/fuzz/damage.py {form} 12: {done.returncode}, {last}\n{done.stdout}"
    assert "answered badly" in done.stdout


def test_damage_is_reproducible_and_of_all_kinds():
    data = bytes(range(256)) * 4
    for kind in damage.KINDS:
        copies = [damage.damaged(data, "npy", kind, seed) for seed in range(20)]
        assert copies == [damage.damaged(data, "npy", kind, seed) for seed in range(20)]
        assert len(set(copies)) > 10
        assert data not in copies


def test_the_judge_tells_bad_answers_from_good_ones(tmp_path, monkeypatch):
    answers = {
        (0, "{}", ""): None,
        (0, "{}", "a warning"): "exit 0, but",
        (2, "", "fastloss: cannot read data.npz: File is not a zip file\n"): None,
        (2, "", "fastloss: File is not a zip file\n"): "not named",
        (2, "", "fastloss: data.npz:\n two lines\n"): "no single sentence",
        (1, "", "fastloss: unexpected zlib.error in data.npz\n"): "exit 1",
        (130, "", "fastloss: interrupted\n"): "exit 130",
    }
    for answer, complaint in answers.items():
        monkeypatch.setattr(damage, "evaluated", lambda path, options, answer=answer: answer)
        found = damage.judged(tmp_path / "data.npz", [])
        assert (found is None) if complaint is None else complaint in found
    monkeypatch.setattr(damage, "evaluated", lambda path, options: (0, "{}", ""))
    assert "other figures" in damage.judged(tmp_path / "data.npz", [], expected={"rows": 3})


def test_names_that_are_no_utf_8(tmp_path):
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    table = pa.table({"z": [1.0, 2.0], "t": [0.0, 1.0], "other": [0, 1]})
    writers = {"parquet": pq.write_table, "feather": feather.write_feather, "csv": csv.write_csv}
    for suffix, write in writers.items():
        path = tmp_path / f"a.{suffix}"
        write(table, str(path))
        path.write_bytes(path.read_bytes().replace(b"other", b"\xff\xfe\xfdhe"))
        with pytest.raises(InputError, match=rf"cannot read .*a\.{suffix}: a name or text is no UTF-8"):
            fl.evaluate(path, "mse", pred="z", target="t")
        odd = str(tmp_path / f"\udcff.{suffix}")
        with open(odd, "wb") as file:
            write(table, file)
        with pytest.raises(InputError, match="a name is no UTF-8; rename it"):
            fl.evaluate(odd, "mse", pred="z", target="t")
    with open(tmp_path / "\udcff.npz", "wb") as file:
        np.savez(file, z=np.ones(2), t=np.zeros(2))
    assert fl.evaluate(str(tmp_path / "\udcff.npz"), "mse", pred="z", target="t")["mse"].mean == 1.0


@pytest.mark.parametrize("suffix", ["npy", "arrow"])
def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path, suffix):
    import pyarrow as pa
    import pyarrow.feather as feather

    rows = 400_000
    z = np.linspace(-1, 1, rows)
    path = tmp_path / f"z.{suffix}"
    if suffix == "npy":
        np.save(path, z)
        np.save(tmp_path / "t.npy", z)
        asked = {"data": [], "pred": str(path), "target": str(tmp_path / "t.npy")}
    else:
        feather.write_feather(pa.table({"z": z, "t": z}), str(path), compression="uncompressed", chunksize=100_000)
        asked = {"data": path, "pred": "z", "target": "t"}

    def shrink(done, total):
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size // 8)

    with pytest.raises(InputError, match=rf"cannot read .*z\.{suffix}"):
        fl.evaluate(asked.pop("data"), "mse", **asked, threads=1, progress=shrink)


BOMB = """
    import resource, sys
    import numpy as np
    import fastloss as fl
    from fastloss.evaluation import InputError
    path, columns = sys.argv[1:]
    fl.evaluate((np.ones(9), np.zeros(9)), "mse")
    def peak():
        return [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
    before = peak()
    for column in columns.split(","):
        try:
            print(fl.evaluate(path, "mse", pred=column, target=column)["mse"].count)
        except InputError as error:
            print(error)
    print((peak() - before) // 1024)
"""


@pytest.mark.jit
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_archives_that_unfold_into_gigabytes_are_read_in_bounded_memory(tmp_path):
    import zipfile

    from children import run

    shapes = {"z": (1 << 26,), "one_row": (1, 1 << 26), "fortran": (1 << 19, 128)}
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(damage.npy_header(shape, fortran=str(name == "fortran")))
                for _ in range(1 << 9):
                    file.write(bytes(1 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 23
    said = run(BOMB, tmp_path / "bomb.npz", "z,one_row,fortran", NUMBA_NUM_THREADS=2, **CACHE).splitlines()
    assert said[0] == str(1 << 26)
    assert re.search(r"bomb\.npz: a row takes 536,870,912 bytes", said[1])
    assert said[2] == str(1 << 19) or "in Fortran order" in said[2]
    assert int(said[3]) < 300
