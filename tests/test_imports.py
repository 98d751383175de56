"""Imports run one way: by layer, and in no circle, those inside functions counted."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fastloss

ROOT = Path(fastloss.__file__).parent

LAYERS = (
    {"reference", "_version", "_signals", "_terminal"},
    {"spec"},
    {"formulas", "call"},
    {"cpu"},
    {"cuda"},
    {"losses"},
    {"text", "rewards", "recipes", "train", "linear", "optim", "balance", "risk", "evaluation", "data"},
    {"advice", "interop", "duckdb", "jax", "plot", "polars", "scipy", "torch"},
    {"performance", "tracking"},
    {"command", "__main__"},
)
"""Modules and packages of which each layer may import its own and those before it."""


def modules():
    """The module that each file is, as a tuple of names below the package."""
    for path in sorted(ROOT.rglob("*.py")):
        yield tuple(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"), path


NAMES = dict(modules())


def imported(module, path):
    """The modules of the package that a file imports anywhere but for type checkers."""
    package = module if path.stem == "__init__" else module[:-1]
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in skipped or node.level == 0:
            continue
        base = package[: len(package) - node.level + 1] + tuple((node.module or "").split(".") if node.module else ())
        for alias in node.names:
            found = (*base, alias.name)
            yield found if found in NAMES else base


GRAPH = {module: {x for x in imported(module, path) if x != module} for module, path in modules()}


def test_no_imports_in_a_circle():
    without_package = {m: {x for x in found if x} for m, found in GRAPH.items() if m}
    try:
        TopologicalSorter(without_package).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(".".join(m) for m in error.args[1]))


def layer(module):
    """The layer of a module, by its first name; the package itself stands above all."""
    return next((i for i, layer in enumerate(LAYERS) if module and module[0] in layer), len(LAYERS))


def test_imports_go_down():
    wrong = [
        f"{'.'.join(module)} imports {'.'.join(found)}"
        for module, all_found in GRAPH.items()
        for found in all_found
        if found and layer(found) > layer(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_reference_imports_nothing_of_the_package():
    assert not [m for m, found in GRAPH.items() if m[:1] == ("reference",) for x in found if x[:1] != ("reference",)]


def test_every_module_has_a_layer():
    assert [m for m in GRAPH if m and layer(m) == len(LAYERS)] == []
