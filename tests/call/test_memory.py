"""Results from recycled memory: ordinary arrays that share it with nobody, and a pool that stays within its bounds."""

import copy
import gc
import mmap
import os
import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from children import IN_CHILD, run, start

import fastloss as fl
from fastloss.call import memory
from fastloss.call.errors import SettingError
from fastloss.call.memory import MemoryPool

F32 = np.dtype(np.float32)
MB = 1 << 20
N = 1 << 19
"""Elements of a float32 array that is just large enough to be recycled."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


@pytest.fixture
def pool(monkeypatch):
    """A pool of its own for all losses."""
    own = MemoryPool(64 * MB)
    monkeypatch.setattr(memory, "_pool", own)
    return own


def is_recycled(a):
    """Whether an array lies in a block of a pool."""
    while a is not None and not isinstance(a, memory._Owner):
        a = getattr(a, "base", None)
    return a is not None


def address(a):
    return a.__array_interface__["data"][0]


# The arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", ">f8", "float16", "int64", "bfloat16"])
def test_arrays_are_ordinary(pool, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    dtype = np.dtype(dtype)
    a = memory.empty((3, N), dtype)
    assert type(a) is np.ndarray
    assert is_recycled(a)
    assert a.dtype is dtype
    assert a.shape == (3, N)
    assert a.flags.carray
    assert address(a) % 64 == 0
    a[...] = (np.arange(N) % 99).astype(dtype)
    for b in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a), a.copy()):
        assert not is_recycled(b)
        assert np.array_equal(b, a)
    a.shape = (N, 3)
    assert a.T.shape == (3, N)
    assert not memory.zeros((N,), F32).any()


def calls():
    """Calls of every family, with as many results as there are arrays in them."""
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((2, N))
    rows, labels = rng.standard_normal((N // 8, 8)), rng.integers(0, 8, N // 8)
    levels = rng.standard_normal((N // 2, 2))
    boxes = np.sort(rng.random((N, 2, 2)), axis=1).reshape(N, 4)
    return {
        "gradient": lambda: fl.mse.value_and_grad(z, t),
        "curvature": lambda: fl.mse.grad_and_hess(z, t),
        "values": lambda: (fl.mse(z, t, reduction="none"),),
        "several predictions": lambda: fl.laplace_nll.value_and_grad((z, abs(t) + 1.0), t)[1],
        "16 bits": lambda: fl.mse.value_and_grad(np.tile(z, 2).astype("f2"), np.tile(t, 2)),
        "other byte order": lambda: fl.mse.value_and_grad(z.astype(">f8"), t),
        "columns": lambda: fl.quantile.value_and_grad(levels, levels[:, 0], q=(0.1, 0.9), reduction="none"),
        "rows": lambda: fl.cross_entropy.value_and_grad(rows, labels),
        "rows along another axis": lambda: fl.cross_entropy.value_and_grad(rows.T, labels, axis=0),
        "values of rows": lambda: (fl.cross_entropy(np.repeat(rows, 8, 0), np.repeat(labels, 8), reduction="none"),),
        "values of arrays": lambda: (fl.giou(boxes, boxes[::-1], reduction="none"),),
        "gradients of arrays": lambda: fl.giou.value_and_grad(boxes, boxes[::-1]),
    }


@pytest.mark.jit
def test_every_family_recycles_and_gives_the_same_bits(monkeypatch, pool):
    for name, call in calls().items():
        monkeypatch.setattr(memory, "_pool", MemoryPool(0))
        expected = [np.asarray(x) for x in call()]
        monkeypatch.setattr(memory, "_pool", pool)
        first = [np.asarray(x) for x in call()]
        large = [x for x in first if x.nbytes >= memory.SMALLEST]
        assert large, name
        assert all(is_recycled(x) for x in large), name
        for again in (first, [np.asarray(x) for x in call()]):
            assert [x.tobytes() for x in again] == [x.tobytes() for x in expected], name
        for i, x in enumerate(large):
            assert not any(np.shares_memory(x, y) for y in large[:i]), name
    del first, large, again, x
    assert 0 < pool.kept() <= pool.limit


@pytest.mark.jit
def test_small_and_given_results_are_not_recycled(pool):
    z = np.random.default_rng(0).standard_normal(N).astype(F32)
    out = np.empty_like(z)
    assert fl.mse.value_and_grad(z, z, out=out)[1] is out
    assert fl.mse.value_and_grad(z[:-1], z[:-1])[1].flags.owndata
    assert not pool.idle
    assert is_recycled(fl.mse.value_and_grad(z, z)[1])


# Who has the memory --------------------------------------------------------------------------------------------------


def test_memory_comes_back_with_the_last_array(pool):
    a = memory.empty((N,), F32)
    where = address(a)
    del a
    assert [block.address for block in pool.idle] == [where]
    b = memory.empty((N,), F32)
    assert address(b) == where
    assert not pool.idle


HOLDERS = {
    "slice": lambda a: a[5:9],
    "view": lambda a: a.view(np.int32).reshape(2, -1).T,
    "memoryview": lambda a: memoryview(a)[3:],
    "buffer": lambda a: np.frombuffer(a, np.uint8),
    "base": lambda a: a.base,
    "interface": lambda a: np.asarray(a.base),
    "cycle": lambda a: (lambda x: x.append(x) or x)([a]),
    "iterator": lambda a: iter(a),
    "dlpack": lambda a: np.from_dlpack(a),
    "torch": lambda a: pytest.importorskip("torch").from_numpy(a)[1:],
}


@pytest.mark.parametrize("name", HOLDERS)
def test_memory_stays_with_whoever_holds_a_view(pool, name):
    a = memory.empty((N,), F32)
    where = address(a)
    a.fill(3.0)
    held = HOLDERS[name](a)
    del a
    gc.collect()
    assert not pool.idle
    b = memory.empty((N,), F32)
    b.fill(4.0)
    assert address(b) != where
    if name in ("slice", "torch"):
        assert (held == 3.0).all()
    del held
    gc.collect()
    assert [block.address for block in pool.idle] == [where]


@pytest.mark.jit
def test_an_error_gives_the_memory_back(pool):
    p = np.full(N, 0.5, F32)
    t = p.copy()
    t[-3] = 2.0
    for _ in range(3):
        with pytest.raises(ValueError, match="target"):
            fl.bce.value_and_grad(p, t)
    gc.collect()
    assert len(pool.idle) == 1


def test_threads_never_share_memory(pool):
    wrong, blocks = [], set()
    begin = threading.Barrier(8)

    def work(number):
        begin.wait()
        for turn in range(150):
            a = memory.empty((N + (turn % 3) * (number % 2) * N // 16,), F32)
            mark = number * 1000 + turn
            a[::4096] = mark
            kept = a[4096::4096]
            del a
            blocks.add(address(kept))
            if not (kept == mark).all():
                wrong.append(mark)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    # Without recycling, 1,200 blocks: the system would give the same addresses again, but not these few.
    assert len(blocks) < 200
    assert pool.idle
    assert pool.kept() <= pool.limit


def test_a_block_that_another_thread_takes_first():
    class Raced(list):
        """A list of which another thread takes the newest item as soon as it has been looked at."""

        def copy(self):
            found = list(self)
            taken.extend(self[-1:])
            del self[-1:]
            return found

    pool, taken = MemoryPool(64 * MB), []
    arrays = [pool.empty((N,), F32) for _ in range(3)]
    places = [address(a) for a in arrays]
    while arrays:
        del arrays[0]
    pool.idle = Raced(pool.idle)
    a = pool.empty((N,), F32)
    assert [block.address for block in taken] == places[2:]
    assert address(a) == places[1]
    pool.idle[:] = taken
    assert address(pool.empty((N,), F32)) != places[2]


@fork
def test_forks():
    script = (
        IN_CHILD
        + """
