"""Every loss on arrays that begin or end at a protected page: a read or a write beyond them ends the process.

The last line that the process printed names the call and its seed, and `python tests/fuzz/guarded.py SEED NAME`
repeats it.
"""

import os
import sys

import pytest
from children import start, wait

import fastloss as fl

pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(sys.platform == "win32", reason="this platform has no mprotect"),
]

SCRIPT = "from guarded import main; main(*sys.argv[1:])"
FOLDERS = f"import sys; sys.path[:0] = {[str(p) for p in sys.path if 'tests' in str(p)]!r}\n"


def test_the_pages_are_protected():
    script = FOLDERS + "import ctypes\nimport numpy as np\nfrom guarded import fence\na = fence(np.ones(5), {})\n"
    for end, beyond in (("True", 5), ("False", -1)):
        code = script.format(end)
        assert wait(start(code + "a += 1.0\nprint(a.sum())")) == "10.0"
        with pytest.raises(AssertionError, match=r"exit status -1[01]"):
            wait(start(code + f"print(ctypes.c_double.from_address(a.ctypes.data + 8 * {beyond}).value)"))


@pytest.mark.parametrize("family", ["elementwise", "rows", "arrays"])
def test_no_kernel_leaves_its_arrays(family):
    names = [name for name, loss in fl.LOSSES.items() if loss.record.family == family]
    # The kernels that other tests compiled are in this process's cache.
    process = start(FOLDERS + SCRIPT, 0, *names, FASTLOSS_CACHE_DIR=os.environ.get("FASTLOSS_CACHE_DIR"))
    said = wait(process, 600.0)
    assert said.splitlines()[-1] == f"{len(names)} losses stay within their arrays"
