"""The NumPy reference: each loss as a careful user of NumPy and SciPy writes it, derived from its formula."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..formulas.record import Formula
from . import plain
from .cases import Case
from .render import Dialect, Source, function, tuples
from .symbols import Graph, Node, Operand, trace

__all__ = ["arrays", "dialect", "formula", "reference", "source"]


def dialect(dtype: str) -> Dialect:
    """NumPy's words in one precision; those of scipy.special where it is installed."""
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
    """The formula that other libraries are held to: the plain one where one is written down."""
    return record._replace(function=plain.FORMULAS.get(record.name, record.function))


def traced(case: Case, **given: Operand) -> dict[str, Operand]:
    """What the case asks of the loss, as traced operands by name: value, first_0, second_0..."""
    loss = case.bound
    results = trace(formula(loss.record), loss.defaults, case.dtype, given)
    # A changed cosine is needed for every result.
    named = {"value": results[0]} if case.mode != "grad_and_hess" or loss.record.loop == "angular" else {}
    if case.mode != "value":
        named |= {f"first_{i}": x for i, x in enumerate(tuples(results[1]))}
    if case.mode == "grad_and_hess":
        named |= {f"second_{i}": x for i, x in enumerate(tuples(results[2]))}
    return named


def arrays(case: Case) -> list[str]:
    """The names of the arrays that a loss of elements takes."""
    record = case.bound.record
    return [*record.predictions, *([record.target] if record.target else [])]


def source(case: Case) -> Source:
    """The reference of a loss of elements, to be read: one function of the arrays."""
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
"""Elements up to which BLAS sums float32 to seven digits; it keeps four of a hundred million, NumPy's own sum all."""


def _total(x: Operand, size: int) -> Operand:
    """The sum of an array: factors outside, and a product by BLAS, which needs no array for it."""
    if isinstance(x, Node) and x.op == "*":
        a, b = x.args
        if not isinstance(a, Node) or a.scalar:
            return a * _total(b, size)
        if size <= DOT_TO:
            return x.graph.make("dot", a, b)
    return x.graph.make("sum", x)


def _whole(name: str, x: Operand, first: str) -> tuple[Operand, str]:
    """An array of its own for each derivative, also where it is a number or an input."""
    if not isinstance(x, Node) or x.scalar:
        return x, f"full({first}.shape, {{}}, {first}.dtype)"
    return x, "{}.copy()" if x.op == "input" else "{}"


def reference(case: Case) -> Callable[..., tuple[Any, ...]]:
    """The NumPy function of a case: (predictions..., target) -> (value, gradients...) or (gradients..., second...)."""
    if case.classes:
        from . import numpy_rows

        return numpy_rows.reference(case)
    return source(case).compile()
