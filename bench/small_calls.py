"""Microseconds of small calls: value and gradient, float32, without `out=`, one thread, kernels compiled.

    python -m bench.small_calls [--write] [NAME...]

Processor time, the smallest of 15 means of 200 calls, so that other work on the machine matters little. Names pick
rows; `--write` puts the table into bench/results/small_calls.md.
"""

import os

os.environ.setdefault("FASTLOSS_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastloss as fl
from fastloss.performance.machine import about, sentence

FILE = Path(__file__).parent / "results" / "small_calls.md"
CALLS, ROUNDS = 200, 15

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    """Return normally distributed numbers in float32."""
    return RNG.standard_normal(shape, np.float32)


def between(*shape: int) -> Any:
    """Return numbers between 0.1 and 0.9 in float32."""
    return RNG.uniform(0.1, 0.9, shape).astype(np.float32)


def labels(high: int, *shape: int) -> Any:
    """Return whole numbers below a bound."""
    return RNG.integers(0, high, shape)


def boxes(n: int) -> Any:
    """Return boxes (x1, y1, x2, y2) with positive sides, of shape (n, 4), in float32."""
    return np.sort(RNG.random((n, 2, 2), np.float32), axis=1).reshape(n, 4)


def rows() -> Iterator[tuple[str, Any, tuple[Any, ...], dict[str, Any]]]:
    """Yield name, loss, arrays and options of each call."""
    pair, logits = (normal(100), normal(100)), (normal(32, 10), labels(10, 32))
    yield "mse, 100", fl.mse, pair, {}
    yield "... with weight", fl.mse, pair, {"weight": between(100)}
    yield "... with divisor", fl.mse, pair, {"divisor": 50.0}
    yield '... reduction="none"', fl.mse, pair, {"reduction": "none"}
    yield "... float16", fl.mse, tuple(a.astype(np.float16) for a in pair), {}
    yield "quantile of 3 levels, 100", fl.quantile, (normal(100, 3), normal(100)), {"q": [0.1, 0.5, 0.9]}
    yield "gaussian_nll, 100", fl.gaussian_nll, ((normal(100), between(100)), normal(100)), {}
    yield "cross_entropy, 32 x 10", fl.cross_entropy, logits, {}
    yield "... with label_smoothing", fl.cross_entropy, logits, {"label_smoothing": 0.1}
    yield "... with class_weight", fl.cross_entropy, logits, {"class_weight": between(10)}
    yield "... with weight", fl.cross_entropy, logits, {"weight": between(32)}
    yield "... with details", fl.cross_entropy, logits, {"details": True}
    yield "dpo, 100", fl.dpo, tuple(normal(100) for _ in range(4)), {}
    yield "giou, 10", fl.giou, (boxes(10), boxes(10)), {}
    yield "dice, 2 x 1 x 8 x 8", fl.dice, (between(2, 1, 8, 8), labels(2, 2, 1, 8, 8).astype(np.float32)), {}
    yield "wasserstein_1d, 8 x 10", fl.wasserstein_1d, (between(8, 10), between(8, 10)), {}
    yield "wasserstein_samples, 40", fl.wasserstein_samples, (normal(40), normal(40)), {}
    yield "triplet, 32 x 64", fl.triplet, tuple(normal(32, 64) for _ in range(3)), {}
    yield "cosine_distance, 32 x 64", fl.cosine_distance, (normal(32, 64), normal(32, 64)), {}
    yield "info_nce, 32 x 16", fl.info_nce, (normal(32, 16), normal(32, 16)), {}
    yield (
        "linear_cross_entropy, 32 x 16 x 10",
        fl.linear_cross_entropy,
        (normal(32, 16), normal(10, 16), labels(10, 32)),
        {},
    )
    yield "batch_hard_triplet, 32 x 128", fl.batch_hard_triplet, (normal(32, 128), labels(4, 32)), {}
    yield "vicreg, 32 x 16", fl.vicreg, (normal(32, 16), normal(32, 16)), {}
    tokens = (normal(2, 5, 20), labels(20, 2, 5), np.array([5, 3]))
    yield "sequence_cross_entropy, 2 x 5 x 20", fl.sequence_cross_entropy, tokens, {}
    yield "listnet, 100", fl.listnet, (normal(100), between(100)), {}
    yield "lambda_rank, 100", fl.lambda_rank, (normal(100), labels(4, 100).astype(np.float32)), {}
    frames = (normal(20, 2, 10), 1 + labels(9, 2, 5), np.array([20, 18]), np.array([5, 4]))
    yield "ctc, 20 x 2 x 10", fl.ctc, frames, {}
    yield "cox, 100", fl.cox, (normal(100), between(100), labels(2, 100).astype(np.float32)), {}


def microseconds(call: Callable[[], Any]) -> float:
    """Return the processor time of a call, in microseconds."""
    call()
    call()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        times.append(time.process_time() - start)
    return min(times) / CALLS * 1e6


def main(arguments: list[str]) -> None:
    """Measure the calls, print them, and write them if that is asked."""
    picked = [a for a in arguments if a != "--write"]
    lines = [
        "# Small calls",
        "",
        "Value and gradient in float32 without `out=`, in microseconds of processor time: the smallest of "
        f"{ROUNDS} means of {CALLS} calls, one thread. {sentence(about())}.",
        "",
        "| call | us |",
        "| --- | ---: |",
    ]
    for name, loss, arrays, options in rows():
        if picked and not any(p in name for p in picked):
            continue
        lines.append(f"| {name} | {microseconds(lambda f=loss, a=arrays, o=options: f.value_and_grad(*a, **o)):.1f} |")
        print(lines[-1], flush=True)
    if "--write" in arguments:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
