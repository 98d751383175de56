"""What kernels are made of."""

import numpy as np

from fastloss.kernels.cuda.memory import spelled


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
