"""What `fl.search` gains in F1 on new data where 6 samples in 100 are positive: python -m bench.search [--write].

Each search trains 40 losses on one training set and judges them by one held-out set. Its winner and cross-entropy are
then trained on eight other sets, and compared on eight test sets. `--write` puts the table into bench/results.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import fastloss as fl

FILE = Path(__file__).parent / "results" / "search.md"
SEARCHES = 5
KINDS: dict[str, tuple[Any, Any, str]] = {
    "`bce_with_logits`, `pos_weight`": (fl.bce_with_logits, {"pos_weight": (0.2, 50.0, "log")}, "cma"),
    "`focal`, `gamma` and `alpha`": (fl.focal.bind(alpha=0.5), {"gamma": (0.0, 4.0), "alpha": (0.05, 0.95)}, "cma"),
    '`"taylor"`': ("taylor", None, "cma"),
}


def samples(n: int, seed: int) -> tuple[Any, Any]:
    """Return samples of which 6 in 100 are positive, with noise in the labels."""
    rng = np.random.default_rng(seed)
    x = np.c_[rng.normal(size=(n, 4)), np.ones(n)]
    return x, (x @ [2.0, -2.0, 1.0, 0.0, -5.0] + rng.normal(size=n) > 0).astype(float)


def score(loss: Any, train: tuple[Any, Any], test: tuple[Any, Any]) -> float:
    """Return the F1 score on one set of a linear model trained with a loss on another."""
    w = np.zeros(5)
    opt = fl.optim.Adam([w], lr=0.1)
    for _ in range(200):
        opt.step([train[0].T @ loss.value_and_grad(train[0] @ w, train[1])[1]])
    found = test[0] @ w > 0
    return float(2 * (found * test[1]).sum() / (found.sum() + test[1].sum()))


def main() -> None:
    """Search, and print a table."""
    fresh = [(samples(2000, 100 + k), samples(10_000, 200 + k)) for k in range(8)]
    plain = np.array([score(fl.bce_with_logits, *sets) for sets in fresh])
    lines = [
        f"# Gains of `fl.search` in F1\n\nWritten by `python -m bench.search --write`. Cross-entropy has an F1 of "
        f"{plain.mean():.3f} on new test sets, with a deviation of {plain.std(ddof=1):.3f} between training sets.\n",
        "| searched | smallest gain of 5 searches | largest |",
        "|---|---:|---:|",
    ]
    print(lines[0])
    for name, (loss, over, method) in KINDS.items():
        gains = []
        for seed in range(SEARCHES):
            train, held_out = samples(2000, 10 * seed), samples(4000, 10 * seed + 1)
            options = {"method": method, "budget": 40, "seed": seed, "progress": False}
            found = fl.search(loss, lambda x, a=train, b=held_out: score(x, a, b), over, **options)
            gains.append(float(np.mean([score(found.loss, *sets) for sets in fresh]) - plain.mean()))
        lines.append(f"| {name} | {min(gains):.3f} | {max(gains):.3f} |")
        print(lines[-1], flush=True)
    if "--write" in sys.argv:
        FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