import os, warnings
import numpy as np
from fastloss.call import memory
warnings.filterwarnings("ignore", category=DeprecationWarning)
pool, f4 = memory._pool, np.dtype("f4")
mine, other, idle = (memory.empty((1 << k,), f4) for k in (19, 19, 20))
mine.fill(1.0)
del idle
where = pool.idle[0].address

def child():
    global mine
    # Neither what was idle nor what was in use at the fork is used again: to write to it is to copy it.
    if pool.idle or not (mine == 1.0).all():
        return False
    mine.fill(2.0)
    a = memory.empty((1 << 20,), f4)
    a.fill(3.0)
    del a, mine
    again = memory.empty((1 << 20,), f4)
    again.fill(4.0)
    return not pool.idle and not other.base._home

assert in_child(child) == 0
assert (mine == 1.0).all()
assert pool.idle[0].address == where
del mine, other
assert len(pool.idle) == 3
print("done")
"""
    )
    assert run(script) == "done"


# The bound -----------------------------------------------------------------------------------------------------------


def test_idle_memory_is_bounded_and_the_oldest_goes_first():
    pool = MemoryPool(8 * MB)
    arrays = [pool.empty((N,), F32) for _ in range(6)]
    places = [address(a) for a in arrays]
    while arrays:
        del arrays[0]
        assert pool.kept() <= pool.limit
    assert [block.address for block in pool.idle] == places[2:]
    large = pool.empty((3 * N,), F32)
    del large
    # The newest of 6 MB, and of the others as many as there is room for.
    assert [block.capacity // MB for block in pool.idle] == [2, 6]
    assert pool.empty((4 * N + 1,), F32).flags.owndata
    assert pool.kept() == 8 * MB


def test_blocks_serve_arrays_of_about_their_size():
    pool = MemoryPool(64 * MB)
    for n in (4 * N, 8 * N):
        pool.empty((n,), F32)
    small, large = (block.address for block in pool.idle)
    last = pool.empty((7 * N,), F32)
    assert address(last) == large
    assert address(pool.empty((2 * N,), F32)) not in (small, large)
    assert address(pool.empty((4 * N - 9,), F32)) == small


@pytest.mark.parametrize("text", ["0", "00", " 0 "])
def test_no_memory_is_recycled_where_the_limit_is_0(monkeypatch, text):
    monkeypatch.setenv("FASTLOSS_MEMORY_POOL_MB", text)
    pool = MemoryPool()
    monkeypatch.setattr(memory, "_pool", pool)
    assert memory.empty((N,), F32).flags.owndata
    assert pool.limit == pool.kept() == fl.release_memory() == 0


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("FASTLOSS_MEMORY_POOL_MB", raising=False)
    assert MemoryPool().limit == 256 * MB
    monkeypatch.setenv("FASTLOSS_MEMORY_POOL_MB", "12")
    assert MemoryPool().limit == 12 * MB


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "64MB"])
def test_a_limit_that_makes_no_sense_is_named(monkeypatch, text):
    monkeypatch.setenv("FASTLOSS_MEMORY_POOL_MB", text)
    expected = f"FASTLOSS_MEMORY_POOL_MB is '{text}'; expected a whole number of megabytes"
    with pytest.raises(SettingError, match=expected):
        MemoryPool().empty((N,), F32)


# Memory that is wanted elsewhere -------------------------------------------------------------------------------------


def resident():
    """Return the resident memory of this process (bytes)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@linux
