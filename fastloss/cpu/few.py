"""Drivers of small calls, which sum values, or check and sum the weights and run the kernel, in one compiled call.

Each array that Python does not pass saves 60 ns, each call that it does not make 300 ns.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import config, types
from numba.np.numpy_support import as_dtype

from ..spec.record import FINITE_NONNEGATIVE, NONNEGATIVE
from .elementwise import Drive, drive_elementwise
from .rows.drivers import counting, drive_rows
from .runtime import access
from .runtime.intrinsics import array
from .runtime.objects import reader, table_of, words_of
from .runtime.slots import unbound
from .runtime.specialize import INNER, compile_driver, inner
from .runtime.staging import flat

__all__ = ["row_driver", "row_setup", "sum_driver", "weighted_pair_driver"]


class FewRows(NamedTuple):
    """Functions that the driver of few rows is specialised to."""

    arrays_of: Callable[..., tuple[Any, ...]]
    """Function that builds the arrays from a table."""
    check_weight: Callable[..., Any]
    """Function that returns 1 for a row weight outside its domain."""
    check_class: Callable[..., Any]
    """Function that returns 1 for a class weight outside its domain."""


use: Any = unbound(FewRows)


def drive_sum(chunk, address, values):
    """Return the sum of values and the violations, by the kernel at an address, in the fixed order of all kernels."""
    # An empty slice stands for each array that is left out: passing one from Python takes 60 ns.
    e = values[:0]
    return drive_elementwise(address, (values,), e, e, e, (e,), (e,), 1.0, np.empty(0), False, chunk, False)


def drive_weighted_pair(address, sum_address, prediction, target, out, weight, params, chunk):
    """Return the sum of weighted losses over one prediction and its target, the violations, and the sum of the weights.

    The kernel at `sum_address` sums the weights, in the fixed order of all kernels.
    """
    e = target[:0]
    # In the fixed order of all kernels: the mean has the bits that a large call's would have.
    fixed = (params[:0], False, chunk, False)
    mass, negative = drive_elementwise(sum_address, (weight,), e, e, e, (e,), (e,), 1.0, *fixed)
    # Stops before the kernel runs, which would divide by 0 or by infinity.
    if negative > 0.0 or not 0.0 < mass < np.inf:
        return 0.0, 1.0, mass
    scale = 1.0 / mass
    total, bad = drive_elementwise(
        address, (prediction,), target, weight, e, (out,), (e,), scale, params, False, chunk, False
    )
    return total, bad, mass


def drive_few_rows(setup, arrays, scale, ignored):
    """Return the sum of losses of rows, the violations, the mass, and the number of wrong labels and weights.

    `arrays` is the address of a tuple of the scores, labels, dense targets, gradient, row weights, class weights,
    parameters and helpers. The setup has the address of the kernel, whether class weights are part of the mass, the
    number of classes, the scratch elements per chunk, the rows per chunk, and two words per array.
    """
    table = table_of(arrays, setup[5:])
    # The arrays are not of the types in the setup: nothing may be read through their addresses.
    if len(table) == 0:
        return 0.0, 0.0, 0.0, 1.0
    z, labels, target, grad, weight, class_weight, params, helpers = use.arrays_of(table)
    wrong = 0.0
    for i in range(weight.size):
        wrong += use.check_weight(weight[i])
    for j in range(class_weight.size):
        wrong += use.check_class(class_weight[j])
    # Stops before the gradient is written: its memory may be the caller's.
    if wrong > 0.0:
        return 0.0, 0.0, 0.0, wrong
    e, e2 = flat(z)[:0], z[:0]
    inputs = (z, labels, target, weight, class_weight, class_weight if setup[1] != 0 else e)
    every = (*inputs, e, grad, e2, np.empty((0, 0), np.float64))
    code = (setup[2], setup[3], setup[4], False)
    return drive_rows(setup[0], every, scale, ignored, params, helpers, False, *code)


@cache
def sum_driver(dtype: str) -> Any:
    """Return the driver of small sums."""
    drive = inner(drive_elementwise, INNER, Drive(access.window[1]))
    signature = types.UniTuple(types.float64, 2)(types.intp, types.intp, array(dtype))
    return compile_driver(drive_sum, f"sum_{dtype}", signature, drive_elementwise=drive)


@cache
def weighted_pair_driver(dtype: str) -> Any:
    """Return the driver of small weighted means over one prediction and its target."""
    one, doubles = array(dtype), array("float64")
    arguments = (types.intp, types.intp, one, one, one, one, doubles, types.intp)
    drive = inner(drive_elementwise, INNER, Drive(access.window[1]))
    return compile_driver(
        drive_weighted_pair,
        f"weighted_pair_{dtype}",
        types.UniTuple(types.float64, 3)(*arguments),
        drive_elementwise=drive,
    )


@cache
def _row_kinds(dtype: str) -> tuple[Any, ...]:
    one, two, doubles, whole = array(dtype), array(dtype, 2), array("float64"), array("int64")
    return two, whole, two, two, one, one, doubles, whole


@cache
def _row_words(dtype: str) -> list[int]:
    return words_of([(as_dtype(kind.dtype), kind.ndim) for kind in _row_kinds(dtype)])


def row_setup(dtype: str, address: int, divides: bool, code: tuple[int, ...]) -> Any:
    """Return the setup of the driver of few rows; the code is classes, scratch elements and rows per chunk."""
    setup = [address, divides, *code, *_row_words(dtype)]
    return setup if config.DISABLE_JIT else np.array(setup, np.int64)


@cache
def row_driver(dtype: str) -> Any:
    """Return the driver of small reduced calls over rows, with or without weights of rows or classes."""
    setup = array("int64")
    return compile_driver(
        drive_few_rows,
        f"few_rows_{dtype}",
        types.UniTuple(types.float64, 4)(setup, types.intp, types.float64, types.int64),
        FewRows(reader(_row_kinds(dtype)), access.check(NONNEGATIVE, dtype), access.check(FINITE_NONNEGATIVE, dtype)),
        drive_rows=inner(drive_rows, INNER, survey=counting(dtype)),
    )
