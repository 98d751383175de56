"""Tables of losses here beside the same losses of another library."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastloss.performance.machine import about, sentence

__all__ = ["tabulate"]


def tabulate(
    title: str,
    heading: tuple[str, str],
    cases: Callable[[int], dict[str, tuple[Any, ...]]],
    measured: Callable[..., tuple[float, float, float]],
    module: str,
) -> None:
    """Measure cases of 100, 10,000 and 1e7 elements and print a row each; with `--write`, write them to bench/results.

    `measured` returns both times (seconds) and their ratio.
    """
    lines = [f"| loss | n | {heading[0]} | {heading[1]} | ratio |", "|---|---:|---:|---:|---:|"]
    for n in (100, 10_000, 10_000_000):
        for name, case in cases(n).items():
            a, b, ratio = measured(*case, n)
            unit, factor = ("ms", 1e3) if n > 1e6 else ("us", 1e6)
            lines.append(f"| `{name}` | {n:,} | {a * factor:.3g} {unit} | {b * factor:.3g} {unit} | {ratio:.2f} |")
            print(lines[-1], flush=True)
    if "--write" in sys.argv:
        head = f"# {title}\n\nWritten by `python -m bench.{module} --write`."
        file = Path(__file__).parent / "results" / f"{module}.md"
        file.write_text(f"{head} {sentence(about())}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
