"""The figures that the kernels are held to, measured interleaved in one run and reported as ratios.

    python -m bench.figures [--size 10000000] [--rounds 15] [--json FILE]

Elementwise losses are compared with a plain parallel `g = p - t`, row losses with a plain parallel copy, small calls
with the same in NumPy; compile and start times are absolute. Hardware, threads and versions are part of the output.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from numba import njit, prange

import fastloss as fl

LIMITS = {"mse": 1.2, "mae": 1.2, "huber": 1.2, "hinge": 1.2, "bce_with_logits": 2.5, "focal": 4.0}
ROW_LIMITS = {10: 4.0, 100: 3.0, 1000: 2.0, 32000: 2.0, 128000: 2.0}


@njit(parallel=True)
def difference(p, t, g):
    """The least that a loss with a gradient can do: read two arrays, write one."""
    for i in prange(p.size):
        g[i] = p[i] - t[i]


@njit(parallel=True)
def copy(z, g):
    """The least that a row loss with a gradient can do."""
    for i in prange(z.size):
        g[i] = z[i]


def race(contestants: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each, taken in turn."""
    for f in contestants:
        f()
        f()
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for f, record in zip(contestants, times, strict=True):
            start = time.perf_counter()
            f()
            record.append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]


def elementwise(size: int, rounds: int) -> list[dict[str, object]]:
    """value_and_grad with out=, float32, as a ratio to a plain difference."""
    rng = np.random.default_rng(0)
    p = rng.standard_normal(size, dtype=np.float32)
    labels = (rng.random(size) < 0.5).astype(np.float32)
    signs = 2 * labels - 1
    g = np.empty_like(p)
    rows = []
    for name, limit in LIMITS.items():
        target = signs if name == "hinge" else labels
        loss = fl.LOSSES[name]
        base, ours = race(
            [lambda t=target: difference(p, t, g), lambda f=loss, t=target: f.value_and_grad(p, t, out=g)], rounds
        )
        case = f"{name}, {size:,} float32, to g = p - t ({12 * size / base / 1e9:.1f} GB/s)"
        rows.append({"case": case, "value": ours / base, "at most": limit})
    return rows


def softmax(rounds: int, size: int = 16_000_000) -> list[dict[str, object]]:
    """cross_entropy with gradient on 16M logits, as a ratio to a plain copy."""
    rows = []
    rng = np.random.default_rng(0)
    for k, limit in ROW_LIMITS.items():
        z = rng.standard_normal((size // k, k), dtype=np.float32) * 3
        y = rng.integers(0, k, len(z))
        g = np.empty_like(z)
        flat_z, flat_g = z.reshape(-1), g.reshape(-1)
        base, ours = race(
            [lambda a=flat_z, b=flat_g: copy(a, b), lambda a=z, b=y, c=g: fl.cross_entropy.value_and_grad(a, b, out=c)],
            rounds,
        )
        case = f"cross_entropy K={k}, {z.size:,} float32, to a copy ({8 * z.size / base / 1e9:.1f} GB/s)"
        rows.append({"case": case, "value": ours / base, "at most": limit})
    return rows


def numpy_mse(p, t):
    """The squared error with its gradient, as one writes it."""
    r = p - t
    return float(np.mean(r * r)), r * (2 / r.size)


def numpy_bce(z, t):
    """Binary cross-entropy with its gradient, as one writes it where overflow matters."""
    e = np.exp(-np.abs(z))
    s = np.where(z >= 0, 1 / (1 + e), e / (1 + e))
    return float(np.mean(np.maximum(z, 0) - z * t + np.log1p(e))), (s - t) / z.size


def small(rounds: int) -> list[dict[str, object]]:
    """Microseconds of a call on 100 elements, as a ratio to NumPy."""
    rng = np.random.default_rng(0)
    p, t = rng.standard_normal(100, dtype=np.float32), (rng.random(100) < 0.5).astype(np.float32)

    def many(f: Callable[..., object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(1000):
                f(p, t)

        return run

    rows = []
    for name, plain in {"mse": numpy_mse, "bce_with_logits": numpy_bce}.items():
        base, ours = race([many(plain), many(fl.LOSSES[name].value_and_grad)], rounds)
        case = f"{name}, n = 100, {ours * 1e3:.2f} us, to NumPy ({base * 1e3:.2f} us)"
        rows.append({"case": case, "value": ours / base, "at most": 1.0})
    return rows


def child(code: str, **environment: str) -> float:
    """Run code in a process of its own; it prints one number."""
    env = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


IMPORT = "import time, numpy; t = time.perf_counter(); import fastloss; print(time.perf_counter() - t)"
FIRST = """
import time; start = time.perf_counter()
import numpy as np, fastloss as fl
p = np.zeros(100, np.float32); fl.{name}.value_and_grad(p, p)
print(time.perf_counter() - start)
"""
COLD = """
import time, numpy as np, fastloss as fl
p = np.zeros(100, np.float32); fl.mae.value_and_grad(p, p)
start = time.perf_counter(); fl.{name}.value_and_grad(p, p)
print(time.perf_counter() - start)
"""
HITS = """
import numpy as np, fastloss as fl
from fastloss import dispatch
p = np.zeros(100, np.float32)
fl.mse.value_and_grad(p, p); fl.bce_with_logits(p, p); fl.huber.grad_and_hess(p, p)
fl.cross_entropy.value_and_grad(np.zeros((4, 3), np.float32), np.zeros(4, int))
print(sum(not chunk.cached for _, _, chunk in dispatch._compiled.values()))
"""


def start_up(repeats: int = 5) -> list[dict[str, object]]:
    """Seconds to import, to a first result with a warm cache, to compile a new loss; kernels compiled twice."""
    rows = []
    imports = statistics.median(child(IMPORT) for _ in range(repeats))
    rows.append({"case": "import fastloss after numpy, s", "value": imports, "at most": 0.030})
    with tempfile.TemporaryDirectory() as folder:
        cold = {n: child(COLD.format(name=n), FASTLOSS_CACHE_DIR=f"{folder}/{n}") for n in ("mse", "bce_with_logits")}
        for name, seconds in cold.items():
            rows.append({"case": f"compile {name} cold, the driver being there, s", "value": seconds, "at most": 0.7})
        child(FIRST.format(name="mse"), FASTLOSS_CACHE_DIR=folder)
        first = statistics.median(child(FIRST.format(name="mse"), FASTLOSS_CACHE_DIR=folder) for _ in range(repeats))
        rows.append({"case": "first result of a process, warm cache, s", "value": first, "at most": 1.0})
        child(HITS, FASTLOSS_CACHE_DIR=folder)
        again = child(HITS, FASTLOSS_CACHE_DIR=folder)
        rows.append({"case": "kernels that the second process compiles", "value": again, "at most": 0.0})
    return rows


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": fl.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "fastloss": fl.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine()
    print(", ".join(f"{k} {v}" for k, v in about.items()))
    rows: list[dict[str, object]] = []
    for measure in (
        lambda: elementwise(options.size, options.rounds),
        lambda: softmax(max(5, options.rounds // 2)),
        lambda: small(options.rounds),
        start_up,
    ):
        for row in measure():
            rows.append(row)
            met = "" if row["value"] <= row["at most"] else "   missed"  # type: ignore[operator]
            print(f"{row['case']:<72} {row['value']:8.3f}   at most {row['at most']:<6g}{met}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
