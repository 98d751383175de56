"""Steps of Adam in float32, beside a loop that only moves the same memory, and torch.optim.

    python -m bench.optim [--write] [SIZE...]

`seven streams` reads and writes the parameter and both averages and reads the gradient, as Adam does, and adds instead
of computing. All are run in turn in one process. Up to FEW elements one thread steps, and processor time counts, the
smallest of all turns; beyond, times are medians of wall time, ratios medians of the ratios of the same turn. `--write`
puts the table into bench/results/optim.md.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

import fastloss as fl
from fastloss.performance.machine import about, sentence

FILE = Path(__file__).parent / "results" / "optim.md"
SIZES = (1_000, 1_000_000, 20_000_000)
TURNS = 31
CHUNK = 1 << 15
FEW = 1 << 16
"""Elements from which fastloss uses several threads."""


@numba.njit(parallel=True, nogil=True)
def move(p, g, m, v):
    for c in numba.prange((p.size + CHUNK - 1) // CHUNK):
        lo = c * CHUNK
        hi = min(p.size, lo + CHUNK)
        a, b, x, y = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi]
        for i in range(a.size):
            x[i] += b[i]
            y[i] += b[i]
            a[i] += b[i]


@numba.njit(nogil=True)
def move_few(p, g, m, v):
    for i in range(p.size):
        m[i] += g[i]
        v[i] += g[i]
        p[i] += g[i]


def contestants(n: int) -> dict[str, Callable[[], Any]]:
    """Return a step of each at one size, on arrays of its own."""
    import torch

    torch.set_num_threads(fl.get_num_threads() if n >= FEW else 1)
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal(n, dtype=np.float32) * np.float32(1e-3) for _ in range(2)]

    def fresh() -> list[Any]:
        return [draws[0].copy(), draws[1].copy()]

    w, g = fresh()
    ours, grads = fl.optim.Adam([w]), [g]
    p, q = fresh()
    m, v = np.zeros_like(p), np.zeros_like(p)
    loop = move if n >= FEW else move_few
    found = {"fastloss": lambda: ours.step(grads), "seven streams": lambda: loop(p, q, m, v)}
    for name, fused in (("torch, fused", True), ("torch", False)):
        a, b = fresh()
        tensor = torch.nn.Parameter(torch.from_numpy(a))
        tensor.grad = torch.from_numpy(b)
        found[name] = torch.optim.Adam([tensor], fused=fused).step
    return found


def measure(n: int) -> dict[str, list[float]]:
    """Return the times of each (seconds a step), turn by turn."""
    steps = contestants(n)
    calls, clock = max(1, min(500, 200_000 // n)), time.perf_counter if n >= FEW else time.process_time
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(TURNS + 3):
        for name, step in steps.items():
            start = clock()
            for _ in range(calls):
                step()
            if turn >= 3:
                times[name].append((clock() - start) / calls)
    return times


def shown(seconds: float) -> str:
    """Return a time in a unit that suits it."""
    return f"{1e6 * seconds:.1f} us" if seconds < 1e-3 else f"{1e3 * seconds:.1f} ms"


def main(arguments: list[str]) -> None:
    """Measure, print, and write if that is asked."""
    sizes = [int(float(a)) for a in arguments if a != "--write"] or SIZES
    lines = [
        "# Adam",
        "",
        "Written by `python -m bench.optim --write`. "
        f"Time of a step in float32, and its ratio to that of fastloss. Up to {FEW:,} elements: one thread, processor "
        f"time, the smallest of {TURNS} turns; beyond: wall time, medians of {TURNS} turns and of their ratios. "
        "`seven streams` only moves the memory that Adam moves, in a loop. "
        f"{sentence(about())}.",
        "",
        "| elements | fastloss | seven streams | torch, fused | torch |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in sizes:
        times = measure(n)
        typical = statistics.median if n >= FEW else min
        cells = [shown(typical(times["fastloss"]))]
        for name in list(times)[1:]:
            pairs = zip(times[name], times["fastloss"], strict=True)
            ratio = (
                statistics.median([a / b for a, b in pairs]) if n >= FEW else min(times[name]) / min(times["fastloss"])
            )
            cells.append(f"{shown(typical(times[name]))} ({ratio:.2f})")
        lines.append(f"| {n:,} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if "--write" in arguments:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
