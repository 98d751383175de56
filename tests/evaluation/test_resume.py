"""Evaluations that are interrupted and go on: the same bits, and no finished file is read again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COLUMNS = {"pred": "z", "target": "t"}
LOSSES = ["mse", "huber:delta=2"]


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(8)
    (tmp_path / "in").mkdir()
    for i in range(5):
        table = pa.table({"z": rng.normal(size=200), "t": rng.normal(size=200), "g": rng.choice(["a", "b"], 200)})
        pq.write_table(table, tmp_path / "in" / f"part-{i}.parquet")
    return sorted((tmp_path / "in").iterdir())


def evaluated(files, folder=None, losses=LOSSES, **options):
    options = {"by": "g", "worst": 7, "quantiles": [0.5], **COLUMNS, **options}
    return fl.evaluate([str(f) for f in files], losses, resume=folder, **options)


def test_the_same_bits_and_no_file_read_twice(files, tmp_path, monkeypatch):
    whole = evaluated(files)
    read = []
    from fastloss.evaluation import sources

    def counted(paths, *more):
        read.extend(paths)
        if str(paths[0]).endswith(stop):
            raise InterruptedError("killed")
        return opened(paths, *more)

    opened, stop = sources.open_paths, "part-3.parquet"
    monkeypatch.setattr(sources, "open_paths", counted)
    with pytest.raises(InterruptedError):
        evaluated(files, tmp_path / "kept")
    assert len(read) == 4
    stop = "none"
    assert evaluated(files, tmp_path / "kept", threads=1) == whole
    assert read[4:] == [str(f) for f in files[3:]]
    assert evaluated(files, tmp_path / "kept") == whole
    assert len(read) == 6
    # Another file may come later.
    pq.write_table(pq.read_table(files[0]), files[0].with_name("part-9.parquet"))
    more = [*files, files[0].with_name("part-9.parquet")]
    assert evaluated(more, tmp_path / "kept") == evaluated(more)


def test_directories_of_other_evaluations_are_refused(files, tmp_path):
    kept = tmp_path / "kept"
    evaluated(files[:2], kept)
    with pytest.raises(
        InputError, match=r"resume: .*kept is of the losses mse, huber:delta=2; expected the losses mae"
    ):
        evaluated(files[:2], kept, "mae")
    with pytest.raises(InputError, match=r"is of the options worst='7'; expected the options worst='8'"):
        evaluated(files[:2], kept, worst=8)
    with pytest.raises(InputError, match=r"is also of .*part-0\.parquet, which is no input now"):
        evaluated(files[1:3], kept)
    state = json.loads((kept / "evaluation.json").read_text())
    (kept / "evaluation.json").write_text(json.dumps({**state, "version": "0.0.1"}))
    with pytest.raises(InputError, match=r"is of version 0\.0\.1 of fastloss; expected version"):
        evaluated(files[:2], kept)
    (kept / "evaluation.json").write_text(json.dumps(state))
    table = pq.read_table(files[0])
    pq.write_table(pa.concat_tables([table, table]), files[0])
    with pytest.raises(InputError, match=r"part-0\.parquet has changed since it was evaluated; remove (.*) to") as info:
        evaluated(files[:2], kept)
    os.unlink(str(info.value).split("remove ")[1].split(" to ")[0])
    assert evaluated(files[:2], kept) == evaluated(files[:2])
    with pytest.raises(InputError, match=r"in holds part-.*\.parquet and no evaluation; name a new directory"):
        evaluated(files[:2], files[0].parent)
    record = next(p for p in kept.iterdir() if p.name != "evaluation.json")
    record.write_text("{")
    with pytest.raises(InputError, match="remove it, and its file is evaluated again"):
        evaluated(files[:2], kept)


def test_another_formula_of_the_same_name_is_refused(files, tmp_path):
    first, second = fl.formula("(p - t)**2", name="mine"), fl.formula("(p - t)**4", name="mine")
    evaluated(files[:1], tmp_path / "kept", first)
    assert evaluated(files[:1], tmp_path / "kept", fl.formula("(p - t)**2", name="mine")).rows == 200
    with pytest.raises(InputError, match="is of the losses mine by another formula"):
        evaluated(files[:1], tmp_path / "kept", second)


def test_what_cannot_be_resumed(files, tmp_path):
    with pytest.raises(InputError, match="resume and scheduler take files; expected paths as data"):
        fl.evaluate((np.ones(2), np.ones(2)), "mse", resume=tmp_path / "kept")
    with pytest.raises(InputError, match="the standard input is none"):
        fl.evaluate("-", "mse", resume=tmp_path / "kept")
    with pytest.raises(InputError, match="per_sample is written in one read"):
        evaluated(files, tmp_path / "kept", per_sample=tmp_path / "rows.parquet")
    assert not (tmp_path / "kept").exists()


SLOW = """
import sys, time, fastloss as fl
from fastloss.evaluation import sources
opened = sources.open_paths
def slow(paths, *more):
    print(paths[0], flush=True)
    time.sleep(0.05)
    return opened(paths, *more)
sources.open_paths = slow
fl.evaluate(sys.argv[2:], ["mse", "huber:delta=2"], pred="z", target="t", by="g", worst=7, quantiles=[0.5],
            resume=sys.argv[1])
"""


@pytest.mark.jit
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_at_random(files, tmp_path):
    chance = random.Random(3)
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    command = [sys.executable, "-c", SLOW, str(tmp_path / "kept"), *map(str, files)]
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.communicate()
    before = len([p for p in (tmp_path / "kept").iterdir() if p.suffix == ".json"]) - 1
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert len(done.stdout.split()) == 5 - before
    assert evaluated([*files], tmp_path / "kept") == evaluated(files)
