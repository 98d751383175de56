"""Derivatives of a graph by forward rules: each node's from those of its operands, common subexpressions once.

The rules keep digits where the textbook's cancel: tanh' is 4 s(2u) s(-2u), not 1 - tanh(u)^2. Where a function has a
kink, its derivative there is one side's, or 0 in the middle of |u|.
"""

import math
from collections.abc import Callable, Sequence

from .graph import Node, Operand, reachable

__all__ = ["NotDerivableError", "derivative", "derivatives", "sharing"]


class NotDerivableError(LookupError):
    """Error for a word whose derivative no word of the vocabulary gives."""


def derivatives(value: Operand, predictions: Sequence[Operand]) -> tuple[Operand, Operand]:
    """Return the first and second derivatives of a value by each prediction; operands for one, tuples for several."""
    first = [derivative(value, z) for z in predictions]
    second = [derivative(slope, z) for slope, z in zip(first, predictions, strict=True)]
    return (first[0], second[0]) if len(predictions) == 1 else (tuple(first), tuple(second))


def derivative(value: Operand, by: Operand) -> Operand:
    """Return the partial derivative of a value by one node."""
    slopes: dict[int, Operand] = {by.number: 1.0}
    for node in reachable([value]):
        if node.number in slopes or node.op in CONSTANT:
            continue
        inner = [slopes.get(a.number, 0.0) if isinstance(a, Node) else 0.0 for a in node.args]
        if all(_vanishes(d) for d in inner):
            continue
        rule = STRUCTURAL.get(node.op)
        slopes[node.number] = rule(node, *inner) if rule is not None else _chain(node, inner[0])
    return slopes.get(value.number, 0.0) if isinstance(value, Node) else 0.0


CONSTANT = frozenset(
    ["input", "scalar", "<", "<=", ">", ">=", "==", "!=", "&", "|", "not", "sign", "epsilon", "largest"]
)
"""Operations whose result is constant wherever it is differentiable."""


def _vanishes(slope: Operand) -> bool:
    return not isinstance(slope, Node) and slope == 0.0


def _product(x: Node, da: Operand, db: Operand) -> Operand:
    a, b = x.args
    return 2.0 * (a * da) if a is b else da * b + a * db


def _quotient(x: Node, da: Operand, db: Operand) -> Operand:
    a, b = x.args
    if isinstance(b, Node) and b.op == "hypot1" and b.args[0] is a:
        return da / (b * b * b)
    if _vanishes(da):
        return -(x / b * db)
    return da / b if _vanishes(db) else (da - x * db) / b


def _x_log(word: str, offset: float) -> Callable[..., Operand]:
    """Return the rule of x log(offset + y), which is 0 where x is 0."""

    def rule(node: Node, dx: Operand, dy: Operand) -> Operand:
        (x, y), make = node.args, node.graph.make
        moved = offset + y
        ratio = 1.0 if x is moved else make("where", make("==", x, 0.0), 0.0, x / moved)
        return dx * make(word, y) + ratio * dy

    return rule


def _chosen(x: Node, dcondition: Operand, da: Operand, db: Operand) -> Operand:
    return x.graph.make("where", x.args[0], da, db)


def _extreme(before: str, not_after: str) -> Callable[..., Operand]:
    """Return the rule of maximum or minimum: the derivative of the operand that is taken, NaN where one is NaN."""

    def rule(x: Node, da: Operand, db: Operand) -> Operand:
        make, (a, b) = x.graph.make, x.args
        taken = make(before, a, b)
        if isinstance(da, Node) and isinstance(db, Node):
            return make("where", taken, da, db)
        return make("where", taken, da, make("where", make(not_after, a, b), db, math.nan))

    return rule


def _power(x: Node, du: Operand, dy: Operand) -> Operand:
    (u, y), make = x.args, x.graph.make
    slope: Operand = 0.0
    if not _vanishes(du):
        if isinstance(y, Node):
            # 0 times the infinity of a power below 0, where the exponent is 0.
            rise = make("where", make("==", y, 0.0), 0.0, y * make("pow", u, y - 1.0))
        else:
            rise = y * make("pow", u, y - 1.0)
        slope = rise * du
    if not _vanishes(dy):
        logarithm = make("log", u) if isinstance(u, Node) else math.log(u) if u > 0.0 else 0.0
        grown = x * logarithm
        if isinstance(u, Node):
            grown = make("where", make("==", u, 0.0), 0.0, grown)
        slope = slope + grown * dy
    return slope


STRUCTURAL: dict[str, Callable[..., Operand]] = {
    "+": lambda x, da, db: da + db,
    "-": lambda x, da, db: da - db,
    "*": _product,
    "/": _quotient,
    "neg": lambda x, da: -da,
    "where": _chosen,
    "maximum": _extreme(">", "<="),
    "minimum": _extreme("<", ">="),
    "pow": _power,
    "xlogy": _x_log("log", 0.0),
    "xlog1py": _x_log("log1p", 1.0),
}
"""Derivatives of operations from the node and the derivatives of its operands."""


