"""The README's table of times, from the figures in bench/results/performance.json.

python -m bench.table                       rewrite the README's section, the plot and the full table
python -m bench.table --check               exit 1 where the README or the full table is out of date
python -m bench.table --measure [LOSS...]   measure first, all rows or those of these losses: minutes, when idle
"""

import argparse
import sys
from pathlib import Path

from fastloss.performance import report
from fastloss.performance.ask import parse_loss
from fastloss.performance.cases import Case, power
from fastloss.performance.contestants import BUILDERS, OURS, installed
from fastloss.performance.machine import about, sentence
from fastloss.performance.report import Document
from fastloss.performance.run import measure

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
FIGURES, TABLE, PLOT = (RESULTS / f"performance.{kind}" for kind in ("json", "md", "svg"))
BEGIN, END = "<!-- performance: begin, written by python -m bench.table -->\n", "<!-- performance: end -->\n"

ELEMENTWISE = ("mse", "huber", "bce_with_logits", "focal", "log_cosh", "poisson", "gaussian_nll")
SIZES = (100, 10_000, 10_000_000)
CLASSES = (2, 5, 10, 32, 100, 1000, 32_000)
LOGITS = 16_000_000

SHOWN = {
    "numpy": "NumPy",
    "torch": "PyTorch",
    "torch.compile": "compiled",
    "jax": "JAX",
    "scikit-learn": "scikit-learn",
}
"""Contestants in the README, and their headings there."""

CASES = (
    *(Case(name, size) for name in ELEMENTWISE for size in SIZES),
    *(Case("cross_entropy", LOGITS, classes=k, target="labels") for k in CLASSES),
)


def read() -> Document:
    """The figures that are committed."""
    return Document.read(FIGURES.read_text(encoding="utf-8"))


def remeasure(names: list[str], rounds: int) -> None:
    """Measure the rows of these losses, or all, and keep the figures of the others."""
    asked = {parse_loss(n).loss for n in names}
    kept = {m.case.id: m for m in read().results} if FIGURES.exists() else {}
    contestants = [n for n in BUILDERS if installed(n) and n != "numexpr"]
    machine = about()
    for case in CASES:
        if not asked or case.loss in asked:
            kept[case.id] = measure(case, contestants, rounds, budget=12.0)
            print(f"{case.id}: {report.duration(kept[case.id].timings[OURS].median)}", flush=True)
    results = [kept[c.id] for c in CASES if c.id in kept]
    FIGURES.write_text(Document(machine, rounds, results).to_json() + "\n", encoding="utf-8")


def section(document: Document) -> str:
    """The README's text: what was measured, the plot, the table, and the rows that are lost."""
    rows = [["loss", "n", "fastloss", "roof", *SHOWN.values()]]
    for m in document.results:
        ours = [f"`{m.case.label}`", power(m.case.size), report.duration(m.timings[OURS].median), f"{m.of_roof:.2f}"]
        rows.append([*ours, *(cell(m, name) for name in SHOWN)])
    lost = sum(bool(m.lost) for m in document.results)
    losing = f"In {lost} of {len(rows) - 1} rows one is faster (**bold**)." if lost else "None is faster in any row."
    threads = document.machine["threads"]
    paragraphs = (
        "Time of the value and the gradient together, in float32: fastloss with `out=`, and how many times as long\n"
        f"others take in the same run. {losing}\n"
        "At a roof of 1 a call is as fast as memory delivers the data, or as its own arithmetic where that takes\n"
        "longer. `fastloss bench` measures all this on your machine.",
        "![Time relative to fastloss, throughput against size, and the roofline](bench/results/performance.svg)",
        table(rows),
        'Each contestant computes the same, or it would not be timed; "compiled" is `torch.compile`. All use\n'
        f"{threads} threads, NumPy one. Measured on {sentence(document.machine)}.",
    )
    return "\n\n".join(paragraphs) + "\n"


def cell(m, name: str) -> str:
    """A contestant's ratio, bold where it is faster."""
    text = report.ratio(m, name).rstrip(report.LOST)
    return f"**{text}**" if name in m.lost else text


def table(rows: list[list[str]]) -> str:
    """Rows as Markdown, the first being the heading."""
    align = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], align, *rows[1:]))


def written(document: Document) -> dict[Path, str]:
    """The texts that are made of the figures, by file."""
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return {README: before + BEGIN + section(document) + END + after, TABLE: report.markdown(document)}


def stale() -> list[str]:
    """The files that do not say what the figures say."""
    return [
        str(path.relative_to(ROOT))
        for path, text in written(read()).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> None:
    """Check, or write, after measuring where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--measure", nargs="*", metavar="LOSS")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    if options.check:
        files = stale()
        print(f"out of date: {', '.join(files)}; run python -m bench.table" if files else "up to date")
        sys.exit(bool(files))
    if options.measure is not None:
        remeasure(options.measure, options.rounds)
    document = read()
    for path, text in written(document).items():
        path.write_text(text, encoding="utf-8", newline="\n")
    from fastloss.performance.plot import draw

    draw(document, str(PLOT))


if __name__ == "__main__":
    main()
