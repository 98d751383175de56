"""NumPy reference: each loss as a careful user of NumPy and SciPy writes it, derived from its formula.

Elementwise losses are the traced formula; row-wise losses have one function for each loop around it.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ..losses.catalogue import LOSSES
from ..spec.graph import Graph, Node, Operand, trace
from ..spec.record import Formula
from ..spec.render import Dialect, Source, function, tuples
from . import plain
from .cases import Case

__all__ = ["arrays", "dialect", "formula", "operands_and_results", "reference", "source", "terms", "traced"]


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
    # A loss of a user's own may have the name of another one.
    is_known = record.name in LOSSES and LOSSES[record.name].record.function is record.function
    return (
        record._replace(function=plain.FORMULAS[record.name]) if is_known and record.name in plain.FORMULAS else record
    )


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


OPERANDS = {
    ("softmax", "labels"): ("lp",),
    ("log_probs", "labels"): ("lp",),
    ("softmax", "probabilities"): ("lp", "t"),
    ("log_probs", "probabilities"): ("lp", "t"),
    ("divergence", "probabilities"): ("lp", "t"),
    ("margin", "labels"): ("u",),
    ("top_margin", "labels"): ("u",),
    ("ensemble", "number"): ("x", "t", "rank", "m"),
    ("sparsemax", "labels"): ("v", "t"),
    ("sparsemax", "probabilities"): ("v", "t"),
    ("ordinal", "labels"): ("z", "t"),
    ("evidence", "labels"): ("e", "t", "total", "excess", "m"),
    ("evidence", "probabilities"): ("e", "t", "total", "excess", "m"),
    ("distillation", "logits"): ("lp", "lq"),
    ("angular", "labels"): ("x",),
}
"""Arguments of the formula in each loop."""


def takes(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's arguments."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def operands_and_results(case: Case) -> tuple[list[str], dict[str, Operand]]:
    """Return the arrays that a row formula takes, and the results that it computes.

    A label's target is 1, and the number of members is known.
    """
    graph, loop = Graph(), case.bound.record.loop
    names = OPERANDS[loop, case.target]
    given: dict[str, Operand] = {n: float(case.classes) if n == "m" else graph.named("input", n) for n in names}
    if "t" in takes(case.bound.record.function) and "t" not in given:
        # The target at the label; it is 0 elsewhere.
        given["t"] = 1.0
    return [n for n in names if n != "m"], traced(case, **given)


def terms(case: Case) -> Source:
    """Return the formula alone: a function of its arrays to value, first and second, as far as the case needs them."""
    names, results = operands_and_results(case)
    return function(dialect(case.dtype), names, {k: (x, "{}") for k, x in results.items()})


def reference(case: Case) -> Callable[..., tuple[Any, ...]]:
    """Return the function (scores, target) -> (value,), (value, gradient) or (gradient, second)."""
    loop = LOOPS[case.bound.record.loop, case.target]
    given = case.bound.defaults
    beta = given.get("scale", 1.0) / given.get("temperature", 1.0)
    own = {"beta": beta} if "beta" in takes(loop) else {}
    return partial(loop, terms(case).compile(), case.mode, **own)


NARROW = 32
"""Most columns for which NumPy finds maxima faster column by column than along rows: 50 times at 2 columns."""


def _tops(z: Any) -> Any:
    """Return the largest entry of each row."""
    if z.shape[1] > NARROW:
        return z.max(axis=1)
    top = z[:, 0].copy()
    for k in range(1, z.shape[1]):
        np.maximum(top, z[:, k], out=top)
    return top


def _sums(x: Any) -> Any:
    """Return the sum of each row, by BLAS: NumPy's own sum takes 3 to 40 times as long."""
    return x @ np.ones(x.shape[1], x.dtype)


def _label_terms(f: Any, mode: str, lp: Any) -> tuple[Any, Any, Any]:
    """Return value, first and second of a formula, None where the mode does not need them."""
    found = f(lp)
    value, derivatives = (None, found) if mode == "grad_and_hess" else (found[0], found[1:])
    return value, *(*derivatives, None, None)[:2]


