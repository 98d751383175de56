"""Time of sums beside that of their parts: python -m bench.sums [threads].

Two sums: cross_entropy + dice on logits (4, 19, 256, 256) in float32, beside the two called apart, each with its
gradient and neither added up; and mse + mae + huber of 1,048,576 float32, beside mse alone, with and without the parts.
Calls are interleaved. Printed are medians of wall time and of processor time, with their ratio to the reference: the
second is steadier on a machine that others use too, on one thread.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import fastloss as fl

ROUNDS = 15


def measured(calls: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Return the median wall time and processor time of each call (ms)."""
    walls: dict[str, list[float]] = {name: [] for name in calls}
    busys: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(ROUNDS + 2):
        for name, call in calls.items():
            wall, busy = time.perf_counter(), time.process_time()
            call()
            if k >= 2:
                walls[name].append(1e3 * (time.perf_counter() - wall))
                busys[name].append(1e3 * (time.process_time() - busy))
    return {name: (statistics.median(walls[name]), statistics.median(busys[name])) for name in calls}


def show(title: str, found: dict[str, tuple[float, float]], reference: tuple[float, float]) -> None:
    """Print one table."""
    print(title)
    for name, (wall, busy) in found.items():
        first, second = wall / reference[0], busy / reference[1]
        print(f"  {name:<28} {wall:8.2f} ms {first:6.2f}   {busy:8.2f} ms of processor {second:6.2f}")


def main() -> None:
    """Print both tables."""
    if len(sys.argv) > 1:
        fl.set_num_threads(int(sys.argv[1]))
    rng = np.random.default_rng(0)
    z, labels = rng.standard_normal((4, 19, 256, 256), dtype=np.float32), rng.integers(0, 19, (4, 256, 256))
    dice, both = fl.dice.bind(activation="softmax"), fl.cross_entropy + fl.dice
    found = measured(
        {
            "cross_entropy": lambda: fl.cross_entropy.value_and_grad(z, labels, axis=1),
            "dice": lambda: dice.value_and_grad(z, labels),
            "cross_entropy + dice": lambda: both.value_and_grad(z, labels),
            "cross_entropy + dice, parts": lambda: both.value_and_grad(z, labels, parts=True),
        }
    )
    apart = tuple(a + b for a, b in zip(found["cross_entropy"], found["dice"], strict=True))
    show(f"(4, 19, 256, 256) float32, {fl.get_num_threads()} threads, beside both apart", found, apart)
    p, t = rng.standard_normal((2, 1 << 20), dtype=np.float32)
    out, three = np.empty_like(p), fl.mse + fl.mae + fl.huber
    found = measured(
        {
            "mse": lambda: fl.mse.value_and_grad(p, t, out=out),
            "mse + mae + huber": lambda: three.value_and_grad(p, t, out=out),
            "mse + mae + huber, parts": lambda: three.value_and_grad(p, t, out=out, parts=True),
        }
    )
    show(f"1,048,576 float32, {fl.get_num_threads()} threads, beside mse", found, found["mse"])


if __name__ == "__main__":
    main()
