"""Products shared out among our threads, with NumPy's BLAS kept to one: bits, settings, forks, and other libraries."""

import hashlib
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest
from children import IN_CHILD, ROOT, start, wait

import fastloss as fl
from fastloss.cpu.embeddings import products
from fastloss.cpu.runtime import blas, threads, units

openblas = blas._openblas()
needs_openblas = pytest.mark.skipif(openblas is None, reason="NumPy multiplies by another library")
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


TILES = {
    "embeddings.products.TILE": 1 << 11,
    "embeddings.products.WIDE": 1 << 11,
    "embeddings.products.LEAST": 8,
    "runtime.units.SHARED": 64,
    "runtime.blas.ENOUGH": 4096,
    "runtime.blas.COLUMNS": 64,
    "runtime.blas.UNTHREADED": 0,
}


def shapes(rng):
    """Calls whose scores are wide, tall and square, in several chunks and tiles."""
    for n, h, k in ((90, 24, 500), (700, 24, 80), (128, 40, 128)):
        hidden, projection = (rng.standard_normal(s).astype(np.float32) for s in ((n, h), (k, h)))
        labels = rng.integers(0, k, n)
        yield fl.linear_cross_entropy, (hidden, projection, labels, np.zeros(k, np.float32)), {"chunk": None}
        labels[::5] = -100
        yield fl.linear_cross_entropy, (hidden, projection, labels), {"chunk": 50}
    yield fl.supcon, (rng.standard_normal((200, 30)).astype(np.float32), np.arange(200) % 7), {}
    yield fl.barlow_twins, tuple(rng.standard_normal((2, 100, 120)).astype(np.float32)), {}
    yield fl.vicreg, tuple(rng.standard_normal((2, 60, 400)).astype(np.float32)), {}


@pytest.fixture(autouse=True)
def tiles(monkeypatch):
    """Tiles so small that there are some to share."""
    for name, value in TILES.items():
        monkeypatch.setattr(f"fastloss.cpu.{name}", value)
    # Kernels that other tests bound share their work as those tests had it.
    units.launch_of.cache_clear()


def bits():
    """A digest of values and gradients."""
    h = hashlib.sha256()
    for loss, given, options in shapes(np.random.default_rng(0)):
        value, grads = loss.value_and_grad(*given, **options)
        for result in (value, *(grads if isinstance(grads, tuple) else (grads,))):
            h.update(np.asarray(result).tobytes())
    return h.hexdigest()


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
import os, threading, warnings
from concurrent.futures import ThreadPoolExecutor
import fastloss as fl
from fastloss.cpu.embeddings import products
from fastloss.cpu.runtime import blas, threads, units
from test_blas import TILES, bits, openblas

warnings.filterwarnings("ignore", category=DeprecationWarning)

for name, value in TILES.items():
    *_, module, constant = name.split(".")
    setattr({"blas": blas, "units": units, "products": products}[module], constant, value)
fl.set_num_threads(1)
expected = bits()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A disk cache that the first process fills for the others."""
    return tmp_path_factory.mktemp("blas") / "cache"


def script(text, folder):
    """Run it on four threads."""
    variables = {"NUMBA_NUM_THREADS": 4, "OPENBLAS_NUM_THREADS": 2, "FASTLOSS_CACHE_DIR": folder}
    return wait(start(IN_CHILD + SCRIPT + text, os.path.dirname(__file__), str(ROOT / "tests"), **variables), 180.0)


@pytest.mark.jit
@pytest.mark.slow
@needs_openblas
def test_same_bits_for_any_number_of_threads(folder):
    text = """
for n in (2, 3, 4):
    fl.set_num_threads(n)
    assert bits() == expected
assert openblas.get() == 2
with ThreadPoolExecutor(3) as pool:
    assert {f.result() for f in [pool.submit(bits) for _ in range(6)]} == {expected}
assert openblas.get() == 2
print("done")
"""
    assert script(text, folder) == "done"


@pytest.mark.jit
@pytest.mark.slow
@needs_openblas
@fork
def test_forks_with_a_pool_and_in_the_midst_of_a_call(folder):
    text = """
fl.set_num_threads(3)
assert bits() == expected
assert threads._pool._threads
assert in_child(lambda: bits() == expected and openblas.get() == 2) == 0
inside, forked = threading.Event(), threading.Event()


def stay():
    with blas.single_threaded():
        inside.set()
        forked.wait()


