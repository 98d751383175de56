"""Losses of a user's own beside the built-in losses of the same mathematics: large calls, small calls, cold start.

`python -m bench.custom` prints ratios, each of medians that were measured interleaved in this run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

import numpy as np

import fastloss as fl

__all__ = ["main"]


def squared(z, t):
    """Squared error."""
    return (z - t) ** 2


def absolute(z, t):
    """Absolute error."""
    return np.abs(z - t)


def huber(z, t, delta=1.0):
    """Huber's loss."""
    r = np.abs(z - t)
    return np.where(r > delta, delta * (r - 0.5 * delta), 0.5 * r**2)


def naive_bce(z, t):
    """Binary cross-entropy of logits, written naively."""
    p = 1 / (1 + np.exp(-z))
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def log_cosh(z, t):
    """Logarithm of the hyperbolic cosine."""
    return np.log(np.cosh(z - t))


def pseudo_huber(z, t, delta=1.0):
    """Charbonnier's loss."""
    return delta**2 * (np.sqrt(1 + ((z - t) / delta) ** 2) - 1)


PAIRS = {
    "mse": squared,
    "mae": absolute,
    "huber": huber,
    "bce_with_logits": naive_bce,
    "log_cosh": log_cosh,
    "pseudo_huber": pseudo_huber,
}
"""Formulas by the names of the built-in losses of the same mathematics."""

OPTIONS = {"bce_with_logits": {"target": (0, 1)}}


def own(name):
    """Return the user's version of a built-in loss."""
    return fl.loss(PAIRS[name], **OPTIONS.get(name, {}))


def seconds(call, repeats):
    """Return the time of one of several calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def interleaved(calls, rounds, repeats):
    """Return the median time of each call, measured in turns."""
    found = [[] for _ in calls]
    for call in calls:
        call()
    for i in range(rounds):
        order = range(len(calls)) if i % 2 == 0 else reversed(range(len(calls)))
        for k in order:
            found[k].append(seconds(calls[k], repeats))
    return [median(x) for x in found]


def large(name, n=10_000_000, rounds=15):
    """Return milliseconds of both versions at n float32 elements, value and gradient."""
    random = np.random.default_rng(0)
    z = random.standard_normal(n, np.float32)
    t = (random.random(n, np.float32) > 0.5).astype(np.float32)
    out = np.empty_like(z)
    losses = (own(name), fl.LOSSES[name])
    return [1e3 * x for x in interleaved([lambda f=f: f.value_and_grad(z, t, out=out) for f in losses], rounds, 1)]


def small(name, n=100, rounds=200):
    """Return microseconds of the user's version and of mse at n elements, value and gradient."""
    random = np.random.default_rng(0)
    z, t = random.standard_normal((2, n)).astype(np.float32)
    t = (t > 0).astype(np.float32)
    losses = (own(name), fl.mse)
    return [1e6 * x for x in interleaved([lambda f=f: f.value_and_grad(z, t) for f in losses], rounds, 100)]


COLD = """
import time, numpy as np, fastloss as fl
from bench.custom import own
fl.loss
z = np.zeros(100_000, np.float32)
fl.wing.value_and_grad(z, z)
start = time.perf_counter()
loss = {loss}
loss.value_and_grad(z, z)
print(time.perf_counter() - start)
"""


def cold(name, runs=3):
    """Return seconds of defining and first calling both versions, each in a process with an empty cache.

    Modules are imported and drivers compiled before: both versions need the same.
    """
    found = {}
    for _ in range(runs):
        for which, text in (("own", f"own({name!r})"), ("built-in", f"fl.LOSSES[{name!r}]")):
            with tempfile.TemporaryDirectory() as folder:
                environment = {**os.environ, "FASTLOSS_CACHE_DIR": folder}
                command = [sys.executable, "-c", COLD.format(loss=text)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.setdefault(which, []).append(float(done.stdout))
    return [median(x) for x in found.values()]


def main():
    """Print a table, and the same as JSON with --json."""
    parts = sys.argv[1:] or ["large", "small", "cold"]
    rows = {}
    for name in PAIRS:
        rows[name] = {part: globals()[part](name) for part in ("large", "small", "cold") if part in parts}
        shown = ", ".join(f"{k} {a:.4g} for {b:.4g} ({a / b:.2f})" for k, (a, b) in rows[name].items())
        print(f"{name}: {shown}", flush=True)
    if "--json" in parts:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
