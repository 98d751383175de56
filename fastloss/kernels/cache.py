"""Compiled kernels on disk: one file a kernel, named by a digest of all that determines its machine code.

Numba's own cache keys neither jit options nor code in other files, so an edited formula would return
yesterday's answer. Here the name is the key: whatever changes the code changes the name.
"""

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
from numba.core import compiler, serialize
from numba.core.caching import CompileResultCacheImpl

__all__ = ["KernelCache", "directory", "environment"]


def directory() -> Path | None:
    """The folder of compiled kernels, made private to the user; None when caching is off or nothing is writable."""
    if os.environ.get("FASTLOSS_CACHE", "1").lower() in ("0", "off", "false", "no"):
        return None
    try:
        path = Path(os.environ.get("FASTLOSS_CACHE_DIR") or _user_cache() / "fastloss")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    if hasattr(os, "getuid"):
        # Unpickling runs code: a folder that others can write is not to be trusted.
        status = path.stat()
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
    return path


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir())
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def environment() -> tuple[str, ...]:
    """Versions that machine code and its pickled form depend on."""
    import llvmlite
    import numpy as np

    return (numba.__version__, llvmlite.__version__, np.__version__, sys.version, sys.platform)


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
        """What is rebuilt from the stored parts, or None; a damaged file counts as none and is written again."""
        target_context.refresh()
        folder = directory()
        if folder is None:
            return None
        try:
            blob = self._file(folder, sig, target_context).read_bytes()
        except OSError:
            return None
        check, data = blob[:32], blob[32:]
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
        payload = serialize.dumps(parts())
        target = self._file(folder, sig, target_context)
        # A full disk or a lost race costs the next process a compilation, never this one its result.
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
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
        """The same, written."""
        if CompileResultCacheImpl.check_cachable(self, data):
            self.save(sig, data.target_context, data._reduce)

    def enable(self) -> None:
        """Numba's switch; the environment variable is ours."""

    disable = flush = enable
    cache_path = None
    _name = "fastloss"
