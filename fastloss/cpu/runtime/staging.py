"""Small arrays on the stack of a kernel: lanes to sum in, and stages that stand for a step of a large array.

A stage serves two purposes. The last step of an array is computed on copies of its inputs, so that every loop has
the same, constant length and needs no remainder. And where results do not fit the last-level cache, they go from
their stage to memory past the caches, by non-temporal stores: an ordinary store would read each line first, which is
a third more traffic for a loss that reads two arrays and writes one.
"""

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

__all__ = [
    "STEP",
    "accumulate",
    "clear",
    "drain",
    "fill",
    "flat",
    "flush",
    "lanes",
    "part",
    "place",
    "stage",
    "streamable",
    "sum_lanes",
]

PIECE = 16
"""Bytes that a non-temporal store writes: large NumPy arrays begin 16 bytes after a page. The write-combining buffers
make whole lines of them; where the array begins at a line, wider stores gain nothing (0.76 and 0.79 of a difference).
"""

STEP = {"float32": 64, "float64": 32}
"""Elements of a step: four lines. Longer bursts of stores alternate with bursts of reads, and both wait (mse of 10M
elements takes 0.70 of a plain difference with 64, 0.92 with 512)."""

# Plain Python has no vectors to fill: a step of one element needs no stage.
if config.DISABLE_JIT:
    STEP = {"float32": 1, "float64": 1}


def _view(context, builder, kind, data, size):
    """An array that nobody counts references of."""
    width = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
    view = context.make_array(kind)(context, builder)
    populate_array(view, data, [size], [width], width, ir.Constant(view.meminfo.type, None))
    return view._getvalue()


def _reserve(context, builder, kind, size):
    # In the entry block of the calling function itself: in a function that is inlined, it would end with that.
    room = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(kind.dtype), size))
    # One line of the cache: no vector of 512 bits crosses two.
    room.align = 64
    pointer = context.get_data_type(kind.dtype).as_pointer()
    return _view(context, builder, kind, builder.bitcast(room, pointer), context.get_constant(types.intp, size))


@intrinsic(prefer_literal=True)
def _lanes(typingctx, kind, size):
    """Reserve an array of numbers like the first argument, as many as the second."""
    array = types.Array(kind, 1, "C")

    def codegen(context, builder, signature, args):
        return _reserve(context, builder, array, size.literal_value)

    return array(kind, size), codegen


@intrinsic(prefer_literal=True)
def _accumulate(typingctx, part, total, size):
    """Add lanes to lanes of float64, and set them to zero."""

    def codegen(context, builder, signature, args):
        def vector(kind, array):
            # Leaves LLVM no loop to recognise: all lanes are one vector, which it splits into those of the CPU.
            wide = ir.VectorType(context.get_data_type(kind.dtype), size.literal_value)
            return builder.bitcast(context.make_array(kind)(context, builder, array).data, wide.as_pointer())

        low, high = vector(part, args[0]), vector(total, args[1])
        narrow = builder.load(low)
        before = builder.load(high)
        # Allows aligned loads and stores: both arrays were reserved at the beginning of a cache line.
        narrow.align = before.align = 64
        wide = narrow if part.dtype == total.dtype else builder.fpext(narrow, before.type)
        builder.store(builder.fadd(before, wide), high).align = 64
        builder.store(ir.Constant(narrow.type, [0.0] * size.literal_value), low).align = 64
        return context.get_dummy_value()

    return types.void(part, total, size), codegen


@intrinsic(prefer_literal=True)
def _sum_lanes(typingctx, a, size):
    """Add up the lanes, halves to halves: the same order on every machine."""

    def codegen(context, builder, signature, args):
        count = size.literal_value
        data = context.make_array(a)(context, builder, args[0]).data
        vector = ir.VectorType(context.get_data_type(a.dtype), count).as_pointer()
        value = builder.load(builder.bitcast(data, vector))
        value.align = 64
        while count > 1:
            count //= 2
            halves = [[ir.IntType(32)(first + k) for k in range(count)] for first in (0, count)]
            low, high = (
                builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(ir.IntType(32), count), half))
                for half in halves
            )
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    return a.dtype(a, size), codegen


