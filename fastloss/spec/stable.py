"""Stabilising rules: expressions that lose digits or overflow as they are written become words that do not.

The rules are applied while a formula is traced, before it is differentiated. Each holds wherever the expression has a
value; tests prove each in 50 digits. `Graph.rewrites` lists those that were applied.
"""

import math
from collections.abc import Callable, Iterator

from .graph import EXACT, Graph, Node, Operand, Rules

__all__ = ["STABLE"]


def _inside(x: Operand, op: str) -> Operand:
    """Return the operand of a node of one operand; None if x is no such node."""
    return x.args[0] if isinstance(x, Node) and x.op == op else None


def _is_positive(x: Operand) -> bool:
    return not isinstance(x, Node) and x > 0.0


def _one_plus(x: Operand) -> Operand:
    """Return v where x is 1 + v or 1 - v; None if it is neither."""
    if isinstance(x, Node) and x.op in "+-" and len(x.args) == 2:
        a, b = x.args
        if not isinstance(a, Node) and a == 1.0:
            return b if x.op == "+" else -b
        if not isinstance(b, Node) and abs(b) == 1.0 and (b == 1.0) == (x.op == "+"):
            return a
    return None


def _noted(g: Graph, rule: str, result: Operand) -> Operand:
    g.rewrites[rule] = None
    return result


def _terms(x: Operand, sign: float = 1.0, depth: int = 8) -> Iterator[tuple[float, Operand]]:
    """Yield the signed terms of a sum."""
    if depth and isinstance(x, Node) and x.op in ("+", "-") and len(x.args) == 2:
        yield from _terms(x.args[0], sign, depth - 1)
        yield from _terms(x.args[1], sign if x.op == "+" else -sign, depth - 1)
    elif depth and isinstance(x, Node) and x.op == "neg":
        yield from _terms(x.args[0], -sign, depth - 1)
    else:
        yield sign, x


def _same(x: Operand, y: Operand) -> bool:
    return x is y or (not isinstance(x, Node) and not isinstance(y, Node) and x == y)


def _pair(g: Graph, a: tuple[float, Operand], b: tuple[float, Operand]) -> Operand:
    """Return one softplus for two terms that are one; None for others."""
    (s, x), (r, y) = a, b
    u = _inside(x, "softplus")
    if u is None or s != 1.0:
        return None
    if r == -1.0 and _same(y, u):
        return _noted(g, "log(1 + exp(x)) - x -> softplus(-x)", g.make("softplus", -u))
    if r == 1.0 and _same(-u, y):
        return _noted(g, "log(1 + exp(-x)) + x -> softplus(x)", g.make("softplus", y))
    if (found := _weighed(g, u, r, y)) is not None:
        return found
    size = _inside(-u, "abs")
    if size is not None and r == 1.0 and isinstance(y, Node) and y.op == "maximum":
        for v, zero in (y.args, y.args[::-1]):
            if not isinstance(zero, Node) and zero == 0.0 and (_same(v, size) or _same(-v, size)):
                return _noted(g, "max(x, 0) + log1p(exp(-|x|)) -> softplus(x)", g.make("softplus", v))
    return None


def _weighed(g: Graph, u: Operand, sign: float, product: Operand) -> Operand:
    """Return softplus(u) - c u as a mean of two softplus, of which none cancels; None for other products."""
    if not isinstance(product, Node) or product.op != "*":
        return None
    for share, x in (product.args, product.args[::-1]):
        if _same(x, u if sign < 0.0 else -u) and (isinstance(share, Node) or 0.0 < share < 1.0):
            mean = share * g.make("softplus", -u) + (1.0 - share) * g.make("softplus", u)
            return _noted(g, "log(1 + exp(x)) - c x -> c softplus(-x) + (1 - c) softplus(x)", mean)
    return None


def _summed(g: Graph, op: str, a: Operand, b: Operand) -> Operand:
    """Return a sum in which pairs of terms that cancel became one; None if there are none."""
    left, right = list(_terms(a)), list(_terms(b, 1.0 if op == "+" else -1.0))
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            found = _pair(g, x, y) if _inside(x[1], "softplus") is not None else _pair(g, y, x)
            if found is not None:
                rest = left[:i] + left[i + 1 :] + right[:j] + right[j + 1 :]
                total: Operand = found
                for sign, term in rest:
                    total = total + term if sign > 0.0 else total - term
                return total
    return None


