"""Symbolic tracing: a formula, run once on symbols, becomes a graph of operations.

Each common subexpression becomes one node. Parameters are either constants during tracing (`x * 1.0` becomes x, a
branch on a switch disappears) or symbols too. `derive` differentiates a graph; `render` writes it as source code, of
another library or of a formula.

A graph has rules by which its operations are simplified: RULES for array libraries, where one operation less counts
more than a rounding; EXACT, which keep every digit, for formulas.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from . import special, vocabulary
from .record import Formula
from .worlds import World, carry

__all__ = [
    *("EXACT", "RULES", "WORDS", "Graph", "Node", "evaluate", "is_condition", "operation", "reachable", "symbols"),
    "trace",
]

Operand = Any
"""Operand of a node: a Node, or a Python float or bool known while tracing."""


class Node:
    """Operation on operands; `input` and `scalar` nodes have a name instead."""

    __slots__ = ("args", "graph", "number", "op")

    def __init__(self, graph: "Graph", op: str, args: tuple[Operand, ...], number: int) -> None:
        self.graph, self.op, self.args, self.number = graph, op, args, number

    @property
    def scalar(self) -> bool:
        """Whether this is a scalar at run time, not an array."""
        return self.op in ("scalar", "sum", "dot") or (
            self.op != "input" and all(not isinstance(a, Node) or a.scalar for a in self.args)
        )

    __hash__ = object.__hash__

    def __add__(self, other: Operand) -> Operand:
        return self.graph.make("+", self, other)

    def __radd__(self, other: Operand) -> Operand:
        return self.graph.make("+", other, self)

    def __sub__(self, other: Operand) -> Operand:
        return self.graph.make("-", self, other)

    def __rsub__(self, other: Operand) -> Operand:
        return self.graph.make("-", other, self)

    def __mul__(self, other: Operand) -> Operand:
        return self.graph.make("*", self, other)

    def __rmul__(self, other: Operand) -> Operand:
        return self.graph.make("*", other, self)

    def __truediv__(self, other: Operand) -> Operand:
        return self.graph.make("/", self, other)

    def __rtruediv__(self, other: Operand) -> Operand:
        return self.graph.make("/", other, self)

    def __pow__(self, other: Operand) -> Operand:
        return self.graph.make("pow", self, other)

    def __rpow__(self, other: Operand) -> Operand:
        return self.graph.make("pow", other, self)

    def __invert__(self) -> Operand:
        return self.graph.make("not", self)

    def __pos__(self) -> Operand:
        return self

    def __neg__(self) -> Operand:
        return self.graph.make("neg", self)

    def __abs__(self) -> Operand:
        return self.graph.make("abs", self)

    def __lt__(self, other: Operand) -> Operand:
        return self.graph.make("<", self, other)

    def __le__(self, other: Operand) -> Operand:
        return self.graph.make("<=", self, other)

    def __gt__(self, other: Operand) -> Operand:
        return self.graph.make(">", self, other)

    def __ge__(self, other: Operand) -> Operand:
        return self.graph.make(">=", self, other)

    def __eq__(self, other: object) -> Any:
        return self.graph.make("==", self, other)

    def __ne__(self, other: object) -> Any:
        return self.graph.make("!=", self, other)

    def __and__(self, other: Operand) -> Operand:
        return self.graph.make("&", self, other)

    def __rand__(self, other: Operand) -> Operand:
        return self.graph.make("&", other, self)

    def __or__(self, other: Operand) -> Operand:
        return self.graph.make("|", self, other)

    def __ror__(self, other: Operand) -> Operand:
        return self.graph.make("|", other, self)

    def __bool__(self) -> bool:
        raise TypeError("a formula branches on data; where() is the form that every world understands")


COMPARISONS: dict[str, Callable[..., Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
LOGIC: dict[str, Callable[..., Any]] = {"&": operator.and_, "|": operator.or_}
PYTHON: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    **COMPARISONS,
    **LOGIC,
    "not": operator.not_,
    "neg": operator.neg,
    "abs": abs,
}


COMPOSED: dict[str, Callable[..., Any]] = {
    name: getattr(special, name)
    for name in (
        *("xlogy", "xlog1py", "cosh", "sinh", "log_of_cosh", "log_of_cosh_slope", "log_of_cosh_bend", "log1mexp"),
        *("hypot1", "hypot1_less_1"),
    )
}
"""Functions of several words that are one node, because they are derived better as a whole."""
WORDS: dict[str, Callable[..., Any]] = {**{w: getattr(vocabulary, w) for w in vocabulary.__all__}, **COMPOSED}


def is_condition(x: Operand) -> bool:
    """Whether an operand is true or false, not a number."""
    if isinstance(x, Node):
        return x.op in COMPARISONS or x.op in LOGIC or x.op == "not"
    return isinstance(x, bool)


def _is(x: Operand, number: float) -> bool:
    return not isinstance(x, Node) and x == number


def _negated(x: Operand) -> Operand:
    """Return the operand that x negates; None if x is not a negation."""
    return x.args[0] if isinstance(x, Node) and x.op == "neg" else None


class Graph:
    """Nodes of one traced formula, each operation once."""

    def __init__(self, rules: "Rules | None" = None, node: type[Node] = Node) -> None:
        self._nodes: dict[Any, Node] = {}
        self.rules = RULES if rules is None else rules
        self.node = node
        self.rewrites: dict[str, None] = {}
        """Rules of stabilisation that were applied, in order."""

    def named(self, op: str, name: str) -> Node:
        """Return the node of an array argument (`input`) or of a scalar known at run time (`scalar`)."""
        return self._intern(op, (name,))

    def make(self, op: str, *args: Operand) -> Operand:
        """Return the result of an operation: a number if all operands are, a simplified node where possible."""
        if not any(isinstance(a, Node) for a in args):
            return (PYTHON.get(op) or WORDS[op])(*args)
        rule = self.rules.get(op)
        simpler = None if rule is None else rule(self, *args)
        return self.plain(op, *args) if simpler is None else simpler

    def plain(self, op: str, *args: Operand) -> Node:
        """Return the node of an operation as it is, without the rules."""
        return self._intern(op, args)

    def _intern(self, op: str, args: tuple[Operand, ...]) -> Node:
        # By identity: == on nodes builds a node.
        key = (op, *(("node", id(a)) if isinstance(a, Node) else repr(a) for a in args))
        if key not in self._nodes:
            self._nodes[key] = self.node(self, op, args, len(self._nodes))
        return self._nodes[key]


def _add(g: Graph, a: Operand, b: Operand) -> Operand:
    if _is(a, 0.0) or _is(b, 0.0):
        return b if _is(a, 0.0) else a
    if (x := _negated(b)) is not None:
        return g.make("-", a, x)
    if (x := _negated(a)) is not None:
        return g.make("-", b, x)
    return None


def _subtract(g: Graph, a: Operand, b: Operand) -> Operand:
    if _is(b, 0.0):
        return a
    if _is(a, 0.0):
        return g.make("neg", b)
    if (x := _negated(b)) is not None:
        return g.make("+", a, x)
    return None


def _multiply(g: Graph, a: Operand, b: Operand) -> Operand:
    simpler = _multiply_by_unit(g, a, b)
    return _gathered(g, a, b) if simpler is None else simpler


def _multiply_by_unit(g: Graph, a: Operand, b: Operand) -> Operand:
    """Return a product with a factor of 0, 1, -1 or a negation; None for others."""
    for x, y in ((a, b), (b, a)):
        if _is(x, 0.0):
            return 0.0
        if _is(x, 1.0) or _is(x, -1.0):
            return y if _is(x, 1.0) else g.make("neg", y)
        if (z := _negated(x)) is not None:
            return g.make("neg", g.make("*", z, y))
    return None


def _gathered(g: Graph, a: Operand, b: Operand) -> Operand:
    """Group the constants of a product in front, so that an array is multiplied once."""
    if _scalar(b) and not _scalar(a):
        return g.make("*", b, a)
    for x, y in ((a, b), (b, a)):
        if isinstance(y, Node) and y.op == "*" and _scalar(y.args[0]) and not y.scalar:
            return g.make("*", g.make("*", x, y.args[0]), y.args[1]) if _scalar(x) else None
    return None


def _scalar(x: Operand) -> bool:
    return not isinstance(x, Node) or x.scalar


def _divide(g: Graph, a: Operand, b: Operand) -> Operand:
    if not isinstance(b, Node):
        return g.make("*", 1.0 / b, a)
    return 0.0 if _is(a, 0.0) else None


def _negate(g: Graph, a: Node) -> Operand:
    if a.op == "neg":
        return a.args[0]
    if a.op == "-":
        return g.make("-", a.args[1], a.args[0])
    if a.op == "*" and not isinstance(a.args[0], Node):
        return g.make("*", -a.args[0], a.args[1])
    return None


def _where(g: Graph, condition: Operand, a: Operand, b: Operand) -> Operand:
    if not isinstance(condition, Node):
        return a if condition else b
    same = a is b or (not isinstance(a, Node) and not isinstance(b, Node) and a == b)
    return a if same else None


def _both(g: Graph, a: Operand, b: Operand) -> Operand:
    for x, y in ((a, b), (b, a)):
        if not isinstance(x, Node):
            return y if x else False
    return None


def _either(g: Graph, a: Operand, b: Operand) -> Operand:
    for x, y in ((a, b), (b, a)):
        if not isinstance(x, Node):
            return True if x else y
    return None


def _power(g: Graph, x: Operand, y: Operand) -> Operand:
    powers: dict[float, Callable[[], Operand]] = {
        0.0: lambda: 1.0,
        0.5: lambda: g.make("sqrt", x),
        1.0: lambda: x,
        2.0: lambda: x * x,
        3.0: lambda: x * x * x,
        4.0: lambda: (x * x) * (x * x),
    }
    return None if isinstance(y, Node) or y not in powers else powers[y]()


Rules = Mapping[str, Callable[..., Operand]]
"""Functions by operation: of the graph and the operands to a simpler operand, or None where there is none."""

RULES: Rules = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "neg": _negate,
    "where": _where,
    "&": _both,
    "|": _either,
    "pow": _power,
    "log1p_unit": lambda g, x: g.make("log1p", x),
}


def operation(op: str, *args: Operand) -> Operand:
    """Return the result of an operation in the graph of its operands; a number where none of them is a node."""
    graph = next((a.graph for a in args if isinstance(a, Node)), None)
    return (Graph() if graph is None else graph).make(op, *args)


def _word(x: Operand, name: str) -> Operand:
    return operation(name, x)


def _square_parts(u: Operand) -> tuple[Operand, Operand]:
    w = 1.0 / (1.0 + u * u)
    return w, u * u * w


def _gamma_ratio(n: Operand) -> tuple[Operand, ...]:
    value, *derivatives = (_word(n + 0.5, w) - _word(n, w) for w in ("lgamma", "digamma", "trigamma"))
    return value - 0.5 * _word(n, "log"), *derivatives


PLAIN: dict[str, Callable[..., Any]] = {
    "share": lambda part, x: part * x,
    "log1p_square": lambda u: _word(u * u, "log1p"),
    "log1p_minus": lambda x: _word(x, "log1p") - x,
    "square_parts": _square_parts,
    "normal_within": lambda u: 2.0 * _word(u, "ndtr") - 1.0,
    "gamma_ratio": _gamma_ratio,
}
"""Unguarded versions of formula helpers that guard digits and infinities, so that no other library is slowed by care
that its users would not take."""


def _numeric(rule: Callable[..., Operand] | None, op: str) -> Callable[..., Operand]:
    """Return a rule that takes conditions among its operands for the numbers 0 and 1."""

    def numeric(g: Graph, *args: Operand) -> Operand:
        if any(is_condition(a) for a in args):
            return g.make(op, *(g.make("where", a, 1.0, 0.0) if is_condition(a) else a for a in args))
        return None if rule is None else rule(g, *args)

    return numeric


def _add_exactly(g: Graph, a: Operand, b: Operand) -> Operand:
    if a is b:
        return g.make("*", 2.0, a)
    simpler = _add(g, a, b)
    return g.make("+", b, a) if simpler is None and _swapped(a, b) else simpler


def _swapped(a: Operand, b: Operand) -> bool:
    """Whether two operands stand against the order of their tracing; in that order, a + b and b + a are one node."""
    return isinstance(a, Node) and isinstance(b, Node) and a.number > b.number


def _multiply_exactly(g: Graph, a: Operand, b: Operand) -> Operand:
    if not isinstance(b, Node):
        return g.make("*", b, a)
    if not isinstance(a, Node) and b.op == "*" and not isinstance(b.args[0], Node) and _exact_factor(a, b.args[0]):
        return g.make("*", a * b.args[0], b.args[1])
    simpler = _multiply_by_unit(g, a, b)
    return g.make("*", b, a) if simpler is None and _swapped(a, b) else simpler


def _exact_factor(*factors: float) -> bool:
    """Whether a product by constants is as exact by their product: all are powers of two but one, and moderate."""
    odd = [x for x in factors if math.frexp(abs(x))[0] != 0.5]
    return len(odd) < 2 and all(1e-9 < abs(x) < 1e9 for x in factors)


def _divide_exactly(g: Graph, a: Operand, b: Operand) -> Operand:
    if not isinstance(b, Node) and b != 0.0 and _exact_factor(2.0, b) and math.frexp(abs(b))[0] == 0.5:
        return g.make("*", 1.0 / b, a)
    if _is(b, 1.0) or _is(a, 0.0):
        return a
    return None


def _where_exactly(g: Graph, condition: Operand, a: Operand, b: Operand) -> Operand:
    if isinstance(condition, Node) and condition.op == "not":
        return g.make("where", condition.args[0], b, a)
    if any(is_condition(x) for x in (a, b)):
        return g.make("where", condition, *(g.make("where", x, 1.0, 0.0) if is_condition(x) else x for x in (a, b)))
    return _where(g, condition, a, b)


def _power_exactly(g: Graph, x: Operand, y: Operand) -> Operand:
    if isinstance(y, Node) or not math.isfinite(y):
        return None
    if y == int(y) and abs(y) <= 16.0:
        return _whole_power(g, x, int(y)) if y >= 0.0 else g.make("/", 1.0, _whole_power(g, x, -int(y)))
    if y == int(y):
        # The word takes no base below 0.
        size = g.make("pow", abs(x), y) if x.op != "abs" else None
        return size if size is None or y % 2.0 == 0.0 else g.make("*", g.make("sign", x), size)
    return g.make("sqrt", x) if y == 0.5 else None


def _whole_power(g: Graph, x: Operand, n: int) -> Operand:
    """Return x to a whole power, by squares."""
    if n == 0:
        return 1.0
    half = _whole_power(g, x, n // 2)
    return g.make("*", g.make("*", half, half), x) if n % 2 else g.make("*", half, half)


NUMERIC: Rules = {
    "+": _add_exactly,
    "-": _subtract,
    "*": _multiply_exactly,
    "/": _divide_exactly,
    "neg": _negate,
    "pow": _power_exactly,
}
EXACT: Rules = {
    **{op: _numeric(NUMERIC.get(op), op) for op in (*NUMERIC, "abs", "maximum", "minimum", "sign")},
    "where": _where_exactly,
    "not": lambda g, a: a.args[0] if a.op == "not" else None,
    "&": _both,
    "|": _either,
}
"""Rules that change no digit of a result, but for the order of constant factors."""


def reachable(results: Iterable[Operand]) -> list[Node]:
    """Return the nodes that results need, each after its operands."""
    found: dict[int, Node] = {}
    waiting = [x for x in results if isinstance(x, Node)]
    while waiting:
        node = waiting.pop()
        if node.number not in found:
            found[node.number] = node
            waiting.extend(a for a in node.args if isinstance(a, Node))
    return [found[number] for number in sorted(found)]


WORLD = World(lambda x: x, {name: partial(operation, name) for name in vocabulary.__all__})
"""World of symbols: words build nodes where an operand is one."""


def symbols(graph: Graph, arrays: Sequence[str], scalars: Sequence[str] = ()) -> list[Operand]:
    """Return the nodes of a formula's arguments: data by name, then parameters by name."""
    return [graph.named("input", n) for n in arrays] + [graph.named("scalar", n) for n in scalars]


def evaluate(function: Callable[..., Any], *operands: Operand) -> Any:
    """Return the results of a formula, with all its guards, for operands of one graph or constants."""
    with np.errstate(all="ignore"):
        return carry(function, WORLD)(*operands)


def _words(dtype: str) -> dict[str, Callable[..., Operand]]:
    constants = {"epsilon": np.finfo(dtype).eps, "largest": np.finfo(dtype).max}
    return {**WORLD.words, **PLAIN, **{k: lambda x, v=float(v): v for k, v in constants.items()}}


@cache
def _unguarded(dtype: str) -> World:
    return World(lambda x: x, _words(dtype))


def trace(record: Formula, parameters: Mapping[str, float], dtype: str, given: Mapping[str, Operand]) -> Any:
    """Return the traced formula's (value, first, second[, surrogate]) for operands given by name.

    The first operand is a node, whose graph takes all others.
    """
    function = carry(record.function, _unguarded(dtype))
    own = [parameters[k] for k in record.parameters if k not in record.loop_parameters]
    with np.errstate(all="ignore"):
        return function(*given.values(), *map(float, own))
