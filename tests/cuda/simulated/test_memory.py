"""Functions that read and write for kernels, and the threads of the simulator."""

import numpy as np
import pytest
from numba import cuda

from fastloss.cuda.runtime.memory import reader, spelled, writer


def test_numbers_of_two_precisions_that_are_equal_make_two_functions():
    for first, second in ((np.float64, np.float32), (np.float32, np.float64)):
        for kind in (first, second):
            assert type(spelled("x", "zero", single=True, zero=kind(0.0))(1)) is kind
            assert type(spelled("x", "pair[0]", single=True, pair=(kind(0.0), kind(1.0)))(1)) is kind


def test_equal_expressions_make_one_function():
    f = abs
    assert spelled("x", "f(x)", "one", f=f, one=np.float32(1.0)) is spelled(
        "x", "f(x)", "one", f=f, one=np.float32(1.0)
    )


def test_an_array_is_read_and_written_in_its_own_format_alone():
    a = np.arange(8, dtype=np.float32)
    assert reader("float32", 4)(a, 1) == (4.0, 5.0, 6.0, 7.0)
    with pytest.raises(AssertionError, match="float32 taken for float64"):
        reader("float64", 2)(a, 0)
    with pytest.raises(AssertionError, match="float32 taken for float16"):
        writer("float16", 2)(a, 0, (0.0, 0.0))


@cuda.jit
def _reverse(given, taken):
    shared = cuda.shared.array(32, np.float64)
    shared[cuda.threadIdx.x] = given[cuda.threadIdx.x]
    cuda.syncthreads()
    taken[cuda.threadIdx.x] = shared[31 - cuda.threadIdx.x]


@cuda.jit
def _race(given, taken):
    shared = cuda.shared.array(32, np.float64)
    shared[cuda.threadIdx.x] = given[cuda.threadIdx.x]
    taken[cuda.threadIdx.x] = shared[31 - cuda.threadIdx.x]


@cuda.jit
def _part(given, taken):
    if cuda.threadIdx.x < 3:
        taken[cuda.threadIdx.x] = cuda.shfl_sync(0xFFFFFFFF, given[cuda.threadIdx.x], 0)


def test_threads_of_a_block_wait_for_each_other_and_a_missing_barrier_shows():
    given, taken = np.arange(32.0), np.zeros(32)
    _reverse[1, 32](given, taken)
    assert taken.tolist() == given[::-1].tolist()
    _race[1, 32](given, taken)
    assert np.isnan(taken).any()


def test_lanes_that_wait_for_others_in_vain_are_named():
    with pytest.raises(AssertionError, match=r"threads \[0, 1, 2\] of a block wait for others that never come"):
        _part[1, 32](np.zeros(32), np.zeros(32))
    # The simulator is left as it was.
    taken = np.zeros(32)
    _reverse[1, 32](np.ones(32), taken)
    assert taken.tolist() == [1.0] * 32