def _add(g: Graph, a: Operand, b: Operand) -> Operand:
    return _summed(g, "+", a, b) if isinstance(a, Node) and isinstance(b, Node) else None


def _subtract(g: Graph, a: Operand, b: Operand) -> Operand:
    if not isinstance(a, Node) and a == 1.0:
        if isinstance(b, Node) and b.op == "-" and not isinstance(b.args[0], Node) and b.args[0] == 1.0:
            return b.args[1]
        if (x := _inside(b, "sigmoid")) is not None:
            return _noted(g, "1 - sigmoid(x) -> sigmoid(-x)", g.make("sigmoid", -x))
        if (x := _inside(b, "exp")) is not None:
            return _noted(g, "1 - exp(x) -> -expm1(x)", -g.make("expm1", x))
        if isinstance(b, Node) and b.op in ("maximum", "minimum") and (near := _clipped_sigmoid(b)) is not None:
            return near
    if not isinstance(b, Node) and b == 1.0:
        if (x := _inside(a, "exp")) is not None:
            return _noted(g, "exp(x) - 1 -> expm1(x)", g.make("expm1", x))
        if (v := _one_plus(_inside(a, "sqrt"))) is not None:
            return _root_less_one(g, a, v)
    return _summed(g, "-", a, b) if isinstance(a, Node) and isinstance(b, Node) else None


def _root_less_one(g: Graph, root: Operand, v: Operand) -> Operand:
    return _noted(g, "sqrt(1 + v) - 1 -> v / (1 + sqrt(1 + v))", v / (1.0 + root))


def _hypotenuse_less_one(g: Graph, a: Operand, b: Operand) -> Operand:
    x = _inside(a, "hypot1")
    if x is None or isinstance(b, Node) or b != 1.0:
        return None
    return _noted(g, "sqrt(1 + x^2) - 1, without cancellation", g.make("hypot1_less_1", x))


def _clipped_sigmoid(x: Operand) -> Operand:
    """Return 1 - x where x is a sigmoid with bounds, by the bounds of 1 - sigmoid; None for others."""
    if not isinstance(x, Node):
        return None
    if x.op == "sigmoid":
        return x.graph.make("sigmoid", -x.args[0])
    if x.op in ("maximum", "minimum"):
        bounds = [a for a in x.args if not isinstance(a, Node)]
        inner = [_clipped_sigmoid(a) for a in x.args if isinstance(a, Node)]
        if len(bounds) == 1 and inner[0] is not None:
            other = "minimum" if x.op == "maximum" else "maximum"
            result = x.graph.make(other, inner[0], 1.0 - bounds[0])
            return _noted(x.graph, "1 - clip(sigmoid(x)) -> clip(sigmoid(-x))", result)
    return None


def _log(g: Graph, u: Node) -> Operand:
    make = g.make
    if (x := _inside(u, "sigmoid")) is not None:
        return _noted(g, "log(sigmoid(x)) -> -softplus(-x)", -make("softplus", -x))
    if (x := _inside(u, "exp")) is not None:
        return _noted(g, "log(exp(x)) -> x", x)
    if (x := _inside(-u, "expm1")) is not None:
        return _noted(g, "log(1 - exp(-x)), without cancellation", make("log1mexp", -x))
    if (x := _inside(u, "cosh")) is not None:
        return _noted(g, "log(cosh(x)), without overflow or cancellation", make("log_of_cosh", x))
    if (x := _inside(u, "sqrt")) is not None:
        return _noted(g, "log(sqrt(x)) -> log(x) / 2", 0.5 * make("log", x))
    if u.op == "/" and not isinstance(u.args[0], Node) and u.args[0] == 1.0:
        return _noted(g, "log(1 / x) -> -log(x)", -make("log", u.args[1]))
    if u.op in ("maximum", "minimum"):
        bounds = [a for a in u.args if _is_positive(a)]
        inner = [a for a in u.args if isinstance(a, Node)]
        if len(bounds) == len(inner) == 1 and _clipped_sigmoid(inner[0]) is not None:
            clipped = make(u.op, make("log", inner[0]), math.log(bounds[0]))
            return _noted(g, "log(clip(sigmoid(x))) -> clip(-softplus(-x))", clipped)
    if (v := _one_plus(u)) is not None:
        found = make("log1p", v)
        return found if found.op != "log1p" else _noted(g, "log(1 + x) -> log1p(x)", found)
    return _log_of_exponentials(g, u)


