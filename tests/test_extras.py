"""No test is skipped for good: a package that no extra of the test command brings is one of the extra `oracles`."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

PEERS = ("torch", "sklearn", "scipy", "pyarrow", "mypy")


def unmarked(tree):
    """The packages that a module's tests import or are skipped, without the mark `oracle`."""
    if any(
        isinstance(n, ast.Assign) and ast.unparse(n).startswith("pytestmark = [pytest.mark.oracle") for n in tree.body
    ):
        return
    for node in ast.walk(tree):
        marked = {ast.unparse(d) for d in getattr(node, "decorator_list", ())} & {"pytest.mark.oracle"}
        if isinstance(node, ast.FunctionDef) and marked:
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            yield node.args[0].value.split(".")[0]


@pytest.mark.skipif(not all(map(find_spec, PEERS)), reason="needs the extras of the test command")
def test_what_the_test_command_skips_is_marked():
    # Kernels for a GPU are tested in processes of their own, with packages of their own.
    files = sorted(f for f in Path(__file__).parent.rglob("*.py") if "cuda" not in f.parts)
    needed = {name: f.name for f in files for name in unmarked(ast.parse(f.read_text()))}
    assert {"torch", "pyarrow", "mpmath"} <= set(needed)
    assert {name: where for name, where in needed.items() if not find_spec(name)} == {}
    compared = {
        "catboost",
        "duckdb",
        "jax",
        "lightgbm",
        "numexpr",
        "ot",
        "pandas",
        "polars",
        "rouge_score",
        "sacrebleu",
    }
    assert not {*compared, "statsmodels", "xgboost"} & set(needed)
