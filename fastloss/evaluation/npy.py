"""Reader for arrays in .npy and .npz files, piece by piece in bounded memory.

Files are not mapped: truncating a mapped file ends the whole process (SIGBUS), whereas a read reports missing bytes.
Sizes in a header are checked against the size of the file before they are used.
"""

import ast
import io
import math
import os
import re
import shutil
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .columns import InputError, check_file, reading

__all__ = ["Archive", "NpyFile"]

HEADER_BYTES = 10_000
"""Longest accepted header (bytes), NumPy's limit: Python's parser may crash on a longer, malicious one."""

PIECE = 1 << 20
"""Most bytes decompressed at a time, as zlib may expand its input a thousandfold."""

MOST = 64
"""Most buffers of a file, some of which are held by batches that wait for a thread."""

_probe = [object()]
FREE = sys.getrefcount(_probe[0])
"""Reference count of an object held only by a list: the list's reference and the argument of getrefcount."""

HELD_BYTES = 1 << 27
"""Largest compressed Fortran-order array held in memory (bytes); a larger one goes to an unnamed file."""


class Header(NamedTuple):
    """Header of an .npy array, with the header's size (bytes)."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: Any
    size: int

    @property
    def data_bytes(self) -> int:
        """Size of the array's data (bytes)."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


def _header(file: Any, length: int) -> Header:
    """Return the header of an array of the given length (bytes); raise ValueError for an invalid one."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its format has version {version[0]}.{version[1]}; expected 1 to 3")
    form = "<H" if version == (1, 0) else "<I"
    size = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    if size > HEADER_BYTES:
        raise ValueError(f"its header takes {size:,} bytes; expected at most {HEADER_BYTES:,}")
    raw = file.read(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, about what is no valid header anyway
        text = raw.decode("utf-8" if version == (3, 0) else "latin-1")
        fields = ast.literal_eval(re.sub(r"(?<=\d)L\b", "", text))  # Python 2 wrote whole numbers as 100L
    shape, fortran = fields["shape"], fields["fortran_order"]
    dtype = np.lib.format.descr_to_dtype(fields["descr"])
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise ValueError(f"its header gives the shape {shape!r}; expected a tuple of whole numbers")
    if not isinstance(fortran, bool):
        raise ValueError(f"its header gives the order {fortran!r}; expected True or False")
    if dtype.hasobject:
        raise ValueError("it holds Python objects; expected numbers")
    if dtype.names is None and dtype.kind not in "fiub":
        raise ValueError(f"it has dtype {dtype}; expected numbers")
    if not 1 <= len(shape) <= 2:
        raise ValueError(f"it has the shape {shape}; expected a vector, or a matrix with one row each")
    header = Header(shape, fortran, dtype, 6 + 2 + struct.calcsize(form) + size)
    found = length - header.size
    if len(raw) < size or header.data_bytes != found or not dtype.itemsize:
        raise ValueError(f"its header tells of {header.data_bytes:,} bytes of data; there are {max(found, 0):,}")
    return header


class _Rows:
    """Array whose rows are read on demand."""

    def __init__(self, header: Header) -> None:
        self.shape = header.shape
        self.ndim = len(header.shape)
        self.dtype = header.dtype
        self.itemsize = int(header.dtype.itemsize)
        self.columnwise = header.fortran and self.ndim == 2

    def __len__(self) -> int:
        return self.shape[0]


class _Buffers:
    """Pool of buffers that are reused once no reference is left, so that their memory is already cached.

    With fresh memory, page faults alone took longer than reading a mapped file.
    """

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised array."""
        size = math.prod(shape) * int(dtype.itemsize)
        free = next((i for i in range(len(self._kept)) if sys.getrefcount(self._kept[i]) == FREE), None)
        if free is not None and self._kept[free].size < size:
            del self._kept[free]
            free = None
        if free is None:
            self._kept = [*self._kept[1 - MOST :], np.empty(size, np.uint8)]
            free = -1
        return self._kept[free][:size].view(dtype).reshape(shape)


class _OnDisk(_Rows):
    """Array in an open file, read at any offset."""

    def __init__(self, header: Header, file: Any, start: int) -> None:
        super().__init__(header)
        self.file, self.start = file, start
        self.buffers = _Buffers()

    def read(self, start: int, stop: int) -> Any:
        """Return rows start to stop."""
        count = stop - start
        if not self.columnwise:
            width = math.prod(self.shape[1:])
            found = self.buffers.empty((count, *self.shape[1:]), self.dtype)
            self._fill(found, start * width)
            return found
        columns = self.buffers.empty((self.shape[1], count), self.dtype)
        for j, column in enumerate(columns):
            self._fill(column, j * self.shape[0] + start)
        return columns.T

    def _fill(self, found: Any, first: int) -> None:
        """Fill an array with the elements from index `first` on."""
        if not found.size:
            return
        wanted = memoryview(found.reshape(-1).view(np.uint8))
        self.file.seek(self.start + first * self.itemsize)
        while wanted:
            done = self.file.readinto(wanted)
            if not done:
                raise ValueError("it was cut short while it was read")
            wanted = wanted[done:]


