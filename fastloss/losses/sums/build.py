"""From several elementwise losses to one formula: their weighted sum, with weights that are parameters."""

from collections.abc import Sequence
from functools import lru_cache, reduce
from types import FunctionType
from typing import Any

from ...call.errors import CallTypeError
from ...spec.graph import EXACT, Graph, Operand, evaluate, symbols
from ...spec.record import FINITE, Formula, Interval, Parameter, Signs, described
from ...spec.render import formula
from .penalties import Penalty
from .terms import Term, parameter_names, weight_of

__all__ = ["compiled", "fused", "is_fusible"]


def is_fusible(term: Term) -> bool:
    """Whether a part can be one of a fused formula: elementwise, of one prediction, with one level per parameter."""
    record = term.loss.record
    levels = any(type(v) is tuple for v in term.loss.defaults.values())
    is_one = record.family == "elementwise" and len(record.predictions) == 1
    return is_one and not (record.switched or levels or term.loss._rewritten or isinstance(term.loss, Penalty))


def fused(terms: Sequence[Term], name: str) -> Formula:
    """Return the record of a weighted sum of elementwise losses; raise TypeError where they share no pass."""
    records = [term.loss.record for term in terms]
    _fit(terms, name)
    target = "t" if any(r.target for r in records) else None
    names = parameter_names(terms)
    weights = tuple(weight_of(term.name) for term in terms)
    orders = 4 if any(r.surrogate for r in records) else 3
    defaults = dict.fromkeys(weights, 1.0)
    parameters = {w: Parameter(f"weight of {t.name}", FINITE) for w, t in zip(weights, terms, strict=True)}
    for record, renamed in zip(records, names, strict=True):
        defaults |= {renamed[k]: v for k, v in record.defaults.items()}
        parameters |= {renamed[k]: p._replace(vector=False, spread=False) for k, p in record.parameters.items()}
    function = _function(terms, target, defaults, orders)
    fields = {
        "prediction": reduce(_meet, (r.prediction_domains[0] for r in records)),
        "target": reduce(_meet, (r.target_domain for r in records if r.target), Interval()),
        "parameters": parameters,
        "surrogate": "sum of the surrogates of the parts" if orders == 4 else None,
        "link": _common([r.link for r in records], "identity"),
        "reduction": records[0].reduction,
        "from_logits": _common([r.from_logits for r in records], ""),
        "math": " + ".join(f"{w} * {t.loss.name}" for w, t in zip(weights, terms, strict=True)),
    }
    record = described(function, "elementwise", "elementwise", fields, name)
    return record._replace(predictions=("z",), target=target)


def compiled(record: Formula, terms: Sequence[Term], usual: bool, parted: bool = False) -> Formula:
    """Return the record of a sum with the formula that is compiled.

    With the usual parameters, the defaults of the parts are constants. Only the weights, which come first among the
    parameters, are left: focal with gamma = 2 needs no power. A parted formula returns the parts after its results.
    """
    if not (usual or parted):
        return record
    orders = 4 if record.surrogate else 3
    weights = dict.fromkeys([weight_of(term.name) for term in terms], 1.0)
    defaults = weights if usual else record.defaults
    return record._replace(function=_function(terms, record.target, defaults, orders, parted))


def _function(
    terms: Sequence[Term], target: str | None, defaults: dict[str, float], orders: int, parted: bool = False
) -> FunctionType:
    """Return the formula of a sum with these parameters; the others are the defaults of the parts."""
    parts = []
    for term, names in zip(terms, parameter_names(terms), strict=True):
        record = term.loss.record
        arguments = tuple(names[k] if names[k] in defaults else v for k, v in record.defaults.items())
        parts.append((record.function, bool(record.target), weight_of(term.name), arguments))
    return _formula(tuple(parts), target, tuple(defaults.items()), orders, parted)


def _fit(terms: Sequence[Term], name: str) -> None:
    """Raise TypeError for parts that cannot be computed for one prediction and one target of each element."""
    for what, domains in (
        ("prediction", [(t.name, t.loss.record.prediction_domains[0]) for t in terms]),
        ("target", [(t.name, t.loss.record.target_domain) for t in terms if t.loss.record.target]),
    ):
        found: Any = Interval()
        for part, domain in domains:
            met = _meet(found, domain)
            if met is None:
                problem = f"cannot hold {part}, whose {what} is in {domain}, beside parts whose {what} is in {found}"
                raise CallTypeError(problem, loss=name)
            found = met


def _meet(a: Any, b: Any) -> Any:
    """Return the domain of what lies in two domains; None where there is none that kernels check."""
    if a == b:
        return a
    if isinstance(a, Interval) and isinstance(b, Interval):
        low, high = max(a.low, b.low), min(a.high, b.high)
        opens = [bool(x.outside(low)) for x in (a, b)], [bool(x.outside(high)) for x in (a, b)]
        return Interval(low, high, any(opens[0]), any(opens[1])) if low < high else None
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Signs) and not (y.outside(-1.0) or y.outside(1.0)):
            return x
    return None


def _common(found: list[str], otherwise: str) -> str:
    return found[0] if len(set(found)) == 1 else otherwise


@lru_cache(maxsize=256)
def _formula(
    parts: tuple[tuple[FunctionType, bool, str, tuple[str | float, ...]], ...],
    target: str | None,
    defaults: tuple[tuple[str, float], ...],
    orders: int,
    parted: bool,
) -> FunctionType:
    """Return the formula of a weighted sum: value, first, second and, where a part has one, the surrogate.

    The values of the parts come after them, without their weights, where they are wanted.
    """
    graph = Graph(EXACT)
    data = ["z", *([target] if target else [])]
    arguments = [*data, *(k for k, _ in defaults)]
    operands = dict(zip(arguments, symbols(graph, data, arguments[len(data) :]), strict=True))
    totals: list[Operand] = [0.0] * orders
    values: list[Operand] = []
    for function, takes_target, weight, own in parts:
        parameters = [operands[x] if isinstance(x, str) else x for x in own]
        results = evaluate(function, *(operands[x] for x in data[: 1 + takes_target]), *parameters)
        values.append(results[0])
        # A part without a surrogate has its second derivative in the sum of surrogates.
        for i, result in enumerate((*results[:3], *results[-1:])[:orders]):
            if result is not None and not (isinstance(result, float) and result == 0.0):
                scaled = operands[weight] * result
                totals[i] = scaled if isinstance(totals[i], float) else totals[i] + scaled
    return formula("formula", arguments, (*totals, *(values if parted else ())), dict(defaults))
