"""Tables of times in docs/performance.md and the README, from the figures in bench/results/performance.json.

python -m bench.table                       rewrite both sections, both pictures and the full table
python -m bench.table --check               exit 1 where a section or the full table is out of date
python -m bench.table --measure [LOSS...]   measure first, all rows or those of these losses: minutes, when idle
python -m bench.table --measure --only no-out   measure these contestants beside fastloss, and keep the other columns
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from fastloss.performance import report
from fastloss.performance.ask import parse_loss
from fastloss.performance.cases import Case, power
from fastloss.performance.contestants import BUILDERS, OURS, installed
from fastloss.performance.machine import about, sentence
from fastloss.performance.report import Document
from fastloss.performance.run import Measured, measure

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench" / "results"
FIGURES, TABLE, PLOT = (RESULTS / f"performance.{kind}" for kind in ("json", "md", "svg"))
PICTURE = RESULTS / "speed.svg"
BEGIN, END = "<!-- performance: begin, written by python -m bench.table -->\n", "<!-- performance: end -->\n"

ELEMENTWISE = ("mse", "huber", "bce_with_logits", "focal", "log_cosh", "poisson", "gaussian_nll")
SIZES = (100, 10_000, 10_000_000)
CLASSES = (2, 5, 10, 32, 100, 1000, 32_000)
LOGITS = 16_000_000

SHOWN = {
    "no-out": "without `out=`",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "torch.compile": "torch.compile",
    "jax": "JAX",
    "scikit-learn": "scikit-learn",
}
"""Contestants in the tables, and their headings there."""

PICTURED = (*ELEMENTWISE, "cross_entropy[K=10]", "cross_entropy[K=1000]")
"""Cases in the README's picture, each at its largest size."""

SUMMARY = ("mse", "huber", "bce_with_logits", "cross_entropy[K=1000]")
"""Cases in the README's table, each at its largest size."""

CASES = (
    *(Case(name, size) for name in ELEMENTWISE for size in SIZES),
    *(Case("cross_entropy", LOGITS, classes=k, target="labels") for k in CLASSES),
)


def read() -> Document:
    """The figures that are committed."""
    return Document.read(FIGURES.read_text(encoding="utf-8"))


def with_column(kept: Measured, found: Measured, names: Sequence[str]) -> Measured:
    """A measured case with the timings of these contestants replaced by those of another run.

    Their ratios to fastloss are those of the other run. Their times are scaled to agree with these ratios.
    """
    timings, scale = dict(kept.timings), kept.timings[OURS].median / found.timings[OURS].median
    for name in names:
        if name in found.timings:
            t = found.timings[name]
            times = {k: getattr(t, k) * scale for k in ("median", "p20", "p80")}
            timings[name] = dataclasses.replace(t, **times)
    return dataclasses.replace(kept, timings=timings)


def remeasure_columns(names: list[str], only: list[str], rounds: int) -> None:
    """Measure some contestants beside fastloss, in the rows of these losses or in all, and keep all other figures."""
    asked, document = {parse_loss(n).loss for n in names}, read()
    for i, kept in enumerate(document.results):
        if not asked or kept.case.loss in asked:
            found = measure(kept.case, only, rounds, budget=12.0)
            document.results[i] = with_column(kept, found, only)
            print(kept.case.id, *(f"{n}: {found.timings[n].ratio:.2f}" for n in only), flush=True)
    FIGURES.write_text(document.to_json() + "\n", encoding="utf-8")


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
    """Text of docs/performance.md: what was measured, the plot and the table."""
    threads = document.machine["threads"]
    paragraphs = (
        "Time of the value and the gradient together, in float32: fastloss with `out=`, and how many times as long\n"
        f"fastloss without `out=` and other libraries take in the same run. {losing(document)}\n"
        "At a roof of 1, a call is as fast as memory delivers the data, or as its own arithmetic where that takes\n"
        "longer.",
        f"![Time relative to fastloss, throughput against size, and the roofline](../{within(PLOT)})",
        table(rows(document.results)),
        "Each contestant computes the same, or it would not be timed. All use\n"
        f"{threads} threads, NumPy one. Measured on {sentence(document.machine)}.",
    )
    return "\n\n".join(paragraphs) + "\n"


