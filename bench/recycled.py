"""Cost of results without `out=`: from recycled memory, and from fresh memory.

python -m bench.recycled     measure, and write bench/results/recycled.md

One thread, in seconds of its processor, so that other work on the machine matters little. The three calls take turns.
"""

import os

os.environ["FASTLOSS_NUM_THREADS"] = "1"

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastloss as fl
from fastloss.call import memory
from fastloss.performance.machine import about, sentence

RESULTS = Path(__file__).parent / "results" / "recycled.md"
ROUNDS = 11
KEPT, FRESH = memory._pool, memory.MemoryPool(0)


def floats(*shape: int) -> Any:
    """Return standard normal numbers in float32, always the same."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def boxes(n: int) -> Any:
    """Return boxes (n, 4) in float32."""
    return np.sort(np.random.default_rng(1).random((n, 2, 2), np.float32), axis=1).reshape(n, 4)


def cases() -> dict[str, tuple[Any, str, Callable[[], tuple[Any, ...]]]]:
    """Losses, their methods and functions that draw their arrays, by the texts of their rows."""
    found: dict[str, tuple[Any, str, Callable[[], tuple[Any, ...]]]] = {}
    for n, text in ((10**6, "1e6"), (10**7, "1e7"), (5 * 10**7, "5e7")):
        for loss in (fl.mse, fl.huber, fl.bce_with_logits):
            found[f"`{loss.name}`, {text}"] = loss, "value_and_grad", lambda n=n: (floats(n), abs(floats(n)) % 1)
    found["`mse.grad_and_hess`, 1e7"] = fl.mse, "grad_and_hess", lambda: (floats(10**7), floats(10**7)[::-1].copy())
    rows, labels = (160_000, 100), np.arange(160_000) % 100
    found["`cross_entropy`, 160,000 x 100"] = fl.cross_entropy, "value_and_grad", lambda: (floats(*rows), labels)
    found["`giou`, 2.5e6 boxes"] = fl.giou, "value_and_grad", lambda: (boxes(2_500_000), boxes(2_500_000)[::-1].copy())
    three = (100_000, 100)
    found["`triplet`, 100,000 x 100"] = (
        fl.triplet,
        "value_and_grad",
        lambda: (floats(*three), floats(*three) + 1, floats(*three)[::-1].copy()),
    )
    return found


def measure(loss: Any, method: str, arrays: tuple[Any, ...]) -> tuple[float, float, float]:
    """Seconds with `out=`, and how many times as long calls without take in recycled and in fresh memory."""
    call, held = getattr(loss, method), {}
    results = call(*arrays)
    out = results if method == "grad_and_hess" else results[1]

    def given() -> None:
        call(*arrays, out=out)

    def recycled() -> None:
        memory._pool = KEPT
        held["recycled"] = call(*arrays)

    def fresh() -> None:
        memory._pool = FRESH
        held["fresh"] = call(*arrays)

    calls, samples = (given, recycled, fresh), []
    for i in range(-2, ROUNDS):
        row = []
        for one in calls:
            start = time.thread_time()
            one()
            row.append(time.thread_time() - start)
        if i >= 0:
            samples.append(row)
    memory._pool = KEPT
    held.clear()
    fl.release_memory()
    seconds = statistics.median(row[0] for row in samples)
    return seconds, *(statistics.median(row[k] / row[0] for row in samples) for k in (1, 2))


def main() -> None:
    """Measure all cases and write the table."""
    lines = [
        "# Results without `out=`",
        "",
        "Times of calls in float32 that allocate their results, relative to the same call with `out=`; medians of",
        f"{ROUNDS} interleaved rounds, one thread, processor time. {sentence(about())}.",
        "",
        "| call | with `out=` | recycled memory | fresh memory |",
        "| --- | ---: | ---: | ---: |",
    ]
    for text, (loss, method, draw) in cases().items():
        seconds, recycled, fresh = measure(loss, method, draw())
        lines.append(f"| {text} | {1e3 * seconds:.3g} ms | {recycled:.2f} | {fresh:.2f} |")
        print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
