"""README.md and docs/*.md show nothing that does not run, and link to nothing that does not exist.

The Python and console blocks of a page are executed in order, each page in a directory of its own.
`python tests/docs/test_readme.py` rewrites the outputs of the console blocks with what the commands print now.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

import fastloss as fl

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
FENCE = re.compile(r"^(?:<!-- (?P<marker>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
EXCLUDED = re.compile(r"test|not run: \w.*")  # "test" runs this suite; any other exclusion gives its reason


class Block(NamedTuple):
    marker: str
    language: str
    text: str
    where: str
    line: int
    span: tuple[int, int]


def read_blocks(page):
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    blocks = []
    for m in FENCE.finditer(text):
        line = text.count("\n", 0, m.start("text")) + 1
        blocks.append(Block(m["marker"] or "", m["language"], m["text"], f"{name}:{line}", line, m.span("text")))
    return blocks


def commands(text):
    """Split a console block into pairs of command and shown output."""
    head, *parts = re.split(r"^\$ ", text, flags=re.M)
    assert not head, f"a console block begins with '$ ', not with {head!r}"
    return [tuple(part.split("\n", 1)) for part in parts]


def run_python(block, names):
    if ">>>" not in block.text:
        exec(compile(block.text, block.where, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(block.text, names, block.where, block.where, block.line - 1)
    said = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert not result.failed, "".join(said)


def run_command(command, directory):
    """Run one command with this environment's fastloss; return what it prints."""
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=directory,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


@each_page
def test_every_block_runs_or_says_why_not(page):
    for block in read_blocks(page):
        if block.language in ("python", "console"):
            assert not block.marker, f"{block.where}: {block.language} blocks are all executed"
        else:
            assert EXCLUDED.fullmatch(block.marker), f"{block.where}: say why this block is not run"


def test_there_is_one_test_command():
    (command,) = [block.text for page in PAGES for block in read_blocks(page) if block.marker == "test"]
    assert "pip install" in command
    assert "pytest" in command
    assert command in [block.text for block in read_blocks(README)]


def test_the_readme_is_short_and_names_losses_that_exist():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") < 250
    assert len(fl.LOSSES) > int(re.search(r"More than (\d+) loss functions", text)[1])
    rows = text.partition("| Problem |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) == 10
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    parameters = {p for loss in fl.LOSSES.values() for p in loss.defaults}
    assert named - set(fl.LOSSES) <= parameters


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if read_blocks(p)], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_blocks_do_what_the_page_says(page, tmp_path, monkeypatch):
    blocks = [block for block in read_blocks(page) if block.language in ("python", "console")]
    if any(block.language == "console" for block in blocks) and shutil.which("bash") is None:
        pytest.skip("console blocks run in bash, which is not installed")
    text, reason = "\n".join(block.text for block in blocks), f"{page.name} uses it"
    if "import torch" in text:
        pytest.importorskip("torch", reason=reason)
    if re.search(r"^\$ fastloss", text, re.M):
        pytest.importorskip("typer", reason=reason)
    if "import pyarrow" in text or re.search(r"^\$ fastloss", text, re.M):
        pytest.importorskip("pyarrow", reason=reason)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for block in blocks:
        if block.language == "python":
            run_python(block, names)
            continue
        for command, shown in commands(block.text):
            printed = run_command(command, tmp_path)
            match = doctest.OutputChecker().check_output(shown, printed, FLAGS)
            assert match, f"{block.where}: `{command}` printed\n{printed}\nand the page shows\n{shown}"


LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")
LINKED = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "bench").rglob("*.md")),
]


def prose(page):
    """Return a page without its code, in which brackets are no links."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them: a repeated one gets a number."""
    found = {}
    for heading in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S), re.M
    ):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
    return {f"{a}-{i}" if i else a for a, n in found.items() for i in range(n + 1)}


def dead_links(page):
    dead = []
    for link in (a or b for a, b in LINK.findall(prose(page))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    assert dead_links(page) == []


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `x`: two\n# Again\n# Again\n[a](page.md) [b](#one-x-two) [c](#again-1) [d](https://example.org/none)\n"
        '`[e](code.md)`\n[f](gone.md) [g](#gone) [h](page.md#again-2) ![i](gone.svg) <img src="gone.png">\n'
    )
    assert dead_links(page) == ["gone.md", "#gone", "page.md#again-2", "gone.svg", "gone.png"]


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []


def update(page):
    """Rewrite the outputs shown in a page's console blocks."""
    text = page.read_text(encoding="utf-8")
    pieces, end, names = [], 0, {"__name__": page.stem}
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        for block in read_blocks(page):
            if block.language == "python":
                run_python(block, names)
            elif block.language == "console":
                shown = "".join(
                    f"$ {command}\n{run_command(command, directory)}" for command, _ in commands(block.text)
                )
                pieces += [text[end : block.span[0]], shown]
                end = block.span[1]
        os.chdir(ROOT)
    page.write_text("".join(pieces) + text[end:], encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for page in PAGES:
        update(page)