class NpyFile(_OnDisk):
    """Array in a .npy file; the caller closes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        check_file(path)
        with reading(path):
            file = open(path, "rb", buffering=0)  # noqa: SIM115  (open for as long as rows are read)
            try:
                header = _header(file, os.fstat(file.fileno()).st_size)
            except BaseException:
                file.close()
                raise
        super().__init__(header, file, header.size)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def fields(self) -> dict[str, "Field"]:
        """Return the columns of a structured array."""
        records = _Records(self)
        return {n: Field(records, n) for n in self.dtype.names}

    def __getitem__(self, rows: slice) -> Any:
        with reading(self.path):
            return self.read(rows.start, rows.stop)


class _Records:
    """Structured array that caches the rows last read, as every field reads the same rows."""

    def __init__(self, file: NpyFile) -> None:
        self.file = file
        self._last: tuple[slice, Any] | None = None

    def __getitem__(self, rows: slice) -> Any:
        if self._last is None or self._last[0] != rows:
            self._last = rows, self.file[rows]
        return self._last[1]


class Field:
    """Column of a structured array."""

    def __init__(self, records: _Records, name: str) -> None:
        self.records, self.name = records, name
        kind = records.file.dtype[name]
        self.dtype = kind.base
        self.shape = (*records.file.shape, *kind.shape)
        self.ndim = len(self.shape)
        self.itemsize = int(kind.base.itemsize)

    def __len__(self) -> int:
        return len(self.records.file)

    def __getitem__(self, rows: slice) -> Any:
        return self.records[rows][self.name]


class Member(_Rows):
    """Array in an archive, read forward only: slices must be read in ascending order."""

    def __init__(self, archive: zipfile.ZipFile, path: str, name: str) -> None:
        self.path, self.name = path, name
        with self._reading():
            self.file = archive.open(name)
            header = _header(self.file, archive.getinfo(name).file_size)
        super().__init__(header)
        self.header = header
        self.at = 0
        self.buffers = _Buffers()
        self.spool: _OnDisk | None = None

    def _reading(self) -> Any:
        return reading(f"{self.name} in {self.path}")

    def __getitem__(self, rows: slice) -> Any:
        with self._reading():
            if self.columnwise:
                self.spool = self.spool or self._spooled()
                return self.spool.read(rows.start, rows.stop)
            assert rows.start == self.at
            self.at = rows.stop
            found = self.buffers.empty((rows.stop - rows.start, *self.shape[1:]), self.dtype)
            self._fill(found, self.at == len(self))
            return found

    def _fill(self, found: Any, is_last: bool) -> None:
        wanted = memoryview(found.reshape(-1).view(np.uint8))
        while wanted:
            piece = self.file.read(min(len(wanted), PIECE))
            if not piece:
                raise ValueError("it is cut short")
            wanted[: len(piece)] = piece
            wanted = wanted[len(piece) :]
        if is_last and self.file.read(1):  # what compares the checksum, too
            raise ValueError("it is longer than its header says")

    def _spooled(self) -> _OnDisk:
        """Return a Fortran-order array decompressed to memory or to a file, where its rows can be read."""
        size, folder = self.header.data_bytes, tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if size > max(free, HELD_BYTES):
            raise ValueError(
                f"it is in Fortran order and would take {size:,} bytes in {folder}, which has {free:,}; save it with "
                "np.ascontiguousarray"
            )
        file = io.BytesIO() if size <= HELD_BYTES else tempfile.TemporaryFile()  # noqa: SIM115
        while piece := self.file.read(PIECE):
            file.write(piece)
        return _OnDisk(self.header, file, 0)

    def close(self) -> None:
        """Close the file and the spooled copy."""
        if self.spool is not None:
            self.spool.file.close()
        self.file.close()


class Archive(Mapping[str, Any]):
    """Mapping of names to the arrays of a .npz file, opened on demand; a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        check_file(path)
        with reading(path):
            self.archive = zipfile.ZipFile(path)
            names = [n for n in self.archive.namelist() if n.endswith(".npy")]
        self.names = {n.removesuffix(".npy"): n for n in names}
        self.members: list[Member] = []
        if len(self.names) < len(names):
            self.close()
            raise InputError(f"{path} has several arrays of one name")

    def close(self) -> None:
        """Close the file and the arrays."""
        for member in self.members:
            member.close()
        self.archive.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Any:
        self.members.append(Member(self.archive, self.path, self.names[name]))
        return self.members[-1]
