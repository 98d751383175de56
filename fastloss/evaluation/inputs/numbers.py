"""Numbers of JSON lines as doubles: a kernel for flat objects, which leaves anything else to Arrow.

It takes a third of the time of Arrow's parser; Arrow's of CSV is as fast as one of this kind.

A decimal is rounded by the method of Lemire (2021), Number parsing at a gigabyte per second, arXiv:2101.11408: its
digits, at most 19, times a power of five held to 128 bits. What is not plain, such as nulls, lists or more digits,
makes the kernel return -1.
"""

from typing import Any

import numpy as np
from numba import config, types
from numba.extending import intrinsic

from ...cpu.runtime.specialize import INNER, cached_jit

__all__ = ["is_compiled", "json_numbers"]

is_compiled = not config.DISABLE_JIT
"""Whether the kernel is faster than Arrow; in Python it would take a microsecond a character."""

PLAIN = {"error_model": "numpy", "nogil": True}
INLINE = {**INNER, "forceinline": True}

FIRST, LAST = -342, 308
ONE, ALL = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


def _powers() -> Any:
    """Return 5**q for q from FIRST to LAST as the upper 128 bits, halves in two columns; negative ones rounded up."""
    found = []
    for q in range(FIRST, LAST + 1):
        if q < 0:
            power = 5**-q
            bits = (power - 1).bit_length()
            value = (1 << (bits + 127 if q >= -27 else 2 * bits + 128)) // power + 1
            value >>= max(0, value.bit_length() - 128)
        else:
            value = 5**q
            value = (
                value << (128 - value.bit_length()) if value.bit_length() < 128 else value >> (value.bit_length() - 128)
            )
        found.append((value >> 64, value & 0xFFFFFFFFFFFFFFFF))
    return np.array(found, np.uint64)


POWERS = _powers()


@intrinsic
def _product(typingctx, a, b):
    """Return the upper and the lower half of the product of two uint64."""

    def codegen(context, builder, signature, arguments):
        from llvmlite import ir

        wide = ir.IntType(128)
        x, y = (builder.zext(v, wide) for v in arguments)
        whole = builder.mul(x, y)
        low = builder.trunc(whole, ir.IntType(64))
        high = builder.trunc(builder.lshr(whole, ir.Constant(wide, 64)), ir.IntType(64))
        return context.make_tuple(builder, signature.return_type, (high, low))

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen


@intrinsic
def _leading_zeros(typingctx, a):
    """Return the number of leading zero bits of a uint64 that is not 0."""

    def codegen(context, builder, signature, arguments):
        from llvmlite import ir

        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@cached_jit(**INLINE)
def _rounded(w, q):
    """Return the bits of the double nearest to w * 10**q; ALL where it is not certain or not normal."""
    if w == 0:
        return np.uint64(0)
    if q < FIRST or q > LAST:
        return ALL
    zeros = _leading_zeros(w)
    w = w << zeros
    high, low = _product(w, POWERS[q - FIRST, 0])
    if (high & np.uint64(0x1FF)) == np.uint64(0x1FF):
        more, _ = _product(w, POWERS[q - FIRST, 1])
        low = low + more
        if low < more:
            high += ONE
    if low == ALL:
        return ALL
    upper = high >> np.uint64(63)
    mantissa = high >> (upper + np.uint64(9))
    exponent = (((152170 + 65536) * q) >> 16) + 63 + np.int64(upper) - np.int64(zeros) + 1023
    if exponent <= 0:
        return ALL
    halfway = low <= ONE and q >= -4 and q <= 23 and (mantissa & np.uint64(3)) == ONE
    if halfway and (mantissa << (upper + np.uint64(9))) == high:
        mantissa &= ~ONE
    mantissa = (mantissa + (mantissa & ONE)) >> ONE
    if mantissa >= np.uint64(1 << 53):
        mantissa = np.uint64(1 << 52)
        exponent += 1
    if exponent >= 0x7FF:
        return ALL
    return (mantissa & np.uint64((1 << 52) - 1)) | (np.uint64(exponent) << np.uint64(52))


@intrinsic
def _eight(typingctx, text, i):
    """Return the eight bytes at i as a uint64, the first of them lowest."""

    def codegen(context, builder, signature, arguments):
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        at = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(at, align=1)

    return types.uint64(text, types.intp), codegen


HIGHS, SIXES, THREES = np.uint64(0xF0F0F0F0F0F0F0F0), np.uint64(0x0606060606060606), np.uint64(0x3333333333333333)
ZEROS, PAIRS = np.uint64(0x3030303030303030), np.uint64(0x000000FF000000FF)


