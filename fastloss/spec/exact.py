"""Exact results of a formula: its graph, computed in as many digits as it takes."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from .derive import derivatives
from .graph import EXACT, Graph, Node, Operand, evaluate, reachable, symbols

__all__ = ["DIGITS", "Exact", "mpmath"]

DIGITS = 450
"""Digits of the computation: more than the range of float64 has, so that no difference cancels to nothing."""


def mpmath() -> Any:
    """Return the module mpmath."""
    try:
        import mpmath as found
    except ImportError as error:
        raise ImportError('check() needs mpmath; type: pip install "fastloss[check]"', name="mpmath") from error
    return found


class Exact:
    """Value and derivatives of a formula's text, as it is written, in many digits."""

    def __init__(
        self, function: Callable[..., Any], data: Sequence[str], moving: Sequence[int], parameters: Sequence[str]
    ) -> None:
        self.mp = mpmath()
        operands = symbols(Graph(EXACT), data, parameters)
        self.value = evaluate(function, *operands)[0]
        self.names = [*data, *parameters]
        first, second = derivatives(self.value, [operands[i] for i in moving])
        several = len(moving) > 1
        self.results: list[list[Operand]] = [
            [self.value],
            list(first) if several else [first],
            list(second) if several else [second],
        ]
        self.nodes = reachable([x for part in self.results for x in part])

    def at(self, point: Sequence[float]) -> list[list[Any]]:
        """Return the results at a point, as lists of numbers of mpmath."""
        mp = self.mp
        with mp.workdps(DIGITS):
            given = {n: mp.mpf(float(x)) for n, x in zip(self.names, point, strict=True)}
            found: dict[int, Any] = {}
            for node in self.nodes:
                if node.op in ("input", "scalar"):
                    found[node.number] = given[node.args[0]]
                else:
                    args = [found[a.number] if isinstance(a, Node) else _constant(mp, a) for a in node.args]
                    found[node.number] = _applied(mp, node.op, args)
            return [[found[x.number] if isinstance(x, Node) else mp.mpf(x) for x in part] for part in self.results]


def _constant(mp: Any, x: Any) -> Any:
    if isinstance(x, bool):
        return x
    # The number that was meant: a third, not the float next to it.
    if x != x or abs(x) in (0.0, float("inf")) or not 1e-9 < abs(x) < 1e9:
        return mp.mpf(x)
    simple = Fraction(x).limit_denominator(1000)
    return mp.mpf(simple.numerator) / simple.denominator if float(simple) == x else mp.mpf(x)


def _applied(mp: Any, op: str, args: list[Any]) -> Any:
    """Return the result of an operation; NaN where it has none."""
    if any(isinstance(a, mp.mpf) and mp.isnan(a) for a in args) and op not in ("where", "!="):
        return mp.nan
    try:
        result = _operations(mp)[op](*args)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        return mp.nan
    return mp.nan if isinstance(result, mp.mpc) else result


def _quotient(mp: Any) -> Callable[[Any, Any], Any]:
    def divide(a: Any, b: Any) -> Any:
        if b == 0:
            return mp.nan if a == 0 else mp.inf * mp.sign(a)
        return a / b

    return divide


def _logarithm(mp: Any, x: Any) -> Any:
    return -mp.inf if x == 0 else mp.log(x) if x > 0 else mp.nan


def _operations(mp: Any) -> dict[str, Callable[..., Any]]:
    """Return mpmath's version of each operation of a graph."""
    if not _TABLE:
        import operator as o

        _TABLE.update(
            {"+": o.add, "-": o.sub, "*": o.mul, "/": _quotient(mp), "neg": o.neg, "abs": abs, "not": o.not_}
            | {"<": o.lt, "<=": o.le, ">": o.gt, ">=": o.ge, "==": o.eq, "!=": o.ne, "&": o.and_, "|": o.or_}
            | {"exp": mp.exp, "expm1": mp.expm1, "sqrt": mp.sqrt, "tanh": mp.tanh, "atan": mp.atan, "sign": mp.sign}
            | {"lgamma": mp.loggamma, "ndtr": mp.ncdf, "cosh": mp.cosh, "sinh": mp.sinh, "maximum": max, "minimum": min}
            | {
                "log": lambda x: _logarithm(mp, x),
                "log1p": lambda x: mp.log1p(x) if x > -1 else _logarithm(mp, 1 + x),
                "log1p_unit": lambda x: mp.log1p(x),
                "digamma": lambda x: mp.psi(0, x),
                "trigamma": lambda x: mp.psi(1, x),
                "mills": lambda x: mp.ncdf(-x) / mp.npdf(x),
                "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
                "softplus": lambda x: mp.log1p(mp.exp(x)),
                "pow": lambda x, y: mp.inf if x == 0 and y < 0 else mp.power(x, y) if x >= 0 else mp.nan,
                "where": lambda c, a, b: a if c else b,
                "epsilon": lambda x: mp.mpf(2) ** -52,
                "largest": lambda x: (2 - mp.mpf(2) ** -52) * mp.mpf(2) ** 1023,
                "xlogy": lambda x, y: mp.mpf(0) if x == 0 else x * _logarithm(mp, y),
                "xlog1py": lambda x, y: mp.mpf(0) if x == 0 else x * _logarithm(mp, 1 + y),
                "hypot1": lambda x: mp.sqrt(1 + x * x),
                "hypot1_less_1": lambda x: mp.sqrt(1 + x * x) - 1,
                "log_of_cosh": lambda x: mp.log(mp.cosh(x)),
                "log1mexp": lambda x: mp.log(-mp.expm1(-x)),
            }
        )
    return _TABLE


_TABLE: dict[str, Callable[..., Any]] = {}
