"""NumPy reference: each loss as a careful user of NumPy and SciPy writes it, derived from its formula."""

from functools import cache
from typing import Any

import numpy as np

from ..spec.graph import Graph, Node, Operand, trace
from ..spec.record import Formula
from ..spec.render import Dialect, Source, function, tuples
from . import plain
from .cases import Case

__all__ = ["arrays", "dialect", "formula", "source"]


def dialect(dtype: str) -> Dialect:
    """Return NumPy's functions for one dtype, and those of scipy.special where it is installed."""
    words: dict[str, Any] = {
        **{w: getattr(np, w) for w in ("exp", "expm1", "log", "log1p", "maximum", "minimum", "sign", "sqrt", "tanh")},
        **{"abs": np.abs, "where": np.where, "pow": np.power, "log1p_unit": np.log1p, "full": np.full},
        **{"sum": np.add.reduce, "dot": np.dot},
    }
    return Dialect({**words, **_special()}, getattr(np, dtype))


@cache
def _special() -> dict[str, Any]:
    try:
        from scipy import special
    except ImportError:
        return {}
    two = np.float32(2.0)
    return {
        "lgamma": special.gammaln,
        "digamma": special.digamma,
        "trigamma": lambda x: special.zeta(two, x),
        "ndtr": special.ndtr,
        "sigmoid": special.expit,
        "softplus": lambda x: np.logaddexp(0.0, x),
    }


def formula(record: Formula) -> Formula:
    """Return the formula from which other libraries' code is derived: the one in `plain` where it exists."""
    return record._replace(function=plain.FORMULAS.get(record.name, record.function))


def traced(case: Case, **given: Operand) -> dict[str, Operand]:
    """Return the traced results that the case needs, by name: value, first_0, second_0..."""
    loss = case.bound
    results = trace(formula(loss.record), loss.defaults, case.dtype, given)
    # A changed cosine is needed for every result.
    turns = loss.record.family == "rows" and loss.record.row_loop.turns
    named = {"value": results[0]} if case.mode != "grad_and_hess" or turns else {}
    if case.mode != "value":
        named |= {f"first_{i}": x for i, x in enumerate(tuples(results[1]))}
    if case.mode == "grad_and_hess":
        named |= {f"second_{i}": x for i, x in enumerate(tuples(results[2]))}
    return named


def arrays(case: Case) -> list[str]:
    """Return the names of the arrays that an elementwise loss takes."""
    record = case.bound.record
    return [*record.predictions, *([record.target] if record.target else [])]


def source(case: Case) -> Source:
    """Return the source of an elementwise loss's reference: one function of the arrays."""
    names, graph = arrays(case), Graph()
    results = traced(case, **{n: graph.named("input", n) for n in names})
    first = names[0]
    if case.mode == "grad_and_hess":
        return function(dialect(case.dtype), names, {k: _whole(k, x, first) for k, x in results.items()})
    mean = case.bound.record.reduction == "mean"
    s = graph.named("scalar", "s") if mean else 1.0
    shown: dict[str, Any] = {"value": (s * _total(results.pop("value"), case.size), "{}")}
    shown |= {k: _whole(k, s * x, first) for k, x in results.items()}
    return function(dialect(case.dtype), names, shown, [f"s = 1.0 / {first}.size"] if mean else [])


DOT_TO = 1_000_000
"""Most elements that BLAS sums in float32 to seven digits; of 1e8 it keeps four digits, NumPy's own sum all."""


def _total(x: Operand, size: int) -> Operand:
    """Return code for the sum of an array, with constant factors outside and products by BLAS, without a temporary."""
    if isinstance(x, Node) and x.op == "*":
        a, b = x.args
        if not isinstance(a, Node) or a.scalar:
            return a * _total(b, size)
        if size <= DOT_TO:
            return x.graph.make("dot", a, b)
    return x.graph.make("sum", x)


def _whole(name: str, x: Operand, first: str) -> tuple[Operand, str]:
    """Return code that gives each derivative a separate array, also where it is a constant or an input."""
    if not isinstance(x, Node) or x.scalar:
        return x, f"full({first}.shape, {{}}, {first}.dtype)"
    return x, "{}.copy()" if x.op == "input" else "{}"
