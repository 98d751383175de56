"""The processes that time a case of either revision when they are asked to."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..evaluation.columns import InputError
from ..performance import timing
from . import cases, worker
from .environment import Environment, last_line

__all__ = ["Worker", "WorkerError", "workers"]

PATIENCE = 900.0
"""Seconds after which a worker that does not answer is ended."""


class WorkerError(InputError):
    """What a worker could not do."""


class Worker:
    """A process that times the cases of one revision."""

    def __init__(self, environment: Environment, source: str, folder: Path) -> None:
        self.name = environment.name
        self._log = folder / f"{environment.name.split()[0]}.log"
        settings = {
            "timing": timing.__file__,
            "loader": cases.__file__,
            "cases": source,
            "home": str(environment.home),
            "packages": environment.packages,
        }
        cache = environment.home / "_cache"
        environ = {**os.environ, "FASTLOSS_CACHE_DIR": str(cache), "NUMBA_CACHE_DIR": str(cache / "numba")}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [environment.python, "-I", worker.__file__, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                env=environ,
            )

    def ask(self, method: str, *arguments: object) -> Any:
        """Have the worker do something and return what it answers; an error there is one here."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([method, arguments]) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next answer."""
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            said = last_line(self._log.read_text(encoding="utf-8", errors="replace"))
            raise InputError(f"the process of {self.name} ended with {self._process.wait()}: {said}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def workers(environments: list[Environment], source: str, folder: Path) -> Iterator[list[Worker]]:
    """One process for each environment, with its cases loaded."""
    started: list[Worker] = []
    try:
        for environment in environments:
            started.append(Worker(environment, source, folder))
            started[-1].answer()
        yield started
    finally:
        for w in started:
            w.close()
