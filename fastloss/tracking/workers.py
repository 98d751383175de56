"""Management of the worker processes that time cases."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.columns import InputError
from ..performance import machine, timing
from . import cases, worker
from .environment import Environment, last_line

__all__ = ["Worker", "WorkerError", "workers"]

PATIENCE = 900.0
"""Time limit for an answer (seconds), after which the worker is killed."""

LOOKS = 10.0
"""Interval between checks of whether a worker still answers (seconds). A timer for each answer would run beside the
samples and take a core from calls on all cores."""


class WorkerError(InputError):
    """Error for a request that a worker could not carry out."""


class Worker:
    """Process that times the cases of one revision, or of this environment."""

    def __init__(self, environment: Environment | None, source: str, folder: Path) -> None:
        self.name = source if environment is None else environment.name
        self._is_alone = environment is None
        self._log = folder / f"{'record' if environment is None else environment.name.split()[0]}.log"
        settings = {
            "timing": timing.__file__,
            "machine": machine.__file__,
            "loader": cases.__file__,
            "cases": source,
            "home": None if environment is None else str(environment.home),
            "packages": [] if environment is None else environment.packages,
            "path": [p or os.getcwd() for p in sys.path] if environment is None else None,
        }
        # The size of the environment moves the stack: it should differ from process to process, not between records.
        environ = {**os.environ, "FASTLOSS_TRACK_PADDING": "x" * random.randrange(4096)}
        if environment is not None:
            cache = environment.home / "_cache"
            environ |= {"FASTLOSS_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": str(cache / "numba")}
        python = sys.executable if environment is None else environment.python
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                # Without -B, Python would leave a __pycache__ beside the cases.
                [python, "-I", "-B", worker.__file__, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                env=environ,
            )
        self._asked: float | None = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Kill the process if it takes too long to answer."""
        while not self._closed.wait(min(LOOKS, PATIENCE)):
            asked = self._asked
            if asked is not None and time.monotonic() - asked > PATIENCE:
                self._process.kill()

    def ask(self, method: str, *arguments: object) -> Any:
        """Send a request to the worker and return its answer; raise WorkerError for an error there."""
        assert self._process.stdin is not None
        self._asked = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([method, arguments]) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """Return the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._asked = None
        if not line:
            said = last_line(self._log.read_text(encoding="utf-8", errors="replace"))
            raise InputError(f"the process of {self.name} ended with {self._process.wait()}: {said}")
        answer = json.loads(line)
        if "error" in answer:
            is_said = self._is_alone and answer["names_cases"]
            raise WorkerError(answer["error"] if is_said else f"{self.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self._closed.set()
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def workers(environments: Sequence[Environment | None], source: str, folder: Path) -> Iterator[list[Worker]]:
    """Start one process for each environment, with its cases loaded, for a `with` block."""
    started: list[Worker] = []
    try:
        for environment in environments:
            started.append(Worker(environment, source, folder))
            started[-1].answer()
        yield started
    finally:
        for w in started:
            w.close()
