"""Threads, forks and pools, each in a process of its own: a failure here kills the process or hangs it."""

import multiprocessing
import os
import signal
import sys

import pytest
from children import IN_CHILD, run

pytestmark = pytest.mark.jit

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

LAYERS = [
    pytest.param("omp", marks=pytest.mark.skipif(sys.platform == "darwin", reason="Numba's wheel has no OpenMP here")),
    "workqueue",
]
each_layer = pytest.mark.parametrize("layer", LAYERS)

PRELUDE = (
    IN_CHILD
    + """
import hashlib, os, sys, threading, warnings
import numpy as np
import numba
import fastloss as fl

# Python 3.12 warns of every fork of a process with threads; that it works is what is tested here.
warnings.filterwarnings("ignore", category=DeprecationWarning)
rng = np.random.default_rng(0)
n = 200_003
p, t, w = rng.standard_normal((3, n)).astype(np.float32)
t, w = abs(t) % 1, abs(w)
z = rng.standard_normal((3001, 40)).astype(np.float32)
y = rng.integers(0, 40, 3001)
few, which = rng.standard_normal((20_011, 7)).astype(np.float32), rng.integers(0, 7, 20_011)


def bits():
    h = hashlib.sha256()
    for reduction in ("mean", "sum", "none"):
        for loss, *data in ((fl.bce_with_logits, p, t), (fl.cross_entropy, z, y), (fl.cross_entropy, few, which)):
            for result in (loss(*data, reduction=reduction), *loss.value_and_grad(*data, reduction=reduction)):
                h.update(np.asarray(result).tobytes())
    h.update(np.float64(fl.bce_with_logits(p, t, weight=w)).tobytes())
    for g in (*fl.bce_with_logits.grad_and_hess(p, t), *fl.cross_entropy.grad_and_hess(z, y)):
        h.update(g.tobytes())
    return h.hexdigest()
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A disk cache that the first process fills for the others."""
    return tmp_path_factory.mktemp("threads") / "cache"


@pytest.fixture(scope="module")
def serial(folder):
    """The bits of one thread."""
    return run(PRELUDE + "print(bits())", FASTLOSS_CACHE_DIR=folder, FASTLOSS_NUM_THREADS=1)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_same_bits_for_any_number_of_threads(threads, serial, folder):
    script = PRELUDE + "print(bits(), fl.get_num_threads())"
    variables = {"FASTLOSS_CACHE_DIR": folder, "FASTLOSS_NUM_THREADS": threads, "NUMBA_NUM_THREADS": 4}
    assert run(script, **variables) == f"{serial} {threads}"


@each_layer
def test_thirty_two_python_threads(layer, serial, folder):
    script = (
        PRELUDE
        + """
start = threading.Barrier(32)
found = []

def work():
    start.wait()
    for _ in range(2):
        found.append(bits())

threads = [threading.Thread(target=work) for _ in range(32)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(found) == 64, len(found)
assert fl.get_num_threads() == 4
fl.set_num_threads(1)
found.append(bits())
fl.set_num_threads(3)
found.append(bits())
print(*set(found), numba.threading_layer())
"""
    )
    variables = {"FASTLOSS_CACHE_DIR": folder, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 4}
    assert run(script, **variables) == f"{serial} {layer}"


def test_thirty_two_first_calls_compile_once():
    script = """
import collections, re, threading
import numpy as np
import fastloss as fl
from numba.core import compiler

names = collections.Counter()
original = compiler.compile_extra

def counting(typingctx, targetctx, func, *args, **kwargs):
    names[func.__qualname__] += 1
    return original(typingctx, targetctx, func, *args, **kwargs)

compiler.compile_extra = counting
start = threading.Barrier(32)
found = []

def work():
    start.wait()
    found.append((fl.mse(np.ones(9), np.zeros(9)), fl.cross_entropy(np.zeros((2, 40)), np.array([0, 1]))))

threads = [threading.Thread(target=work) for _ in range(32)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(found) == 32 and len(set(found)) == 1, found
ours = {k: v for k, v in names.items() if re.search("_[0-9a-f]{20}$", k)}  # templates, drivers, what they call
names = {k[:-21] for k in ours}
assert {"evaluate_element", "elementwise", "softmax_labels", "label_terms"} <= names, ours
assert {"elementwise1_float64", "pair_float64", "rows_float64", "few_rows_float64"} <= names, ours
print(set(ours.values()))
"""
    assert run(script, FASTLOSS_CACHE=0) == "{1}"


@fork
@each_layer
def test_fork_after_a_parallel_call(layer, serial, folder):
    script = (
        PRELUDE
        + """
expected = bits()
assert numba.threading_layer() == sys.argv[1]
assert in_child(lambda: bits() == expected and fl.get_num_threads() == 1) == 0
assert in_child(lambda: in_child(lambda: bits() == expected) == 0) == 0  # a grandchild
assert bits() == expected
assert fl.get_num_threads() == 2
print(expected)
"""
    )
    variables = {"FASTLOSS_CACHE_DIR": folder, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 2}
    assert run(script, layer, **variables) == serial


@fork
def test_fork_before_any_call(serial, folder):
    script = (
        PRELUDE
        + """

def work():
    ok = fl.get_num_threads() == 2
    expected = bits()
    # The child's own threads run now, so that a grandchild must not enter a region.
    return ok and in_child(lambda: bits() == expected and fl.get_num_threads() == 1) == 0
assert in_child(work) == 0
print(bits())
"""
    )
    assert run(script, FASTLOSS_CACHE_DIR=folder, NUMBA_NUM_THREADS=2) == serial


USER = """
@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(x.size):
        s += x[i]
    return s
"""


@fork
@pytest.mark.parametrize("used", [False, True], ids=["numba idle", "numba used"])
def test_first_import_in_a_forked_child(used, folder):
    # Another library may have started Numba's threads before fastloss is there to see the fork.
    script = (
        """
import os, warnings
import numpy as np
import numba

warnings.filterwarnings("ignore", category=DeprecationWarning)
"""
        + (USER + "assert total(np.ones(1000)) == 1000\n" if used else "")
        + """
pid = os.fork()
if pid == 0:
    import fastloss as fl

    ones = np.ones(200_000, np.float32)
    ok = abs(fl.bce_with_logits(0 * ones, ones) - np.log(2)) < 1e-6
    os._exit(0 if ok else 3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert run(script, FASTLOSS_CACHE_DIR=folder, NUMBA_NUM_THREADS=2) == "0"


@fork
def test_fork_while_another_thread_compiles():
    script = (
        PRELUDE
        + """
import time
from fastloss.cpu import dispatch

thread = threading.Thread(target=lambda: fl.huber(p, t))
thread.start()
while dispatch.compiling.acquire(blocking=False):
    dispatch.compiling.release()
    time.sleep(0.001)
# A hang here is a lock that the other thread held for ever in the child.
assert in_child(lambda: fl.mse(p[:9], p[:9]) == 0.0) == 0
thread.join()
assert fl.huber(p, p) == 0.0
print("done")
"""
    )
    assert run(script, FASTLOSS_CACHE=0) == "done"


METHODS = [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]


@pytest.mark.parametrize("method", METHODS)
def test_process_pools(method, folder):
    script = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import fastloss as fl

if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    rng = np.random.default_rng(0)
    p, t = rng.random((2, 100_000)).astype(np.float32)
    loss = fl.bce_with_logits.bind(pos_weight=2.0)
    expected = loss.value_and_grad(p, t)
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, context) as pool:
        assert list(pool.map(loss, [p] * 4, [t] * 4)) == [loss(p, t)] * 4
        value, grad = pool.submit(loss.value_and_grad, p, t).result()
        assert value == expected[0] and grad.tobytes() == expected[1].tobytes()
        assert "target[3] is 7" in str(pool.submit(loss, p[:4], [0, 0, 0, 7]).exception())
    with context.Pool(2) as pool:
        assert pool.starmap(loss, [(p, t)] * 4) == [loss(p, t)] * 4
    process = context.Process(target=loss, args=(p, t))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert loss(p, t) == expected[0]
    print("done")
"""
    assert run(script, method, FASTLOSS_CACHE_DIR=folder) == "done"


def test_number_of_threads_from_the_environment():
    script = """
import os
import numpy as np
import fastloss as fl

large = np.zeros(70_000, np.float32)
for text in ("0", "-1", "two", "1.5", " ", "2 threads"):
    os.environ["FASTLOSS_NUM_THREADS"] = text
    for call in (fl.get_num_threads, lambda: fl.mse(large, large)):
        try:
            call()
        except ValueError as error:
            assert str(error) == f"FASTLOSS_NUM_THREADS is {text!r}; expected a whole number of at least 1", error
        else:
            raise AssertionError(text)
os.environ["FASTLOSS_NUM_THREADS"] = "1000"  # more than there are
assert fl.get_num_threads() == 4
assert fl.mse(large, large) == 0.0
print("done")
"""
    assert run(script, NUMBA_NUM_THREADS=4) == "done"


def test_threads_of_other_users_of_numba(folder):
    script = (
        PRELUDE
        + USER
        + """
from fastloss.cpu.runtime import threads

ones = np.ones(100_000)
assert total(ones) == 100_000
numba.set_num_threads(3)
fl.set_num_threads(2)
first = bits()
assert numba.get_num_threads() == 3
assert total(ones) == 100_000
assert threads.run_parallel(lambda: numba.get_num_threads()) == 2
try:
    threads.run_parallel(lambda: 1 / 0)
except ZeroDivisionError:
    pass
assert numba.get_num_threads() == 3

found = []
def work():
    before = numba.get_num_threads()
    found.append(bits() == first and numba.get_num_threads() == before)
def user():
    found.append(all(total(ones) == 100_000 for _ in range(200)))
running = [threading.Thread(target=f) for f in (work, user, work, user)]
if numba.threading_layer() != "workqueue":
    [t.start() for t in running]
    [t.join() for t in running]
    assert found == [True] * 4, found
print("done")
"""
    )
    assert run(script, FASTLOSS_CACHE_DIR=folder, NUMBA_NUM_THREADS=4) == "done"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no timers that interrupt")
@each_layer
def test_a_signal_handler_calls_a_loss(layer, folder):
    # It runs between two bytecodes of the call that it interrupts, under all locks of that call.
    script = (
        PRELUDE
        + """
import signal
from concurrent.futures import ThreadPoolExecutor
from fastloss.cpu.runtime import blas, threads

x, found = rng.standard_normal((700, 64)).astype(np.float32), []


def losses():
    return fl.bce_with_logits(p, t), fl.cross_entropy(z, y), fl.ntxent(x, x)


expected = losses()


def interrupted(*_):
    found.append(losses() == expected)


def interrupt(*_):
    before = len(found)
    os.kill(os.getpid(), signal.SIGUSR1)
    while len(found) == before:
        pass


signal.signal(signal.SIGUSR1, interrupted)

# Within a parallel region's lock.
threads.run_parallel(interrupt)
assert found == [True], found


# Within the locks of the pool that shares products, and of the count of those who keep BLAS to one thread.
class Interrupted(ThreadPoolExecutor):
    def _adjust_thread_count(self):
        interrupt()
        super()._adjust_thread_count()


threads._pool = Interrupted(2)
assert losses() == expected
openblas = blas._openblas()
if openblas is not None:
    assert len(found) > 1

    class Interrupting:
        def get(self):
            interrupt()
            return openblas.get()

        def set(self, n):
            openblas.set(n)
            interrupt()

    usual = openblas.get()
    blas._enter(Interrupting())
    assert openblas.get() == 1
    blas._leave(Interrupting())
    assert openblas.get() == usual and blas._calls == 0

# At any moment.
def again(*_):
    interrupted()
    signal.setitimer(signal.ITIMER_REAL, 0.001)


signal.signal(signal.SIGALRM, again)
before = len(found)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while len(found) < before + 10:
    assert losses() == expected
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(found), found
print(numba.threading_layer())
"""
    )
    variables = {"FASTLOSS_CACHE_DIR": folder, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 2}
    assert run(script, **variables) == layer
