"""The figures that fastloss is held to: ratios within one run, beside what was asked.

    python -m bench.targets [--rounds 15] [--write]

`--write` puts the table into bench/results/targets.md. Run it on an idle machine: it takes about three minutes.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import ml_dtypes
import numpy as np

import fastloss as fl
from fastloss.performance.machine import about, reuse_memory, sentence
from fastloss.performance.roof import _copies, _differences
from fastloss.performance.timing import interleave

FILE = Path(__file__).parent / "results" / "targets.md"
F32 = np.float32


class Row(NamedTuple):
    """One figure: what was measured, the result, the limit; smaller is better unless `least`."""

    what: str
    got: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps its limit, to the two digits shown."""
        got = round(self.got, 2)
        return got >= self.limit if self.least else got <= self.limit


def ratio(ours: Callable[[], object], base: Callable[[], object], rounds: int) -> float:
    """Median over rounds of our time in units of the base."""
    return against(ours, base, rounds, 0)[0]


def against(ours: Callable[[], object], base: Callable[[], object], rounds: int, moved: int) -> tuple[float, str]:
    """The same, and the speed of the base in words, from the bytes that it names."""
    times = interleave({"ours": ours, "base": base}, rounds, budget=8.0)
    got = median(a / b for a, b in zip(times["ours"], times["base"], strict=True))
    return got, f"{moved / median(times['base']) / 1e9:.0f} GB/s"


def pair(name: str, n: int, dtype: type = F32) -> tuple[object, object, object]:
    """A prediction, a target and room for the gradient."""
    rng = np.random.default_rng(0)
    p = rng.standard_normal(n, dtype=np.float32).astype(dtype)
    labels = (rng.random(n, dtype=np.float32) < 0.5).astype(dtype)
    target = 2 * labels - 1 if name == "hinge" else labels
    if name == "tweedie":
        target = target + dtype(0.5)
    if name == "gaussian_nll":
        return (p, np.abs(p) + dtype(0.5)), target, (np.empty_like(p), np.empty_like(p))
    return p, target, np.empty_like(p)


def elementwise(rounds: int) -> Iterator[Row]:
    """Large arrays, as a ratio to a plain parallel g = p - t."""
    limits = dict.fromkeys(("mse", "mae", "huber", "smooth_l1", "hinge", "quantile"), 1.0)
    limits |= dict.fromkeys(("bce_with_logits", "log_cosh", "poisson"), 1.6)
    limits |= dict.fromkeys(("focal", "gaussian_nll", "tweedie", "barron"), 2.5)
    for n in (10**7, 10**8):
        for name, limit in limits.items():
            if n == 10**8 and limit > 1.0:
                continue
            f, (p, t, g) = fl.LOSSES[name], pair(name, n)
            one = p[0] if isinstance(p, tuple) else p
            out = g[0] if isinstance(g, tuple) else g
            base = lambda one=one, t=t, out=out: _differences[True](one, t, out)  # noqa: E731
            ours = lambda f=f, p=p, t=t, g=g: f.value_and_grad(p, t, out=g)  # noqa: E731
            got, speed = against(ours, base, rounds, 12 * n)
            yield Row(f"{name}, n = {n:.0e}, of g = p - t ({speed})", got, limit)


