"""Structures of XLA's foreign function interface, read and answered in compiled code.

No Python runs in a call. A handler is compiled once per precision and family of losses. What differs between losses
lies in its settings, whose address a stub of one instruction passes: addresses in the attributes of a custom call would
end up in XLA's persistent cache, and be wrong in the next process.
"""

import ctypes
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

from ..dispatch import PARALLEL_FROM
from ..runtime import threads
from ..runtime.objects import machine_word
from ..runtime.specialize import INNER, compiled

__all__ = [
    *("MAJOR", "Common", "Handler", "address_of", "asked_version", "failure"),
    *("inputs_of", "launched", "load_threads", "offsets", "outputs_of", "size_of", "use_threads"),
]

MAJOR = 0
"""Major version of the interface whose structures are read here."""

EXTENSION, API, ARGUMENTS, RESULTS = 8, 16, 72, 112
"""Offsets in the frame of a call (bytes): first extension, interface, addresses of the inputs and of the outputs."""

DATA, RANK, LENGTHS = 24, 32, 40
"""Offsets in a buffer (bytes): address of the first element, number of axes, address of their lengths."""

KIND, METADATA, VERSION, CREATE_ERROR = 8, 24, 24, 48
"""Offsets (bytes): kind of an extension, metadata in it, version in the metadata, maker of errors in the interface."""

INVALID_ARGUMENT = 3
"""Code of errors about arguments."""


class Common(NamedTuple):
    """First settings of all handlers, a word each."""

    error: int
    """Address of the arguments of the maker of errors."""
    minor: int
    """Minor version of the interface that the runtime was built with."""
    threads: int
    """Address of the number of threads (int64)."""


ERROR, MINOR, THREADS = 0, 8, 16


def offsets(setup: Any) -> tuple[int, ...]:
    """Return the offsets of settings that follow the common ones (bytes)."""
    return tuple(8 * (len(Common._fields) + i) for i in range(len(setup._fields)))


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
def use_threads(typingctx, threads):
    """Set the number of threads of parallel loops that the calling thread enters.

    By the name of Numba's function: `numba.set_num_threads` would put its address into the disk cache.
    """

    def codegen(context, builder, signature, args):
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [word])
        function = cgutils.get_or_insert_function(builder.module, kind, "set_num_threads")
        # At each call, as the number belongs to the thread: XLA's own threads come and go.
        builder.call(function, [builder.trunc(args[0], word)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@compiled(INNER)
def inputs_of(frame):
    """Return the address of the table of inputs."""
    return machine_word(frame + ARGUMENTS)


@compiled(INNER)
def outputs_of(frame):
    """Return the address of the table of outputs."""
    return machine_word(frame + RESULTS)


@compiled(INNER)
def address_of(buffers, i):
    """Return the address of the first element of a buffer in a table."""
    return machine_word(machine_word(buffers + 8 * i) + DATA)


@compiled(INNER)
def size_of(buffers, i):
    """Return the number of elements of a buffer in a table."""
    buffer, n = machine_word(buffers + 8 * i), 1
    for axis in range(machine_word(buffer + RANK)):
        # Read from the frame: XLA compiles one handler for arrays of any shape.
        n *= machine_word(machine_word(buffer + LENGTHS) + 8 * axis)
    return n


@compiled(INNER)
def asked_version(frame, settings):
    """Answer XLA where it asks for the version of the interface, before any call; return whether it did."""
    extension = machine_word(frame + EXTENSION)
    if extension == 0 or machine_word(extension + KIND) & 0xFFFFFFFF != 1:
        return False
    _put_word(machine_word(extension + METADATA) + VERSION, MAJOR | machine_word(settings + MINOR) << 32)
    return True


@compiled(INNER)
def failure(frame, settings):
    """Return the address of an error of XLA's."""
    return _report(machine_word(machine_word(frame + API) + CREATE_ERROR), machine_word(settings + ERROR))


@compiled(INNER)
def launched(settings, size):
    """Return the number of threads for a call of this size (elements), set for the calling thread."""
    several = machine_word(machine_word(settings + THREADS)) if size >= PARALLEL_FROM else 1
    if several > 1:
        use_threads(several)
    return several


class Handler:
    """Function of C that serves one kind of call, and all that must live as long as it."""

    def __init__(self, name: str, handler: Any, setup: tuple[int, ...], message: str, minor: int, *kept: Any) -> None:
        self.name, self.kept = name, (handler, *kept)
        self.message = ctypes.create_string_buffer(message.encode())
        self.error = np.array([28, 0, ctypes.addressof(self.message), INVALID_ARGUMENT])
        # A layer of threads that may not be entered twice at once gets one thread.
        self.threads = np.ones(1, np.int64) if numba.threading_layer() == "workqueue" else threads.allowed
        common = Common(self.error.ctypes.data, minor, self.threads.ctypes.data)
        self.setup = np.array([*common, *setup], np.int64)
        self.stub = _stub(name, handler.address, self.setup.ctypes.data)
        self.address = self.stub.get_pointer_to_function(name)


def load_threads() -> None:
    """Start the threads, to whose functions handlers from the disk cache are linked."""
    parallel._launch_threads()


def _stub(name: str, handler: int, settings: int) -> Any:
    """Compile the function that calls a handler with the address of its settings, in 1 ms."""
    library = cpu_target.target_context.codegen().create_library(name)
    module, word = library.create_ir_module(name), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(word, [word]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    target = builder.inttoptr(word(handler), ir.FunctionType(word, [word, word]).as_pointer())
    # XLA passes a frame alone: the stub adds the settings, by which one handler serves many kinds of call.
    builder.ret(builder.call(target, [function.args[0], word(settings)]))
    with global_compiler_lock:
        library.add_ir_module(module)
        library.finalize()
    return library
