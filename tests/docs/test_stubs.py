"""The generated files agree with the catalogue, and the stub types what users write."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastloss as fl
from tools import pages, stubs

GOOD = """
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastloss as fl
from fastloss.losses.rows import Details

pred = np.zeros(3, dtype=np.float32)
target = np.ones(3, dtype=np.float32)
assert_type(fl.huber(pred, target, delta=2.0), float)
assert_type(fl.huber(pred, target, reduction="none"), NDArray[np.floating[Any]])
value, grad = fl.huber.value_and_grad(pred, target, weight=target, divisor=2.0, out=pred)
assert_type(value, float)
assert_type(grad, NDArray[np.floating[Any]])
grad, hess = fl.huber.grad_and_hess(pred, target, curvature="surrogate")
assert_type(hess, NDArray[np.floating[Any]])
assert_type(fl.huber.bind(delta=2.0)(pred, target), float)
fl.cross_entropy(np.zeros((3, 4)), np.zeros(3, dtype=np.int64), ignore_index=None, label_smoothing=0.1, axis=-1)
by_mean, by_var = fl.gaussian_nll.value_and_grad((pred, target), target, full=True)[1]
assert_type(by_var, NDArray[np.floating[Any]])
fl.quantile(np.zeros((3, 2)), target, q=[0.1, 0.9])
fl.focal(pred, target, alpha=None)
rows = fl.cross_entropy.details(np.zeros((3, 4)), np.zeros(3, dtype=np.int64), z_loss=0.1)
assert_type(rows, Details)
assert_type(fl.cross_entropy.value_and_grad(np.zeros((3, 4)), np.zeros(3), details=True)[2], Details)
fl.set_num_threads(fl.get_num_threads())


def average(loss: fl.Loss, reduction: Literal["mean", "none"]) -> float:
    loss.value_and_grad(pred, target, reduction=reduction)
    return loss(pred, target, weight=None)


average(fl.huber, "mean")
average(fl.LOSSES["mse"], "none")
"""

BAD = {
    "misspelt parameter": "fl.huber(pred, target, dleta=2.0)",
    "parameter of another loss": "fl.mse(pred, target, delta=2.0)",
    "label option of a loss without labels": "fl.mse(pred, target, ignore_index=0)",
    "details without a softmax": "fl.nll.details(pred, target)",
    "unknown reduction": 'fl.huber(pred, target, reduction="average")',
    "weight by position": "fl.huber(pred, target, pred)",
    "text as parameter": 'fl.huber(pred, target, delta="2")',
    "unknown curvature": 'fl.huber.grad_and_hess(pred, target, curvature="none")',
    "missing target": "fl.huber(pred)",
    "misspelt loss": "fl.hubre(pred, target)",
}


def test_generated_files_are_up_to_date():
    for path, text in stubs.generated(fl.LOSSES):
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale; run `python -m tools.stubs`"


def test_check_finds_a_stale_file_and_writing_mends_it(tmp_path, monkeypatch, capsys):
    for page, sections in pages.sections(fl.LOSSES).items():
        marked = [f"{pages.BEGIN.format(name=x)}\nold\n{pages.END.format(name=x)}\n" for x in sections]
        (tmp_path / page).write_text(f"before\n{''.join(marked)}after\n", encoding="utf-8")
    monkeypatch.setattr(stubs, "STUB", tmp_path / "__init__.pyi")
    monkeypatch.setattr(stubs, "DOCS", tmp_path)
    assert stubs.main(["--check"]) == 1
    assert "losses.md is stale" in capsys.readouterr().err
    assert stubs.main([]) == 0
    assert stubs.main(["--check"]) == 0
    for page in pages.sections(fl.LOSSES):
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "\nold\n" not in text


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "losses.md"
    page.write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match=r"losses\.md has no lines"):
        pages.renewed(page, {"losses": str})


def test_every_name_of_the_stub_exists():
    names = set()
    for node in ast.parse(stubs.stub(fl.LOSSES)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom) and node.level:
            names |= {alias.asname for alias in node.names if alias.asname}
    public = {name for name in names if not name.startswith("_")} | {"__version__"}
    assert {"Loss", "LOSSES", "evaluate", *fl.LOSSES} <= public
    assert [name for name in sorted(public) if not hasattr(fl, name)] == []


def test_mypy_accepts_good_code_and_points_at_bad(tmp_path):
    pytest.importorskip("mypy", reason="mypy type-checks the snippets")
    snippet = GOOD + "".join(f"{line}  # {reason}\n" for reason, line in BAD.items())
    path = tmp_path / "snippet.py"
    path.write_text(snippet, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [*command, "--config-file", "", "--cache-dir", str(tmp_path / "cache"), str(path)],
        cwd=Path(stubs.__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = snippet.splitlines()
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert not done.stderr, done.stderr
    assert [error for error in errors if f"{path.name}:" not in error] == []
    numbers = [int(re.search(rf"{path.name}:(\d+):", error)[1]) for error in errors]
    assert {lines[number - 1].rsplit("# ")[-1] for number in numbers} == set(BAD)
