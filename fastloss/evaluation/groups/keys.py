"""Keys of groups of rows, and their codes."""

import datetime
import decimal
import math
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

import numpy as np

from ..columns import InputError, natural, with_arrow

__all__ = ["MOST", "Keys", "key_from_json", "key_order", "key_text", "key_to_json", "partitions"]

MOST = 100_000
"""Largest number of groups of a grouping: each takes 128 bytes a loss and thread, and a report of its own."""

DIRECT = 1 << 20
"""Widest range of whole numbers whose codes are looked up by the number itself: 1 ns a row where hashing takes 6."""


def partitions(path: str) -> dict[str, Any]:
    """Return the columns that directories named `column=value` stand for, on the way to a file."""
    found: dict[str, Any] = {}
    for part in PurePath(path).parts[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            text = unquote(value)
            empty = text == "__HIVE_DEFAULT_PARTITION__"
            found[name] = None if empty else int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
    return found


class _Column:
    """Codes of the values of one key column, by the order of their first appearance."""

    def __init__(self, label: str, most: int) -> None:
        self.label = label
        self.most = most
        self.values: list[Any] = []
        self.known: dict[Any, int] = {}
        self.direct: Any = None
        self.array: Any = None
        """Values as an array of Arrow, for a fast look-up; those found since are looked up one by one."""
        self.base = 0

    def code(self, value: Any) -> int:
        """Return the code of a value, a new one for a new value."""
        # Any NaN is one key, and a number is a key of its own beside the same text.
        key = (type(value), "nan" if isinstance(value, float) and value != value else value)
        found = self.known.get(key)
        if found is None:
            if len(self.values) >= self.most:
                raise InputError(f"by {self.label} finds more than {self.most:,} groups; expected at most as many")
            found = self.known[key] = len(self.values)
            self.values.append(value)
        return found

    def codes(self, values: Any, name: str) -> Any:
        """Return the codes of a column's values (int32)."""
        encoding = with_arrow("groups.encoding")
        whole = encoding.whole(values)
        if whole is not None and whole.size:
            low, high = int(whole.min()), int(whole.max())
            if high - low < DIRECT:
                return self._direct(whole, low, high)
        indices, dictionary = encoding.encoded(values, name)
        table, unknown = encoding.looked_up(dictionary, self.array)
        if len(unknown):
            table[unknown] = [self.code(v) for v in dictionary.take(unknown).to_pylist()]
            if len(unknown) > len(dictionary) // 8:
                self.array = encoding.array_of(self.values, dictionary.type)
        return table[indices]

    def _direct(self, values: Any, low: int, high: int) -> Any:
        """Return codes of whole numbers of a narrow range, found by the number itself."""
        low, high = (low, high) if self.direct is None else self._range(low, high)
        if self.direct is None or (low, high) != (self.base, self.base + len(self.direct) - 1):
            new = np.full(high - low + 1, -1, np.int32)
            if self.direct is not None and low <= self.base and self.base + len(self.direct) - 1 <= high:
                new[self.base - low : self.base - low + len(self.direct)] = self.direct
            self.direct, self.base = new, low
        codes, has_new = self._looked_up(values)
        if has_new:
            for value in np.unique(values[codes < 0]).tolist():
                self.direct[value - low] = self.code(value)
            codes, _ = self._looked_up(values)
        return codes

    def _looked_up(self, values: Any) -> tuple[Any, bool]:
        """Return the codes of whole numbers within the table, and whether one has none."""
        if values.dtype.itemsize == 8 and values.dtype.kind == "u":
            codes = self.direct[values - values.dtype.type(self.base)]
            return codes, bool(codes.min() < 0)
        from .kernels import look_up

        out = np.empty(len(values), np.int32)
        return out, bool(look_up(np.ascontiguousarray(values), self.base, self.direct, out))

    def _range(self, low: int, high: int) -> tuple[int, int]:
        """Return the range that the table has to span: with what it has, unless that is far away."""
        wider = min(low, self.base), max(high, self.base + len(self.direct) - 1)
        return wider if wider[1] - wider[0] < 4 * DIRECT else (low, high)


class Keys:
    """Keys of the groups of one grouping; `codes` may be called from several threads."""

    def __init__(self, names: tuple[str, ...], most: int = MOST) -> None:
        self.names = names
        self._lock = threading.Lock()
        self._columns = [_Column(",".join(names), most) for _ in names]
        self._crossed = [_Column(",".join(names), most) for _ in names[1:]]

    def codes(self, columns: Sequence[tuple[str, Any]], path: str, rows: int, start: int = 0) -> Any:
        """Return the codes of the groups of some rows, from the columns read and from the file's directories."""
        read = dict(columns)
        with self._lock:
            found = None
            for k, name in enumerate(self.names):
                if name in read:
                    new = self._columns[k].codes(read[name], name)
                else:
                    new = np.full(rows, self._columns[k].code(partitions(path)[name]), np.int32)
                if found is None:
                    found = new
                else:
                    pairs = (found.astype(np.int64) << 32) | new
                    found = self._crossed[k - 1].codes(pairs, name)
            return found

    def __len__(self) -> int:
        return len((self._crossed or self._columns)[-1].values)

    def __iter__(self) -> Iterator[Any]:
        """Yield the keys by code: a value, or a tuple of values where columns are crossed."""
        if not self._crossed:
            yield from self._columns[0].values
            return
        for code in range(len(self)):
            parts = []
            for k in range(len(self._crossed) - 1, -1, -1):
                pair = self._crossed[k].values[code]
                parts.append(self._columns[k + 1].values[pair & 0xFFFFFFFF])
                code = pair >> 32
            parts.append(self._columns[0].values[code])
            yield tuple(reversed(parts))


_KINDS: dict[str, Any] = {
    "int": (int, str, int),
    "bool": (bool, str, lambda text: text == "True"),
    "float": (float, float.hex, float.fromhex),
    "str": (str, str, str),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
}
"""Types of the values of keys, with functions to text and back."""


def _kind(value: Any) -> str:
    """Return the name of a value's type; pandas has timestamps and times of its own."""
    return next((name for name, (kind, _, _) in _KINDS.items() if type(value) is kind), "") or next(
        (name for name, (kind, _, _) in _KINDS.items() if isinstance(value, kind)), "other"
    )


def key_to_json(key: Any) -> Any:
    """Return a key as JSON: null, [type, text], or a list of these for crossed columns under "crossed"."""
    if isinstance(key, tuple):
        return {"crossed": [key_to_json(part) for part in key]}
    if key is None:
        return None
    kind = _kind(key)
    return [kind, _KINDS[kind][1](key) if kind in _KINDS else str(key)]


def key_from_json(state: Any) -> Any:
    """Return the key that `key_to_json` wrote."""
    if isinstance(state, dict):
        return tuple(key_from_json(part) for part in state["crossed"])
    if state is None:
        return None
    kind, text = state
    return _KINDS[kind][2](text) if kind in _KINDS else text


def key_order(key: Any) -> Any:
    """Return a value by which keys are sorted: numbers, then text with logit_2 before logit_10; nulls come last."""
    if isinstance(key, tuple):
        return tuple(key_order(part) for part in key)
    if key is None:
        return (9, 0.0, (), "")
    kind = _kind(key)
    if kind in ("int", "float", "bool", "decimal"):
        nan = key != key
        return (0 if kind != "bool" else 1, math.inf if nan else key, (), kind + str(nan))
    return (2, 0.0, tuple(natural(str(key))), kind)


def key_text(value: Any) -> str:
    """Return one value of a key as a table shows it."""
    return "null" if value is None else str(value)
