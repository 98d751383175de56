"""Gramian of a few long vectors: all their inner products, in one read."""

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .runtime.intrinsics import emit_prefetch, widest_vectors
from .runtime.slots import Number, unbound
from .runtime.units import kernel

__all__ = ["gramian"]

use = unbound(Number)

BLOCK = 1 << 14
"""Elements per block, whose products are summed by themselves for any number of threads."""

TILE = 1 << 9
"""Elements multiplied in the vectors' own precision before the sums move to float64. Eight float32 vectors of them take
16 KiB, which leaves room in the first-level cache for the next tile, whose lines are asked for meanwhile."""

LANES = 16
"""Elements multiplied at once: one register of 512 bits in float32. Each lane adds TILE / LANES products."""

GROUP = 4 if get_host_cpu_features().get("avx512f") else 2
"""Vectors that are multiplied by as many others at once. Their sums stay in registers: 16 of 32, or 4 pairs of 16."""


def _vectors(context, builder, kind, value, places, first):
    """Return the addresses of element `first` of the vectors at some places; the last stands for missing ones."""
    data = [context.make_array(t)(context, builder, builder.extract_value(value, k)).data for k, t in enumerate(kind)]
    table = cgutils.alloca_once(builder, data[0].type, len(data))
    for k, pointer in enumerate(data):
        builder.store(pointer, builder.gep(table, [ir.IntType(32)(k)]))
    last = first.type(len(data) - 1)
    found = []
    for place in places:
        at = builder.select(builder.icmp_signed("<", place, last), place, last)
        found.append(builder.gep(builder.load(builder.gep(table, [at])), [first]))
    return found


def _accumulate(builder, kind, pairs, rows, columns, ahead, size, totals):
    """Emit the loop that multiplies pairs of rows and columns, then add the products to the totals in float64."""
    element, word, index = rows[0].type.pointee, ir.IntType(32), size.type
    narrow, wide = ir.VectorType(element, LANES), ir.VectorType(ir.DoubleType(), LANES)
    sums = [cgutils.alloca_once(builder, narrow) for _ in pairs]
    for s in sums:
        builder.store(ir.Constant(narrow, [0.0] * LANES), s)

    def read(pointer, at):
        value = builder.load(builder.bitcast(builder.gep(pointer, [at]), narrow.as_pointer()))
        value.align = kind.bitwidth // 8
        return value

    with cgutils.for_range_slice(builder, index(0), size, index(LANES)) as (at, _):
        for pointer in ahead:
            emit_prefetch(builder, builder.gep(pointer, [builder.add(at, index(TILE))]))
        xs = [read(p, at) for p in rows]
        ys = xs if columns is rows else [read(p, at) for p in columns]
        for s, (a, b) in zip(sums, pairs, strict=True):
            # Fused with the addition where the CPU can: one instruction for each pair of vectors.
            product = builder.fmul(xs[a], ys[b], flags=["contract"])
            builder.store(builder.fadd(builder.load(s), product, flags=["contract"]), s)
    totals = builder.bitcast(totals, wide.as_pointer())
    for s, (a, b) in zip(sums, pairs, strict=True):
        total, value = builder.gep(totals, [word(a * GROUP + b)]), builder.load(s)
        before = builder.load(total)
        before.align = 8
        value = value if kind == types.float64 else builder.fpext(value, wide)
        builder.store(builder.fadd(before, value), total).align = 8


@intrinsic
def _multiply(typingctx, vectors, i, j, first, size, lanes):
    """Multiply the vectors of group i by those of group j, and add the products to the rows of `lanes`.

    `size` is a multiple of LANES. The rows of `lanes` (GROUP * GROUP, LANES) are sums in float64 of whole registers,
    which are summed across at the end of a block only.
    """

    def codegen(context, builder, signature, args):
        value, i, j, first, size, lanes = args
        kind, index = vectors.dtype.dtype, first.type
        # Spreads the lines of the next tile over the products of this one: asked for at once they would wait.
        groups = -(-len(vectors) // GROUP)
        each = -(-len(vectors) // (groups * (groups + 1) // 2))
        turn = builder.add(builder.sdiv(builder.mul(i, builder.add(i, index(1))), index(2)), j)
        starts = [builder.mul(i, index(GROUP)), builder.mul(j, index(GROUP)), builder.mul(turn, index(each))]
        # The last vector stands for missing ones: groups are whole, and what it adds there is not read.
        places = [builder.add(s, index(k)) for s in starts for k in range(each if s is starts[2] else GROUP)]
        found = _vectors(context, builder, vectors, value, places, first)
        rows, columns, ahead = found[:GROUP], found[GROUP : 2 * GROUP], found[2 * GROUP :]
        totals = context.make_array(signature.args[5])(context, builder, lanes).data
        square = [(a, b) for a in range(GROUP) for b in range(GROUP)]
        with builder.if_else(builder.icmp_signed("==", i, j)) as (same, apart):
            with same:
                below = [(a, b) for a, b in square if b <= a]
                _accumulate(builder, kind, below, rows, rows, ahead, size, totals)
            with apart:
                _accumulate(builder, kind, square, rows, columns, ahead, size, totals)
        return context.get_dummy_value()

    return types.void(vectors, i, j, first, size, lanes), codegen


def _multiply_python(vectors, i, j, first, size, lanes):
    last = len(vectors) - 1
    for a in range(GROUP):
        for b in range(GROUP):
            x, y = (vectors[min(k, last)][first : first + size] for k in (i * GROUP + a, j * GROUP + b))
            lanes[a * GROUP + b] += (x * y).reshape(-1, LANES).sum(axis=0)


multiply = _multiply_python if config.DISABLE_JIT else _multiply


def products(lo, hi, partial, *vectors):
    """Inner products of all pairs of vectors over some blocks."""
    widest_vectors()
    count = len(vectors)
    groups = (count + GROUP - 1) // GROUP
    lanes = np.empty((groups * groups, GROUP * GROUP, LANES))
    for block in range(lo, hi):
        first = block * BLOCK
        end = min(first + BLOCK, vectors[0].size)
        whole = first + (end - first) // LANES * LANES
        lanes[:] = 0.0
        for a in range(first, whole, TILE):
            for i in range(groups):
                for j in range(i + 1):
                    multiply(vectors, i, j, a, min(TILE, whole - a), lanes[i * groups + j])
        for i in range(count):
            for j in range(i + 1):
                total = 0.0
                for x in lanes[i // GROUP * groups + j // GROUP, i % GROUP * GROUP + j % GROUP]:
                    total += x
                # The remainder of the last block, fewer than LANES elements: in float64 at once, as nothing is left to
                # vectorise.
                for k in range(whole, end):
                    total += np.float64(vectors[i][k]) * np.float64(vectors[j][k])
                partial[block, i, j] = total


def gramian(vectors: tuple[Any, ...]) -> Any:
    """Return the inner products (k, k) in float64 of k contiguous vectors of one length and dtype."""
    k, n = len(vectors), vectors[0].size
    partial = np.empty((-(-n // BLOCK), k, k))
    found = kernel(products, f"gramian_{k}", vectors[0].dtype.name)
    found(len(partial), n * k * (k + 1) // 4, partial, *vectors)
    # In the order of the blocks: the same bits on any number of threads.
    sums = np.add.reduce(partial, axis=0)
    lower = np.tril(sums)
    return lower + np.tril(sums, -1).T
