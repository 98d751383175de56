"""Worker process that times cases on request, for `record` and for either revision of a `gate`.

It runs by path in the environment of its revision and imports only the standard library. The measuring code comes from
the fastloss that runs the command, the measured code from the revision. Requests and answers are lines of JSON.
"""

import gc
import importlib.util
import json
import os
import sys
from types import ModuleType
from typing import Any


def _file(name: str, path: str) -> ModuleType:
    """Load a module from a path, whatever the packages of the environment are called."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIDES = ("candidate", "reference")


class Side:
    """Cases of one revision."""

    def __init__(self, settings: dict[str, Any]) -> None:
        if settings["path"] is not None:
            sys.path[:] = settings["path"]
        self.home = settings["home"]
        self.packages = settings["packages"]
        self.timing = _file("_fastloss_timing", settings["timing"])
        # NumPy's mse of a million elements takes 0.6 or 3.1 ms, by what the process freed before.
        _file("_fastloss_machine", settings["machine"]).reuse_memory()
        self.cases = _file("_fastloss_cases", settings["loader"]).load(settings["cases"])
        self.seconds: dict[tuple[str, str], float] = {}

    def names(self) -> list[str]:
        """Return the names of the cases."""
        return list(self.cases)

    def prepare(self, case: str, least: float) -> dict[str, int]:
        """Compile and warm up; return the numbers of candidate and reference calls that take `least` seconds."""
        repeats = {which: self.timing.repeats_for(self._function(case, which), least) for which in SIDES}
        if self.home is not None:
            self._own_code(case)
        return repeats

    def sample(self, case: str, which: str, repeats: int) -> tuple[float, bool]:
        """Return the seconds per call of the candidate or the reference, and whether other work disturbed them."""
        function = self._function(case, which)
        if self.seconds.get((case, which), 0.0) < self.timing.LONG:
            function()  # another process or case just had the caches
        seconds, is_disturbed = self.timing.sample(function, repeats)
        self.seconds[case, which] = seconds
        return seconds, is_disturbed

    def _function(self, case: str, which: str) -> Any:
        return self.cases[case][SIDES.index(which)]

    def _own_code(self, case: str) -> None:
        """Raise unless this revision's code runs: a gate that measures one code twice never fails."""
        found = [(n, sys.modules[n].__file__) for n in self.packages if n in sys.modules]
        if not found:
            raise RuntimeError(f"{case} uses nothing of {', '.join(self.packages)}, so it measures no revision")
        home = os.path.realpath(self.home)
        for name, path in found:
            if path is not None and not os.path.realpath(path).startswith(home + os.sep):
                raise RuntimeError(f"{name} was imported from {path}, not from the environment of the revision")


def main() -> None:
    """Answer requests until the pipe is closed."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a case prints must not get among the answers
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nor may it read the requests

    def answer(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    def failed(error: BaseException) -> None:
        is_own = type(error).__name__ == "CasesError"  # its text names the module of cases
        answer(error=str(error) if is_own else f"{type(error).__name__}: {error}", names_cases=is_own)

    try:
        side = Side(json.loads(sys.argv[1]))
        answer(result=None)
    except BaseException as error:
        failed(error)
        return
    gc.disable()
    for line in requests:
        method, arguments = json.loads(line)
        try:
            answer(result=getattr(side, method)(*arguments))
        except (Exception, SystemExit) as error:
            failed(error)
        if method == "prepare":
            gc.collect()


if __name__ == "__main__":
    main()
