"""`fl.objective` beside NumPy and beside the libraries' own objectives.

    python -m bench.boosting [--write]

The first table has the time of gradient and Hessian of `focal`, beside the same objective in NumPy, in turns. The
second has the pinball loss on held-out rows, over that of the built-in objective of XGBoost, in three units.
`--write` puts the tables into bench/results/boosting.md.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

import fastloss as fl
from fastloss.performance.machine import about, sentence

FILE = Path(__file__).parent / "results" / "boosting.md"


def focal(y: Any, z: Any, gamma: float = 1.5, alpha: float = 0.25) -> tuple[Any, Any]:
    """Return gradient and exact Hessian of the focal loss of logits, as user code writes them in NumPy."""
    sign, a = 2.0 * y - 1.0, np.where(y == 1.0, alpha, 1.0 - alpha)
    p = 1.0 / (1.0 + np.exp(-sign * z))
    q, log_p = 1.0 - p, np.log(p)
    slope = gamma * p * log_p - q
    grad = a * sign * q**gamma * slope
    bend = gamma * (log_p + 1.0) + 1.0
    return grad, a * p * q**gamma * (q * bend - gamma * slope)


def speed() -> list[str]:
    """Return the table of times."""
    lines = ["| rows | dtype | fl.objective | NumPy | ratio |", "|---:|---|---:|---:|---:|"]
    rng = np.random.default_rng(0)
    objective = fl.objective("focal", gamma=1.5, curvature="exact")
    for n in (10_000, 1_000_000):
        for dtype in (np.float32, np.float64):
            z, y = (2.0 * rng.normal(size=n)).astype(dtype), (rng.random(n) < 0.1).astype(dtype)
            ours, theirs = objective.xgboost_sklearn(y, z), focal(y.astype(np.float64), z.astype(np.float64))
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, 1e-4, 1e-5)
            times = []
            for _ in range(15):
                pair = []
                for f in (objective.xgboost_sklearn, focal):
                    start = time.perf_counter()
                    f(y, z)
                    pair.append(time.perf_counter() - start)
                times.append(pair)
            t = np.array(times)
            a, b = np.median(t, axis=0)
            ratio = np.median(t[:, 1] / t[:, 0])
            lines.append(f"| {n:,} | {np.dtype(dtype)} | {a * 1e3:.3g} ms | {b * 1e3:.3g} ms | {ratio:.1f} |")
            print(lines[-1], flush=True)
    return lines


def quantiles() -> list[str]:
    """Return the table of pinball losses over those of the built-in objective."""
    lines = ["| level | unit of the target | fl.objective, over built-in |", "|---:|---:|---:|"]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5)).astype(np.float32)
    plain = x[:, 0] + 0.5 * x[:, 1] ** 2 + rng.standard_t(3, 4000)
    common = {"max_depth": 3, "eta": 0.1, "disable_default_eval_metric": 1, "nthread": 2}
    for q in (0.5, 0.9):
        objective = fl.objective("quantile", q=q, curvature="surrogate")
        for unit in (1e-3, 1.0, 1e3):
            y = plain * unit
            train, valid = xgboost.DMatrix(x[:2000], y[:2000]), xgboost.DMatrix(x[2000:], y[2000:])
            found = []
            for parameters, obj in (
                ({"objective": "reg:quantileerror", "quantile_alpha": q}, None),
                ({"base_score": float(objective.init_score(y[:2000])[0])}, objective.xgboost),
            ):
                seen: dict[str, Any] = {}
                options = {"custom_metric": objective.metric.xgboost, "evals_result": seen, "verbose_eval": False}
                xgboost.train({**common, **parameters}, train, 200, obj=obj, evals=[(valid, "v")], **options)
                found.append(min(seen["v"]["quantile"]))
            lines.append(f"| {q} | {unit:g} | {found[1] / found[0]:.3f} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, and write the tables where `--write` is given."""
    fl.set_num_threads(2)
    first, second = speed(), quantiles()
    if "--write" in sys.argv:
        head = "# `fl.objective` beside NumPy and the libraries' own objectives\n\n"
        said = f"Written by `python -m bench.boosting --write`. {sentence(about())}"
        tables = "\n".join(
            [*first, "", "Least pinball loss of 200 rounds on held-out rows, with XGBoost:", "", *second]
        )
        FILE.write_text(f"{head}{said}\n\nGradient and exact Hessian of `focal`:\n\n{tables}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
