"""`fl.torch` beside torch's own losses: forward and backward from `grad=None`, float32, 2 threads.

    python -m bench.torch_adapter [--write]

Both take turns in one process. A row gives the medians and the median of the ratios of neighbours, so that other work
on the machine matters little. Small calls are timed in groups of 50. `--write` puts the table into
bench/results/torch_adapter.md.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fastloss as fl
from bench.beside import tabulate

F = torch.nn.functional


def cases(n: int) -> dict[str, tuple[Callable[..., Any], Callable[..., Any], Any, Any]]:
    """Return fastloss's and torch's call of each row, with prediction and target."""
    p, t = torch.randn(n, requires_grad=True), torch.randn(n)
    k = 10 if n < 1e6 else 1000
    z, y = torch.randn(n // k, k, requires_grad=True), torch.randint(k, (n // k,))
    return {
        "huber": (fl.torch.huber, F.huber_loss, p, t),
        "mse": (fl.torch.mse, F.mse_loss, p, t),
        "bce_with_logits": (fl.torch.bce_with_logits, F.binary_cross_entropy_with_logits, p, t.sigmoid()),
        f"cross_entropy[K={k}]": (fl.torch.cross_entropy, F.cross_entropy, z, y),
    }


def seconds(loss: Callable[..., Any], p: Any, t: Any, calls: int) -> float:
    """Return the mean time of forward and backward (seconds)."""
    start = time.perf_counter()
    for _ in range(calls):
        p.grad = None
        loss(p, t).backward()
    return (time.perf_counter() - start) / calls


def measured(own: Any, other: Any, p: Any, t: Any, n: int) -> tuple[float, float, float]:
    """Return the medians of both (seconds), and the median ratio of neighbours, torch's over fastloss's."""
    calls = 50 if n < 1e6 else 1
    rounds = 100 if n < 1e6 else 15
    for loss in (own, other):
        seconds(loss, p, t, 3)
    times = np.array([[seconds(own, p, t, calls), seconds(other, p, t, calls)] for _ in range(rounds)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(np.median(times[:, 1] / times[:, 0]))


def main() -> None:
    """Measure, and write the table where `--write` is given."""
    torch.set_num_threads(2)
    fl.set_num_threads(2)
    tabulate("`fl.torch` beside torch's own losses", ("fl.torch", "torch"), cases, measured, "torch_adapter")


if __name__ == "__main__":
    main()
