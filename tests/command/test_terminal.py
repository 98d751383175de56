"""What a person at a terminal meets: worst rows with their columns, completion, empty input, 80 columns."""

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss.command.completion import SHELLS
from fastloss.evaluation import InputError, Report

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
testing = pytest.importorskip("typer.testing")

from fastloss.command.commands import app  # noqa: E402

P = [0.9, 0.2, 0.4, 0.5]
TABLE = {"p": P, "t": [1, 1, 0, 1], "id": [7, 8, 9, 10], "text": ["fine", "gr[b]eat", None, "x" * 100]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table(TABLE), "data.parquet")
    Path("data.csv").write_text(
        "p,t,id\n" + "".join(f"{p},{t},{i}\n" for p, t, i in zip(P, [1, 1, 0, 1], range(4), strict=True))
    )
    return tmp_path


def run(*arguments):
    result = testing.CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


BRIER = ("-l", "brier", "-p", "p", "-t", "t")


def test_worst_rows_show_columns(folder):
    code, out, err = run("eval", "data.parquet", *BRIER, "--worst", 4, "--show", "id,text", "--json", "r.json")
    assert (code, err) == (0, "")
    lines = out.split("rows of largest brier, counted from 0\n")[1].splitlines()
    assert lines[0].split() == ["file", "row,", "from", "0", "id", "text", "loss"]
    assert lines[2].split() == ["data.parquet", "1", "8", "gr[b]eat", "0.64"]
    assert lines[4].split() == ["data.parquet", "2", "9", "null", "0.16"]
    assert lines[3].split()[3] == "x" * 57 + "..."
    report = Report.from_json(Path("r.json").read_text())
    assert report.worst["brier"][0].shown == {"id": 8, "text": "gr[b]eat"}
    assert "gr[b]eat" in report.to_html()
    # One column may be a prediction and shown; keys of groups may be shown too.
    again = fl.evaluate("data.parquet", "brier", pred="p", target="t", worst=1, show=["p", "id"], by="id")
    assert again.worst["brier"][0].shown == {"p": 0.2, "id": 8}
    arrays = fl.evaluate(
        {"p": np.array(P), "t": np.ones(4), "m": np.eye(4)}, "brier", pred="p", target="t", worst=1, show="m"
    )
    assert arrays.worst["brier"][0].shown == {"m": [0.0, 1.0, 0.0, 0.0]}


def test_errors_of_show(folder):
    with pytest.raises(InputError, match=r"no column 'texts' for show; did you mean 'text'\?"):
        fl.evaluate("data.parquet", "brier", pred="p", target="t", worst=1, show="texts")
    with pytest.raises(InputError, match="show text is of the worst rows; give worst as well, such as worst=10"):
        fl.evaluate("data.parquet", "brier", pred="p", target="t", show="text")
    code, _, err = run("eval", "data.parquet", *BRIER, "--show", "text")
    assert (code, err) == (2, "fastloss: --show text is of --worst rows; give it too\n")


def test_rows_of_csv_have_lines(folder):
    _, out, _ = run("eval", "data.csv", *BRIER, "--worst", 1)
    assert re.search(r"counted from 0\n +0\.64  data\.csv, row 1 \(line 3\)\n", out)
    assert Path("data.csv").read_text().splitlines()[3 - 1] == "0.2,1,1"
    Path("data.csv").write_text("p,t\n0.5,1\n,1\n")
    code, _, err = run("eval", "data.csv", *BRIER)
    assert (code, err[:47]) == (2, "fastloss: data.csv, row 1 (line 3): p is null; "[:47])
    pq.write_table(pa.table({"p": [0.5, None], "t": [1, 1], "g": ["a", "b"]}), "holes.parquet")
    _, _, err = run("eval", "holes.parquet", *BRIER, "--by", "g")
    assert err.startswith("fastloss: holes.parquet, row 1 (from 0): p is null; expected")


def test_empty_input_is_an_error_of_the_command(folder):
    pq.write_table(pa.table({"p": pa.array([], pa.float64()), "t": pa.array([], pa.float64())}), "none.parquet")
    code, out, err = run("eval", "none.parquet", *BRIER)
    assert (code, out, err) == (2, "", "fastloss: none.parquet has no rows; expected at least one\n")
    Path("none.csv").write_text("")
    assert run("eval", "none.csv", *BRIER)[2] == "fastloss: none.csv has no rows; expected at least one\n"


def completed(line):
    """Return the words that bash offers at the end of a line."""
    words = line.split(" ")
    script = run("completion", "bash")[1]
    script += f"COMP_WORDS=({' '.join(w or chr(34) * 2 for w in words)}); COMP_CWORD={len(words) - 1}; _fastloss\n"
    script += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-u", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash():
    assert {"eval", "compare", "track"} <= set(completed("fastloss "))
    assert completed("fastloss eval data.parquet --weig") == ["--weight"]
    assert completed("fastloss eval -l bce_with") == ["bce_with_logits"]
    assert completed("fastloss show hub") == ["huber"]
    assert completed("fastloss eval data.parquet --on-invalid ") == ["fail", "skip", "propagate"]
    assert "gate" in completed("fastloss track ")
    assert "--base" in completed("fastloss track gate --b")
    assert completed("fastloss completion f") == ["fish"]
    assert completed("fastloss eval da") == []


def test_completion_of_every_shell():
    for shell in SHELLS:
        code, out, _ = run("completion", shell)
        assert code == 0
        assert "bce_with_logits" in out
        assert "per-sample" in out
    code, _, err = run("completion", "csh")
    assert (code, "'csh' is no shell that is known; allowed: bash, zsh, fish" in err) == (2, True)


def at_terminal(*arguments, columns=80):
    """Return what the command writes to a terminal of a width."""
    master, slave = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": str(columns),
        "TERM": "xterm",
        "PYTHONPATH": str(Path(fl.__file__).parents[1]),
    }
    command = [sys.executable, "-m", "fastloss", *arguments]
    child = subprocess.Popen(command, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    parts = []
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    assert child.wait(60) == 0
    return b"".join(parts).decode()


@pytest.mark.jit
@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_tables_hold_at_80_columns_and_progress_has_words(folder):
    shown = at_terminal(
        "eval", "data.parquet", *BRIER, "-l", "log_loss", "--by", "id", "--worst", "1", "--show", "text"
    )
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    lines = [part for line in plain.split("\n") for part in line.split("\r")]
    assert max(map(len, lines)) <= 80
    for word in ("brier", "log_loss", "non-finite"):
        assert any(re.search(rf"(^| ){re.escape(word)}( |$)", line) for line in lines), word
    assert "remaining" in plain
    assert not re.search(r"\bleft\b", plain)
