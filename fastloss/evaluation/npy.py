"""Arrays in .npy and .npz files: mapped where the file allows, read piece by piece where it is an archive."""

import zipfile
from typing import Any

import numpy as np

from .columns import InputError

__all__ = ["npy_column", "npz_columns"]


def npy_column(path: str) -> Any:
    """The array in a .npy file, memory-mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}") from None


class _Member:
    """An array in an archive, read forward: slices must be asked for in ascending order."""

    def __init__(self, path: str, member: str) -> None:
        self.file = zipfile.ZipFile(path).open(member)  # noqa: SIM115  (read on for as long as the column lives)
        version = np.lib.format.read_magic(self.file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self.fortran, self.dtype = read(self.file)
        if self.dtype.hasobject:
            raise InputError(f"{member} in {path} holds Python objects; expected numbers")
        self.ndim = len(self.shape)
        self.itemsize = self.dtype.itemsize
        self.at = 0
        self.whole: Any = None
        if self.fortran and self.ndim > 1:
            self.whole = self._read(int(np.prod(self.shape))).reshape(self.shape, order="F")

    def __len__(self) -> int:
        return int(self.shape[0]) if self.shape else 0

    def _read(self, count: int) -> Any:
        data = self.file.read(count * self.itemsize)
        if len(data) < count * self.itemsize:
            raise InputError(f"{self.file.name} is cut short")
        return np.frombuffer(data, self.dtype)

    def __getitem__(self, rows: slice) -> Any:
        if self.whole is not None:
            return self.whole[rows]
        assert rows.start == self.at
        self.at = rows.stop
        width = int(np.prod(self.shape[1:], dtype=int))
        return self._read((rows.stop - rows.start) * width).reshape(-1, *self.shape[1:])


class _Archive(dict[str, Any]):
    """The arrays of a .npz by name, opened when asked for."""

    def __init__(self, path: str) -> None:
        with zipfile.ZipFile(path) as archive:
            super().__init__({n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")})
        self.path = path

    def __getitem__(self, name: str) -> Any:
        return _Member(self.path, super().__getitem__(name))


def npz_columns(path: str) -> dict[str, Any]:
    """The arrays of an archive by name."""
    try:
        return _Archive(path)
    except zipfile.BadZipFile:
        raise InputError(f"cannot read {path}: not an .npz archive") from None
