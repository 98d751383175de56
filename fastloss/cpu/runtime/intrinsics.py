"""Intrinsics and helpers of all CPU loops: calls by address, ordered sums, wide vectors, prefetching."""

import contextlib
from typing import Any

from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from .specialize import INNER

__all__ = ["array", "call", "combine", "emit_prefetch", "prefetch", "widest_vectors"]


def array(dtype: str, ndim: int = 1) -> Any:
    """The Numba type of a contiguous array."""
    return types.Array(getattr(types, dtype), ndim, "C")


@intrinsic
def _call(typingctx, address, arguments):
    """Call a compiled chunk by its address, lending it the arrays.

    The driver holds the references. Without a reference counter in what it gets, a chunk's many small slices cost
    no atomic operations: 90 ns a row in the softmax loops.
    """

    def borrowed(context, builder, kind, value):
        if isinstance(kind, types.Array):
            view = context.make_array(kind)(context, builder, value)
            view.meminfo = ir.Constant(view.meminfo.type, None)
            return view._getvalue()
        if isinstance(kind, types.BaseTuple):
            for k, part_kind in enumerate(kind):
                part = borrowed(context, builder, part_kind, builder.extract_value(value, k))
                value = builder.insert_value(value, part, k)
        return value

    def codegen(context, builder, signature, args):
        kinds = list(signature.args[1])
        values = [borrowed(context, builder, k, builder.extract_value(args[1], i)) for i, k in enumerate(kinds)]
        function = ir.FunctionType(ir.DoubleType(), [context.get_value_type(k) for k in kinds])
        return builder.call(builder.inttoptr(args[0], function.as_pointer()), values)

    return types.float64(types.intp, arguments), codegen


def _call_python(function, arguments):
    return function(*arguments)


call = _call_python if config.DISABLE_JIT else _call


@njit(**INNER)
def combine(stats):
    """Sum of column 0 in order, compensated, and of the counts in column 1."""
    total = 0.0
    lost = 0.0
    bad = 0.0
    for c in range(stats.shape[0]):
        x = float(stats[c, 0])
        s = total + x
        # Recovers what the addition rounded off (Neumaier): the smaller of the two loses digits, whichever it is.
        lost += (total - s) + x if abs(total) >= abs(x) else (x - s) + total
        total = s
        bad += float(stats[c, 1])
    # The compensation of an infinite or NaN sum is NaN.
    return (total + lost if lost == lost else total), bad


@intrinsic
def _widest_vectors(typingctx):
    """Let the loops of the calling function use 512 bits where the CPU has them.

    LLVM prefers 256 bits on Intel, for the clock's sake; these loops gain a factor of 1.3 to 1.5 from 512.
    """

    def codegen(context, builder, signature, args):
        # llvmlite prints the attributes of a function as they are, but checks names that it is given against a list.
        with contextlib.suppress(TypeError):
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


widest_vectors = (lambda: None) if config.DISABLE_JIT else _widest_vectors


def emit_prefetch(builder, pointer):
    """Emit a request for the cache line of an address, which may lie outside of any array."""
    from numba.core import cgutils

    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0i8"
    )
    builder.call(function, [builder.bitcast(pointer, byte), word(0), word(3), word(1)])


@intrinsic
def _prefetch(typingctx, a, start, stop):
    """Ask for the cache lines of elements start to stop of a contiguous array, ahead of gathers that would wait."""
    from numba.core import cgutils

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        # Asks once for each cache line of 64 bytes.
        per_line = 64 * 8 // kind.dtype.bitwidth
        step = ir.Constant(args[1].type, per_line)
        with cgutils.for_range_slice(builder, args[1], args[2], step) as (index, _):
            emit_prefetch(builder, builder.gep(data, [index]))
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp), codegen


prefetch = (lambda a, start, stop: None) if config.DISABLE_JIT else _prefetch