def rows(rounds: int, size: int = 16_000_000) -> Iterator[Row]:
    """cross_entropy, as a ratio to a plain parallel copy."""
    rng = np.random.default_rng(0)
    for k, limit in {2: 4.0, 5: 2.5, 10: 2.5, 32: 2.8, 100: 2.2, 1000: 1.5, 32000: 1.5, 128000: 1.5}.items():
        z = rng.standard_normal((size // k, k), dtype=np.float32) * 3
        y, g = rng.integers(0, k, len(z)), np.empty_like(z)
        got, speed = against(
            lambda z=z, y=y, g=g: fl.cross_entropy.value_and_grad(z, y, out=g),
            lambda a=z.reshape(-1), b=g.reshape(-1): _copies[True](a, b),  # noqa: B008
            rounds,
            8 * z.size,
        )
        yield Row(f"cross_entropy, K = {k}, {z.size:,} logits, of a copy ({speed})", got, limit)


def variants(rounds: int, n: int = 10**7) -> Iterator[Row]:
    """Value only, threads, and other precisions."""
    for name in ("mse", "bce_with_logits", "focal"):
        f, (p, t, g) = fl.LOSSES[name], pair(name, n)
        both, value = lambda: f.value_and_grad(p, t, out=g), lambda: f(p, t)  # noqa: B023
        yield Row(f"{name}, n = 1e7, value_and_grad / value", ratio(both, value, rounds), 1.3, True)

        def on(threads: int, call: Callable[[], object] = both) -> object:
            fl.set_num_threads(threads)
            return call()

        got = ratio(lambda: on(1), lambda: on(2), rounds)
        yield Row(f"{name}, n = 1e7, one thread / two", got, 1.0 if name == "mse" else 1.8, True)
        fl.set_num_threads(2)
        wide = pair(name, n, np.float64)
        got = ratio(lambda: f.value_and_grad(wide[0], wide[1], out=wide[2]), both, rounds)  # noqa: B023
        yield Row(f"{name}, n = 1e7, float64 / float32", got, 2.2)
        for half in (np.float16, ml_dtypes.bfloat16):
            small = (p.astype(half), t.astype(half), g.astype(half))
            got = ratio(lambda: f.value_and_grad(small[0], small[1], out=small[2]), both, rounds)  # noqa: B023
            yield Row(f"{name}, n = 1e7, {np.dtype(half).name} / float32", got, 1.0)
    rng = np.random.default_rng(0)
    for k in (10, 1000):
        z = rng.standard_normal((n // k, k), dtype=np.float32)
        y, g = rng.integers(0, k, len(z)), np.empty_like(z)
        full = lambda: fl.cross_entropy.value_and_grad(z, y, out=g)  # noqa: E731, B023
        for half in (np.float16, ml_dtypes.bfloat16):
            zz, gg = z.astype(half), g.astype(half)
            got = ratio(lambda: fl.cross_entropy.value_and_grad(zz, y, out=gg), full, rounds)  # noqa: B023
            yield Row(f"cross_entropy, K = {k}, {np.dtype(half).name} / float32", got, 1.0)
        wide_z, wide_g = z.astype(np.float64), g.astype(np.float64)
        got = ratio(lambda: fl.cross_entropy.value_and_grad(wide_z, y, out=wide_g), full, rounds)  # noqa: B023
        yield Row(f"cross_entropy, K = {k}, float64 / float32", got, 2.2)


def small(rounds: int) -> Iterator[Row]:
    """Microseconds of a call that allocates its gradient."""
    rng = np.random.default_rng(0)
    p, t = rng.standard_normal(100, dtype=np.float32), (rng.random(100) < 0.5).astype(np.float32)
    z, y = rng.standard_normal((32, 10), dtype=np.float32), rng.integers(0, 10, 32)
    calls = {
        "mse, n = 100": lambda: fl.mse.value_and_grad(p, t),
        "bce_with_logits, n = 100": lambda: fl.bce_with_logits.value_and_grad(p, t),
        "cross_entropy, 32 x 10": lambda: fl.cross_entropy.value_and_grad(z, y),
    }
    for name, times in interleave(calls, rounds).items():
        yield Row(f"{name}, us", median(times) * 1e6, 2.5)


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    reuse_memory()
    lines = ["| case | got | asked | |", "|:--|--:|--:|:--|"]
    print("\n".join(lines))
    for measure in (small, elementwise, rows, variants):
        for row in measure(options.rounds):
            sign = "at least" if row.least else "at most"
            lines.append(f"| {row.what} | {row.got:.2f} | {sign} {row.limit:g} | {'' if row.met else 'missed'} |")
            print(lines[-1], flush=True)
    if options.write:
        # What stands below the table is written by hand: why the missed ones are.
        below = FILE.read_text().partition("\n## ")[2] if FILE.exists() else ""
        text = f"# Targets\n\nfloat32 and value_and_grad with `out=` unless said. {sentence(about())}\n\n"
        FILE.write_text(text + "\n".join(lines) + "\n" + (f"\n## {below}" if below else ""))


if __name__ == "__main__":
    main()
