"""Compilation in helper processes: the same kernels, whoever compiles them, and nobody is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from children import environment, everything

from fastloss.cpu.runtime import cache
from fastloss.evaluation import ahead
from fastloss.evaluation.ahead import Job, compile_ahead

pytest.importorskip("pyarrow")
pytest.importorskip("typer")

pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled"),
]

JOBS = [Job(name, "warmup", None) for name in "abc"]


class Work:
    """Stands for the compilation of jobs in this process: their labels, in the order in which they were done."""

    def __init__(self, misses):
        self.done, self.misses = [], misses

    def __call__(self, job):
        for tell in cache.missed if self.misses else ():
            tell()
        self.done.append(job.label)


@pytest.fixture
def work(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTLOSS_CACHE", raising=False)
    monkeypatch.setattr(ahead, "_processors", lambda: 2)
    found = Work(True)
    monkeypatch.setattr(ahead, "perform", found)
    return found


@pytest.fixture
def started(monkeypatch):
    """The helpers that are started."""
    found, start = [], subprocess.Popen
    monkeypatch.setattr(ahead.subprocess, "Popen", lambda *a, **k: found.append(start(*a, **k)) or found[-1])
    return found


@pytest.mark.parametrize("program", ["/bin/false", "/bin/cat", "/no/such/python"])
def test_a_helper_that_fails_leaves_its_jobs_to_the_command(work, monkeypatch, program):
    if "no" not in program and not Path(program).exists():
        pytest.skip("no such program here")
    monkeypatch.setattr(ahead.sys, "executable", program)
    compile_ahead(JOBS)
    assert sorted(work.done) == ["a", "b", "c"]
    assert not cache.missed


def test_an_error_is_passed_on_and_ends_the_helpers(work, started, monkeypatch):
    def fail(job):
        work(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "perform", fail)
    with pytest.raises(KeyboardInterrupt):
        compile_ahead(JOBS)
    assert [helper.poll() is not None for helper in started] == [True]
    assert not cache.missed


def test_a_warm_cache_needs_no_helper(work, started):
    work.misses = False
    compile_ahead(JOBS)
    assert (work.done, started) == (["a", "b", "c"], [])


def test_one_processor_needs_no_helper(work, started, monkeypatch):
    monkeypatch.setattr(ahead, "_processors", lambda: 1)
    compile_ahead(JOBS)
    assert (work.done, started) == (["a", "b", "c"], [])


def test_without_a_cache_nothing_is_compiled_ahead(work, started, monkeypatch):
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    compile_ahead(JOBS)
    assert (work.done, started) == ([], [])


def test_what_is_compiled_is_shown(work, monkeypatch):
    monkeypatch.setattr(ahead, "_processors", lambda: 1)
    shown = []
    compile_ahead(JOBS, shown.append)
    assert shown == ["compiling 1 of 3: a", "compiling 2 of 3: b", "compiling 3 of 3: c"]


@pytest.mark.parametrize(("text", "most"), [("max 100000", 99), ("150000 100000", 2), ("20000 100000", 1), ("", 99)])
def test_a_container_has_its_share_of_processors(text, most, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(ahead, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("fastloss.cpu.runtime.threads._threads", 99)
    monkeypatch.setattr("fastloss.cpu.runtime.threads._forked", False)
    assert ahead._processors() == most


SCRIPT = """
import json, sys
from fastloss.evaluation import ahead
from fastloss.evaluation.command import Request, evaluate_command

lead, helped = ahead._Crew._lead, []
ahead._processors = lambda: int(sys.argv[1])

def counting(self, helper):
    lead(self, helper)
    helped.append(self.begun if not self.undone else -1)

ahead._Crew._lead = counting
evaluate_command(Request([], ["hinge", "brier"], [], None, None, "fail", 0, "-", None, True, 1))
print(json.dumps(helped), file=sys.stderr)
"""


def evaluated(folder, processors):
    """Report of an evaluation, how helpers ended, and the names of the kernels on disk."""
    variables = environment(FASTLOSS_CACHE_DIR=folder)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(processors)], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr), sorted(p.name for p in folder.iterdir())


def test_helpers_compile_what_the_command_would(tmp_path):
    alone, no_helpers, kernels = evaluated(tmp_path / "one", 1)
    report, helpers, shared = evaluated(tmp_path / "two", 2)
    assert no_helpers == []
    assert helpers == [3]
    assert report == alone
    assert shared == kernels
    # All that the evaluation needs has been compiled by then, by whomever: a second process compiles nothing.
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "two").iterdir()}
    assert evaluated(tmp_path / "two", 2) == (alone, [], kernels)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "two").iterdir()} == written


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children_of(pid):
    """Processes that a process has started."""
    try:
        return [int(p) for f in Path(f"/proc/{pid}/task").iterdir() for p in (f / "children").read_text().split()]
    except OSError:
        return []


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def until(condition, seconds=60.0):
    """What a condition gives, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@linux
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_no_helper_outlives_the_command(name, tmp_path):
    command = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in background jobs
        "from fastloss.evaluation import ahead; ahead._processors = lambda: 2; "
        "from fastloss.command.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, "eval", "--sample"],
        env=environment(FASTLOSS_CACHE_DIR=tmp_path / "cache"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    helpers = until(lambda: children_of(process.pid))
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if name == "SIGINT" else -signal.SIGKILL)
    assert said == ("fastloss: interrupted\n" if name == "SIGINT" else "")
    until(lambda: not any(map(is_running, helpers)))


@linux
def test_progress_on_a_terminal_names_what_is_compiled(tmp_path):
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "fastloss", "eval", "--sample", "-l", "hinge"]
    process = subprocess.Popen(
        command, env=environment(FASTLOSS_CACHE_DIR=tmp_path, TERM="xterm"), stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = everything(leader).decode()
    os.close(leader)
    assert process.wait() == 0
    assert re.search(r"compiling [12] of 2: (hinge|statistics)", shown)
