"""Formulas from text: an expression is parsed and computed on symbols, piece by piece; no text is ever executed.

Allowed are numbers, names, arithmetic, comparisons, `and`, `or`, `not`, `a if c else b`, and calls of the functions in
SPELLING, by their names or as np.NAME or math.NAME. Every other piece is an error that names it.
"""

import ast
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from .graph import Operand, operation
from .spelling import SPELLING, FormulaError, apply, known

__all__ = ["compute", "names_in", "parsed"]

LONGEST = 10_000
"""Characters of a text at the most."""

CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}
MODULES = frozenset(["np", "numpy", "math"])
INFIX: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "pow"}
INFIX |= {ast.BitAnd: "&", ast.BitOr: "|", ast.And: "&", ast.Or: "|"}
PREFIX: dict[type, str] = {ast.USub: "neg", ast.Not: "not", ast.Invert: "not"}
COMPARED: dict[type, str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


def parsed(name: str, text: Any) -> ast.expr:
    """Return the syntax tree of an expression."""
    if not isinstance(text, str):
        raise FormulaError(f"{name}: the formula is a {type(text).__name__}; expected a text such as '(z - t)**2'")
    if len(text) > LONGEST:
        raise FormulaError(f"{name}: the formula has {len(text)} characters; expected at most {LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        what = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise FormulaError(f"{name}: {text.strip()!r} is no expression ({what})") from None


def names_in(tree: ast.expr) -> list[str]:
    """Return the free names of an expression, functions and modules aside, in the order of the text."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            skipped.add(id(node.func))
        if isinstance(node, ast.Attribute):
            skipped.add(id(node.value))
    found = [x for x in ast.walk(tree) if isinstance(x, ast.Name) and id(x) not in skipped]
    found.sort(key=lambda x: (x.lineno, x.col_offset))
    return list(dict.fromkeys(x.id for x in found))


def compute(tree: ast.expr, operands: Mapping[str, Operand]) -> Operand:
    """Return an expression's operand for the operands of its names."""
    try:
        return _compute(tree, operands)
    except FormulaError:
        raise
    except RecursionError:
        raise FormulaError("the expression is nested too deeply") from None
    except (ArithmeticError, ValueError) as error:
        raise FormulaError(f"computes a constant that is no number ({error})") from None


def _compute(tree: ast.expr, operands: Mapping[str, Operand]) -> Operand:
    rule = PIECES.get(type(tree))
    if rule is None:
        raise FormulaError(f"{_shown(tree)} is not part of a formula; {known()}")
    return rule(tree, operands)


def _shown(tree: ast.AST) -> str:
    text = ast.unparse(tree)
    return f"'{text if len(text) < 60 else text[:57] + '...'}'"


def _constant(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    if type(tree.value) not in (int, float, bool):
        raise FormulaError(f"{_shown(tree)} is not part of a formula; expected numbers and names")
    return tree.value if isinstance(tree.value, bool) else float(tree.value)


def _name(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    if tree.id in operands:
        return operands[tree.id]
    if tree.id in CONSTANTS:
        return CONSTANTS[tree.id]
    raise FormulaError(f"{tree.id} is unknown; known: {', '.join(operands)}")


def _attribute(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    if isinstance(tree.value, ast.Name) and tree.value.id in MODULES and tree.attr in CONSTANTS:
        return CONSTANTS[tree.attr]
    raise FormulaError(f"{_shown(tree)} is not part of a formula; {known()}")


def _infix(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    if type(tree.op) not in INFIX:
        raise FormulaError(f"{_shown(tree)} is not part of a formula; it has + - * / ** & |")
    return operation(INFIX[type(tree.op)], _compute(tree.left, operands), _compute(tree.right, operands))


def _prefix(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    x = _compute(tree.operand, operands)
    return x if type(tree.op) is ast.UAdd else operation(PREFIX[type(tree.op)], x)


def _joined(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    first, *others = [_compute(x, operands) for x in tree.values]
    for x in others:
        first = operation(INFIX[type(tree.op)], first, x)
    return first


def _comparison(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    sides = [_compute(x, operands) for x in (tree.left, *tree.comparators)]
    found: Operand = True
    for op, a, b in zip(tree.ops, sides, sides[1:], strict=False):
        if type(op) not in COMPARED:
            raise FormulaError(f"{_shown(tree)} is not part of a formula; it has < <= > >= == !=")
        found = operation("&", found, operation(COMPARED[type(op)], a, b))
    return found


def _choice(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    return operation("where", *(_compute(x, operands) for x in (tree.test, tree.body, tree.orelse)))


def _call(tree: Any, operands: Mapping[str, Operand]) -> Operand:
    f = tree.func
    name = f.id if isinstance(f, ast.Name) else ""
    if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id in MODULES:
        name = f.attr
    if not name or name not in SPELLING or tree.keywords:
        raise FormulaError(f"{_shown(tree)} calls what no formula has; {known(name)}")
    if any(isinstance(a, ast.Starred) for a in tree.args):
        raise FormulaError(f"{_shown(tree)} unpacks arguments; give them one by one")
    return apply(name, *(_compute(a, operands) for a in tree.args))


PIECES: dict[type, Callable[[Any, Mapping[str, Operand]], Operand]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.BinOp: _infix,
    ast.UnaryOp: _prefix,
    ast.BoolOp: _joined,
    ast.Compare: _comparison,
    ast.IfExp: _choice,
    ast.Call: _call,
}
"""Functions that compute the pieces of an expression, by their types: the whole of what a text may hold."""
