"""Time of `fl.balance.gramian` beside reading its gradients once: python -m bench.gramian [elements].

NumPy's maximum stands for the read. Calls are interleaved; medians of wall time.
"""

import statistics
import sys
import time

import numpy as np

import fastloss as fl

TASKS, ROUNDS = 8, 11


def main() -> None:
    """Print the two times and their ratio, on one thread, as NumPy reads on one."""
    n = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**7
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(n, dtype=np.float32) for _ in range(TASKS)]
    fl.set_num_threads(1)
    times: dict[str, list[float]] = {"gramian": [], "read": []}
    for k in range(ROUNDS + 2):
        for name, call in (("gramian", lambda: fl.balance.gramian(grads)), ("read", lambda: [g.max() for g in grads])):
            start = time.perf_counter()
            call()
            if k >= 2:
                times[name].append(time.perf_counter() - start)
    gramian, read = (1e3 * statistics.median(times[name]) for name in times)
    print(f"{TASKS} gradients of {n} float32: Gramian {gramian:.1f} ms, read {read:.1f} ms, ratio {gramian / read:.2f}")


if __name__ == "__main__":
    main()