def test_memory_is_released_on_request(pool):
    a = memory.empty((10 * N,), F32)
    b = memory.empty((10 * N,), F32)
    a.fill(1.0)
    b.fill(2.0)
    del a
    before = resident()
    assert fl.release_memory() == 20 * MB
    assert before - resident() > 15 * MB
    assert fl.release_memory() == 0
    assert (b == 2.0).all()
    del b
    assert fl.release_memory() == 20 * MB


PAGE_OUT = 21
"""Linux's advice to reclaim pages, which `mmap` has no name for."""


@linux
@pytest.mark.skipif(not MemoryPool.advice, reason="this system gives no huge pages")
def test_linux_takes_large_idle_memory_when_it_needs_some(pool):
    a = memory.empty((20 * N,), F32)
    a.fill(1.0)
    del a
    (block,) = pool.idle
    assert block.is_reclaimable
    before = resident()
    try:
        block.advise(PAGE_OUT)
    except ValueError:
        pytest.skip("this kernel cannot be asked to reclaim")
    taken = before - resident()
    again = memory.empty((20 * N,), F32)
    assert address(again) == block.address
    assert not block.is_reclaimable
    again.fill(2.0)
    block.advise(PAGE_OUT)
    assert (again == 2.0).all()
    if not taken:
        pytest.skip("this kernel does not reclaim on request")
    assert taken > 30 * MB