@intrinsic(prefer_literal=True)
def _stage(typingctx, arrays, size):
    """Reserve room for a step of each array."""

    def codegen(context, builder, signature, args):
        result = args[0]
        for k, kind in enumerate(signature.args[0]):
            room = _reserve(context, builder, kind, size.literal_value)
            result = builder.insert_value(result, room, k)
        return result

    return arrays(arrays, size), codegen


@intrinsic
def _flat(typingctx, a):
    """Return all elements of a contiguous array in one dimension; reshape(-1) would be a call of 25 ns."""
    result = types.Array(a.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        view = context.make_array(signature.args[0])(context, builder, args[0])
        return _view(context, builder, result, view.data, view.nitems)

    return result(a), codegen


@intrinsic
def _part(typingctx, a, start, size):
    """So many elements from one on, of a contiguous array in one dimension.

    Slices of an array of three dimensions take a kernel of ten of them seconds to compile.
    """
    result = types.Array(a.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        view = context.make_array(signature.args[0])(context, builder, args[0])
        return _view(context, builder, result, builder.gep(view.data, [args[1]]), args[2])

    return result(a, types.intp, types.intp), codegen


@intrinsic
def _streamable(typingctx, arrays):
    """Whether all arrays begin at a multiple of a piece."""

    def codegen(context, builder, signature, args):
        word = context.get_value_type(types.intp)
        # Takes one comparison for all arrays: a low bit of any address is one of all addresses, joined by or.
        all_bits = word(0)
        for k, kind in enumerate(signature.args[0]):
            a = context.make_array(kind)(context, builder, builder.extract_value(args[0], k)).data
            all_bits = builder.or_(all_bits, builder.ptrtoint(a, word))
        return builder.icmp_unsigned("==", builder.and_(all_bits, word(PIECE - 1)), word(0))

    return types.boolean(arrays), codegen


@intrinsic
def _place(typingctx, staged, arrays, stages, lo):
    """Return some arrays' step from lo on: in the arrays themselves, or in their stages.

    An intrinsic, since slices on two paths would be counted references: calls in every step.
    """

    def codegen(context, builder, signature, args):
        result = args[1]
        for k, kind in enumerate(signature.args[1]):
            a = context.make_array(kind)(context, builder, builder.extract_value(args[1], k)).data
            s = context.make_array(kind)(context, builder, builder.extract_value(args[2], k))
            # Selects an address, not a path: the loop over a step is compiled once.
            data = builder.select(args[0], s.data, builder.gep(a, [args[3]]))
            result = builder.insert_value(result, _view(context, builder, kind, data, s.nitems), k)
        return result

    return arrays(staged, arrays, stages, types.intp), codegen


def _each(context, builder, signature, args):
    """Yield, in code for those that are not empty: type, pointer to element lo, stage, hi - lo."""
    size = builder.sub(args[3], args[2])
    for k, kind in enumerate(signature.args[0]):
        a = context.make_array(kind)(context, builder, builder.extract_value(args[0], k))
        s = context.make_array(kind)(context, builder, builder.extract_value(args[1], k))
        with builder.if_then(builder.icmp_signed(">", a.nitems, a.nitems.type(0))):
            yield kind, builder.gep(a.data, [args[2]]), s, size


@intrinsic
def _fill(typingctx, arrays, stages, lo, hi):
    """Copy the last elements of each input to its stage; what is left of that is zero."""

    def codegen(context, builder, signature, args):
        for _, data, s, size in _each(context, builder, signature, args):
            cgutils.memset(builder, s.data, builder.mul(s.nitems, s.itemsize), 0)
            cgutils.raw_memcpy(builder, s.data, data, size, s.itemsize)
        return context.get_dummy_value()

    return types.void(arrays, stages, types.intp, types.intp), codegen


@intrinsic
def _flush(typingctx, arrays, stages, lo, hi, past):
    """Write a step of each output from its stage; past the caches, if it is a whole one and they are to be passed."""

    def codegen(context, builder, signature, args):
        # Marks stores as non-temporal: they go past the caches.
        hint = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        for kind, data, s, size in _each(context, builder, signature, args):
            each = PIECE * 8 // kind.dtype.bitwidth
            vector = ir.VectorType(context.get_data_type(kind.dtype), each).as_pointer()
            # Copies a last, shorter step by ordinary stores: it need not be whole pieces.
            whole = builder.icmp_signed("==", size, s.nitems)
            with builder.if_else(builder.and_(whole, args[4])) as (streaming, copying):
                with streaming:
                    to, source = builder.bitcast(data, vector), builder.bitcast(s.data, vector)
                    with cgutils.for_range(builder, builder.udiv(size, size.type(each))) as loop:
                        piece = builder.load(builder.gep(source, [loop.index]))
                        written = builder.store(piece, builder.gep(to, [loop.index]))
                        piece.align = written.align = PIECE
                        written.set_metadata("nontemporal", hint)
                with copying:
                    cgutils.raw_memcpy(builder, data, s.data, size, s.itemsize)
        return context.get_dummy_value()

    return types.void(arrays, stages, types.intp, types.intp, past), codegen


@intrinsic
def _clear(typingctx, a, start):
    """Write zeros from one element on."""

    def codegen(context, builder, signature, args):
        view = context.make_array(signature.args[0])(context, builder, args[0])
        size = builder.mul(builder.sub(view.nitems, args[1]), view.itemsize)
        cgutils.memset(builder, builder.gep(view.data, [args[1]]), size, 0)
        return context.get_dummy_value()

    return types.void(a, types.intp), codegen


@intrinsic
def _drain(typingctx):
    """Make what was written past the caches visible, as other stores are, to a thread that is told of it later."""

    def codegen(context, builder, signature, args):
        # On x86-64, stores past the caches are weakly ordered: an ordinary store that follows may be seen first.
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def _lanes_python(kind, size):
    return np.empty(size, type(kind))


def _accumulate_python(part, total, size):
    total += part
    part[:] = 0


def _sum_lanes_python(a, size):
    return a.sum()


def _stage_python(arrays, size):
    return tuple(np.empty(size, a.dtype) for a in arrays)


def _place_python(staged, arrays, stages, lo):
    return stages if staged else tuple(a[lo : lo + s.size] for a, s in zip(arrays, stages, strict=True))


def _fill_python(arrays, stages, lo, hi):
    for a, s in zip(arrays, stages, strict=True):
        s[:] = 0
        s[: hi - lo] = a[lo:hi] if a.size else 0


def _flush_python(arrays, stages, lo, hi, past):
    for a, s in zip(arrays, stages, strict=True):
        if a.size:
            a[lo:hi] = s[: hi - lo]


def _clear_python(a, start):
    a[start:] = 0


lanes = _lanes_python if config.DISABLE_JIT else _lanes
accumulate = _accumulate_python if config.DISABLE_JIT else _accumulate
sum_lanes = _sum_lanes_python if config.DISABLE_JIT else _sum_lanes
stage = _stage_python if config.DISABLE_JIT else _stage
flat = (lambda a: a.reshape(-1)) if config.DISABLE_JIT else _flat
part = (lambda a, start, size: a.reshape(-1)[start : start + size]) if config.DISABLE_JIT else _part
streamable = (lambda arrays: False) if config.DISABLE_JIT else _streamable
place = _place_python if config.DISABLE_JIT else _place
fill = _fill_python if config.DISABLE_JIT else _fill
flush = _flush_python if config.DISABLE_JIT else _flush
clear = _clear_python if config.DISABLE_JIT else _clear
drain = (lambda: None) if config.DISABLE_JIT else _drain
