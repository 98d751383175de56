"""Handler of row-wise losses as custom calls of XLA."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...call.arrays import LEAST
from ...spec.record import FINITE_NONNEGATIVE, NONNEGATIVE, Formula
from .. import dispatch
from ..rows.drivers import counting, drive_rows
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

__all__ = ["RowKind", "row_handler_of"]


class Setup(NamedTuple):
    """Settings of one kind of call, a word each."""

    address: int
    """Address of the kernel."""
    parameters: int
    """Address of the parameters (float64), the divisor after them."""
    parameter_count: int
    """Number of parameters."""
    helpers: int
    """Address of the addresses of helpers (int64)."""
    helper_count: int
    """Number of helpers."""
    ones: int
    """Address of class weights of 1, for kernels that read them although the caller gave none."""
    ones_count: int
    """Number of those; 0 for other kernels."""
    k: int
    """Number of scores per row."""
    classes: int
    """Number of classes that labels name."""
    room: int
    """Scratch elements per chunk."""
    chunk: int
    """Rows per chunk."""
    ignored: int
    """Label of rows that do not count."""
    weighted: int
    classed: int
    """Whether there are class weights."""
    divides: int
    """Whether the mean is divided by class weights too."""
    by_row: int
    """Whether the call returns the loss of each row."""
    writes: int
    """Whether the call returns the gradient."""
    averaged: int
    """Whether the sum is divided by the number of rows that count, or by the sum of their weights."""
    streamed_from: int
    """Number of scores from which results bypass the caches."""


OFFSETS = offsets(Setup)
ADDRESS, PARAMETERS, COUNT, HELPERS, HELPER_COUNT, ONES, ONES_COUNT, K, CLASSES = OFFSETS[:9]
ROOM, CHUNK, IGNORED, WEIGHTED, CLASSED, DIVIDES, BY_ROW, WRITES, AVERAGED, STREAMED_FROM = OFFSETS[9:]


class Slots(NamedTuple):
    """Constants and functions that a handler reads."""

    drive: Callable[..., Any]
    """Driver of the kernels in one thread."""
    drive_parallel: Callable[..., Any]
    """Driver of the kernels in several threads."""
    arrays_of: Callable[..., Any]
    """Function that builds the arrays of a call from a table of addresses and shapes."""
    labels_of: Callable[..., Any]
    """Function that builds the array of labels from such a table."""
    check_weight: Callable[..., Any]
    """Function that returns 1 for a row weight outside its domain."""
    check_class: Callable[..., Any]
    """Function that returns 1 for a class weight outside its domain."""
    labelled: bool
    """Whether targets are labels."""
    SIZE: int
    """Size of scores, weights and dense targets (bytes)."""
    LABEL: int
    """Size of a label (bytes)."""


class RowKind(NamedTuple):
    """Results of a call, and their reduction."""

    writes: bool
    """Whether the call returns the gradient."""
    by_row: bool
    """Whether the call returns the loss of each row."""
    weighted: bool
    classed: bool
    """Whether there are class weights."""
    averaged: bool
    """Whether the sum is divided by the number of rows that count, or by the sum of their weights."""
    divisor: float
    """Divisor of any other sum."""
    ignored: int | None
    """Label of rows that do not count."""
    smooth: bool
    """Whether labels are smoothed."""
    k: int
    """Number of scores per row."""
    message: str
    """Error for an input outside its domain."""


use: Any = unbound(Slots)


def fill_table(table, frame, settings, n, batch):
    """Write address and shape of each array: scores, target, weights, values, gradient, parameters, helpers."""
    inputs, outputs, k = inputs_of(frame), outputs_of(frame), machine_word(settings + K)
    table[:] = 0
    table[0], table[1], table[2] = address_of(inputs, 0) + batch * n * k * use.SIZE, n, k
    if not use.labelled:
        table[3], table[4], table[5] = address_of(inputs, 1) + batch * n * k * use.SIZE, n, k
    given = 2
    if machine_word(settings + WEIGHTED) != 0:
        table[6], table[7] = address_of(inputs, given) + batch * n * use.SIZE, n
        given += 1
    if machine_word(settings + CLASSED) != 0:
        table[8], table[9] = address_of(inputs, given) + batch * k * use.SIZE, k
    else:
        # Kernels that read class weights get ones, made once with the handler.
        table[8], table[9] = machine_word(settings + ONES), machine_word(settings + ONES_COUNT)
    if machine_word(settings + BY_ROW) != 0:
        table[10], table[11] = address_of(outputs, 0) + batch * n * use.SIZE, n
    else:
        table[10], table[11] = address_of(outputs, 0) + batch * use.SIZE, 1
    if machine_word(settings + WRITES) != 0:
        table[12], table[13], table[14] = address_of(outputs, 1) + batch * n * k * use.SIZE, n, k
    table[15], table[16] = machine_word(settings + PARAMETERS), machine_word(settings + COUNT) + 1
    table[17], table[18] = machine_word(settings + HELPERS), machine_word(settings + HELPER_COUNT)


def read_labels(frame, settings, n, batch):
    """Return labels as int64, and the ignored label; where that is a class, both are moved out of the classes."""
    # One width of labels in the kernels: those of 32 bits are widened in a buffer.
    labels = np.empty(n if use.labelled else 0, np.int64)
    ignored = machine_word(settings + IGNORED)
    if use.labelled:
        table = np.empty(2, np.int64)
        table[0], table[1] = address_of(inputs_of(frame), 1) + batch * n * use.LABEL, n
        (given,) = use.labels_of(table)
        inside = (ignored >= 0) & (ignored < machine_word(settings + CLASSES))
        for i in range(n):
            y = np.int64(given[i])
            # Kernels take any label in range for a class: an ignored class becomes a number that is none.
            labels[i] = LEAST if inside & (y == ignored) else y
        if inside:
            ignored = LEAST
    return labels, ignored


def divisor_of(w, cw, parameters, settings, n):
    """Return the divisor of a sum, -1 where the driver counts rows, and how many weights are wrong."""
    wrong, mass = 0.0, 0.0
    for i in range(w.size):
        # Checked here, in compiled code: no Python sees the arrays of a custom call.
        wrong += use.check_weight(w[i])
        mass += np.float64(w[i])
    for j in range(cw.size):
        wrong += use.check_class(cw[j])
    if machine_word(settings + AVERAGED) == 0:
        return parameters[machine_word(settings + COUNT)], wrong
    if use.labelled:
        # The driver counts the rows while it looks at their labels.
        return -1.0, wrong
    return (mass if machine_word(settings + WEIGHTED) != 0 else float(n)), wrong


def evaluate(arrays, labels, ignored, settings, n):
    """Return the number of violations of one batch; the loss and the gradient are written."""
    z, target, w, cw, values, grad, parameters, helpers = arrays
    e, e2 = w[:0], z[:0]
    divided, wrong = divisor_of(w, cw, parameters, settings, n)
    if wrong > 0.0:
        return wrong
    is_by_row = machine_word(settings + BY_ROW) != 0
    counted = cw if (machine_word(settings + CLASSED) != 0) & (machine_word(settings + DIVIDES) != 0) else e
    every = (z, labels, target, w, cw, counted, values if is_by_row else e, grad, e2, np.empty((0, 0), np.float64))
    scale = -1.0 if divided < 0.0 else 1.0 / divided if divided != 0.0 else 0.0
    params, streamed = parameters[: machine_word(settings + COUNT)], z.size >= machine_word(settings + STREAMED_FROM)
    address, classes = machine_word(settings + ADDRESS), machine_word(settings + CLASSES)
    room, chunk = machine_word(settings + ROOM), machine_word(settings + CHUNK)
    if launched(settings, z.size) > 1:
        total, bad, mass, wrong = use.drive_parallel(
            address, every, scale, ignored, params, helpers, streamed, classes, room, chunk, True
        )
    else:
        total, bad, mass, wrong = use.drive(
            address, every, scale, ignored, params, helpers, streamed, classes, room, chunk, False
        )
    if divided < 0.0:
        divided = mass
    if not is_by_row:
        values[0] = total / divided if divided != 0.0 else 0.0
    return bad + wrong


def handle(frame, settings):
    """Serve a custom call; return the address of an error, or 0."""
    if asked_version(frame, settings):
        return 0
    n, batches = size_of(inputs_of(frame), 0) // machine_word(settings + K), 1
    if machine_word(settings + BY_ROW) == 0:
        # Under vmap, axes come before those of one call in all inputs and outputs, here in the scalar loss.
        batches = size_of(outputs_of(frame), 0)
    elif machine_word(settings + CLASSED) != 0:
        weights = 3 if machine_word(settings + WEIGHTED) != 0 else 2
        batches = size_of(inputs_of(frame), weights) // machine_word(settings + K)
    n = n // batches if batches > 0 else 0
    table = np.empty(19, np.int64)
    for batch in range(batches):
        fill_table(table, frame, settings, n, batch)
        labels, ignored = read_labels(frame, settings, n, batch)
        if evaluate(use.arrays_of(table), labels, ignored, settings, n) > 0.0:
            return failure(frame, settings)
    return 0


@cache
def _compiled(dtype: str, label: str) -> Chunk:
    """Compile, or load from the disk cache, the handler of all losses in one precision and type of labels."""
    one, two, doubles, whole = array(dtype), array(dtype, 2), array("float64"), array("int64")
    survey = counting(dtype)
    use = Slots(
        drive=inner(drive_rows, INNER, survey=survey),
        drive_parallel=inner(drive_rows, {**INNER, "parallel": True, "nogil": True}, survey=survey),
        arrays_of=reader((two, two, one, one, one, two, doubles, whole)),
        labels_of=reader((array(label or "int64"),)),
        check_weight=access.check(NONNEGATIVE, dtype),
        check_class=access.check(FINITE_NONNEGATIVE, dtype),
        labelled=bool(label),
        SIZE=one.dtype.bitwidth // 8,
        LABEL=array(label or "int64").dtype.bitwidth // 8,
    )
    parts = chained((fill_table, read_labels, divisor_of, evaluate), INNER, use, {})
    name = "_".join(filter(None, ("custom_row_call", label, dtype)))
    return compile_chunk(handle, name, types.intp(types.intp, types.intp), use, **parts)


def row_handler_of(record: Formula, packed: Any, formats: tuple[str, str], kind: RowKind, minor: int) -> Handler:
    """Return the handler of a kind of call; the formats are that of scores and that of labels, if there are any."""
    (dtype, label), k, loop = formats, kind.k, record.row_loop
    target = "labels" if label else "dense"
    is_tiled = target in loop.tiles and k <= dispatch.TILED_TO
    reads_ones = not kind.classed and (kind.smooth or (not label and "dense" in loop.tiles))
    ones, parameters = np.ones(k if reads_ones else 0, dtype), np.array([*packed, kind.divisor])
    chunk = dispatch.rows_per_chunk(k)
    mode = "grad" if kind.writes else "value"
    with dispatch.compiling:
        load_threads()
        compiled = _compiled(dtype, label)
        kernel = dispatch.rows(record, dtype, mode, target, kind.smooth, is_tiled)
        helpers = dispatch.helpers(k, np.dtype(dtype), is_tiled)
        setup = Setup(
            address=kernel[0],
            parameters=parameters.ctypes.data,
            parameter_count=len(packed),
            helpers=helpers.ctypes.data,
            helper_count=helpers.size,
            ones=ones.ctypes.data,
            ones_count=ones.size,
            k=k,
            classes=loop.classes(k),
            room=dispatch.room(k, mode, target, is_tiled, record.loop, chunk),
            chunk=chunk,
            ignored=LEAST if kind.ignored is None else kind.ignored,
            weighted=kind.weighted,
            classed=kind.classed,
            divides=loop.divides and bool(label),
            by_row=kind.by_row,
            writes=kind.writes,
            averaged=kind.averaged,
            streamed_from=dispatch.last_level() // (2 * np.dtype(dtype).itemsize) + 1 if kind.writes else 1 << 62,
        )
        key = digest("custom row call", record.function, record.loop, formats, kind, list(packed))
        name = f"fastloss_{re.sub('[^a-z0-9_]', '_', record.name)}_{key}"
        return Handler(name, compiled, setup, kind.message, minor, kernel, parameters, ones, helpers)