@pytest.mark.skipif(not MemoryPool.advice, reason="this system gives no huge pages")
def test_what_linux_cannot_take_is_little():
    pool = MemoryPool(256 * MB)
    arrays = [pool.empty((k * N,), F32) for k in (3, 4, 5, 6, 20, 4, 4)]
    while arrays:
        arrays.pop(0)
        assert sum(b.capacity for b in pool.idle if not b.is_reclaimable) <= memory.HELD
    assert [b.is_reclaimable for b in pool.idle] == [False, False, False, True, True, False, True]


@pytest.mark.parametrize(
    ("size", "enabled", "expected"),
    [
        ("2097152", "always [madvise] never", True),
        ("2097152", "[always] madvise never", True),
        ("2097152", "always madvise [never]", False),
        ("536870912", "[always] madvise never", False),
        ("", "", False),
    ],
)
def test_the_advice_is_given_for_huge_pages_alone(monkeypatch, tmp_path, size, enabled, expected):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory, "Path", lambda folder: tmp_path)
    assert not memory._has_huge_pages()
    (tmp_path / "hpage_pmd_size").write_text(size + "\n")
    (tmp_path / "enabled").write_text(enabled + "\n")
    assert memory._has_huge_pages() is expected


def test_idle_memory_makes_room_where_there_is_none(monkeypatch, pool):
    memory.empty((N,), F32)
    assert pool.idle
    mapping, asked = mmap.mmap, []

    def refuse(*arguments, **options):
        asked.append(arguments)
        if pool.idle:
            raise OSError(12, "Cannot allocate memory")
        return mapping(*arguments, **options)

    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    assert is_recycled(memory.empty((8 * N,), F32))
    assert len(asked) == 2
    # Where no mapping can be had at all, NumPy finds memory, or says that there is none.
    monkeypatch.setattr(memory.mmap, "mmap", lambda *a, **k: mapping(-1, 1 << 62))
    assert memory.empty((4 * N,), F32).flags.owndata


@linux
def test_too_little_address_space():
    script = """
import resource
import numpy as np
import fastloss as fl
from fastloss.call import memory
f4 = np.dtype("f4")
fl.mse.value_and_grad(*np.ones((2, 1 << 20), "f4"))
kept = [memory.empty((1 << 24,), f4) for _ in range(3)]
kept.clear()
assert memory._pool.kept() >= 3 << 26
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
a = memory.empty((1 << 25,), f4)
a.fill(1.0)
assert memory._pool.kept() < 1 << 26
for n in (40 << 20, 1 << 40):
    try:
        memory.empty((n,), f4)
    except MemoryError as error:
        assert "Unable to allocate" in str(error)
    else:
        raise AssertionError(n)
print("done")
"""
    assert run(script, FASTLOSS_NUM_THREADS=1) == "done"


def test_whoever_traces_memory_sees_every_result(pool):
    tracemalloc.start()
    try:
        a = memory.empty((4 * N,), F32)
        assert tracemalloc.get_traced_memory()[1] >= a.nbytes
    finally:
        tracemalloc.stop()
    assert a.flags.owndata


def test_arrays_that_live_to_the_end_of_the_interpreter():
    script = """
import gc, sys
import numpy as np
from fastloss.call import memory
gc.disable()
a = memory.empty((1 << 24,), np.dtype("f4"))
cycle = [memory.empty((1 << 24,), np.dtype("f4"))]
cycle.append(cycle)
sys.held = memory.empty((1 << 24,), np.dtype("f4"))
np.held = memory.empty((1 << 24,), np.dtype("f4"))
memory.held = memory.empty((1 << 24,), np.dtype("f4"))
"""
    process = start(script)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
