"""Products of a block of rows with coefficients, X w + b, and with residuals, X^T r, by whole vectors of the CPU.

The compiler fills no vectors where rows are short: a row of 20 float32 values is one vector and a quarter. These loops
take as many rows at a time as a vector has lanes, sum each row in a vector of its own, and turn the sums into one
vector. The last vector of a row overlaps the one before it, or for rows shorter than a vector the next row, with
coefficients of 0: all elements must be finite.
"""

from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .runtime.intrinsics import array

__all__ = ["AT_ONCE", "LANES", "outer_of", "scores_of", "spread_of"]


def _lanes(bits: int) -> int:
    """Return the lanes of a vector: of 512 bits where the CPU has them, otherwise of 256."""
    if config.DISABLE_JIT:
        return 1
    return (512 if llvm.get_host_cpu_features().get("avx512f", False) else 256) // bits


LANES = {"float32": _lanes(32), "float64": _lanes(64)}
"""Lanes of a vector, by dtype."""

AT_ONCE = 4
"""Columns of factors that a vector of X is multiplied with once it is loaded."""

CONTRACT = ("contract",)
"""Flags of sums: products are fused into them, and nothing is reordered."""


class _Block:
    """Addresses of a block of rows in the code that is built."""

    def __init__(self, builder: Any, dtype: str, data: Any, start: Any, d: Any) -> None:
        self.builder, self.lanes, self.d = builder, LANES[dtype], d
        self.number = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.vector = ir.VectorType(self.number, self.lanes)
        self.size = 4 if dtype == "float32" else 8
        self.first = builder.gep(data, [start])
        whole = builder.udiv(d, self.word(self.lanes))
        tail = builder.urem(d, self.word(self.lanes))
        self.whole = whole
        self.vectors = builder.add(whole, builder.zext(builder.icmp_unsigned("!=", tail, self.word(0)), d.type))
        short = builder.icmp_unsigned("<", d, self.word(self.lanes))
        self.last = builder.select(short, self.word(0), builder.sub(d, self.word(self.lanes)))

    def word(self, value: int) -> Any:
        """Return an integer constant."""
        return ir.Constant(ir.IntType(64), value)

    def load(self, pointer: Any) -> Any:
        """Load a vector from any address."""
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def store(self, value: Any, pointer: Any) -> None:
        """Store a vector at any address."""
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.size)

    def offset(self, c: Any) -> Any:
        """Return the offset of a row's vector: the last overlaps the one before."""
        is_last = self.builder.icmp_unsigned("==", c, self.whole)
        return self.builder.select(is_last, self.last, self.builder.mul(c, self.word(self.lanes)))

    def splat(self, value: Any) -> Any:
        """Return a vector of one value."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, mask)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c."""
        return self.builder.fadd(self.builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT)

    def turned_sum(self, vectors: list[Any]) -> Any:
        """Return one vector whose lane i is the sum over the lanes of vector i."""
        kind, step = ir.VectorType(ir.IntType(32), self.lanes), 1
        while len(vectors) > 1:
            halves = []
            for a, b in zip(vectors[::2], vectors[1::2], strict=True):
                lane = range(self.lanes)
                own = [i if not i & step else self.lanes + i for i in lane]
                other = [i | step if not i & step else self.lanes + (i & ~step) for i in lane]
                picked = [self.builder.shuffle_vector(a, b, ir.Constant(kind, mask)) for mask in (own, other)]
                halves.append(self.builder.fadd(*picked))
            vectors, step = halves, 2 * step
        return vectors[0]


