"""Handlers of XLA's custom calls: compiled functions that read the buffers of a call and run a driver of kernels.

No Python runs in a call. A handler is compiled once per precision and number of predictions. What differs between
losses lies in its settings, whose address a stub of one instruction passes: addresses in the attributes of a custom
call would end up in XLA's persistent cache, and be wrong in the next process.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.ufunc import parallel

from ..spec.record import NONNEGATIVE, Formula
from . import dispatch
from .elementwise import Drive, drive_elementwise
from .runtime import access, threads
from .runtime.intrinsics import array
from .runtime.objects import machine_word, reader
from .runtime.slots import unbound
from .runtime.specialize import INNER, Chunk, chained, compile_chunk, digest, inner

__all__ = ["MAJOR", "Handler", "Kind"]

MAJOR = 0
"""Major version of XLA's foreign function interface whose structures are read here."""

EXTENSION, API, ARGUMENTS, RESULTS = 8, 16, 72, 112
"""Offsets in the frame of a call (bytes): first extension, interface, addresses of the inputs and of the outputs."""

DATA, RANK, LENGTHS = 24, 32, 40
"""Offsets in a buffer (bytes): address of the first element, number of axes, address of their lengths."""

KIND, METADATA, VERSION, CREATE_ERROR = 8, 24, 24, 48
"""Offsets (bytes): kind of an extension, metadata in it, version in the metadata, maker of errors in the interface."""

INVALID_ARGUMENT = 3
"""Code of errors about arguments."""

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
    error: int
    """Address of the arguments of the maker of errors."""
    minor: int
    """Minor version of the interface that the runtime was built with."""
    threads: int
    """Address of the number of threads (int64)."""


WORD = {name: 8 * i for i, name in enumerate(Setup._fields)}
"""Offsets of the settings (bytes)."""

ADDRESS, SUM_ADDRESS, PARAMETERS, COUNT = (WORD[n] for n in ("address", "sum_address", "parameters", "parameter_count"))
HAS_TARGET, WEIGHTED, BY_ROW, ORDERS = (WORD[n] for n in ("has_target", "weighted", "by_row", "orders"))
AVERAGED, STREAMED_FROM, ERROR, MINOR, THREADS = (
    WORD[n] for n in ("averaged", "streamed_from", "error", "minor", "threads")
)


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


