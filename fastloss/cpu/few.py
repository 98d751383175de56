"""Drivers of small calls, which sum values, or check and sum the weights and run the kernel, in one compiled call.

Each array that Python does not pass saves 60 ns, each call that it does not make 300 ns.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..spec.record import FINITE_NONNEGATIVE, NONNEGATIVE
from .dispatch import CHUNK
from .elementwise import Drive, drive_elementwise
from .rows.drivers import counting, drive_rows
from .runtime import access
from .runtime.intrinsics import array
from .runtime.slots import unbound
from .runtime.specialize import INNER, compile_driver, inner
from .runtime.staging import flat

__all__ = ["sum_driver", "weighted_pair_driver", "weighted_row_driver"]


class Checks(NamedTuple):
    """Functions that the driver of weighted rows is specialised to."""

    check_weight: Callable[..., Any]
    """Function that returns 1 for a row weight outside its domain."""
    check_class: Callable[..., Any]
    """Function that returns 1 for a class weight outside its domain."""


use: Any = unbound(Checks)


def drive_sum(address, values):
    """Return the sum of values and the violations, by the kernel at an address, in the fixed order of all kernels."""
    e = values[:0]
    return drive_elementwise(address, (values,), e, e, e, (e,), (e,), 1.0, np.empty(0), False, CHUNK, False)


def drive_weighted_pair(address, sum_address, prediction, target, out, weight, params, chunk):
    """Return the sum of weighted losses over one prediction and its target, the violations, and the sum of the weights.

    The kernel at `sum_address` sums the weights, in the fixed order of all kernels.
    """
    e = target[:0]
    fixed = (params[:0], False, chunk, False)
    mass, negative = drive_elementwise(sum_address, (weight,), e, e, e, (e,), (e,), 1.0, *fixed)
    if negative > 0.0 or not 0.0 < mass < np.inf:
        return 0.0, 1.0, mass
    scale = 1.0 / mass
    total, bad = drive_elementwise(
        address, (prediction,), target, weight, e, (out,), (e,), scale, params, False, chunk, False
    )
    return total, bad, mass


def drive_weighted_rows(address, arrays, divides, scale, ignored, params, helpers, classes, room, chunk):
    """Return the sum of losses of rows, the violations, the mass, and the number of wrong labels and weights.

    The arrays are scores, labels, target, gradient, row weights and class weights, which with `divides` are part of the
    mass.
    """
    z, labels, target, grad, weight, class_weight = arrays
    wrong = 0.0
    for i in range(weight.size):
        wrong += use.check_weight(weight[i])
    for j in range(class_weight.size):
        wrong += use.check_class(class_weight[j])
    if wrong > 0.0:
        return 0.0, 0.0, 0.0, wrong
    e, e2 = flat(z)[:0], z[:0]
    inputs = (z, labels, target, weight, class_weight, class_weight if divides else e)
    all_arrays = (*inputs, e, grad, e2, np.empty((0, 0), np.float64))
    return drive_rows(address, all_arrays, scale, ignored, params, helpers, False, classes, room, chunk, False)


@cache
def sum_driver(dtype: str) -> Any:
    """Return the driver of small sums."""
    drive = inner(drive_elementwise, INNER, Drive(access.window[1]))
    signature = types.UniTuple(types.float64, 2)(types.intp, array(dtype))
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
def weighted_row_driver(dtype: str) -> Any:
    """Return the driver of small reduced calls over rows, with weights of rows or classes."""
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    arrays = (two, array("int64"), two, two, one, one)
    fixed = (types.boolean, types.float64, types.int64, doubles, array("int64"), types.int64, types.intp, types.intp)
    return compile_driver(
        drive_weighted_rows,
        f"weighted_rows_{dtype}",
        types.UniTuple(types.float64, 4)(types.intp, types.Tuple(arrays), *fixed),
        Checks(access.check(NONNEGATIVE, dtype), access.check(FINITE_NONNEGATIVE, dtype)),
        drive_rows=inner(drive_rows, INNER, survey=counting(dtype)),
    )