def _prefetch(builder: Any, pointer: Any) -> None:
    """Ask for a cache line of the second-level cache."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(pointer, byte), word(0), word(2), word(1)])


def _plain_scores(x, start, groups, d, w, b, z):
    """Write X w + b without compiled code, whose vectors have one lane."""
    z[:groups] = x[start : start + groups * d].reshape(groups, d) @ w + b


def _plain_spread(count, rows):
    """Return the function that adds X^T r without compiled code, whose vectors have one lane."""

    def column_sums(x, start, groups, d, r, c, g, ahead):
        n = groups * rows
        g[c : c + count] += r[:n] @ x[start : start + n * d].reshape(n, d)[:, c : c + count]

    return column_sums


@cache
def scores_of(dtype: str) -> Any:
    """Return the function that writes X w + b for whole groups of rows, as many to a group as a vector has lanes.

    It takes X as a flat array, the index of the first element, the number of groups, d, the coefficients in whole
    vectors, whose last is 0 where it overlaps, b and the array to write to.
    """
    lanes = LANES[dtype]
    if config.DISABLE_JIT:
        return _plain_scores
    number, flat = getattr(types, dtype), array(dtype)

    @intrinsic
    def row_scores(typingctx, x, start, groups, d, w, b, z):
        def codegen(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            coefficients = context.make_array(signature.args[4])(context, builder, args[4]).data
            out = context.make_array(signature.args[6])(context, builder, args[6]).data
            block = _Block(builder, dtype, data, args[1], args[3])
            zero = ir.Constant(block.vector, [0.0] * lanes)
            # A row for each lane: after one transposed sum, a vector holds the scores of all of them.
            sums = [cgutils.alloca_once(builder, block.vector) for _ in range(lanes)]
            bias = block.splat(args[5])
            with cgutils.for_range(builder, args[2]) as group:
                row = builder.mul(group.index, block.word(lanes))
                base = builder.gep(block.first, [builder.mul(row, block.d)])
                for s in sums:
                    builder.store(zero, s)
                with cgutils.for_range(builder, block.vectors) as loop:
                    weights = block.load(builder.gep(coefficients, [builder.mul(loop.index, block.word(lanes))]))
                    pointer = builder.gep(base, [block.offset(loop.index)])
                    for i, s in enumerate(sums):
                        values = block.load(builder.gep(pointer, [builder.mul(block.word(i), block.d)]))
                        builder.store(block.multiply_add(values, weights, builder.load(s)), s)
                # One reduction for a whole group: a sum across the lanes of each row would take log2(lanes) shuffles a
                # row.
                total = block.turned_sum([builder.load(s) for s in sums])
                block.store(builder.fadd(total, bias), builder.gep(out, [row]))
            return context.get_dummy_value()

        return types.void(flat, types.intp, types.intp, types.intp, flat, number, flat), codegen

    return row_scores


@cache
def spread_of(dtype: str, count: int, rows: int) -> Any:
    """Return the function that adds X^T r to so many vectors of columns, so many rows at a time.

    It takes X as a flat array, the index of the first element, the number of groups of rows, d, r, the first vector,
    the array of sums in whole vectors, and how many elements ahead the next block is, which it asks for.
    """
    if config.DISABLE_JIT:
        return _plain_spread(count, rows)
    lanes, flat = LANES[dtype], array(dtype)

    @intrinsic
    def column_sums(typingctx, x, start, groups, d, r, c, g, ahead):
        def codegen(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            residuals = context.make_array(signature.args[4])(context, builder, args[4]).data
            out = context.make_array(signature.args[6])(context, builder, args[6]).data
            block = _Block(builder, dtype, data, args[1], args[3])
            zero = ir.Constant(block.vector, [0.0] * lanes)
            # As many chains of additions as hide their latency, all in registers.
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(count)] for _ in range(rows)]
            index = [builder.add(args[5], block.word(j)) for j in range(count)]
            offsets = [block.offset(i) for i in index]
            with cgutils.for_range(builder, args[2]) as group:
                row = builder.mul(group.index, block.word(rows))
                base = builder.gep(block.first, [builder.mul(row, block.d)])
                for i in range(rows):
                    factor = block.splat(builder.load(builder.gep(residuals, [builder.add(row, block.word(i))])))
                    own = builder.gep(base, [builder.mul(block.word(i), block.d)])
                    for j, s in enumerate(sums[i]):
                        pointer = builder.gep(own, [offsets[j]])
                        _prefetch(builder, builder.gep(pointer, [args[7]]))
                        builder.store(block.multiply_add(block.load(pointer), factor, builder.load(s)), s)
            for j in range(count):
                pointer = builder.gep(out, [builder.mul(index[j], block.word(lanes))])
                total = block.load(pointer)
                for own in sums:
                    total = builder.fadd(total, builder.load(own[j]))
                block.store(total, pointer)
            return context.get_dummy_value()

        return types.void(*(flat, types.intp, types.intp, types.intp, flat, types.intp, flat, types.intp)), codegen

    return column_sums


def _plain_outer(count):
    """Return the function that adds X^T Q without compiled code, whose vectors have one lane."""

    def outer_sums(x, start, rows, d, q, c, g, width):
        part = x[start : start + rows * d].reshape(rows, d)[:, c : c + count]
        for j in range(AT_ONCE):
            g[j * width + c : j * width + c + count] += q[j : rows * AT_ONCE : AT_ONCE] @ part

    return outer_sums


@cache
def outer_of(dtype: str, count: int) -> Any:
    """Return the function that adds X^T Q to so many vectors of columns, for a few columns of Q at once.

    It takes X as a flat array, the index of the first element, the number of rows, d, Q row by row, the first vector,
    the array of sums in whole vectors, one column of Q after the other, and its elements per column of Q.
    """
    if config.DISABLE_JIT:
        return _plain_outer(count)
    lanes, flat = LANES[dtype], array(dtype)

    @intrinsic
    def outer_sums(typingctx, x, start, rows, d, q, c, g, width):
        def codegen(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            factors = context.make_array(signature.args[4])(context, builder, args[4]).data
            out = context.make_array(signature.args[6])(context, builder, args[6]).data
            block = _Block(builder, dtype, data, args[1], args[3])
            zero = ir.Constant(block.vector, [0.0] * lanes)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(count)] for _ in range(AT_ONCE)]
            index = [builder.add(args[5], block.word(v)) for v in range(count)]
            offsets = [block.offset(i) for i in index]
            with cgutils.for_range(builder, args[2]) as row:
                base = builder.gep(block.first, [builder.mul(row.index, block.d)])
                values = [block.load(builder.gep(base, [offset])) for offset in offsets]
                first = builder.mul(row.index, block.word(AT_ONCE))
                for j in range(AT_ONCE):
                    factor = block.splat(builder.load(builder.gep(factors, [builder.add(first, block.word(j))])))
                    for v, s in enumerate(sums[j]):
                        builder.store(block.multiply_add(values[v], factor, builder.load(s)), s)
            for j in range(AT_ONCE):
                column = builder.mul(args[7], block.word(j))
                for v in range(count):
                    place = builder.add(column, builder.mul(index[v], block.word(lanes)))
                    pointer = builder.gep(out, [place])
                    block.store(builder.fadd(block.load(pointer), builder.load(sums[j][v])), pointer)
            return context.get_dummy_value()

        return types.void(*(flat, types.intp, types.intp, types.intp, flat, types.intp, flat, types.intp)), codegen

    return outer_sums