@intrinsic
def _put_word(typingctx, address, value):
    """Write a machine word at an address."""

    def codegen(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], context.get_value_type(types.intp).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def _report(typingctx, function, argument):
    """Call a function of C that takes and returns an address."""

    def codegen(context, builder, signature, args):
        word = context.get_value_type(types.intp)
        return builder.call(builder.inttoptr(args[0], ir.FunctionType(word, [word]).as_pointer()), [args[1]])

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def _use_threads(typingctx, threads):
    """Set the number of threads of parallel loops that the calling thread enters.

    By the name of Numba's function: `numba.set_num_threads` would put its address into the disk cache.
    """

    def codegen(context, builder, signature, args):
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [word])
        function = cgutils.get_or_insert_function(builder.module, kind, "set_num_threads")
        builder.call(function, [builder.trunc(args[0], word)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def size_of(buffer):
    """Return the number of elements of a buffer."""
    n = 1
    for axis in range(machine_word(buffer + RANK)):
        n *= machine_word(machine_word(buffer + LENGTHS) + 8 * axis)
    return n


def fill_table(table, frame, settings, n, batch):
    """Write address and size of each array of a batch: predictions, target, weight, values, derivatives."""
    inputs, outputs = machine_word(frame + ARGUMENTS), machine_word(frame + RESULTS)
    table[:] = 0
    for i in range(use.COUNT):
        table[2 * i] = machine_word(machine_word(inputs + 8 * i) + DATA) + batch * n * use.STORED
        table[2 * i + 1] = n
    given, to = use.COUNT, 2 * use.COUNT
    if machine_word(settings + HAS_TARGET) != 0:
        table[to] = machine_word(machine_word(inputs + 8 * given) + DATA) + batch * n * use.TARGET
        table[to + 1] = n
        given += 1
    if machine_word(settings + WEIGHTED) != 0:
        table[to + 2] = machine_word(machine_word(inputs + 8 * given) + DATA) + batch * n * use.COMPUTED
        table[to + 3] = n
    if machine_word(settings + BY_ROW) != 0:
        table[to + 4] = machine_word(machine_word(outputs) + DATA)
        table[to + 5] = n
    for i in range(machine_word(settings + ORDERS) * use.COUNT):
        table[to + 6 + 2 * i] = machine_word(machine_word(outputs + 8 * (i + 1)) + DATA) + batch * n * use.STORED
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
    threads = machine_word(machine_word(settings + THREADS)) if n >= PARALLEL_FROM else 1
    chunk = CHUNK // 4 if (n >= PARALLEL_FROM) & (n < FEW_CHUNKS) else CHUNK
    if threads > 1:
        _use_threads(threads)
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
    extension = machine_word(frame + EXTENSION)
    if extension != 0 and machine_word(extension + KIND) & 0xFFFFFFFF == 1:
        # XLA asks for the version of the interface before any call.
        _put_word(machine_word(extension + METADATA) + VERSION, MAJOR | machine_word(settings + MINOR) << 32)
        return 0
    outputs = machine_word(frame + RESULTS)
    n, batches = size_of(machine_word(machine_word(frame + ARGUMENTS))), 1
    if machine_word(settings + BY_ROW) == 0:
        # Under vmap, axes come before those of one call in all inputs and outputs, here in the scalar loss.
        batches = size_of(machine_word(outputs))
        n = n // batches if batches > 0 else 0
    table = np.empty(2 * (3 * use.COUNT + 3), np.int64)
    table[0], table[1] = machine_word(settings + PARAMETERS), machine_word(settings + COUNT) + 1
    (parameters,) = use.parameters_of(table)
    losses = machine_word(machine_word(outputs) + DATA)
    for batch in range(batches):
        fill_table(table, frame, settings, n, batch)
        loss, bad = evaluate(use.arrays_of(table), parameters, settings, n)
        if bad > 0.0:
            create = machine_word(machine_word(frame + API) + CREATE_ERROR)
            return _report(create, machine_word(settings + ERROR))
        if machine_word(settings + BY_ROW) == 0:
            table[0], table[1] = losses + batch * use.COMPUTED, 1
            use.loss_of(table)[0][0] = loss
    return 0


@cache
def _handler(dtype: str, count: int, stored: str, target: str) -> Chunk:
    """Compile, or load from the disk cache, the handler of all losses in one precision."""
    one, kept, goal = array(dtype), array(stored or dtype), array(target or dtype)
    drive, sums = Drive(access.window[count]), Drive(access.window[1])
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
    parts = chained((size_of, fill_table, divisor_of, evaluate), INNER, use, {})
    name = "_".join(filter(None, (f"custom_call{count}", stored, target, dtype)))
    return compile_chunk(handle, name, types.intp(types.intp, types.intp), use, **parts)


def _streamed_from(record: Formula, bytes_per_element: int) -> int:
    """Return the number of elements from which results bypass the caches, as `dispatch.streams` decides."""
    return 1 << 62 if record.transcendental else dispatch.last_level() // bytes_per_element + 1


def _stub(name: str, handler: int, settings: int) -> Any:
    """Compile the function that calls a handler with the address of its settings, in 1 ms."""
    library = cpu_target.target_context.codegen().create_library(name)
    module, word = library.create_ir_module(name), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(word, [word]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    target = builder.inttoptr(word(handler), ir.FunctionType(word, [word, word]).as_pointer())
    builder.ret(builder.call(target, [function.args[0], word(settings)]))
    with global_compiler_lock:
        library.add_ir_module(module)
        library.finalize()
    return library


def _threads() -> Any:
    """Return the cell of the number of threads: 1 where the layer of threads may not be entered twice at once."""
    return np.ones(1, np.int64) if numba.threading_layer() == "workqueue" else threads.allowed


class Handler:
    """Function of C that serves one kind of call, and all that must live as long as it."""

    def __init__(self, record: Formula, parameters: Any, formats: tuple[str, str, str], kind: Kind, minor: int) -> None:
        dtype, stored, target = formats
        with dispatch.compiling:
            # Loads the threads, whose functions a handler from the disk cache is linked to.
            parallel._launch_threads()
            handler = _handler(dtype, len(record.predictions), stored, target)
            self.kernel = dispatch.elementwise(record, dtype, kind.mode, kind.weighted, stored, target, kind.usual)
            self.parameters = np.array([*parameters, kind.divisor])
            self.message = ctypes.create_string_buffer(kind.message.encode())
            self.error = np.array([28, 0, ctypes.addressof(self.message), INVALID_ARGUMENT])
            self.threads = _threads()
            arrays = len(record.predictions) * (1 + MODES[kind.mode]) + (record.target is not None) + kind.weighted
            setup = Setup(
                address=self.kernel[0],
                sum_address=dispatch.sum_code(NONNEGATIVE, np.dtype(dtype)),
                parameters=self.parameters.ctypes.data,
                parameter_count=len(parameters),
                has_target=record.target is not None,
                weighted=kind.weighted,
                by_row=kind.mode.startswith("rows"),
                orders=MODES[kind.mode],
                averaged=kind.averaged,
                streamed_from=_streamed_from(record, arrays * np.dtype(stored or dtype).itemsize),
                error=self.error.ctypes.data,
                minor=minor,
                threads=self.threads.ctypes.data,
            )
            self.setup = np.array(setup, np.int64)
            self.name = digest(
                "custom call", record.function, record.prediction_domains, formats, kind, list(parameters)
            )
            self.stub = _stub(f"fastloss_{self.name}", handler.address, self.setup.ctypes.data)
        self.address = self.stub.get_pointer_to_function(f"fastloss_{self.name}")
