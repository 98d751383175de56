"""The table of cases under pytest-benchmark: a group for each case, a benchmark for each contestant.

    pytest bench/ [--loss NAME | --all-cases] [--benchmark-json FILE]

What does not compute what the reference computes fails and is not timed.
"""

from functools import lru_cache

import numpy as np
import pytest

from fastloss.performance.agree import agreeing
from fastloss.performance.cases import draw
from fastloss.performance.contestants import BUILDERS, contestants, installed
from fastloss.performance.machine import about, reuse_memory


@lru_cache(maxsize=1)
def entered(case):
    """The contestants of a case, and what is wrong with some; they come case by case, so one case is kept."""
    reuse_memory()
    data = draw(case)
    entrants = contestants(case, data, [n for n in BUILDERS if installed(n)])
    return agreeing(case, data, entrants)


@pytest.mark.benchmark(min_rounds=5, max_time=0.2, warmup=False)
def test_call(case, name, benchmark):
    with np.errstate(all="ignore"):
        entrants, errors = entered(case)
        if name not in entrants and name not in errors:
            pytest.skip(f"{name} has no {case.loss} in mode {case.mode}")
        assert name not in errors, errors[name]
        benchmark.group = case.id
        benchmark.extra_info.update(machine=about(), bytes=case.traffic)
        benchmark(entrants[name].call)
