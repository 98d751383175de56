"""Compiled kernels on disk: one file a kernel, named by a digest of all that determines its machine code.

Numba's own cache keys neither jit options nor code in other files, so an edited formula would return
yesterday's answer. Here the name is the key: whatever changes the code changes the name.

Loading a kernel runs the code in its file. The folder and each file are therefore read only where they belong to the
user and nobody else may write to them.
"""

import contextlib
import hashlib
import os
import pickle
import re
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
from numba.core import compiler, config, serialize
from numba.core.caching import CompileResultCacheImpl

__all__ = ["KernelCache", "directory", "environment", "locate", "missed", "refusal"]

STALE = 3600.0
"""Age of an abandoned temporary file (seconds): writing a kernel takes milliseconds."""

_TEMPORARY = re.compile(r"(fastloss-|tmp)[a-z0-9_]{8}\.tmp")
_HARMLESS = re.compile("CACHE|COLOR|CUDA|GDB|HELP|HTML|THREAD|WARN")
# Follows no link, and does not wait for a writer where somebody put a pipe.
_READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))

missed: list[Callable[[], None]] = []
"""Functions that are called before a kernel is compiled that the cache has not got."""

_warned: set[str] = set()
_swept: set[Path] = set()


def directory() -> Path | None:
    """Return the folder of compiled kernels, private to the user, or None after a warning where one is due."""
    path, reason, warns = locate()
    if warns:
        _warn("folder", f"fastloss keeps no compiled kernels: {reason}")
    return path


def locate() -> tuple[Path | None, str, bool]:
    """Return the folder of compiled kernels, or None with the reason and whether it calls for a warning.

    A default folder that cannot be made is passed over in silence: a container without a home has asked for nothing.
    """
    setting = os.environ.get("FASTLOSS_CACHE", "1")
    if setting.lower() in ("0", "off", "false", "no"):
        return None, f"FASTLOSS_CACHE is {setting!r}", False
    chosen = os.environ.get("FASTLOSS_CACHE_DIR")
    try:
        path = Path(chosen).expanduser() if chosen else _user_cache() / "fastloss"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        what = f"FASTLOSS_CACHE_DIR is {chosen!r}, which" if chosen else "the default folder"
        detail = error.strerror if isinstance(error, OSError) else str(error)
        return None, f"{what} cannot be made ({detail})", bool(chosen)
    reason = refusal(status)
    if reason:
        remedy = (
            f"type: chmod go-w {path}" if "writable" in reason else "set FASTLOSS_CACHE_DIR to a folder of your own"
        )
        return None, f"{path} {reason}; {remedy}", True
    return path, "", False


def refusal(status: os.stat_result) -> str:
    """Return why a folder or file is not trusted with code that will run here, or an empty text."""
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "is writable by others"
    return ""


def _warn(about: str, text: str) -> None:
    """Warn once a process about the folder, and once about the files in it."""
    if about not in _warned:
        _warned.add(about)
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir())
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()


def environment() -> tuple[str, ...]:
    """Return the versions and the settings of Numba that machine code and its pickled form depend on."""
    import llvmlite
    import numpy as np

    return (numba.__version__, llvmlite.__version__, np.__version__, sys.version, sys.platform, *_settings())


def _settings() -> list[str]:
    """Every setting of Numba but those of threads, messages, files and GPUs.

    NUMBA_BOUNDSCHECK, NUMBA_OPT, NUMBA_SLP_VECTORIZE, NUMBA_DEBUGINFO and a dozen more change the code of a kernel.
    A setting of a future version counts until it is known to be harmless: that costs a compilation, never a result.
    """
    config.reload_config()
    names = [n for n in vars(config) if n.isupper() and not n.startswith("_") and not _HARMLESS.search(n)]
    return [f"{name}={getattr(config, name)!r}" for name in sorted(names)]


def _sweep(folder: Path) -> None:
    """Remove, once a process, the temporary files of processes that ended while they wrote."""
    if folder in _swept:
        return
    _swept.add(folder)
    oldest = time.time() - STALE
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)


def _read(path: Path) -> bytes | None:
    """Read a file, or return None where it is not there or not trusted.

    The status is that of the open file, so that no other file takes its place between the check and the read.
    """
    try:
        handle = os.open(path, _READ)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return None
        reason = refusal(status)
        if not reason:
            with open(handle, "rb", closefd=False) as file:
                return file.read()
    except OSError:
        return None
    finally:
        os.close(handle)
    _warn("file", f"fastloss did not load the compiled kernel {path}, which {reason}; it is compiled and written anew")
    return None


class KernelCache:
    """The file of one kernel, and what Numba asks of a cache."""

    def __init__(self, digest: str, name: str) -> None:
        self.digest = digest
        self.name = name
        self.hit = False

    def _file(self, folder: Path, sig: Any, context: Any) -> Path:
        machine = hashlib.sha256(repr((sig, context.codegen().magic_tuple())).encode()).hexdigest()[:12]
        return folder / f"{self.name}-{self.digest}-{machine}.nbc"

    def load(self, sig: Any, target_context: Any, rebuild: Callable[..., Any]) -> Any:
        """Return the kernel rebuilt from its file, or None; a damaged file counts as absent and is written again."""
        result = self._load(sig, target_context, rebuild)
        if result is None:
            for tell in missed:
                tell()
        return result

    def _load(self, sig: Any, target_context: Any, rebuild: Callable[..., Any]) -> Any:
        target_context.refresh()
        folder = directory()
        if folder is None:
            return None
        blob = _read(self._file(folder, sig, target_context))
        if blob is None:
            return None
        check, data = blob[:32], blob[32:]
        # Before it is unpickled, which would run whatever a damaged file says.
        if hashlib.sha256(data).digest() != check:
            return None
        try:
            result = rebuild(*pickle.loads(data))
        except Exception:
            # Written whole, but not by this code.
            return None
        self.hit = True
        return result

    def save(self, sig: Any, target_context: Any, parts: Callable[[], tuple[Any, ...]]) -> None:
        """Write the parts beside their final name, then move them there, so that readers never see half a file."""
        folder = directory()
        if folder is None:
            return
        _sweep(folder)
        # Numba's own pickling: it knows types and intrinsics that the standard one refuses.
        payload = serialize.dumps(parts())
        target = self._file(folder, sig, target_context)
        # A full disk or a lost race costs the next process a compilation, never this one its result.
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=folder, prefix="fastloss-", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A whole result of Numba's compiler, as a dispatcher asks for it."""
        return self.load(sig, target_context, partial(compiler.CompileResult._rebuild, target_context))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the result of Numba's compiler, as a dispatcher asks for it."""
        if CompileResultCacheImpl.check_cachable(self, data):
            self.save(sig, data.target_context, data._reduce)

    def enable(self) -> None:
        """Numba's switch; the environment variable is ours."""

    disable = flush = enable
    cache_path = None
    _name = "fastloss"