thread = threading.Thread(target=stay)
thread.start()
inside.wait()
assert openblas.get() == 1
assert in_child(lambda: openblas.get() == 2 and bits() == expected and openblas.get() == 2) == 0
assert openblas.get() == 1
forked.set()
thread.join()
assert openblas.get() == 2
print("done")
"""
    assert script(text, folder) == "done"


@needs_openblas
def test_one_thread_within_a_call_and_all_of_them_after_it(monkeypatch):
    before, within = openblas.get(), []
    hidden, labels = np.eye(4), np.arange(4)
    softmax = products.put_slopes
    monkeypatch.setattr(products, "put_slopes", lambda *a: (within.append(openblas.get()), softmax(*a)))
    fl.linear_cross_entropy(hidden, hidden, labels)
    assert (within, openblas.get()) == ([1], before)
    # Of so few multiplications OpenBLAS makes one thread's work by itself.
    monkeypatch.setattr(blas, "UNTHREADED", 64)
    fl.linear_cross_entropy(hidden, hidden, labels)
    assert within == [1, before]

    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(products, "put_slopes", fail)
    with pytest.raises(ZeroDivisionError):
        fl.linear_cross_entropy(hidden, hidden, labels)
    assert openblas.get() == before


@needs_openblas
def test_what_somebody_else_sets_meanwhile_stands():
    before = openblas.get()
    try:
        with blas.single_threaded():
            openblas.set(before + 1)
        assert openblas.get() == before + 1
    finally:
        openblas.set(before)


@needs_openblas
def test_calls_that_overlap():
    before = openblas.get()
    with blas.single_threaded():
        with blas.single_threaded():
            assert openblas.get() == 1
        assert openblas.get() == 1
    assert openblas.get() == before


def test_another_library_keeps_its_threads(monkeypatch):
    assert blas._functions(os.devnull) is None
    given = [(loss, *rest) for loss, *rest in shapes(np.random.default_rng(1))][:5]
    expected = [loss.value_and_grad(*arrays, **options) for loss, arrays, options in given]
    before = openblas and openblas.get()
    monkeypatch.setattr(blas, "_openblas", lambda: None)
    if openblas:
        monkeypatch.setattr(products._Chunk, "clear", lambda self: None if openblas.get() == before else 1 / 0)
    for (loss, arrays, options), (value, grads) in zip(given, expected, strict=True):
        other, slopes = loss.value_and_grad(*arrays, **options)
        assert other == pytest.approx(value, rel=1e-6)
        for a, b in zip(slopes, grads, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


ODD = {
    "a row of a vector": lambda row: row[0].copy()[None],
    "the last row first": lambda row: np.concatenate([row, row, row])[::-1][:1],
    "a column, transposed": lambda row: np.asfortranarray(row.T.copy()).T,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_single_row_of_any_stride(odd):
    """An array of one row is contiguous whatever the distance to the next, which BLAS wants to know nonetheless."""
    rng = np.random.default_rng(2)
    row, others = rng.standard_normal((1, 8)), rng.standard_normal((30, 8))
    calls = [
        lambda one: fl.linear_cross_entropy.value_and_grad(one, others, np.array([3])),
        lambda one: fl.info_nce.value_and_grad(one, row, others, normalize=False),
    ]
    for call in calls:
        value, grads = call(row)
        assert all(np.abs(g).sum() > 0.0 for g in grads)
        found, slopes = call(odd(row))
        assert found == pytest.approx(value, rel=1e-14)
        for a, b in zip(slopes, grads, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def extra(call):
    """Bytes that NumPy has at most at a time beyond what it had before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("n", "h", "k"), [(256, 512, 2048), (1024, 1024, 256)], ids=["columns", "rows"])
def test_memory_of_sums_over_tiles(monkeypatch, n, h, k):
    """What tiles add to the gradients is held within the bound for scores, however long the rows are."""
    monkeypatch.setattr(products, "SCORES", 1 << 20)
    rng = np.random.default_rng(3)
    hidden, projection = rng.standard_normal((n, h), np.float32), rng.standard_normal((k, h), np.float32)
    outs = np.empty_like(hidden), np.empty_like(projection)
    labels = rng.integers(0, k, n)

    def call():
        fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, chunk=n, out=outs)

    call()
    assert extra(call) < 4 * (n * k + (1 << 18)) + (1 << 20)


def test_rows_as_long_as_a_batch_are_shared(monkeypatch):
    monkeypatch.setattr(products, "TILE", 1 << 18)
    tiles, softmax = [], products._Chunk.put_slopes
    monkeypatch.setattr(products._Chunk, "put_slopes", lambda self, *a: (tiles.append(a[0]), softmax(self, *a)))
    hidden = np.random.default_rng(4).standard_normal((1024, 1024), np.float32)
    fl.linear_cross_entropy.value_and_grad(hidden, hidden[:1000], np.arange(1024) % 1000)
    assert len(tiles) == 4


def test_work_is_shared_once_and_errors_come_back(monkeypatch):
    monkeypatch.setattr(threads, "get_num_threads", lambda: 3)
    done, together = [], threading.Barrier(2, timeout=30)

    def work(i):
        done.append(i)
        if i < 2:
            together.wait()  # only two threads get past this
        if i == 5:
            raise KeyError(i)

    with pytest.raises(KeyError):
        threads.share(work, range(9))
    assert sorted(done) == list(range(9))


def test_an_error_waits_for_the_others(monkeypatch):
    """What the caller gave room for is not written after the call."""
    monkeypatch.setattr(threads, "get_num_threads", lambda: 3)
    caller, begun, helpers, ended = threading.current_thread(), threading.Barrier(3, timeout=30), [], []

    def work(i):
        me = threading.current_thread()
        if me is not caller:
            helpers.append(me)
        begun.wait()
        if me is helpers[0]:
            raise KeyError(i)
        if me is helpers[1]:
            time.sleep(0.2)
        ended.append(i)

    with pytest.raises(KeyError):
        threads.share(work, range(3))
    assert len(ended) == 2


def test_a_thread_that_comes_late_finds_nothing_to_do(monkeypatch):
    """A pool that can start no thread raises, but keeps what was queued for whichever of its threads is free next."""
    queued = []

    def refuse(function, *arguments):
        queued.append(lambda: function(*arguments))
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "get_num_threads", lambda: 3)
    monkeypatch.setattr(threads._pool, "submit", refuse)
    taken, done, late = threading.Event(), [], []

    def work(i):
        if i == 1:
            late.append(threading.Thread(target=queued[0]))
            late[0].start()
            taken.wait(30)
        if i == 2:
            taken.set()
            time.sleep(0.2)
        done.append(i)

    threads.share(work, range(4))
    assert sorted(done) == [0, 1, 2, 3]
    late[0].join()
    queued[0]()
    assert sorted(done) == [0, 1, 2, 3]


def test_without_further_threads(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "get_num_threads", lambda: 3)
    monkeypatch.setattr(threads._pool, "submit", refuse)
    done = []
    threads.share(done.append, range(4))
    assert done == [0, 1, 2, 3]
