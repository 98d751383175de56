"""Linear models beside scikit-learn, and the pass over X beside a read of it: python -m bench.linear [--write].

All are run in turn in one process, each fit after a pause in which the threads of the library before it fall asleep:
those of BLAS and of scikit-learn's OpenMP hold a processor for a while. Times of fits are the smallest of all turns; of
the pass, medians of the ratios to the read of the same turn. `--write` puts the tables into bench/results/linear.md.
"""

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np

import fastloss as fl
from fastloss.cpu.linear import element_pass
from fastloss.performance.machine import about, sentence

FILE = Path(__file__).parent / "results" / "linear.md"
SHAPES = ((2_000_000, 20), (1_000_000, 50), (200_000, 200), (40_000, 1000))
TURNS = 7
PAUSE = 0.1
"""Seconds before each run."""

FIRST = """
import time, numpy as np, sklearn.linear_model, fastloss as fl
fl.linear
rng = np.random.default_rng(0)
x = rng.standard_normal((1000, 10))
y = (x @ rng.standard_normal(10) + rng.logistic(size=1000) > 0).astype(int)
begun = time.perf_counter()
fl.linear.LossClassifier().fit(x, y)
print(time.perf_counter() - begun)
"""


@numba.njit(parallel=True, fastmath={"contract", "reassoc", "nsz"})
def read(x, sums):
    per = (x.size + sums.size - 1) // sums.size
    for k in numba.prange(sums.size):
        part = x[k * per : min(x.size, (k + 1) * per)]
        s = np.float32(0.0)
        for i in range(part.size):
            s += part[i]
        sums[k] = s


def measured(runs: dict[str, Callable[[], Any]], turns: int = TURNS) -> dict[str, float]:
    """Return the smallest time of each (seconds), after one run of each."""
    found = dict.fromkeys(runs, float("inf"))
    for turn in range(turns + 1):
        for name, run in runs.items():
            time.sleep(PAUSE)
            begun = time.perf_counter()
            run()
            taken = time.perf_counter() - begun
            found[name] = min(found[name], taken) if turn else found[name]
    return found


def ratio(run: Callable[[], Any], base: Callable[[], Any]) -> float:
    """Return the median of the ratios of two times, taken in turn."""
    found = []
    for _ in range(2 * TURNS):
        begun = time.perf_counter()
        base()
        middle = time.perf_counter()
        run()
        found.append((time.perf_counter() - middle) / (middle - begun))
    return statistics.median(found[1:])


def products(x: Any, y: Any, w: Any) -> Any:
    """Return the gradient of squared errors by two products of BLAS."""
    return x.T @ (x @ w - y)


