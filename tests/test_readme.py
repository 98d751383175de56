"""The README says nothing that does not run: its Python and console blocks are executed, in order, in one directory.

`python tests/test_readme.py` rewrites the outputs of the console blocks with what the commands print now.
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

README = Path(__file__).parent.parent / "README.md"
FENCE = re.compile(r"^(?:<!-- (?P<marker>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
EXCLUDED = re.compile(r"test|not run: \w.*")  # "test" runs this suite; any other exclusion gives its reason


class Block(NamedTuple):
    marker: str
    language: str
    text: str
    line: int
    span: tuple[int, int]


def read_blocks(readme):
    return [
        Block(m["marker"] or "", m["language"], m["text"], readme.count("\n", 0, m.start("text")) + 1, m.span("text"))
        for m in FENCE.finditer(readme)
    ]


def commands(text):
    """Split a console block into pairs of command and shown output."""
    head, *parts = re.split(r"^\$ ", text, flags=re.M)
    assert not head, f"a console block begins with '$ ', not with {head!r}"
    return [tuple(part.split("\n", 1)) for part in parts]


def run_python(block, names):
    if ">>>" not in block.text:
        exec(compile(block.text, f"README.md:{block.line}", "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(block.text, names, "README", "README.md", block.line - 1)
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


def test_every_block_runs_or_says_why_not():
    blocks = read_blocks(README.read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        if block.language in ("python", "console"):
            assert not block.marker, f"README.md:{block.line}: {block.language} blocks are all executed"
        else:
            assert EXCLUDED.fullmatch(block.marker), f"README.md:{block.line}: say why this block is not run"


def test_there_is_one_test_command():
    blocks = read_blocks(README.read_text(encoding="utf-8"))
    (command,) = [block.text for block in blocks if block.marker == "test"]
    assert "pip install" in command
    assert "pytest" in command


@pytest.mark.jit
@pytest.mark.slow
def test_blocks_do_what_the_readme_says(tmp_path, monkeypatch):
    if shutil.which("bash") is None:
        pytest.skip("console blocks run in bash, which is not installed")
    pytest.importorskip("pyarrow", reason="the README writes and evaluates a Parquet file")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for block in read_blocks(README.read_text(encoding="utf-8")):
        if block.language == "python":
            run_python(block, names)
        elif block.language == "console":
            for command, shown in commands(block.text):
                printed = run_command(command, tmp_path)
                match = doctest.OutputChecker().check_output(shown, printed, FLAGS)
                assert match, f"README.md:{block.line}: `{command}` printed\n{printed}\nand the README shows\n{shown}"


def update():
    """Rewrite the outputs shown in console blocks."""
    text = README.read_text(encoding="utf-8")
    pieces, end, names = [], 0, {"__name__": "readme"}
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        for block in read_blocks(text):
            if block.language == "python":
                run_python(block, names)
            elif block.language == "console":
                shown = "".join(
                    f"$ {command}\n{run_command(command, directory)}" for command, _ in commands(block.text)
                )
                pieces += [text[end : block.span[0]], shown]
                end = block.span[1]
        os.chdir(README.parent)
    README.write_text("".join(pieces) + text[end:], encoding="utf-8", newline="\n")


if __name__ == "__main__":
    update()
