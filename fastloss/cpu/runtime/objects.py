"""Reading of NumPy arrays by the addresses of their Python objects, in compiled code.

A driver that is given a tuple by its address reads the arrays in 10 ns each. Passed one by one, or read from Python, an
array takes 60 to 350 ns.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.types.abstract import Type
from numba.core.types.containers import BaseTuple
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .specialize import INNER, compile_driver, compiled

__all__ = [
    *("HEAD", "KINDS", "LONGEST", "like", "machine_word", "reader", "table_of", "tables_of", "words_of"),
]


@intrinsic
def machine_word(typingctx, address):
    """Return the machine word at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], context.get_value_type(types.intp).as_pointer()))

    return types.intp(types.intp), codegen


HEAD = object.__basicsize__
"""Size of the head of a Python object (bytes), before its fields; the address of its type ends it.

The fields of an array, which NumPy's header files publish, are the address of its first element, the number of its
axes, the addresses of its shape and strides, two objects, of which the second is its dtype, and its flags. A tuple has
the number of its items, and the addresses of the items after `ITEMS` bytes."""

ITEMS = tuple.__basicsize__


LONGEST = 5
"""Words per array in a table, at most: its address, and the lengths of four axes."""

CONTIGUOUS, CARRAY = 1, 0x501
"""Flags of an array that is C-contiguous, and of one that is aligned and writable as well."""


@compiled(INNER)
def fields_of(o):
    """Return the dtype, number of axes, shape and flags of an array; the dtype and the shape by their addresses."""
    # Both are C integers of 32 bits, in words of 64.
    axes, flags = machine_word(o + HEAD + 8) & 0xFFFFFFFF, machine_word(o + HEAD + 48) & 0xFFFFFFFF
    return machine_word(o + HEAD + 40), axes, machine_word(o + HEAD + 16), flags


@compiled(INNER)
def table_of(arrays, words):
    """Return the table of data addresses and shapes of arrays, given the address of a tuple of them.

    The table is empty unless the arrays are contiguous and have the dtypes and numbers of axes in `words`: a kernel
    would read other arrays as if they had.
    """
    count = words.size // 2
    # One allocation for all arrays of a call; on the stack its size would have to be a constant.
    table = np.empty(count * LONGEST, np.int64)
    # Read first: beyond the items of a shorter tuple lies other memory.
    if machine_word(arrays + HEAD) != count:
        return table[:0]
    k = 0
    for i in range(count):
        o = machine_word(arrays + ITEMS + 8 * i)
        dtype, axes, shape, flags = fields_of(o)
        if dtype != words[2 * i] or axes != words[2 * i + 1] or not flags & CONTIGUOUS:
            return table[:0]
        table[k] = machine_word(o + HEAD)
        k += 1
        for axis in range(axes):
            table[k] = machine_word(shape + 8 * axis)
            k += 1
    return table[:k]


KINDS = {
    np.dtype(np.float32): types.float32,
    np.dtype(np.float64): types.float64,
    np.dtype(np.int64): types.int64,
    np.dtype(np.int32): types.int32,
    np.dtype(np.uint8): types.uint8,
}
"""Numba types of the dtypes that kernels read and write."""


def words_of(kinds: list[tuple[Any, int]]) -> list[int]:
    """Return what `table_of` compares: the address of the dtype and the number of axes of each array."""
    # The dtypes that NumPy itself has are never freed.
    return [word for dtype, axes in kinds for word in (id(np.dtype(dtype.type)), axes)]


