"""Softmax of 64 rows at a time with the rows across the vector, where K is too small to fill one.

A tile of rows is transposed by shuffles compiled for its K: loads and stores with a stride take 1 ns an element,
these 0.05 (K = 2) to 0.25. What a label picks is then selected as its class passes by.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from ..runtime import access
from ..runtime.intrinsics import call, widest_vectors
from ..runtime.slots import unbound
from ..runtime.specialize import Chunk, compile_chunk
from ..runtime.staging import clear, flat, flush, lanes
from .slots import RowSlots

__all__ = ["GROUP", "SQUARE", "scan_tile", "spread_tile", "transposers", "turn"]

GROUP = 64
"""Rows of a tile."""

# Rows are taken in groups, with one number a row in each of these columns of a scratch array.
# Constant offsets into one array show LLVM that the columns do not overlap; fourteen arrays would need more
# run-time checks than it makes, and the loop would stay scalar.
(TOP, TAIL, LINEAR, SHIFTED, PICKED, LABEL, WEIGHT, CLASS_WEIGHT, VALUE, AT_E, FLAT, AT_LABEL, AT_PQ, AT_PP) = (
    GROUP * i for i in range(14)
)
HESS_LABEL = GROUP * 14
COLUMNS = GROUP * 15


class Move(NamedTuple):
    """Constants and functions that the transposition of a tile reads."""

    move: Callable[..., Any]
    """Function that moves some rows into columns, or back."""
    ROWS: int
    """Number of those rows."""


use: Any = unbound(RowSlots, Move)

times = access.times[True]
apart = access.times[False]


def pick_labels(labels, weight, class_weight, k, alone, s):
    """Label and weights of each row; -1 and 0 for rows to ignore and beyond the last.

    Where a row's loss is that of its label alone, a class weight of 0 takes the row out.
    """
    T = use.T
    n = labels.size
    for i in range(n):
        inside = (labels[i] >= 0) & (labels[i] < k)
        # In the type of the scores: labels of 64 bits would halve the vectors, and a few classes are exact.
        s[LABEL + i] = T(labels[i]) if inside else T(-1.0)
        s[WEIGHT + i] = T(1.0) if inside else T(0.0)
        s[CLASS_WEIGHT + i] = T(1.0)
    # Fills the last group up, so that loops over a group need no other length: rows beyond the last count for nothing.
    for i in range(n, GROUP):
        s[LABEL + i] = T(-1.0)
        s[WEIGHT + i] = T(0.0)
        s[CLASS_WEIGHT + i] = T(0.0)
    if weight.size > 0:
        for i in range(n):
            s[WEIGHT + i] = weight[i] if s[WEIGHT + i] > T(0.0) else T(0.0)
    if class_weight.size > 0:
        for i in range(n):
            y = labels[i]
            if 0 <= y < k:
                s[CLASS_WEIGHT + i] = class_weight[y]
                # So that NaN in such a row stays out, as it does under a row weight of 0.
                if alone and class_weight[y] == T(0.0):
                    s[WEIGHT + i] = T(0.0)


def tail_of(total, rest):
    """The sum of exponentials less one: all but the maximum where it is single, with every digit.

    A count of the maxima would say so directly, but a conditional count keeps the loop scalar (10 times slower).
    """
    T = use.T
    return rest if total - rest < T(1.5) else total - T(1.0)


def scan_tile(z, beta, class_weight, address, e, pad, s):
    """Per row: maximum, sum of exponentials less one, and what the label picks; the exponentials go to e."""
    T = use.T
    ZERO = use.ZERO
    widest_vectors()
    n, k = z.shape
    rows = flat(z)
    if n < GROUP:
        # Copies the last rows: the transposition reads a whole tile, and beyond the array lies other memory.
        for q in range(rows.size):
            pad[q] = rows[q]
        beyond = pad[rows.size :]
        for q in range(beyond.size):
            beyond[q] = T(0.0)
        rows = pad
    # By address: the shuffles are compiled once for each K, not again in every loss.
    call(address, (rows, flat(e)))
    # On the stack, where no store to the tile can change them.
    top, total, rest, linear = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    shifted, picked, own = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    for i in range(GROUP):
        # From the first class, not from minus infinity: a class of minus infinity alone is then its own maximum.
        top[i] = e[0, i]
        own[i] = s[LABEL + i]
    # Reserved memory holds what was there before.
    clear(total, 0)
    clear(rest, 0)
    clear(linear, 0)
    clear(shifted, 0)
    clear(picked, 0)
    for j in range(1, k):
        for i in range(GROUP):
            x = e[j, i]
            # Needs no whole numbers as the loop along a row does: each lane has a maximum of its own, which vectorises.
            # A NaN that it passes over comes back by the exponential of its difference.
            top[i] = x if x > top[i] else top[i]
    for j in range(k):
        label = T(j)
        c = class_weight[j] if use.smooth else ZERO
        for i in range(GROUP):
            x = e[j, i]
            # At most 0: no exponential exceeds 1, whatever the scores are.
            d = (x - top[i]) * beta
            p = use.exp(d)
            total[i] += p
            # Keeps the digits of a sum near 1: the maximum, whose exponential is 1, is left out here.
            rest[i] += ZERO if x == top[i] else p
            # Replaces a gather: what the label picks is selected as its class passes by.
            mine = own[i] == label
            shifted[i] = d if mine else shifted[i]
            picked[i] = p if mine else picked[i]
            if use.smooth:
                linear[i] += times(d, c)
            e[j, i] = p
    for i in range(GROUP):
        s[TOP + i] = top[i]
        s[TAIL + i] = tail_of(total[i], rest[i])
        s[LINEAR + i] = linear[i]
        s[SHIFTED + i] = shifted[i]
        s[PICKED + i] = picked[i]


def spread_tile(e, bent, address, pad, beta, class_weight, s, grad, hess, past):
    """Write the derivatives of each row from the exponentials."""
    T = use.T
    ZERO = use.ZERO
    widest_vectors()
    k = grad.shape[1]
    if use.curvature:
        for j in range(k):
            label = T(j)
            for i in range(GROUP):
                tail = s[TAIL + i]
                inverse = T(1.0) / (tail + T(1.0))
                p = e[j, i] * inverse
                # Keeps the digits of the maximum's 1 - p: it is the tail's share, which subtracting p from 1 would
                # lose.
                q = tail * inverse if e[j, i] == T(1.0) else T(1.0) - p
                d = apart(p * (s[AT_PQ + i] * q + s[AT_PP + i] * p), beta)
                d = s[HESS_LABEL + i] if s[LABEL + i] == label else d
                bent[j, i] = T(0.0) if s[WEIGHT + i] == T(0.0) else d
        # Before the gradient takes the place of the exponentials, which this reads.
        put_rows(address, bent, pad, hess, past)
    # Keeps them in registers: on the stack, no store to the tile can change them.
    at_e, label_slope, flat = lanes(ZERO, GROUP), lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    own, counted = lanes(ZERO, GROUP), lanes(ZERO, GROUP)
    for i in range(GROUP):
        at_e[i] = s[AT_E + i]
        label_slope[i] = s[AT_LABEL + i]
        flat[i] = s[FLAT + i]
        own[i] = s[LABEL + i]
        counted[i] = s[WEIGHT + i]
    for j in range(k):
        label = T(j)
        b = class_weight[j] if use.smooth else ZERO
        for i in range(GROUP):
            d = e[j, i] * at_e[i] - (b * flat[i] if use.smooth else ZERO)
            d = label_slope[i] if own[i] == label else d
            # Selected, not multiplied: rows that do not count may hold NaN.
            e[j, i] = ZERO if counted[i] == ZERO else d
    put_rows(address, e, pad, grad, past)


def put_rows(address, columns, pad, out, past):
    """Write a tile as rows."""
    rows = flat(out)
    # Detours by the pad where whole stores would write beyond the last row, or go past the caches.
    if len(out) == GROUP and not past:
        call(address, (flat(columns), rows))
    else:
        call(address, (flat(columns), pad))
        flush((rows,), (pad,), 0, rows.size, past)


def _shuffle(builder, a, b, lanes):
    mask = ir.VectorType(ir.IntType(32), len(lanes))
    return builder.shuffle_vector(a, b, ir.Constant(mask, lanes))


def _turn(builder, vectors):
    """Transpose a square: vector r, lane c becomes vector c, lane r, one bit of the two indices at a time."""
    size = len(vectors)
    # log2(size) rounds of two shuffles a vector: 64 rows of K = 2 take 0.05 ns an element, strided loads 1 ns.
    bit = 1
    while bit < size:
        turned = list(vectors)
        for r in (r for r in range(size) if not r & bit):
            a, b = vectors[r], vectors[r | bit]
            turned[r] = _shuffle(builder, a, b, [size + (i ^ bit) if i & bit else i for i in range(size)])
            turned[r | bit] = _shuffle(builder, a, b, [size + i if i & bit else i ^ bit for i in range(size)])
        vectors = turned
        bit *= 2
    return vectors


def _join(builder, vectors):
    """Concatenate vectors of one width."""
    while len(vectors) > 1:
        if len(vectors) % 2:
            vectors = [*vectors, ir.Constant(vectors[0].type, ir.Undefined)]
        width = vectors[0].type.count
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_shuffle(builder, a, b, list(range(2 * width))) for a, b in pairs]
    return vectors[0]


@cache
def _mover(k: int, width: int, to_columns: bool) -> Any:
    """Move some rows of K numbers, as many as a vector has lanes, into columns of a tile, or back."""

    @intrinsic
    def move(typingctx, source, target, row):
        def codegen(context, builder, signature, args):
            kind = signature.args[0]
            element = context.get_data_type(kind.dtype)
            data = [context.make_array(kind)(context, builder, a).data for a in args[:2]]
            in_rows, in_columns = data if to_columns else data[::-1]
            in_rows = builder.gep(in_rows, [builder.mul(args[2], args[2].type(k))])
            in_columns = builder.gep(in_columns, [args[2]])

            def place(base, offset, count):
                pointer = builder.gep(base, [args[2].type(offset)])
                return builder.bitcast(pointer, ir.VectorType(element, count).as_pointer())

            def load(base, offset, count):
                value = builder.load(place(base, offset, count))
                # Rows of K numbers begin anywhere: the vectors are not aligned to more than an element.
                value.align = kind.dtype.bitwidth // 8
                return value

            def store(value, base, offset):
                written = builder.store(value, place(base, offset, value.type.count))
                written.align = kind.dtype.bitwidth // 8

            if k < width:
                # All rows in one vector, every k-th element of which belongs to a column.
                if to_columns:
                    rows = load(in_rows, 0, k * width)
                    for j in range(k):
                        lanes = [j + k * r for r in range(width)]
                        store(_shuffle(builder, rows, rows, lanes), in_columns, j * GROUP)
                else:
                    columns = _join(builder, [load(in_columns, j * GROUP, width) for j in range(k)])
                    lanes = [width * (q % k) + q // k for q in range(k * width)]
                    store(_shuffle(builder, columns, columns, lanes), in_rows, 0)
                return context.get_dummy_value()
            # Squares; the last one overlaps the one before.
            for j in (*range(0, k - width, width), k - width):
                if to_columns:
                    square = [load(in_rows, r * k + j, width) for r in range(width)]
                    for c, column in enumerate(_turn(builder, square)):
                        store(column, in_columns, (j + c) * GROUP)
                else:
                    square = [load(in_columns, (j + c) * GROUP, width) for c in range(width)]
                    for r, row_part in enumerate(_turn(builder, square)):
                        store(row_part, in_rows, r * k + j)
            return context.get_dummy_value()

        return types.void(source, target, types.intp), codegen

    return move


SQUARE = 8
"""Rows and columns that `turn` moves at once: a vector of float64."""


@intrinsic
def _turn_square(typingctx, source, target, row, column):
    """Write a square of a matrix to its place in the transposed one."""

    def codegen(context, builder, signature, args):
        places = []
        for kind, matrix, first, second in ((source, args[0], *args[2:]), (target, args[1], *args[:1:-1])):
            view = context.make_array(kind)(context, builder, matrix)
            length = builder.extract_value(view.shape, 1)
            start = builder.add(builder.mul(first, length), second)
            vector = ir.VectorType(context.get_data_type(kind.dtype), SQUARE).as_pointer()
            rows = [builder.add(start, builder.mul(length, start.type(r))) for r in range(SQUARE)]
            places.append([builder.bitcast(builder.gep(view.data, [r]), vector) for r in rows])
        square = [builder.load(p) for p in places[0]]
        for x in square:
            x.align = source.dtype.bitwidth // 8
        for x, p in zip(_turn(builder, square), places[1], strict=True):
            builder.store(x, p).align = target.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(source, target, types.intp, types.intp), codegen


def _turn_square_python(source, target, row, column):
    target[column : column + SQUARE, row : row + SQUARE] = source[row : row + SQUARE, column : column + SQUARE].T


turn = _turn_square_python if config.DISABLE_JIT else _turn_square


def _move_all(source, target):
    """Transpose a tile."""
    for row in range(0, GROUP, use.ROWS):
        use.move(source, target, row)
    return 0.0


def _to_columns_python(source, target):
    target[:] = source.reshape(GROUP, -1).T.reshape(-1)


def _to_rows_python(source, target):
    target[:] = source.reshape(-1, GROUP).T.reshape(-1)


def transposers(k: int, dtype: str, array: Any) -> tuple[Chunk, Chunk]:
    """Compile, or load from the disk cache, the functions that transpose tiles of rows of K to columns and back."""
    if config.DISABLE_JIT:
        return Chunk(_to_columns_python, False, str), Chunk(_to_rows_python, False, str)
    # 512 bits; LLVM splits them where the CPU has less.
    width = 16 if dtype == "float32" else 8
    signature = types.float64(array, array)

    def build(name: str, to_columns: bool) -> Chunk:
        moved = _mover(k, width, to_columns)
        return compile_chunk(_move_all, f"{name}_{k}_{dtype}", signature, Move(moved, width))

    return build("to_columns", True), build("to_rows", False)
