"""What figures were measured on: part of every output, since a figure without its machine says little."""

import contextlib
import ctypes
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["ON_A_GPU", "about", "reuse_memory", "sentence"]

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "torch", "jax", "scikit-learn", "numexpr")
ON_A_GPU = ("numba-cuda", "triton", "liger-kernel")


def about(more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Processor, cores, caches, load, threads, versions, of more packages too if they are named, date."""
    from .._version import __version__
    from ..kernels.threads import get_num_threads

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": get_num_threads(),
        "caches": _caches(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"fastloss": __version__, **_versions((*PACKAGES, *more))},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def reuse_memory() -> None:
    """Bring the C library's allocator to where it ends in a process that runs for a while; glibc only.

    It keeps freed blocks of up to 32 MB, but learns to as it goes: NumPy's mse of a million elements took 0.6 or
    3.1 ms, by what had been freed before, and any ratio to it was off by as much. Larger blocks go back to the system.
    """
    trim_threshold, mmap_threshold = -1, -3
    most = 32 << 20
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, most)
        library.mallopt(trim_threshold, 2 * most)


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    import llvmlite.binding as llvm

    architecture = llvm.get_host_cpu_name()
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({architecture})"


def _caches() -> dict[str, str]:
    """Sizes of the data caches that the first core sees, by level."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / f).read_text().strip() for f in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def sentence(machine: Mapping[str, Any]) -> str:
    """The machine in one line of text."""
    caches = ", ".join(f"{k} {v}" for k, v in machine["caches"].items())
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    cores = f"{machine['cores']} cores, {machine['threads']} threads"
    load = "" if machine["load"] is None else f", load {machine['load']}"
    where = f"{machine['processor']}, {cores}{f', {caches}' if caches else ''}; {machine['system']}{load}"
    return f"{where}; Python {machine['python']}, {versions}; {machine['date']}"
