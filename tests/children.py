"""Python processes of their own, for tests of threads, forks and the disk cache; the command, without one."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]


def command(*words):
    """Exit code and output of the command `fastloss`, run in this process: a process of its own takes a second."""
    from typer.testing import CliRunner

    from fastloss.command.commands import app

    done = CliRunner().invoke(app, [str(word) for word in words], prog_name="fastloss")
    return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=done.stderr)


CLEARED = ("FASTLOSS_", "NUMBA_", "OMP_", "KMP_", "PYTHONHASHSEED")


def environment(**variables):
    """This process's variables without those that steer fastloss, Numba or OpenMP; None removes one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(CLEARED)}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    kept |= {k: str(v) for k, v in variables.items() if v is not None}
    return {k: v for k, v in kept.items() if variables.get(k, "") is not None}


def start(script, *arguments, **variables):
    """Start a script; `wait` for what it prints."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _end(process):
    """End a script with all its children, which may hold its pipes open."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def wait(process, timeout=60.0):
    """What the script printed; its error output where it failed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s\n{out}\n{err}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
    return out.strip()


IN_CHILD = """
def in_child(work):
    # Exit status 0 where work() is true.
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 3)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
"""A function for scripts that fork; they import os."""


def run(script, *arguments, **variables):
    """Run a script to its end and return what it printed."""
    return wait(start(script, *arguments, **variables))


def everything(leader):
    """The bytes that a pseudo-terminal shows until all who write to it have left."""
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            return shown
        if not part:
            return shown
        shown += part