@cached_jit(**INLINE)
def _digits(text, i, end, w):
    """Return where digits that begin at i end, and w with them appended; eight at a time, as in the paper."""
    while i + 8 <= end:
        v = _eight(text, i)
        if ((v & HIGHS) | (((v + SIXES) & HIGHS) >> np.uint64(4))) != THREES:
            break
        v -= ZEROS
        v = v * np.uint64(10) + (v >> np.uint64(8))
        upper = (v & PAIRS) * np.uint64(0x000F424000000064)
        lower = ((v >> np.uint64(16)) & PAIRS) * np.uint64(0x0000271000000001)
        w = w * np.uint64(100_000_000) + ((upper + lower) >> np.uint64(32))
        i += 8
    while i < end and 48 <= text[i] <= 57:
        w = w * np.uint64(10) + np.uint64(text[i] - 48)
        i += 1
    return i, w


@cached_jit(**INLINE)
def _number(text, i, end):
    """Return where a number that begins at i ends, and its bits; -1 for what is no plain number."""
    negative = i < end and text[i] == 45
    if negative:
        i += 1
    first, q = i, 0
    i, w = _digits(text, i, end, np.uint64(0))
    digits = i - first
    if digits == 0:
        return -1, ALL
    if i < end and text[i] == 46:
        begun = i + 1
        i, w = _digits(text, begun, end, w)
        q = begun - i
        digits -= q
        if q == 0:
            return -1, ALL
    if digits > 19:
        # Zeros at the beginning are no digits of w.
        while first < i and (text[first] == 48 or text[first] == 46):
            digits -= text[first] == 48
            first += 1
        if digits > 19:
            return -1, ALL
    if i < end and (text[i] == 101 or text[i] == 69):
        i += 1
        below = i < end and text[i] == 45
        if i < end and (text[i] == 45 or text[i] == 43):
            i += 1
        begun, power = i, 0
        while i < end and 48 <= text[i] <= 57 and power < 10_000:
            power = power * 10 + (text[i] - 48)
            i += 1
        if i == begun:
            return -1, ALL
        q += -power if below else power
    bits = _rounded(w, q)
    if bits == ALL:
        return -1, ALL
    return i, bits | (np.uint64(negative) << np.uint64(63))


@cached_jit(**INLINE)
def _blank(text, i, end):
    """Return the place of the next character that is no space."""
    while i < end and (text[i] == 32 or text[i] == 9 or text[i] == 13):
        i += 1
    return i


@cached_jit(**INLINE)
def _closed(text, i, end):
    """Return the place of the quote that ends a string begun before i, or -1."""
    while i < end and text[i] != 34:
        i += 2 if text[i] == 92 else 1
    return i if i < end else -1


@cached_jit(**INLINE)
def _slot(text, i, end, keys, starts):
    """Return the index of the key that a name from i to end is, or -1."""
    for j in range(starts.size - 1):
        if starts[j + 1] - starts[j] == end - i:
            same = True
            for k in range(end - i):
                same &= text[i + k] == keys[starts[j] + k]
            if same:
                return j
    return -1


@cached_jit(**PLAIN)
def json_numbers(text, keys, starts, out):
    """Read the numbers of keys in each line, a flat object, into rows of `out` (uint64 bits); return the lines, or -1.

    Key j is `keys[starts[j] : starts[j + 1]]`, which goes to row j of `out`.
    """
    i, row, end, wanted = 0, 0, text.size, (1 << (starts.size - 1)) - 1
    while True:
        i = _blank(text, i, end)
        if i >= end:
            return row
        if text[i] == 10:
            i += 1
            continue
        if text[i] != 123:
            return -1
        seen, separator = 0, 44
        while separator == 44:
            i = _blank(text, i + 1, end)
            if i >= end or text[i] != 34:
                return -1
            closed = _closed(text, i + 1, end)
            if closed < 0:
                return -1
            slot = _slot(text, i + 1, closed, keys, starts)
            i = _blank(text, closed + 1, end)
            if i >= end or text[i] != 58:
                return -1
            i = _blank(text, i + 1, end)
            if slot >= 0:
                if seen >> slot & 1:
                    return -1
                seen |= 1 << slot
                i, bits = _number(text, i, end)
                if i < 0:
                    return -1
                out[slot, row] = bits
            elif i < end and text[i] == 34:
                i = _closed(text, i + 1, end) + 1
                if i == 0:
                    return -1
            else:
                # A number, true, false or null; lists and objects are not plain.
                while i < end and (
                    text[i] == 43
                    or text[i] == 45
                    or text[i] == 46
                    or 48 <= text[i] <= 57
                    or (65 <= text[i] <= 122 and text[i] != 91)
                ):
                    i += 1
            i = _blank(text, i, end)
            if i >= end:
                return -1
            separator = text[i]
        if separator != 125 or seen != wanted:
            return -1
        i = _blank(text, i + 1, end)
        if i < end and text[i] != 10:
            return -1
        row += 1