def _word(name: str, u: Operand) -> Operand:
    return u.graph.make(name, u)


def _tanh(u: Node) -> Operand:
    twice = 2.0 * u
    return 4.0 * (_word("sigmoid", twice) * _word("sigmoid", -twice))


OUTER: dict[str, Callable[[Node, Operand], Operand]] = {
    "abs": lambda x, u: _word("sign", u),
    "exp": lambda x, u: x,
    "expm1": lambda x, u: _word("exp", u),
    "log": lambda x, u: 1.0 / u,
    "log1p": lambda x, u: 1.0 / (1.0 + u),
    "log1p_unit": lambda x, u: 1.0 / (1.0 + u),
    "tanh": lambda x, u: _tanh(u),
    "atan": lambda x, u: 1.0 / (1.0 + u * u),
    "sigmoid": lambda x, u: x * _word("sigmoid", -u),
    "softplus": lambda x, u: _word("sigmoid", u),
    "ndtr": lambda x, u: math.sqrt(0.5 / math.pi) * _word("exp", -0.5 * (u * u)),
    "mills": lambda x, u: u * x - 1.0,
    "lgamma": lambda x, u: _word("digamma", u),
    "digamma": lambda x, u: _word("trigamma", u),
    "log1mexp": lambda x, u: 1.0 / _word("expm1", u),
    "cosh": lambda x, u: _word("sinh", u),
    "sinh": lambda x, u: _word("cosh", u),
    "log_of_cosh": lambda x, u: _word("log_of_cosh_slope", u),
    "log_of_cosh_slope": lambda x, u: _word("log_of_cosh_bend", u),
    "log_of_cosh_bend": lambda x, u: -2.0 * (_word("log_of_cosh_slope", u) * x),
    "hypot1": lambda x, u: u / x,
    "hypot1_less_1": lambda x, u: u / _word("hypot1", u),
}
"""Derivatives of words of one operand from the node and the operand."""


def _chain(node: Node, du: Operand) -> Operand:
    u = node.args[0]
    if node.op == "sqrt":
        # 0, not 0 / 0, where the square of a residual is 0.
        flat = node.graph.make("==", du, 0.0)
        return 0.5 * du / node.graph.make("where", flat, 1.0, node)
    if node.op not in OUTER:
        raise NotDerivableError(f"{node.op} has no derivative among the words")
    outer = OUTER[node.op](node, u)
    # One quotient rounds less than a reciprocal and a product.
    if isinstance(outer, Node) and outer.op == "/" and not isinstance(outer.args[0], Node):
        return outer.args[0] * du / outer.args[1]
    return outer * du


LOGISTIC = ("softplus", "sigmoid")
"""Words that are made of one exponential, exp(-|u|)."""


def _unsigned(u: Node) -> tuple[Node, bool]:
    """Return u or -u, the same for both, and whether it is -u."""
    if u.op == "neg":
        return u.args[0], True
    if u.op == "-" and all(isinstance(a, Node) for a in u.args) and u.args[0].number > u.args[1].number:
        return u.graph.plain("-", *u.args[::-1]), True
    return u, False


def _logistic(op: str, u: Operand, flipped: bool) -> Operand:
    """Return softplus or sigmoid of u or -u by exp(-|u|), which all four have in common."""
    plain = u.graph.plain
    e = plain("exp", plain("neg", plain("abs", u)))
    if op == "softplus":
        return plain("+", plain("maximum", plain("neg", u) if flipped else u, 0.0), plain("log1p_unit", e))
    q = plain("/", 1.0, plain("+", 1.0, e))
    sides = (plain("*", e, q), q) if flipped else (q, plain("*", e, q))
    return plain("where", plain(">=", u, 0.0), *sides)


def sharing(results: Sequence[Operand]) -> list[Operand]:
    """Return results in which softplus and sigmoid of u and -u are computed from one exponential, where there are two.

    The compiler does not find it: a naive binary cross-entropy took 1.8 times as long as the built-in one.
    """
    nodes = reachable(results)
    found = [(x, *_unsigned(x.args[0])) for x in nodes if x.op in LOGISTIC]
    bases = [base.number for _, base, _ in found]
    shared = {x.number: (base, flipped) for x, base, flipped in found if bases.count(base.number) > 1}
    new: dict[int, Operand] = {}

    def moved(x: Operand) -> Operand:
        return new.get(x.number, x) if isinstance(x, Node) else x

    for node in nodes:
        if node.number in shared:
            base, flipped = shared[node.number]
            inner = new[base.number] if base.number in new else _again(base, moved)
            new[node.number] = _logistic(node.op, inner, flipped)
        elif node.op not in ("input", "scalar"):
            new[node.number] = _again(node, moved)
    return [moved(x) for x in results]


def _again(node: Node, moved: Callable[[Operand], Operand]) -> Node:
    if node.op in ("input", "scalar"):
        return node
    return node.graph.plain(node.op, *map(moved, node.args))
