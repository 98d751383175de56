"""What every test starts from: fifty digits in mpmath, and no warnings from a kernel that runs as plain Python."""

import gc
import os

# Threads of OpenMP that wait for work sleep. By default those of kernels and of torch turn in a loop first, on the
# processors that other workers need: the optimisers beside torch took 18 s of processor time instead of 8.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import mpmath
import numpy as np
import pytest
from hypothesis import settings
from numba import config

# A first call compiles for a second: a deadline would measure the compiler.
settings.register_profile("fastloss", deadline=None)
settings.load_profile("fastloss")


@pytest.fixture(autouse=True)
def surroundings():
    """Fifty digits, whatever another module set; compiled code gives no floating-point warnings."""
    with mpmath.mp.workdps(50), np.errstate(**({"all": "ignore"} if config.DISABLE_JIT else {})):
        yield


def pytest_collection_modifyitems(items):
    # Machine code can be read where it was made, not where it came from the disk cache: those tests go first.
    items.sort(key=lambda item: item.path.stem != "test_vectorised")


def pytest_collection_finish():
    # Ten thousand tests and their libraries live to the end: the collector need not walk them while Numba compiles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_report_header():
    jit = "off" if config.DISABLE_JIT else "on"
    return f"numba {__import__('numba').__version__}, numpy {np.__version__}, JIT {jit}"