def _log_of_exponentials(g: Graph, u: Node) -> Operand:
    """Return the logarithm of a sum of exponentials from their maximum; None for other sums."""
    terms = list(_terms(u))
    powers = [_inside(x, "exp") for sign, x in terms if sign == 1.0]
    if len(terms) < 2 or len(powers) < len(terms) or any(p is None for p in powers):
        return None
    if len(powers) == 2:
        a, b = powers
        total = g.make("maximum", a, b) + g.make("softplus", -abs(a - b))
        return _noted(g, "log(exp(a) + exp(b)) -> max(a, b) + softplus(-|a - b|)", total)
    top = powers[0]
    for p in powers[1:]:
        top = g.make("maximum", top, p)
    rest: Operand = 0.0
    for p in powers:
        rest = rest + g.make("exp", p - top)
    return _noted(g, "log(sum exp(x)) -> max + log(sum exp(x - max))", top + g.plain("log", rest))


def _log1p(g: Graph, u: Node) -> Operand:
    make = g.make
    if (x := _inside(u, "exp")) is not None:
        return _noted(g, "log(1 + exp(x)) -> softplus(x)", make("softplus", x))
    if (x := _inside(u, "expm1")) is not None:
        return _noted(g, "log1p(expm1(x)) -> x", x)
    minus = -u
    if (x := _inside(minus, "sigmoid")) is not None:
        return _noted(g, "log(1 - sigmoid(x)) -> -softplus(x)", -make("softplus", x))
    if (x := _inside(minus, "exp")) is not None:
        return _noted(g, "log(1 - exp(-x)), without cancellation", make("log1mexp", -x))
    if (near := _clipped_sigmoid(minus)) is not None:
        return make("log", near)
    return None


def _exp(g: Graph, u: Node) -> Operand:
    if (x := _inside(-u, "softplus")) is not None:
        return _noted(g, "exp(-softplus(x)) -> sigmoid(-x)", g.make("sigmoid", -x))
    return None


def _multiply(g: Graph, a: Operand, b: Operand) -> Operand:
    for x, y in () if a is b else ((a, b), (b, a)):
        if isinstance(x, Node) and (u := _inside(y, "log")) is not None:
            return _noted(g, "x log(y) -> 0 where x is 0", g.make("xlogy", x, u))
        if isinstance(x, Node) and (u := _inside(y, "log1p")) is not None:
            return _noted(g, "x log(1 + y) -> 0 where x is 0", g.make("xlog1py", x, u))
    return None


def _divide(g: Graph, a: Operand, b: Operand) -> Operand:
    power = _one_plus(b)
    if (x := _inside(power, "exp")) is None:
        return None
    if _same(a, power):
        return _noted(g, "exp(x) / (1 + exp(x)) -> sigmoid(x)", g.make("sigmoid", x))
    return _noted(g, "1 / (1 + exp(-x)) -> sigmoid(x)", a * g.make("sigmoid", -x))


def _sqrt(g: Graph, u: Node) -> Operand:
    if u.op == "*" and u.args[0] is u.args[1]:
        return _noted(g, "sqrt(x^2) -> |x|", abs(u.args[0]))
    v = _one_plus(u)
    if isinstance(v, Node) and v.op == "*" and v.args[0] is v.args[1]:
        return _noted(g, "sqrt(1 + x^2), also where x^2 overflows", g.make("hypot1", v.args[0]))
    return None


def _first(*rules: Callable[..., Operand] | None) -> Callable[..., Operand]:
    """Return the rule that applies the first of several that finds something simpler."""

    def rule(g: Graph, *args: Operand) -> Operand:
        for one in rules:
            found = None if one is None else one(g, *args)
            if found is not None:
                return found
        return None

    return rule


STABILISING: dict[str, tuple[Callable[..., Operand], ...]] = {
    "+": (_add,),
    "-": (_hypotenuse_less_one, _subtract),
    "*": (_multiply,),
    "/": (_divide,),
    "exp": (_exp,),
    "log": (_log,),
    "log1p": (_log1p,),
    "sqrt": (_sqrt,),
}
STABLE: Rules = {**EXACT, **{op: _first(EXACT.get(op), *rules) for op, rules in STABILISING.items()}}
"""Rules of formulas that users write: exact ones, then stabilising ones."""
