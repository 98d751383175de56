"""Handler of elementwise losses as custom calls of XLA."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...spec.record import NONNEGATIVE, Formula
from .. import dispatch
from ..elementwise import Drive, drive_elementwise
from ..runtime import access
from ..runtime.intrinsics import array
from ..runtime.objects import machine_word, reader
from ..runtime.slots import unbound
from ..runtime.specialize import INNER, Chunk, chained, compile_chunk, digest, inner
from .frames import (
    Handler,
    address_of,
    asked_version,
    failure,
    inputs_of,
    launched,
    load_threads,
    offsets,
    outputs_of,
    size_of,
)

__all__ = ["Kind", "handler_of"]

MODES = {"value": 0, "rows": 0, "grad": 1, "rows_grad": 1, "hess": 2}
"""Derivative orders of the modes."""

PARALLEL_FROM, CHUNK, FEW_CHUNKS = dispatch.PARALLEL_FROM, dispatch.CHUNK, dispatch.FEW_CHUNKS


class Setup(NamedTuple):
    """Settings of one kind of call, a word each."""

    address: int
    """Address of the kernel."""
    sum_address: int
    """Address of the kernel that sums weights."""
    parameters: int
    """Address of the parameters (float64), the divisor after them."""
    parameter_count: int
    """Number of parameters."""
    has_target: int
    weighted: int
    by_row: int
    """Whether the call returns the loss of each element."""
    orders: int
    """Number of derivative orders."""
    averaged: int
    """Whether the sum is divided by the number of elements, or by the sum of their weights."""
    streamed_from: int
    """Number of elements from which results bypass the caches."""


OFFSETS = offsets(Setup)
ADDRESS, SUM_ADDRESS, PARAMETERS, COUNT, HAS_TARGET = OFFSETS[:5]
WEIGHTED, BY_ROW, ORDERS, AVERAGED, STREAMED_FROM = OFFSETS[5:]


class Slots(NamedTuple):
    """Constants and functions that a handler reads."""

    drive: Callable[..., Any]
    """Driver of the kernels in one thread."""
    drive_parallel: Callable[..., Any]
    """Driver of the kernels in several threads."""
    sum_drive: Callable[..., Any]
    """Driver of the sums of weights in one thread."""
    sum_parallel: Callable[..., Any]
    """Driver of the sums of weights in several threads."""
    arrays_of: Callable[..., Any]
    """Function that builds the arrays of a call from a table of addresses and sizes."""
    parameters_of: Callable[..., Any]
    """Function that builds the array of parameters from such a table."""
    loss_of: Callable[..., Any]
    """Function that builds the array of one loss from such a table."""
    COUNT: int
    """Number of predictions, which come first among the arrays; the target follows."""
    WEIGHT: int
    """Index of the weight among the arrays."""
    VALUES: int
    """Index of the losses of single elements among the arrays."""
    GRADS: int
    """Index of the first gradient among the arrays."""
    HESSES: int
    """Index of the first curvature among the arrays, which come last."""
    STORED: int
    """Size of an element of predictions and derivatives (bytes)."""
    TARGET: int
    """Size of an element of the target (bytes)."""
    COMPUTED: int
    """Size of an element of weights and values (bytes)."""


class Kind(NamedTuple):
    """Results of a call, and their reduction."""

    mode: str
    """"value", "rows", "grad", "rows_grad" or "hess"."""
    weighted: bool
    averaged: bool
    """Whether the sum is divided by the number of elements, or by the sum of their weights."""
    divisor: float
    """Divisor of any other sum."""
    usual: bool
    """Whether the parameters are the defaults, which are constants of the kernel."""
    message: str
    """Error for an input outside its domain."""


use: Any = unbound(Slots)


def fill_table(table, frame, settings, n, batch):
    """Write address and size of each array of a batch: predictions, target, weight, values, derivatives."""
    inputs, outputs = inputs_of(frame), outputs_of(frame)
    # Rows of 0 stand for arrays that the call has not got: views of no elements.
    table[:] = 0
    for i in range(use.COUNT):
        table[2 * i], table[2 * i + 1] = address_of(inputs, i) + batch * n * use.STORED, n
    # XLA passes what a call has, in order: the place of each array depends on those before it.
    given, to = use.COUNT, 2 * use.COUNT
    if machine_word(settings + HAS_TARGET) != 0:
        table[to], table[to + 1] = address_of(inputs, given) + batch * n * use.TARGET, n
        given += 1
    if machine_word(settings + WEIGHTED) != 0:
        table[to + 2], table[to + 3] = address_of(inputs, given) + batch * n * use.COMPUTED, n
    if machine_word(settings + BY_ROW) != 0:
        table[to + 4], table[to + 5] = address_of(outputs, 0), n
    for i in range(machine_word(settings + ORDERS) * use.COUNT):
        table[to + 6 + 2 * i] = address_of(outputs, i + 1) + batch * n * use.STORED
        table[to + 7 + 2 * i] = n


def divisor_of(w, parameters, settings, n, threads, chunk):
    """Return the divisor of a sum, and how many weights are negative."""
    if machine_word(settings + AVERAGED) == 0:
        return parameters[machine_word(settings + COUNT)], 0.0
    if machine_word(settings + WEIGHTED) == 0:
        return float(n), 0.0
    address, e, nothing = machine_word(settings + SUM_ADDRESS), w[:0], parameters[:0]
    if threads > 1:
        return use.sum_parallel(address, (w,), e, e, e, (e,), (e,), 1.0, nothing, False, chunk, True)
    return use.sum_drive(address, (w,), e, e, e, (e,), (e,), 1.0, nothing, False, chunk, False)


def evaluate(arrays, parameters, settings, n):
    """Return the loss of one batch, and the number of violations; derivatives are written."""
    preds, t, w, v = arrays[: use.COUNT], arrays[use.COUNT], arrays[use.WEIGHT], arrays[use.VALUES]
    grads, hesses = arrays[use.GRADS : use.HESSES], arrays[use.HESSES :]
    # The threads of fastloss, not of XLA: a handler runs on one of XLA's, which others may be at the same time.
    threads = launched(settings, n)
    # The chunks of an ordinary call, so that results have its bits.
    chunk = CHUNK // 4 if (n >= PARALLEL_FROM) & (n < FEW_CHUNKS) else CHUNK
    divided, negative = divisor_of(w, parameters, settings, n, threads, chunk)
    if negative > 0.0:
        return 0.0, negative
    scale, params = 1.0 / divided if divided != 0.0 else 0.0, parameters[: machine_word(settings + COUNT)]
    address, streamed = machine_word(settings + ADDRESS), n >= machine_word(settings + STREAMED_FROM)
    if threads > 1:
        total, bad = use.drive_parallel(address, preds, t, w, v, grads, hesses, scale, params, streamed, chunk, True)
    else:
        total, bad = use.drive(address, preds, t, w, v, grads, hesses, scale, params, streamed, chunk, False)
    return (total / divided if divided != 0.0 else 0.0), bad


def handle(frame, settings):
    """Serve a custom call; return the address of an error, or 0."""
    if asked_version(frame, settings):
        return 0
    n, batches = size_of(inputs_of(frame), 0), 1
    if machine_word(settings + BY_ROW) == 0:
        # Under vmap, axes come before those of one call in all inputs and outputs, here in the scalar loss.
        batches = size_of(outputs_of(frame), 0)
        n = n // batches if batches > 0 else 0
    table = np.empty(2 * (3 * use.COUNT + 3), np.int64)
    table[0], table[1] = machine_word(settings + PARAMETERS), machine_word(settings + COUNT) + 1
    (parameters,) = use.parameters_of(table)
    for batch in range(batches):
        fill_table(table, frame, settings, n, batch)
        loss, bad = evaluate(use.arrays_of(table), parameters, settings, n)
        if bad > 0.0:
            # A handler cannot raise: it hands XLA an error, which Python raises where the result is read.
            return failure(frame, settings)
        if machine_word(settings + BY_ROW) == 0:
            table[0], table[1] = address_of(outputs_of(frame), 0) + batch * use.COMPUTED, 1
            use.loss_of(table)[0][0] = loss
    return 0


@cache
def _compiled(dtype: str, count: int, stored: str, target: str) -> Chunk:
    """Compile, or load from the disk cache, the handler of all losses in one precision."""
    one, kept, goal = array(dtype), array(stored or dtype), array(target or dtype)
    drive, sums = Drive(access.window[count]), Drive(access.window[1])
    # Both forms in the handler: it is compiled code that no Python calls, and could not fetch the parallel one later.
    shared = {**INNER, "parallel": True, "nogil": True}
    use = Slots(
        drive=inner(drive_elementwise, INNER, drive),
        drive_parallel=inner(drive_elementwise, shared, drive),
        sum_drive=inner(drive_elementwise, INNER, sums),
        sum_parallel=inner(drive_elementwise, shared, sums),
        arrays_of=reader((*[kept] * count, goal, one, one, *[kept] * (2 * count))),
        parameters_of=reader((array("float64"),)),
        loss_of=reader((one,)),
        COUNT=count,
        WEIGHT=count + 1,
        VALUES=count + 2,
        GRADS=count + 3,
        HESSES=2 * count + 3,
        STORED=kept.dtype.bitwidth // 8,
        TARGET=goal.dtype.bitwidth // 8,
        COMPUTED=one.dtype.bitwidth // 8,
    )
    parts = chained((fill_table, divisor_of, evaluate), INNER, use, {})
    # One handler serves all losses of a precision, which differ in their settings alone.
    name = "_".join(filter(None, (f"custom_call{count}", stored, target, dtype)))
    return compile_chunk(handle, name, types.intp(types.intp, types.intp), use, **parts)


def handler_of(record: Formula, packed: Any, formats: tuple[str, str, str], kind: Kind, minor: int) -> Handler:
    """Return the handler of a kind of call; the formats are those of computing, predictions and target."""
    dtype, stored, target = formats
    arrays = len(record.predictions) * (1 + MODES[kind.mode]) + (record.target is not None) + kind.weighted
    per_element = arrays * np.dtype(stored or dtype).itemsize
    # Bound to the handler, which reads them by their address: XLA would pass them as arrays.
    parameters = np.array([*packed, kind.divisor])
    with dispatch.compiling:
        load_threads()
        compiled = _compiled(dtype, len(record.predictions), stored, target)
        kernel = dispatch.elementwise(record, dtype, kind.mode, kind.weighted, stored, target, kind.usual)
        setup = Setup(
            address=kernel[0],
            sum_address=dispatch.sum_code(NONNEGATIVE, np.dtype(dtype)),
            parameters=parameters.ctypes.data,
            parameter_count=len(packed),
            has_target=record.target is not None,
            weighted=kind.weighted,
            by_row=kind.mode.startswith("rows"),
            orders=MODES[kind.mode],
            averaged=kind.averaged,
            # Never where an exponential sets the pace, as in ordinary calls.
            streamed_from=1 << 62 if record.transcendental else dispatch.last_level() // per_element + 1,
        )
        key = digest("custom call", record.function, record.prediction_domains, formats, kind, list(packed))
        name = f"fastloss_{re.sub('[^a-z0-9_]', '_', record.name)}_{key}"
        return Handler(name, compiled, setup, kind.message, minor, kernel, parameters)
