"""Time of `fl.mse.value_and_grad` under each risk, beside the mean: python -m bench.risks [samples].

Calls are interleaved, and medians of wall time are printed with their ratio to the mean's.
"""

import statistics
import sys
import time

import numpy as np

import fastloss as fl

ROUNDS = 15


def main() -> None:
    """Print a table."""
    n = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**7
    rng = np.random.default_rng(0)
    p, t = rng.standard_normal((2, n), dtype=np.float32)
    out, groups = np.empty_like(p), rng.integers(0, 8, n)
    reductions = ["mean", fl.risk.CVaR(0.1), fl.risk.Trimmed(0.1), fl.risk.Quantile(0.5), fl.risk.Tilted(0.1)]
    reductions += [fl.risk.ChiSquare(0.5), fl.risk.KL(0.1), fl.risk.WorstGroup(groups)]
    times = {i: [] for i in range(len(reductions))}
    for k in range(ROUNDS + 2):
        for i, reduction in enumerate(reductions):
            start = time.perf_counter()
            fl.mse.value_and_grad(p, t, reduction=reduction, out=out)
            if k >= 2:
                times[i].append(time.perf_counter() - start)
    base = statistics.median(times[0])
    print(f"mse.value_and_grad(out=) of {n} float32, {fl.get_num_threads()} threads")
    for i, reduction in enumerate(reductions):
        median = statistics.median(times[i])
        name = reduction if isinstance(reduction, str) else type(reduction).__name__
        print(f"{name:<12} {1e3 * median:8.1f} ms {median / base:6.2f}")


if __name__ == "__main__":
    main()