def reader(kinds: tuple[Type, ...], record: Any = None) -> Any:
    """Return the function that builds arrays from a table: the address of the first element of each, then its shape.

    It returns a tuple of the arrays, or one of a single record of them.
    """
    if config.DISABLE_JIT:
        return lambda arrays: arrays
    result = BaseTuple.from_types(kinds) if record is None else types.Tuple((types.NamedTuple(kinds, record),))

    @intrinsic
    def arrays_of(typingctx, table):
        def codegen(context, builder, signature, args):
            cells = context.make_array(signature.args[0])(context, builder, args[0]).data
            word = context.get_value_type(types.intp)
            place = iter(range(1 << 10))

            def take():
                return builder.load(builder.gep(cells, [word(next(place))]))

            views = []
            for kind in kinds:
                data = builder.inttoptr(take(), context.get_data_type(kind.dtype).as_pointer())
                shape = [take() for _ in range(kind.ndim)]
                item = word(kind.dtype.bitwidth // 8)
                strides = [item]
                for length in shape[:0:-1]:
                    strides.insert(0, builder.mul(strides[0], length))
                view = context.make_array(kind)(context, builder)
                populate_array(view, data, shape, strides, item, ir.Constant(view.meminfo.type, None))
                views.append(view._getvalue())
            if record is not None:
                views = [context.make_tuple(builder, result[0], views)]
            return context.make_tuple(builder, result, views)

        return result(table), codegen

    return arrays_of


@compiled(INNER)
def tables_of(setup, arrays):
    """Return the tables of all stages, a row each, and whether all arrays are of the types in the setup.

    The driver cannot copy the tables, as its loops are parallel.
    """
    stages, start = setup[1], 2 + 3 * setup[1]
    most = 0
    for k in range(stages):
        most = max(most, setup[4 + 3 * k])
    tables = np.empty((stages, most * LONGEST), np.int64)
    alike = True
    for k in range(stages):
        end = start + 2 * setup[4 + 3 * k]
        table = table_of(machine_word(arrays + ITEMS + 8 * k), setup[start:end])
        alike &= table.size > 0
        for word in range(table.size):
            tables[k, word] = table[word]
        start = end
    return tables, alike


def _match(kinds, arrays):
    """Whether the items of a tuple are arrays of these kinds: of NumPy's own class, aligned, writable, C-contiguous.

    The kinds are the number of arrays and the address of the class, then per array the address of its dtype, the number
    of its axes and their lengths.
    """
    if machine_word(arrays + HEAD) != kinds[0]:
        return False
    k = 2
    for i in range(kinds[0]):
        o = machine_word(arrays + ITEMS + 8 * i)
        if machine_word(o + HEAD - 8) != kinds[1]:
            return False
        dtype, axes, shape, flags = fields_of(o)
        if dtype != kinds[k] or axes != kinds[k + 1] or flags & CARRAY != CARRAY:
            return False
        k += 2
        for axis in range(axes):
            if machine_word(shape + 8 * axis) != kinds[k]:
                return False
            k += 1
    return True


if config.DISABLE_JIT:

    def table_of(arrays, words):
        """Return the tuple of arrays at an address, which plain Python reads as it is."""
        return ctypes.cast(arrays, ctypes.py_object).value


@cache
def _matcher() -> Any:
    return compile_driver(_match, "match", types.boolean(types.Array(types.int64, 1, "C"), types.intp))


def like(given: tuple[Any, ...]) -> Callable[[tuple[Any, ...]], bool]:
    """Return the function that tells whether arrays are plain, writable and of the dtypes and shapes of those given.

    It takes 0.1 us, in compiled code, where Python takes 0.2 us an array.
    """
    kinds = [(a.dtype, a.shape) for a in given]

    def plain(arrays: tuple[Any, ...]) -> bool:
        return len(arrays) == len(kinds) and all(
            type(a) is np.ndarray and a.dtype is dtype and a.shape == shape and a.flags.carray
            for a, (dtype, shape) in zip(arrays, kinds, strict=True)
        )

    if config.DISABLE_JIT:
        return plain
    words = [len(kinds), id(np.ndarray), *[w for dtype, shape in kinds for w in (id(dtype), len(shape), *shape)]]
    match, expected = _matcher(), np.array(words, np.int64)

    # The default keeps the dtypes alive, whose addresses are compared.
    def alike(arrays: tuple[Any, ...], kept: Any = kinds) -> bool:
        return match(expected, id(arrays))  # type: ignore[no-any-return]

    return alike
