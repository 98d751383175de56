"""NumPy's spelling of formulas: np.exp, math.log, scipy.special.expit and the words of the vocabulary are one.

A user's function is run once on symbols. NumPy's functions reach symbols by its own protocols; functions of `math` and
words without an import are bound to a copy of the function, and so in all functions that it calls. What no formula can
do (branch on data, loop over it, call an unknown function) raises an error that names the line and what to write.
"""

import ast
import builtins
import linecache
import math
import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from . import special, vocabulary
from .graph import WORLD, Graph, Node, Operand, operation
from .worlds import carry

__all__ = ["SPELLING", "FormulaError", "Symbol", "reason", "run"]


class FormulaError(TypeError):
    """Error for a function that is no formula."""


# Shown as users import it; the package finds it here when it is first asked for.
FormulaError.__module__ = "fastloss"


class Symbol(Node):
    """Node that a user's function computes with, in NumPy's spelling too."""

    __slots__ = ()

    __hash__ = Node.__hash__

    def __eq__(self, other: object) -> Any:
        return Node.__eq__(self, other)

    def __bool__(self) -> bool:
        raise FormulaError("branches on data; write np.where(condition, a, b)")

    def __iter__(self) -> Any:
        raise FormulaError(f"loops over data; {SINGLE}")

    def __len__(self) -> int:
        raise FormulaError(f"asks for a length; {SINGLE}")

    def __getitem__(self, index: Any) -> Any:
        raise FormulaError(f"indexes data; {SINGLE}")

    def __float__(self) -> float:
        raise FormulaError("makes a Python number of data; write the operation on it in NumPy")

    __int__ = __index__ = __round__ = __trunc__ = __floor__ = __ceil__ = __float__

    def __mod__(self, other: Any) -> Any:
        raise FormulaError(f"uses % or //, which no formula has; {known()}")

    __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = __mod__

    def __matmul__(self, other: Any) -> Any:
        raise FormulaError(f"multiplies matrices; {SINGLE}")

    __rmatmul__ = __matmul__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in REDUCTIONS:
            raise FormulaError(f"uses .{name}(), but {SINGLE}")
        if name in SPELLING:
            raise FormulaError(f"uses .{name}(); write np.{name}(...)")
        raise FormulaError(f"uses .{name} of data; {SINGLE}")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise FormulaError(f"calls np.{ufunc.__name__} with {method.strip('_')} or options; {SINGLE}")
        return apply(ufunc.__name__, *inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function.__name__ in REDUCTIONS:
            raise FormulaError(f"calls np.{function.__name__}, but {SINGLE}")
        if options:
            raise FormulaError(f"calls np.{function.__name__} with options; give its arguments by position")
        return apply(function.__name__, *args)


SINGLE = "a formula is that of one element (reduction= forms the mean or the sum)"
REDUCTIONS = {
    *("sum", "mean", "average", "median", "std", "var", "prod", "min", "max", "amin", "amax", "cumsum", "any", "all"),
    *("dot", "nansum", "nanmean", "argmax", "argmin", "sort", "concatenate", "stack"),
}


def number(x: Any) -> Operand:
    """Return an operand: a node, a bool, or a float for any other number."""
    if isinstance(x, (Node, bool)):
        return x
    if isinstance(x, np.bool_):
        return bool(x)
    if isinstance(x, (int, float, np.number)) or (isinstance(x, np.ndarray) and x.ndim == 0):
        return float(x)
    if isinstance(x, np.ndarray):
        raise FormulaError(f"computes with an array of shape {x.shape}; {SINGLE}")
    raise FormulaError(f"computes with a {type(x).__name__}; expected numbers")


class UserGraph(Graph):
    """Graph whose operands may be integers and NumPy's scalars."""

    def make(self, op: str, *args: Operand) -> Operand:
        return super().make(op, *map(number, args))


def apply(name: str, *args: Any) -> Operand:
    """Return the result of a function in NumPy's spelling for operands."""
    if name not in SPELLING:
        raise FormulaError(f"calls {name}, which no formula has; {known(name)}")
    operands = [number(a) for a in args]
    try:
        return SPELLING[name](*operands)
    except FormulaError:
        raise
    except TypeError:
        raise FormulaError(f"calls {name} with {len(args)} arguments") from None


def known(name: str = "") -> str:
    """Return a hint at functions that formulas have."""
    import difflib

    close = difflib.get_close_matches(name, SPELLING, n=2, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return "there are exp, log, log1p, sqrt, tanh, abs, where, maximum, minimum, clip, sign, sigmoid, softplus and more"


OWN = ("abs", "cosh", "sinh", "xlogy", "xlog1py", "hypot1", "not", "&", "|")
"""Operations of spellings that are no words of the vocabulary."""

W = SimpleNamespace(**{w: partial(operation, w) for w in (*vocabulary.__all__, *OWN)})


def _arcsinh(x: Operand) -> Operand:
    a = W.abs(x)
    return W.sign(x) * W.log1p(a + a * a / (1.0 + W.hypot1(x)))


def _cube_root(x: Operand) -> Operand:
    return W.sign(x) * W.pow(W.abs(x), 1.0 / 3.0)


def _log_add_exp(x: Operand, y: Operand) -> Operand:
    return W.log(W.exp(x) + W.exp(y))


def _clip(x: Operand, low: Any = None, high: Any = None) -> Operand:
    bounded = x if low is None else W.maximum(x, low)
    return bounded if high is None else W.minimum(bounded, high)


def _hypotenuse(x: Operand, y: Operand) -> Operand:
    return W.sqrt(x * x + y * y)


def _step(x: Operand, middle: Operand) -> Operand:
    return W.where(x == 0.0, middle, W.where(x < 0.0, 0.0, x * 0.0 + 1.0))


ROOT2 = math.sqrt(2.0)
SPELLING: dict[str, Callable[..., Operand]] = {
    **{w: getattr(W, w) for w in vocabulary.__all__ if w != "log1p_unit"},
    **{name: W.abs for name in ("abs", "absolute", "fabs")},
    **{name: W.pow for name in ("power", "float_power")},
    **{name: W.maximum for name in ("fmax",)},
    **{name: W.minimum for name in ("fmin",)},
    **{name: W.atan for name in ("arctan",)},
    **{name: W.sigmoid for name in ("expit", "logistic")},
    **{name: W.lgamma for name in ("gammaln", "loggamma")},
    **{name: _arcsinh for name in ("arcsinh", "asinh")},
    "psi": W.digamma,
    "cosh": W.cosh,
    "sinh": W.sinh,
    "xlogy": W.xlogy,
    "xlog1py": W.xlog1py,
    "cbrt": _cube_root,
    "clip": _clip,
    "hypot": _hypotenuse,
    "heaviside": _step,
    "logaddexp": _log_add_exp,
    "exp2": lambda x: W.exp(math.log(2.0) * x),
    "log2": lambda x: W.log(x) / math.log(2.0),
    "log10": lambda x: W.log(x) / math.log(10.0),
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1.0 / x,
    "log_expit": lambda x: -W.softplus(-x),
    "logit": lambda x: W.log(x) - W.log1p(-x),
    "entr": lambda x: -W.xlogy(x, x),
    "erf": lambda x: 2.0 * W.ndtr(ROOT2 * x) - 1.0,
    "erfc": lambda x: 2.0 * W.ndtr(-ROOT2 * x),
    "isnan": lambda x: x != x,
    "positive": lambda x: x,
    "negative": lambda x: -x,
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "true_divide": lambda x, y: x / y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "logical_not": getattr(W, "not"),
    "invert": getattr(W, "not"),
    "logical_and": getattr(W, "&"),
    "bitwise_and": getattr(W, "&"),
    "logical_or": getattr(W, "|"),
    "bitwise_or": getattr(W, "|"),
}
"""Functions that formulas have, by the names that they have in NumPy, math, scipy.special and the vocabulary."""


def _spelled(name: str, real: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return a function that takes symbols, and numbers as the real one does."""

    def call(*args: Any, **options: Any) -> Any:
        if real is not None and not any(isinstance(a, Node) for a in args):
            return real(*args, **options)
        if options:
            raise FormulaError(f"calls {name} with options; give its arguments by position")
        return apply(name, *args)

    return call


class _Math:
    """The module `math` for symbols."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(math, name)
        return _spelled(name, real) if callable(real) else real


class _Module:
    """A user's module, whose functions are rebound when they are asked for."""

    def __init__(self, module: ModuleType, seen: dict[int, Any]) -> None:
        self._module, self._seen = module, seen

    def __getattr__(self, name: str) -> Any:
        return _rebound(getattr(self._module, name), self._seen)


OUTSIDE = {"numpy", "scipy"}
"""Packages whose functions take symbols as they are."""


def _rebound(value: Any, seen: dict[int, Any]) -> Any:
    """Return a global, cell or attribute of a user's function in the form that takes symbols."""
    if type(value) in (list, tuple) and any(isinstance(x, FunctionType) for x in value):
        return type(value)(_rebound(x, seen) for x in value)
    if type(value) is dict and any(isinstance(x, FunctionType) for x in value.values()):
        return {k: _rebound(x, seen) for k, x in value.items()}
    value = getattr(value, "py_func", value)
    if value is math:
        return _Math()
    if isinstance(value, ModuleType):
        own = value.__name__.split(".")[0] not in OUTSIDE and hasattr(value, "__file__")
        return _Module(value, seen) if own else value
    module = getattr(value, "__module__", None)
    if module == "math" and callable(value):
        return _spelled(value.__name__, value)
    if not isinstance(value, FunctionType) or (module or "").split(".")[0] in OUTSIDE:
        return value
    if module == vocabulary.__name__:
        return _spelled(value.__name__, value)
    return carry(value, WORLD) if module == special.__name__ else _copied(value, seen)


def _copied(function: FunctionType, seen: dict[int, Any]) -> FunctionType:
    """Copy a function with all that it reaches bound to what takes symbols."""
    if id(function) in seen:
        copy: FunctionType = seen[id(function)]
        return copy
    code = function.__code__
    bound: dict[str, Any] = dict(function.__globals__)
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(code, bound, function.__name__, function.__defaults__, cells)
    copy.__kwdefaults__ = function.__kwdefaults__
    seen[id(function)] = copy
    for name in _names(code):
        if name in bound:
            bound[name] = _rebound(bound[name], seen)
        elif name in SPELLING and not hasattr(builtins, name):
            bound[name] = _spelled(name)
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        cell.cell_contents = _rebound(old.cell_contents, seen)
    return copy


def _names(code: Any) -> set[str]:
    inner = (c for c in code.co_consts if hasattr(c, "co_names"))
    return set(code.co_names).union(*map(_names, inner))


def run(function: Callable[..., Any], name: str, operands: Mapping[str, Operand]) -> Any:
    """Return what a user's function gives for symbols by the names of its arguments."""
    try:
        with np.errstate(all="ignore"):
            return _copied(function, {})(**operands)  # type: ignore[arg-type]
    except Exception as error:
        raise FormulaError(f"{name}: {reason(error)}") from (None if isinstance(error, FormulaError) else error)


PACKAGE = str(Path(__file__).parents[1])


def reason(error: Exception) -> str:
    """Return the sentence of an error in a user's function: the line, what is wrong with it, and what to write."""
    text = str(error) if isinstance(error, FormulaError) else f"raises {type(error).__name__}: {error}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(PACKAGE)]
    own = [f for f in frames if f"{Path(np.__file__).parent}" not in f.filename]
    if not own:
        return text
    line = linecache.getline(own[-1].filename, own[-1].lineno or 0).strip()
    if text.startswith("branches on data"):
        text = f"branches on data; write {_instead(line)}"
    if text.startswith("loops over data") and isinstance(error, FormulaError):
        text = text.replace("loops over data", "loops over data or unpacks it", 1)
    shown = f' of {Path(own[-1].filename).name}, "{line}",' if line else f" of {Path(own[-1].filename).name}"
    return f"line {own[-1].lineno}{shown} {text}"


class _Vectorised(ast.NodeTransformer):
    """Rewrites choices of Python to those of NumPy."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        return _called("where", [self.visit(x) for x in (node.test, node.body, node.orelse)])

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        joined, *others = [self.visit(x) for x in node.values]
        for x in others:
            joined = ast.BinOp(joined, ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr(), x)
        return joined  # type: ignore[no-any-return]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return ast.UnaryOp(ast.Invert(), node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        pairs = [ast.Compare(a, [op], [b]) for a, op, b in zip(sides, node.ops, sides[1:], strict=False)]
        return self.visit_BoolOp(ast.BoolOp(ast.And(), pairs)) if len(pairs) > 1 else node  # type: ignore[arg-type]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("max", "min"):
            return _called(f"{node.func.id}imum", node.args)
        return node


def _called(name: str, arguments: list[Any]) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Name("np"), name), arguments, [])


def _instead(line: str) -> str:
    """Return what to write for a line that branches on data."""
    choice = re.match(r"(?:el)?if\s+(.*):|while\s+(.*):", line)
    text = (choice[1] or choice[2]) if choice else line.removeprefix("return").strip()
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return "np.where(condition, a, b), and & or | for and, or"
    found = ast.unparse(ast.fix_missing_locations(_Vectorised().visit(tree)))
    if choice:
        return f"np.where({found}, value_if_true, value_otherwise)"
    return found if found != ast.unparse(ast.parse(text)) else "np.where(condition, a, b)"
