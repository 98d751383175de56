"""Output files: a regular file appears whole or not at all; pipes and devices are written into."""

import io
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from .. import _signals
from .columns import InputError

__all__ = ["check_outputs", "output", "write_text"]

PREFIX, SUFFIX = ".fastloss-", ".tmp"
BINARY = getattr(os, "O_BINARY", 0)

STALE = 600.0
"""Age since the last change (seconds) from which an unlocked temporary file counts as left behind."""

OWN = re.compile(r"/dev/(?P<name>stdout|stderr)|/(?:dev|proc/self)/fd/(?P<number>\d+)")
"""Pattern of paths to streams that this process has open, such as a shell's `>(command)`."""


@contextmanager
def writing(path: Any) -> Iterator[None]:
    """Add the file's name to any error raised while it is written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {os.fspath(path) or repr('')}: {error.strerror or error}") from None


class _Raw(io.FileIO):
    """Raw stream whose write errors, as on a full disk or a closed pipe, name the file."""

    def __init__(self, descriptor: int, path: str) -> None:
        super().__init__(descriptor, "wb")
        self._path = path

    def write(self, data: Any, /) -> int:
        """Write the bytes."""
        with writing(self._path):
            return super().write(data)


@contextmanager
def output(path: Any) -> Iterator[BinaryIO]:
    """Open a binary output file for a `with` block.

    Where `path` is a regular file or does not exist, the new content becomes visible when the block ends without an
    error, with the mode and, where allowed, the owner of the replaced file. A symbolic link is followed. A pipe, a
    terminal or a device is written into.
    """
    path = os.fspath(path)
    with writing(path):
        descriptor = _opened(path)
    if descriptor is not None:
        with io.BufferedWriter(_Raw(descriptor, path)) as file:
            yield file
        return
    final = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(final), f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    _signals.unfinished.add(temporary)
    try:
        with writing(path):
            _sweep(os.path.dirname(final))
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        with io.BufferedWriter(_Raw(descriptor, path)) as file:
            _lock(descriptor)
            yield file
            file.flush()
            with writing(path):
                os.fsync(descriptor)
        with writing(path):
            _permit(temporary, final)
            os.replace(temporary, final)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
        _signals.unfinished.discard(temporary)


def write_text(path: Any, text: str) -> None:
    """Write a text to an output file."""
    with output(path) as file:
        file.write(text.encode())


def _opened(path: str) -> int | None:
    """Return a descriptor of a pipe or device; None where a file is to be replaced or created."""
    own = OWN.fullmatch(path) if os.name == "posix" else None
    if own:
        number = {"stdout": 1, "stderr": 2}.get(own["name"] or "", int(own["number"] or 0))
        return os.dup(number)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "it is write-protected")
        return None
    # Neither made nor cut: a pipe or a device, which has no place where a whole new one could be moved to.
    return os.open(path, os.O_WRONLY | BINARY | getattr(os, "O_NOCTTY", 0))


def _permit(temporary: str, final: str) -> None:
    """Give the temporary file the owner and mode of the replaced file, or those of a new file."""
    try:
        old = os.stat(final)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        return
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if hasattr(os, "chown"):
        new = os.stat(temporary)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            try:
                os.chown(temporary, old.st_uid, old.st_gid)
            except OSError:
                # Another group must not get what the old one was granted.
                mode &= 0o707 if old.st_gid != new.st_gid else 0o777
    os.chmod(temporary, mode)


def _lock(descriptor: int) -> bool:
    """Lock a temporary file while it is open, if the system can, to mark it as in use."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _sweep(folder: str) -> None:
    """Remove temporary files that killed processes left behind."""
    for entry in os.scandir(folder or "."):
        if not (entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX)):
            continue
        with suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            mine = stat.S_ISREG(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())
            if not mine or time.time() - found.st_mtime < STALE:
                continue
            with open(entry.path, "rb") as file:
                if _lock(file.fileno()):
                    os.unlink(entry.path)


def check_outputs(outputs: Iterable[Any], inputs: Iterable[str]) -> None:
    """Raise where an output cannot be written, is an input, or is given twice; called before any work."""
    outputs, inputs = [os.fspath(o) for o in outputs], list(inputs)
    for i, path in enumerate(outputs):
        for other in outputs[:i]:
            if _is_same(path, other):
                raise InputError(f"{path} and {other} are one file; expected one for each output")
        if any(_is_same(path, x) for x in inputs):
            raise InputError(f"{path} is one of the inputs; it would be overwritten")
        with writing(path):
            _check(path)


def _is_same(a: str, b: str) -> bool:
    """Whether two paths are the same file or pipe; a device such as /dev/null takes any number of outputs."""
    try:
        return os.path.samefile(a, b) and not stat.S_ISCHR(os.stat(a).st_mode)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def _check(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(os.path.realpath(path))
        if not path or not os.path.isdir(folder):
            raise FileNotFoundError(2, "No such file or directory") from None
        path, mode = folder, stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "it is a directory")
    if not OWN.fullmatch(path) and not os.access(path, os.W_OK):
        raise PermissionError(13, "it is write-protected")