def summary(document: Document) -> str:
    """Text of the README's section: the picture, and the times of a few large calls."""
    machine = document.machine
    few = [m for m in document.results if m.case.label in SUMMARY and m.case.size in (max(SIZES), LOGITS)]
    paragraphs = (
        f"![Time of other libraries relative to fastloss, at the largest sizes]({within(PICTURE)})",
        "The value and the gradient together, in float32: fastloss with `out=`, and how many times as long the same\n"
        f"call takes without `out=` and in other libraries ({machine['processor']}, {machine['threads']} threads).\n"
        f"Another library is faster in {lost(document)} of {len(document.results)} measurements,"
        f" see [all figures]({within(PAGE)}).",
        table(without(rows(few), "roof")),
    )
    return "\n\n".join(paragraphs) + "\n"


def lost(document: Document) -> int:
    """Number of rows in which another library is faster."""
    return sum(bool(m.lost) for m in document.results)


def losing(document: Document) -> str:
    """Sentence that counts the rows in which another library is faster."""
    n = lost(document)
    if not n:
        return "No other library is faster in any row."
    return f"Another library is faster in {n} of {len(document.results)} rows (**bold**)."


def rows(results: Sequence[Measured]) -> list[list[str]]:
    """Rows of a table of times, the first being the heading."""
    found = [["loss", "n", "fastloss", "roof", *SHOWN.values()]]
    for m in results:
        ours = [f"`{m.case.label}`", power(m.case.size), report.duration(m.timings[OURS].median), f"{m.of_roof:.2f}"]
        found.append([*ours, *(cell(m, name) for name in SHOWN)])
    return found


def without(lines: list[list[str]], heading: str) -> list[list[str]]:
    """Rows of a table without one of its columns."""
    left_out = lines[0].index(heading)
    return [line[:left_out] + line[left_out + 1 :] for line in lines]


def cell(m, name: str) -> str:
    """A contestant's ratio, bold where it is faster."""
    text = report.ratio(m, name).removesuffix(report.LOST)
    return f"**{text}**" if name in m.lost else text


def table(rows: list[list[str]]) -> str:
    """Rows as Markdown, the first being the heading."""
    align = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], align, *rows[1:]))


def written(document: Document) -> dict[Path, str]:
    """The texts that are made of the figures, by file."""
    sections = {README: summary(document), PAGE: section(document)}
    return {path: renewed(path, text) for path, text in sections.items()} | {TABLE: report.markdown(document)}


def renewed(path: Path, text: str) -> str:
    """Text of a page with the section between its markers replaced."""
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no lines {BEGIN!r} and {END!r} around its section.")
    return before + BEGIN + text + END + after


def within(path: Path) -> str:
    """Path of a file relative to the repository's root, as a link has it."""
    return path.relative_to(ROOT).as_posix()


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
    parser.add_argument("--only", nargs="+", metavar="CONTESTANT", choices=[n for n in BUILDERS if n != OURS])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    if options.check:
        files = stale()
        print(f"out of date: {', '.join(files)}; run python -m bench.table" if files else "up to date")
        sys.exit(bool(files))
    if options.measure is not None and options.only:
        remeasure_columns(options.measure, options.only, options.rounds)
    elif options.measure is not None:
        remeasure(options.measure, options.rounds)
    document = read()
    for path, text in written(document).items():
        path.write_text(text, encoding="utf-8", newline="\n")
    from fastloss.performance.plot import draw, draw_ratios

    draw(document, str(PLOT))
    draw_ratios(document, str(PICTURE), PICTURED)


if __name__ == "__main__":
    main()
