"""Elementwise loops for a CPU, and the driver that runs chunks in parallel.

A chunk is a serial kernel compiled per loss, precision and mode, and called by address; a driver is compiled once
per family and precision. Block and chunk boundaries depend on the size alone, and partial sums are combined in one
fixed order: the result has the same bits on any number of threads.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, prange, types
from numba.extending import intrinsic

from .access import WINDOW, access
from .specialize import SCALAR, Chunk, compile_chunk, compile_driver
from .worlds import carry, cpu

__all__ = ["array", "call", "combine", "elementwise_chunk", "elementwise_driver"]

BLOCK = 512
"""Elements summed in the lanes of the array's own precision before the sum moves to float64."""


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
        if isinstance(kind, types.UniTuple):
            for k in range(len(kind)):
                part = borrowed(context, builder, kind.dtype, builder.extract_value(value, k))
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


@njit(error_model="numpy")
def combine(stats):
    """Sum of column 0 in order, compensated, and of the counts in column 1."""
    total = 0.0
    lost = 0.0
    bad = 0.0
    for c in range(stats.shape[0]):
        x = stats[c, 0]
        s = total + x
        lost += (total - s) + x if abs(total) >= abs(x) else (x - s) + total
        total = s
        bad += stats[c, 1]
    # The compensation of an infinite or NaN sum is NaN.
    return (total + lost if lost == lost else total), bad


# Names that the templates below find bound when they are specialized.
T: Any = None
formula: Any = None
at: Any = None
window: Any = None
emit: Any = None
read: Any = None
target_of: Any = None
weigh: Any = None
outside: Any = None
unpack: Any = None


def elementwise(preds, target, weight, values, grads, hesses, scale, params, stats):
    """One chunk: evaluate, sum, store derivatives, count domain violations."""
    p = unpack(params)
    s = T(scale)
    n = preds[0].size
    total = 0.0
    bad = 0.0
    for lo in range(0, n, BLOCK):
        hi = min(lo + BLOCK, n)
        x = window(preds, lo, hi)
        t = target[lo:hi]
        w = weight[lo:hi]
        v = values[lo:hi]
        g = window(grads, lo, hi)
        h = window(hesses, lo, hi)
        part = T(0.0)
        count = T(0.0)
        for i in range(x[0].size):
            xi = at(x, i)
            ti = read(t, i)
            wi = weigh(w, i)
            out = formula(*xi, *ti, *p)
            value = wi * out[0]
            part += value
            count += outside(xi, target_of(ti), wi)
            emit(v, g, h, i, value, wi * s, out)
        total += part
        bad += count
    stats[0] = total
    stats[1] = bad
    return total


def drive_elementwise(address, preds, target, weight, values, grads, hesses, scale, params, chunk, parallel):
    """All chunks, in parallel or one after another; the bits are the same."""
    n = preds[0].size
    chunks = (n + chunk - 1) // chunk
    stats = np.empty((chunks, 2), np.float64)
    if parallel:
        for c in prange(chunks):
            lo = c * chunk
            hi = min(n, lo + chunk)
            parts = (target[lo:hi], weight[lo:hi], values[lo:hi], window(grads, lo, hi), window(hesses, lo, hi))
            call(address, (window(preds, lo, hi), *parts, scale, params, stats[c]))
    else:
        for c in range(chunks):
            lo = c * chunk
            hi = min(n, lo + chunk)
            parts = (target[lo:hi], weight[lo:hi], values[lo:hi], window(grads, lo, hi), window(hesses, lo, hi))
            call(address, (window(preds, lo, hi), *parts, scale, params, stats[c]))
    return combine(stats)


def array(dtype: str, ndim: int = 1) -> Any:
    """The Numba type of a contiguous array."""
    return types.Array(getattr(types, dtype), ndim, "C")


def _arguments(dtype: str, count: int) -> tuple[Any, ...]:
    one, doubles = array(dtype), array("float64")
    many = types.UniTuple(one, count)
    return (many, one, one, one, many, many, types.float64, doubles)


def elementwise_chunk(record: Any, dtype: str, mode: str, weighted: bool) -> Chunk:
    """Compile, or load from the disk cache, one loss in one precision and mode."""
    signature = types.float64(*_arguments(dtype, len(record.predictions)), array("float64"))
    bound = access(record, dtype, mode, weighted)
    name = f"{record.name}_{mode}{'_weighted' if weighted else ''}_{dtype}"
    return compile_chunk(elementwise, name, signature, formula=carry(record.function, cpu(dtype)), **bound)


@lru_cache(maxsize=None)
def elementwise_driver(dtype: str, count: int) -> Any:
    """The driver of all elementwise losses with this many predictions."""
    returns = types.Tuple((types.float64, types.float64))
    signature = returns(types.intp, *_arguments(dtype, count), types.intp, types.boolean)
    inline = njit(**SCALAR)
    return compile_driver(drive_elementwise, f"elementwise{count}_{dtype}", signature, window=inline(WINDOW[count]))
