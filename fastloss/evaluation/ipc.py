"""Reader for uncompressed record batches of Arrow files that exceed memory, a few rows at a time.

Some writers put a whole table into one record batch, which Arrow reads whole. Mapping the file would bound the memory
as well, but a mapped file that someone cuts short ends the process.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .sources import step_of

__all__ = ["Block", "blocks", "parts"]

BLOCK_BYTES = 1 << 26
"""Least size of a record batch that is read in parts (bytes)."""

SCHEMA, RECORD_BATCH = 1, 3
"""Message type numbers of Arrow's Message.fbs."""


class Block(NamedTuple):
    """Record batch: number of rows, offset and length of its buffers in the file, and buffer counts of view columns."""

    rows: int
    buffers: list[tuple[int, int]]
    views: list[int]


class _Table:
    """Table of a flatbuffer, with fields numbered as in Arrow's Message.fbs and Schema.fbs."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - self._unpack("<i", at)

    def _unpack(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            raise ValueError("a message points outside itself")
        return int(struct.unpack_from(form, self.data, at)[0])

    def _place(self, field: int) -> int:
        """Return the offset of a field; 0 for a field with its default."""
        entry = 4 + 2 * field
        if entry + 2 > self._unpack("<H", self.fields):
            return 0
        offset = self._unpack("<H", self.fields + entry)
        return self.at + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """Return a numeric field, 0 by default."""
        place = self._place(field)
        return self._unpack(form, place) if place else 0

    def table(self, field: int) -> "_Table | None":
        """Return a table field, or None."""
        place = self._place(field)
        return _Table(self.data, place + self._unpack("<I", place)) if place else None

    def numbers(self, field: int, each: int = 1) -> list[int]:
        """Return a vector field of 64-bit integers, or of structures of `each` such integers."""
        place = self._place(field)
        if not place:
            return []
        start = place + self._unpack("<I", place)
        count = self._unpack("<I", start) * each
        if start + 4 + 8 * count > len(self.data):
            raise ValueError("a message points outside itself")
        return list(struct.unpack_from(f"<{count}q", self.data, start + 4))


def blocks(file: Any, start: int, schema: Any, wanted: set[str]) -> list[Block] | None:
    """Return the record batches from a file offset on; None unless one is large and all can be read in parts."""
    if not all(_is_numeric(f.type) if f.name in wanted else _is_known(f.type) for f in schema):
        return None
    try:
        return _blocks(file, start)
    except (ValueError, struct.error):  # Arrow says better what is wrong
        return None


def _blocks(file: Any, start: int) -> list[Block] | None:
    found, at, is_large, size = [], start, False, file.size()
    while at + 8 <= size:
        mark, length = struct.unpack("<iI", file.read_at(8, at))
        if mark != -1 or not length or at + 8 + length > size:
            break
        data = file.read_at(length, at + 8)
        message = _Table(data, struct.unpack_from("<I", data)[0])
        kind, body, header = message.number(1, "<B"), message.number(3, "<q"), message.table(2)
        at += 8 + length
        if body < 0 or at + body > size or header is None:
            return None
        if kind == RECORD_BATCH:
            if header.table(3) is not None:  # compressed
                return None
            flat = header.numbers(2, 2)
            places = [(at + offset, count) for offset, count in zip(flat[::2], flat[1::2], strict=True)]
            found.append(Block(header.number(0, "<q"), places, header.numbers(4)))
            is_large |= body > BLOCK_BYTES
        elif kind != SCHEMA:
            return None
        at += body
    return found if is_large else None


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_numeric(kind: Any) -> bool:
    """Whether columns of this type can be read in parts."""
    return _is_numeric(kind.value_type) if _is_list(kind) else _is_plain(kind)


def _is_known(kind: Any) -> bool:
    """Whether columns of this type can be skipped."""
    if _is_list(kind):
        return _is_known(kind.value_type)
    return _is_plain(kind) or _is_text(kind) or _is_view(kind)


def _is_plain(kind: Any) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _is_view(kind: Any) -> bool:
    return hasattr(pa, "string_view") and kind in (pa.string_view(), pa.binary_view())


def _buffers_of(kind: Any, views: Iterator[int]) -> int:
    """Return the number of buffers of a column of this type."""
    if _is_list(kind):
        return (1 if pa.types.is_fixed_size_list(kind) else 2) + _buffers_of(kind.value_type, views)
    if _is_view(kind):
        return 2 + next(views, 0)
    return 2 if _is_plain(kind) else 3


def parts(file: Any, found: list[Block], schema: Any, wanted: set[str]) -> Iterator[Any]:
    """Yield record batches of the wanted columns, a few rows each."""
    for block in found:
        fields, first, views = {}, 0, iter(block.views)
        for field in schema:
            count = _buffers_of(field.type, views)
            if field.name in wanted:
                fields[field.name] = (field.type, block.buffers[first : first + count])
            first += count
        if len(block.buffers) != first or block.rows < 0:
            raise ValueError(f"a record batch has {len(block.buffers)} buffers; expected {first}")
        used = sum(n for _, buffers in fields.values() for _, n in buffers)
        # Whole bytes of the bitmaps that tell which rows are null.
        step = max(8, step_of(used / max(1, block.rows), len(fields)) // 8 * 8)
        for low in range(0, block.rows, step):
            high = min(low + step, block.rows)
            arrays = [_array(file, kind, iter(buffers), low, high) for kind, buffers in fields.values()]
            yield pa.RecordBatch.from_arrays(arrays, list(fields))


def _bytes(file: Any, buffer: tuple[int, int], low: int, high: int) -> Any:
    """Return bytes low to high of a buffer."""
    at, size = buffer
    if not 0 <= low <= high <= size:
        raise ValueError("a column is longer than its buffer")
    data = file.read_at(high - low, at + low)
    if len(data) < high - low:
        raise ValueError("it was cut short while it was read")
    return pa.py_buffer(data)


def _array(file: Any, kind: Any, buffers: Iterator[tuple[int, int]], low: int, high: int) -> Any:
    """Return rows low to high of a column of numbers or lists of numbers; low is a multiple of 8."""
    validity = next(buffers)
    valid = _bytes(file, validity, low // 8, (high + 7) // 8) if validity[1] else None
    if pa.types.is_fixed_size_list(kind):
        child = _array(file, kind.value_type, buffers, low * kind.list_size, high * kind.list_size)
        return pa.Array.from_buffers(kind, high - low, [valid], children=[child])
    if _is_list(kind):
        form: Any = np.int32 if pa.types.is_list(kind) else np.int64
        width = np.dtype(form).itemsize
        offsets = np.frombuffer(_bytes(file, next(buffers), low * width, (high + 1) * width), form)
        first = int(offsets[0]) // 8 * 8
        if (np.diff(offsets) < 0).any() or first < 0:
            raise ValueError("a list ends before it begins")
        child = _array(file, kind.value_type, buffers, first, int(offsets[-1]))
        return pa.Array.from_buffers(kind, high - low, [valid, pa.py_buffer(offsets - form(first))], children=[child])
    bits = 1 if pa.types.is_boolean(kind) else kind.bit_width
    data = _bytes(file, next(buffers), low * bits // 8, (high * bits + 7) // 8)
    return pa.Array.from_buffers(kind, high - low, [valid, data])
