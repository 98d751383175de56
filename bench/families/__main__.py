"""Measure the families: `python -m bench.families [PART_OF_A_NAME...]`; `--write` renews figures in bench/results."""

import argparse
import importlib
import json
import pkgutil
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import bench.families
from fastloss.performance.machine import about, sentence
from fastloss.performance.timing import interleave

from .case import Bench

RESULTS = Path(__file__).parents[1] / "results" / "families.md"


def benches() -> dict[str, Bench]:
    """All benchmarks, by name; every module of the package that has BENCHES contributes."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(bench.families.__path__) if m.name != "__main__"):
        for each in getattr(importlib.import_module(f"bench.families.{module}"), "BENCHES", ()):
            found[each.name] = each
    return found


PEAK = """
import sys
from bench.families.__main__ import benches, highest
ours = benches()[sys.argv[1]].make()["fastloss"]
before = highest()
ours()
print((highest() - before) / 1024)
"""


def highest() -> int:
    """Kilobytes that this process held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        # The figure of getrusage begins with that of the parent.
        return int(next(x for x in status.read_text().splitlines() if x.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak(name: str) -> float:
    """Megabytes by which the first call raises the peak of a process of its own, compiler included."""
    done = subprocess.run([sys.executable, "-c", PEAK, name], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(each: Bench) -> dict[str, object]:
    """Median seconds of every contestant, the ratios of ours to theirs, and the peak of memory where it matters."""
    times = interleave(each.make(), each.rounds, budget=4.0)
    ours = times["fastloss"]
    ratios = {
        n: statistics.median(a / b for a, b in zip(ours, t, strict=True)) for n, t in times.items() if n != "fastloss"
    }
    return {
        "name": each.name,
        "seconds": {n: statistics.median(t) for n, t in times.items()},
        "ratios": ratios,
        "megabytes": peak(each.name) if each.megabytes < float("inf") else None,
    }


def row(each: Bench, found: dict[str, object]) -> str:
    """A line of the table."""
    seconds, ratios = found["seconds"], found["ratios"]
    others = ", ".join(f"{n} {1 / r:.3g} times as long" for n, r in ratios.items())
    asked, met = [], True
    if each.at_most < float("inf"):
        asked.append(f"{each.at_most:g} of {each.against}: {ratios[each.against]:.2f}")
        met = met and ratios[each.against] <= each.at_most
    if each.megabytes < float("inf"):
        asked.append(f"{each.megabytes:g} MB: {found['megabytes']:.0f}")
        met = met and found["megabytes"] <= each.megabytes
    verdict = "" if not asked else "yes" if met else "**no**"
    return f"| {each.name} | {seconds['fastloss'] * 1e3:.3g} ms | {others} | {'; '.join(asked)} | {verdict} |"


HEAD = "| case | fastloss | others | asked: measured | met | machine |\n|---|---:|---|---|---|---:|"


def write(results: dict[str, dict[str, object]]) -> None:
    """Put figures in the place of older ones of the same cases, which name the machine that they are of."""
    record = RESULTS.with_suffix(".json")
    before = json.loads(record.read_text(encoding="utf-8"))["cases"] if record.exists() else []
    here = sentence(about())
    found = {c["name"]: c for c in before} | {n: {**r, "machine": here} for n, r in results.items()}
    known = {n: b for n, b in benches().items() if n in found}
    machines = list(dict.fromkeys(found[n]["machine"] for n in known))
    lines = [
        HEAD,
        *(f"{row(each, found[n])} {machines.index(found[n]['machine']) + 1} |" for n, each in known.items()),
        "",
        *(f"{k}. {machine}" for k, machine in enumerate(machines, 1)),
    ]
    text = "# Losses of several arrays, measured\n\nWritten by `python -m bench.families --write`.\n\n"
    RESULTS.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    document = {"cases": [found[n] for n in known]}
    record.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Measure and print; the exit code is 0 whatever the figures say."""
    parser = argparse.ArgumentParser(prog="python -m bench.families", description=__doc__)
    parser.add_argument("parts", nargs="*", help="measure those whose name has one of these parts")
    parser.add_argument("--write", action="store_true", help="write bench/results/families.md and .json")
    asked = parser.parse_args()
    print(HEAD, flush=True)
    chosen = {n: b for n, b in benches().items() if not asked.parts or any(p in n for p in asked.parts)}
    results = {}
    for name, each in chosen.items():
        results[name] = measure(each)
        print(row(each, results[name]), flush=True)
    if asked.write:
        write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
