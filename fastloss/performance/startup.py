"""Startup times, measured in separate processes with a separate kernel cache."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile

from .cases import Case

__all__ = ["compilation", "imports"]

FIRST_CALL = """
import json, sys, time
import fastloss as fl
from fastloss.performance.cases import Case, draw
from fastloss.performance.contestants import fastloss
given = json.loads(sys.argv[1])
case = Case(**{**given, "parameters": tuple(map(tuple, given["parameters"]))})
other = Case("cross_entropy" if case.loss == "mae" else "mae", 100, case.dtype)
if case.classes:
    other = Case("kl_div", 100, case.dtype, classes=10, target="probabilities")
fastloss(other, draw(other)).call()
call = fastloss(case, draw(case)).call
start = time.perf_counter()
call()
print(time.perf_counter() - start)
"""

IMPORT = "import time, numpy; start = time.perf_counter(); import fastloss; print(time.perf_counter() - start)"

FIRST_RESULT = """
import time; start = time.perf_counter()
import numpy as np, fastloss as fl
p = np.zeros(100, np.float32); fl.mse.value_and_grad(p, p)
print(time.perf_counter() - start)
"""


def _child(code: str, *arguments: str, **environment: str) -> float:
    """Run code in a new process and return the number that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def compilation(case: Case) -> dict[str, float]:
    """Return the times of a case's first call (seconds), with the compiler warm: `cold`, and `cached` from disk."""
    small = dataclasses.replace(case, size=100)
    text = json.dumps(dataclasses.asdict(small))
    with tempfile.TemporaryDirectory() as folder:
        return {k: _child(FIRST_CALL, text, FASTLOSS_CACHE_DIR=folder) for k in ("cold", "cached")}


def imports(repeats: int = 5) -> dict[str, float]:
    """Return the time to import fastloss after NumPy, and to a first result with cached kernels (seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        _child(FIRST_RESULT, FASTLOSS_CACHE_DIR=folder)
        codes = {"import after numpy": IMPORT, "first result of a process": FIRST_RESULT}
        return {
            k: statistics.median(_child(code, FASTLOSS_CACHE_DIR=folder) for _ in range(repeats))
            for k, code in codes.items()
        }
