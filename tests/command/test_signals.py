"""Signals that end the command: one sentence, the status of the signal, no traceback, no file left behind."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from children import environment

from fastloss import _signals

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("typer")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to see when the handlers are there")

SEED = 11
CACHE = {"FASTLOSS_CACHE_DIR": os.environ.get("FASTLOSS_CACHE_DIR")}
COMMAND = [sys.executable, "-m", "fastloss", "eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"z": np.ones(100), "t": np.zeros(100)}), "data.parquet")
    return tmp_path


def started(command):
    """A process that signals end, even where these tests run in the background of a shell, which ignores SIGINT."""

    def listen():
        for name in ENDS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(**CACHE), preexec_fn=listen)


def handles_signals(process):
    """Whether the command has come to its first line: before that, the signal meets Python itself."""
    with open(f"/proc/{process.pid}/status") as status:
        caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def interrupted(name, delay, *options):
    """Exit status, output and errors of a command that a signal meets so many seconds after its first line."""
    process = started([*COMMAND, *options])
    deadline = time.monotonic() + 60
    while not handles_signals(process) and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


DELAYS = [random.Random(SEED).uniform(0, 0.6) for _ in range(10)]
ENDS = {"SIGINT": (130, "interrupted"), "SIGTERM": (143, "terminated"), "SIGHUP": (129, "the terminal was closed")}


@pytest.mark.jit
@pytest.mark.parametrize("name", ENDS)
def test_a_signal_while_modules_are_imported_ends_in_one_sentence(folder, name):
    code, sentence = ENDS[name]
    for delay in DELAYS if name == "SIGINT" else DELAYS[:3]:
        ended = interrupted(name, delay, "--per-sample", "rows.parquet")
        # A fast machine may be done before, or have printed everything, and be about to end.
        printed = ended[1] if ended[1].endswith("loss of every row: rows.parquet\n") else ""
        assert ended[0] == 0 or ended == (code, printed, f"fastloss: {sentence}\n"), f"{name} after {delay} s: {ended}"
        assert {*os.listdir()} <= {"data.parquet", "rows.parquet"}


@pytest.mark.parametrize("name", ENDS)
def test_a_signal_while_a_file_is_written_removes_it(folder, name):
    code, sentence = ENDS[name]
    script = (
        "import time\n"
        "from fastloss.command import main as cli\n"
        "from fastloss.evaluation import files, command\n"
        "def stuck(request):\n"
        "    with files.output('report.json') as file:\n"
        "        file.write(b'{')\n"
        "        print('begun', flush=True)\n"
        "        time.sleep(60)\n"
        "command.evaluate_command = stuck\n"
        "cli.main(['eval', 'x'])\n"
    )
    process = started([sys.executable, "-c", script])
    assert process.stdout.readline() == "begun\n"
    assert len(os.listdir()) == 2
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"fastloss: {sentence}\n")
    assert os.listdir() == ["data.parquet"]


def test_a_signal_that_was_ignored_stays_ignored(folder):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**CACHE), preexec_fn=ignore
    )
    while not handles_signals(process):
        time.sleep(0.002)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "mse" in out


def test_a_program_that_imports_the_package_keeps_its_handlers():
    code = "import signal; old = signal.getsignal(2), signal.getsignal(15); import fastloss; "
    code += "print(old == (signal.getsignal(2), signal.getsignal(15)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(**CACHE))
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("words", "is_command"),
    [
        (["python", "-m", "fastloss", "eval"], True),
        (["python", "-W", "error", "-m", "fastloss"], True),
        (["python", "-m", "pytest", "fastloss"], False),
        (["python", "fastloss/x.py"], False),
        (["python", "-c", "import fastloss"], False),
    ],
)
def test_which_processes_are_the_command(monkeypatch, words, is_command):
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert _signals._is_command() == is_command
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fastloss"])
    assert _signals._is_command()
