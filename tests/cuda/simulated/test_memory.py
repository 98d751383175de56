"""What kernels are made of."""

import numpy as np
import pytest

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
