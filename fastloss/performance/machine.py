"""Description of the machine on which figures were measured, part of every output."""

import contextlib
import ctypes
import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["ON_A_GPU", "Others", "about", "reuse_memory", "sentence"]

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "torch", "jax", "scikit-learn", "numexpr")
ON_A_GPU = ("numba-cuda", "triton", "liger-kernel")


def about(more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return processor, cores, caches, load, threads, date and versions, also of the packages in `more`."""
    from .._version import __version__
    from ..cpu.runtime.threads import get_num_threads

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
    """Bring the C library's allocator into the state that it reaches in a long-running process; glibc only.

    It keeps freed blocks of up to 32 MB, but learns to as it goes: NumPy's mse of a million elements took 0.6 or
    3.1 ms, by what had been freed before, and any ratio to it was off by as much. Larger blocks go back to the system.
    """
    trim_threshold, mmap_threshold = -1, -3
    most = 32 << 20
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, most)
        library.mallopt(trim_threshold, 2 * most)


class Others:
    """Meter of the cores that other processes use, started at its creation."""

    SHORTEST = 0.2
    """Least duration (seconds) over which the system's counters, in steps of 10 ms a core, are precise enough."""

    def __init__(self) -> None:
        self._start, self._all, self._own = time.perf_counter(), _processor_seconds(), time.process_time()

    def cores(self) -> float | None:
        """Return the average number of cores that others used; None after a short time or without system counters."""
        seconds, now = time.perf_counter() - self._start, _processor_seconds()
        if self._all is None or now is None or seconds < self.SHORTEST:
            return None
        return max(0.0, now - self._all - (time.process_time() - self._own)) / seconds


def _processor_seconds() -> float | None:
    """Return the CPU time of all processes since boot (seconds), including time stolen by a host; Linux only."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    except (OSError, ValueError):
        return None
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


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
    """Return the sizes of the first core's data caches, by level."""
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
    """Return the description of the machine as one line of text."""
    caches = ", ".join(f"{k} {v}" for k, v in machine["caches"].items())
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    cores = f"{machine['cores']} cores, {machine['threads']} threads"
    load = "" if machine["load"] is None else f", load {machine['load']}"
    where = f"{machine['processor']}, {cores}{f', {caches}' if caches else ''}; {machine['system']}{load}"
    return f"{where}; Python {machine['python']}, {versions}; {machine['date']}"
