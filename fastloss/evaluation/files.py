"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from .columns import InputError

__all__ = ["beside", "settle"]


def beside(path: Path) -> Path:
    """A new empty file in the directory of `path`, to be written and then settled or unlinked."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    os.close(handle)
    return Path(name)


def settle(temporary: Path, path: Path) -> None:
    """Move the file to its place, with the permissions of any new file."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)
    try:
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