def passes() -> list[str]:
    """Return the table of value and gradient of bce_with_logits beside a read of X."""
    lines = ["| rows | columns | pass | two products of NumPy |", "|---:|---:|---:|---:|"]
    rng, loss = np.random.default_rng(0), fl.bce_with_logits
    for n, d in SHAPES:
        x, sums = rng.standard_normal((n, d), dtype=np.float32), np.zeros(16, np.float32)
        y, w = (rng.random(n) < 0.5).astype(np.float32), rng.standard_normal((1, d + 1)) * 0.1
        run, own = element_pass(loss._compiled, loss._packed, True, x, y, None), w[0, :-1].astype(np.float32)
        reading = partial(read, x.reshape(-1), sums)
        cells = [ratio(partial(run, w), reading), ratio(partial(products, x, y, own), reading)]
        lines.append(f"| {n:,} | {d} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    return lines


def logistic() -> list[str]:
    """Return the table of logistic regressions on 100,000 x 10."""
    from sklearn.linear_model import LogisticRegression

    rng, n, alpha = np.random.default_rng(0), 100_000, 1e-4
    x = rng.standard_normal((n, 10))
    y = (x @ rng.standard_normal(10) + rng.logistic(size=n) > 0).astype(int)
    models: dict[str, Any] = {"fastloss newton": fl.linear.LossClassifier(alpha=alpha)}
    models["fastloss lbfgs"] = fl.linear.LossClassifier(alpha=alpha, solver="lbfgs", tol=1e-5)
    for solver in ("newton-cholesky", "lbfgs", "newton-cg", "saga"):
        tol = 1e-3 if solver == "saga" else 1e-4
        models[f"scikit-learn {solver}"] = LogisticRegression(C=1.0 / (alpha * n), solver=solver, tol=tol, max_iter=500)
    found = measured({name: partial(m.fit, x, y) for name, m in models.items()}, 3)

    def objective(m: Any) -> float:
        return float(fl.bce_with_logits(m.decision_function(x), y * 1.0)) + 0.5 * alpha * float((m.coef_**2).sum())

    reached = {name: objective(m) for name, m in models.items()}
    least = min(reached.values())
    lines = ["| solver | time | of fastloss newton | objective above the least, relative |", "|---|---:|---:|---:|"]
    for name, seconds in found.items():
        above = reached[name] / least - 1.0
        cells = f"{1e3 * seconds:.1f} ms | {seconds / found['fastloss newton']:.1f} | {above:.0e}"
        lines.append(f"| {name} | {cells} |")
    return lines


def quantiles() -> list[str]:
    """Return the table of medians: 10,000 rows beside scikit-learn, 1,000,000 alone."""
    from sklearn.linear_model import QuantileRegressor

    lines = [
        "| rows | quantile | fastloss | QuantileRegressor | mean loss, ratio less 1 |",
        "|---:|---:|---:|---:|---:|",
    ]
    rng, rows = np.random.default_rng(0), []
    for n, q in ((10_000, 0.5), (10_000, 0.9), (1_000_000, 0.5)):
        x = rng.standard_normal((n, 10))
        y = x @ rng.standard_normal(10) + rng.standard_t(2, n)
        ours = fl.linear.LossRegressor(f"quantile:q={q}", penalty=None)
        rows.append((n, q, x, y, ours, measured({"": partial(ours.fit, x, y)}, 3)[""]))
    for n, q, x, y, ours, seconds in rows:
        if n > 10_000:
            lines.append(f"| {n:,} | {q} | {seconds:.2f} s | | |")
            continue
        theirs = QuantileRegressor(quantile=q, alpha=0.0)
        begun = time.perf_counter()
        theirs.fit(x, y)
        taken = time.perf_counter() - begun
        above = fl.quantile(ours.predict(x), y, q=q) / fl.quantile(theirs.predict(x), y, q=q) - 1.0
        lines.append(f"| {n:,} | {q} | {1e3 * seconds:.0f} ms | {taken:.2f} s | {above:.0e} |")
    return lines


def epochs() -> list[str]:
    """Return the table of three epochs by batches."""
    from sklearn.linear_model import SGDClassifier

    rng, n = np.random.default_rng(0), 100_000
    x = rng.standard_normal((n, 10))
    y = (x @ rng.standard_normal(10) + rng.logistic(size=n) > 0).astype(int)
    options = {"max_iter": 3, "random_state": 0}
    models: dict[str, Any] = {
        f"fastloss {s}": fl.linear.LossClassifier(solver=s, alpha=1e-6, tol=0.0, n_iter_no_change=9, **options)
        for s in ("minibatch", "adam", "sgd")
    }
    sgd = {"loss": "log_loss", "alpha": 1e-6, "tol": None, **options}
    models["SGDClassifier"] = SGDClassifier(**sgd)
    models["SGDClassifier, invscaling from 0.05"] = SGDClassifier(learning_rate="invscaling", eta0=0.05, **sgd)
    found = measured({name: partial(m.fit, x, y) for name, m in models.items()}, 3)
    lines = ["| solver | time of three epochs | mean loss |", "|---|---:|---:|"]
    for name, seconds in found.items():
        value = fl.bce_with_logits(models[name].decision_function(x), y * 1.0)
        lines.append(f"| {name} | {1e3 * seconds:.0f} ms | {value:.4f} |")
    return lines


def first_fit() -> list[str]:
    """Return the time of the first fit of a process, whose kernels come from the disk cache."""
    command = [sys.executable, "-c", FIRST]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(4)]
    seconds = [float(run.stdout) for run in runs]
    return [f"First fit of a process, kernels from the disk cache: {statistics.median(seconds[1:]):.2f} s."]


PARTS = {
    "Value and gradient of `bce_with_logits`, float32, as multiples of a parallel read of X": passes,
    "Logistic regression, 100,000 x 10, float64": logistic,
    "Quantile regression, 10 columns": quantiles,
    "Three epochs of logistic regression, 100,000 x 10": epochs,
    "First fit": first_fit,
}


def main() -> None:
    """Measure, print the tables, and write them where that is asked for."""
    warnings.simplefilter("ignore")
    text = f"# Linear models\n\nWritten by `python -m bench.linear --write`. {sentence(about())}\n"
    for title, part in PARTS.items():
        text += f"\n## {title}\n\n" + "\n".join(part()) + "\n"
        print(title, flush=True)
    print(text)
    if "--write" in sys.argv[1:]:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
