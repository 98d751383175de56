"""One revision's side of a gate: a process that times a case when it is asked to.

It runs in the environment of its revision, by path, and needs nothing but Python: what it measures with comes from the
fastloss that runs the gate, what it measures comes from the revision. Requests and answers are lines of JSON.
"""

import gc
import importlib.util
import json
import os
import sys
from types import ModuleType
from typing import Any


def _file(name: str, path: str) -> ModuleType:
    """A module read from a path, whatever the packages of the environment are called."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIDES = ("candidate", "reference")


class Side:
    """The cases of one revision."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.home = os.path.realpath(settings["home"])
        self.packages = settings["packages"]
        self.timing = _file("_fastloss_timing", settings["timing"])
        self.cases = _file("_fastloss_cases", settings["loader"]).load(settings["cases"])

    def names(self) -> list[str]:
        """The names of the cases."""
        return list(self.cases)

    def prepare(self, case: str, least: float) -> dict[str, int]:
        """Compile and warm up; how many calls of candidate and reference make a sample of at least so many seconds."""
        repeats = {which: self.timing.repeats_for(self._function(case, which), least) for which in SIDES}
        self._own_code(case)
        return repeats

    def sample(self, case: str, which: str, repeats: int) -> float:
        """Seconds per call of the candidate or the reference."""
        function = self._function(case, which)
        function()  # the other process just had the caches
        seconds: float = self.timing.burst(function, repeats)
        return seconds / repeats

    def _function(self, case: str, which: str) -> Any:
        return self.cases[case][SIDES.index(which)]

    def _own_code(self, case: str) -> None:
        """Raise unless this revision's code is what runs: a gate that measures one code twice never fails."""
        found = [(n, sys.modules[n].__file__) for n in self.packages if n in sys.modules]
        if not found:
            raise RuntimeError(f"{case} uses nothing of {', '.join(self.packages)}, so it measures no revision")
        for name, path in found:
            if path is not None and not os.path.realpath(path).startswith(self.home + os.sep):
                raise RuntimeError(f"{name} was imported from {path}, not from the environment of the revision")


def main() -> None:
    """Answer until the pipe is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a case prints must not get among the answers

    def answer(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        side = Side(json.loads(sys.argv[1]))
        answer(result=None)
    except BaseException as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    gc.disable()
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer(result=getattr(side, method)(*arguments))
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}")
        if method == "prepare":
            gc.collect()


if __name__ == "__main__":
    main()