def softmax_labels(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate a formula of the label's log-probability; its gradient spreads over the row by the softmax."""
    rows, n = np.arange(len(z)), len(z)
    e = z - _tops(z)[:, None]
    x = e[rows, y]
    np.exp(e, out=e)
    total = _sums(e)
    value, first, second = _label_terms(f, mode, x - np.log(total))
    if mode == "value":
        return (value.sum() / n,)
    if mode == "value_and_grad":
        s = 1.0 / n
        e *= (-s * first / total)[:, None]
        e[rows, y] += s * first
        return value.sum() * s, e
    e /= total[:, None]
    first, second = _column(first), _column(second)
    g = -first * e
    h = g * (1.0 - e) + second * (e * e)
    p = e[rows, y]
    g[rows, y] += first[:, 0] if np.ndim(first) else first
    h[rows, y] += (second[:, 0] if np.ndim(second) else second) * (1.0 - 2.0 * p)
    return g, h


def _column(x: Any) -> Any:
    return x[:, None] if np.ndim(x) else x


def softmax_probabilities(f: Any, mode: str, z: Any, t: Any) -> tuple[Any, ...]:
    """Evaluate a formula of each class's log-probability and target."""
    n = len(z)
    lp = z - _tops(z)[:, None]
    e = np.exp(lp)
    total = _sums(e)[:, None]
    lp -= np.log(total)
    found = f(lp, t)
    if mode == "value":
        return (found[0].sum() / n,)
    e /= total
    if mode == "value_and_grad":
        e *= -_sums(found[1])[:, None]
        e += found[1]
        e *= 1.0 / n
        return found[0].sum() / n, e
    first, second = found[0], np.broadcast_to(found[1], z.shape)
    slope, bends = _sums(first)[:, None], _sums(second)[:, None]
    q = 1.0 - e
    return first - e * slope, second * q * q + e * e * (bends - second) - slope * e * q


def log_probs_labels(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate a formula of the label's given log-probability."""
    rows, n = np.arange(len(z)), len(z)
    value, first, second = _label_terms(f, mode, z[rows, y])
    if mode == "value":
        return (value.sum() / n,)
    g = np.zeros_like(z)
    g[rows, y] = first if mode == "grad_and_hess" else first * (1.0 / n)
    if mode == "value_and_grad":
        return value.sum() / n, g
    h = np.zeros_like(z)
    h[rows, y] = second
    return g, h


def log_probs_probabilities(f: Any, mode: str, z: Any, t: Any) -> tuple[Any, ...]:
    """Evaluate a formula of each class's given log-probability and target."""
    found, n = f(z, t), len(z)
    if mode == "value":
        return (found[0].sum() / n,)
    if mode == "value_and_grad":
        return found[0].sum() / n, found[1] * (1.0 / n)
    return found[0], _broadcast(found[1], z)


def _broadcast(x: Any, z: Any) -> Any:
    return x if np.ndim(x) else np.full(z.shape, x, z.dtype)


def margin(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate a formula of the margins to the label, divided by K."""
    rows, (n, k) = np.arange(len(z)), z.shape
    found = f(z - z[rows, y][:, None])
    if mode != "grad_and_hess":
        value = found[0]
        value[rows, y] = 0.0
        total = value.sum() / (n * k)
        if mode == "value":
            return (total,)
        g = found[1] * (1.0 / (n * k))
        g[rows, y] = 0.0
        g[rows, y] = -_sums(g)
        return total, g
    both = []
    for x, sign in zip(found, (-1.0, 1.0), strict=True):
        d = _broadcast(x, z) * (1.0 / k)
        d[rows, y] = 0.0
        d[rows, y] = sign * _sums(d)
        both.append(d)
    return tuple(both)


def top_margin(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate a formula of the largest margin to the label."""
    rows, n = np.arange(len(z)), len(z)
    others = z.copy()
    others[rows, y] = -np.inf
    best = others.argmax(axis=1)
    value, first, second = _label_terms(f, mode, z[rows, best] - z[rows, y])
    if mode == "value":
        return (value.sum() / n,)
    results = []
    for x, sign in ((first, -1.0), (second, 1.0)):
        if x is not None:
            x = x if mode == "grad_and_hess" else x * (1.0 / n)
            d = np.zeros_like(z)
            d[rows, best], d[rows, y] = x, sign * x
            results.append(d)
    return (value.sum() / n, *results) if mode == "value_and_grad" else tuple(results)


def ensemble(f: Any, mode: str, z: Any, t: Any) -> tuple[Any, ...]:
    """Evaluate a formula of each member and its rank."""
    n, m = z.shape
    rank = np.empty_like(z)
    np.put_along_axis(rank, z.argsort(axis=1), np.arange(1, m + 1, dtype=z.dtype)[None, :], axis=1)
    found = f(z, t[:, None], rank)
    if mode == "value":
        return (found[0].sum() / n,)
    if mode == "value_and_grad":
        return found[0].sum() / n, found[1] * (1.0 / n)
    return found[0], _broadcast(found[1], z)


def _hot(y: Any, z: Any) -> Any:
    """Return labels as one-hot rows."""
    t = np.zeros_like(z)
    t[np.arange(len(z)), y] = 1.0
    return t


def sparsemax_probabilities(f: Any, mode: str, z: Any, t: Any) -> tuple[Any, ...]:
    """Evaluate a formula of each target, and of each score less the threshold that sorting finds."""
    n, k = z.shape
    down = -np.sort(-z, axis=1)
    sums = down.cumsum(axis=1)
    size = (down * np.arange(1, k + 1, dtype=z.dtype) + 1.0 > sums).sum(axis=1)[:, None]
    found = f(z - (np.take_along_axis(sums, size - 1, axis=1) - 1.0) / size.astype(z.dtype), t)
    if mode == "value":
        return (found[0].sum() / n,)
    if mode == "value_and_grad":
        return found[0].sum() / n, found[1] * (1.0 / n)
    return found[0], found[1] * (1.0 - 1.0 / size.astype(z.dtype))


def sparsemax_labels(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate the sparsemax formula for labels."""
    return sparsemax_probabilities(f, mode, z, _hot(y, z))


def ordinal(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate a formula of each logit and whether the label is above its column."""
    return log_probs_probabilities(f, mode, z, (y[:, None] > np.arange(z.shape[1])).astype(z.dtype))


def evidence_probabilities(f: Any, mode: str, z: Any, t: Any) -> tuple[Any, ...]:
    """Evaluate a formula of each class's evidence and target, and of two sums over the row."""
    n = len(z)
    small = np.exp(-np.abs(z))
    e = np.maximum(z, 0.0) + np.log1p(small)
    found = f(e, t, _sums(e)[:, None], _sums((1.0 - t) * e)[:, None])
    total = found[0].sum() / n
    if mode == "value":
        return (total,)
    part, whole, excess = (np.broadcast_to(x, z.shape) for x in found[1:])
    inner = part + _sums(whole)[:, None] + (1.0 - t) * _sums(excess)[:, None]
    return total, inner * np.where(z >= 0.0, 1.0, small) / (1.0 + small) * (1.0 / n)


def evidence_labels(f: Any, mode: str, z: Any, y: Any) -> tuple[Any, ...]:
    """Evaluate the evidence formula for labels."""
    return evidence_probabilities(f, mode, z, _hot(y, z))


def distillation(f: Any, mode: str, z: Any, t: Any, beta: float) -> tuple[Any, ...]:
    """Evaluate a formula of each class's log-probability and the teacher's, both softened."""
    lq = (t - _tops(t)[:, None]) * z.dtype.type(beta)
    lq -= np.log(_sums(np.exp(lq)))[:, None]
    results = softmax_probabilities(f, mode, z * z.dtype.type(beta), lq)
    factors = {"value": (beta**-2,), "value_and_grad": (beta**-2, 1.0 / beta), "grad_and_hess": (1.0 / beta, 1.0)}
    return tuple(x * z.dtype.type(c) for x, c in zip(results, factors[mode], strict=True))


def angular(f: Any, mode: str, z: Any, y: Any, beta: float) -> tuple[Any, ...]:
    """Evaluate the cross-entropy of scaled cosines, where the formula changes the label's cosine."""
    rows, b = np.arange(len(z)), z.dtype.type(beta)
    changed, *derivatives = f(z[rows, y])
    scores = b * z
    scores[rows, y] = b * changed
    entropy = {"value": lambda lp: (-lp,), "value_and_grad": lambda lp: (-lp, -1.0)}
    results = softmax_labels(entropy.get(mode, lambda lp: (-1.0, 0.0)), mode, scores, y)
    for i, x in enumerate(results):
        if np.ndim(x):
            x *= b * b if mode == "grad_and_hess" and i else b
    if mode == "value_and_grad":
        results[1][rows, y] *= derivatives[0]
    if mode == "grad_and_hess":
        first, second = results
        slope, bend = derivatives
        second[rows, y] = second[rows, y] * slope * slope + first[rows, y] * bend
        first[rows, y] *= slope
    return results


LOOPS: dict[tuple[str, str], Callable[..., tuple[Any, ...]]] = {
    ("softmax", "labels"): softmax_labels,
    ("softmax", "probabilities"): softmax_probabilities,
    ("log_probs", "labels"): log_probs_labels,
    ("log_probs", "probabilities"): log_probs_probabilities,
    ("divergence", "probabilities"): log_probs_probabilities,
    ("margin", "labels"): margin,
    ("top_margin", "labels"): top_margin,
    ("ensemble", "number"): ensemble,
    ("sparsemax", "labels"): sparsemax_labels,
    ("sparsemax", "probabilities"): sparsemax_probabilities,
    ("ordinal", "labels"): ordinal,
    ("evidence", "labels"): evidence_labels,
    ("evidence", "probabilities"): evidence_probabilities,
    ("distillation", "logits"): distillation,
    ("angular", "labels"): angular,
}
