"""From a user's function or text to the record of a loss: traced, stabilised, derived and written as a formula."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ...call import check
from ...call.reduction import REDUCTIONS
from ...spec.derive import NotDerivableError, derivatives, sharing
from ...spec.graph import EXACT, Node, Operand, is_condition, reachable, symbols
from ...spec.record import REAL, Formula, Interval, Parameter, Signs, described
from ...spec.render import DIALECT, expression, formula, restored, source, tuples
from ...spec.spelling import FormulaError, Symbol, UserGraph
from ...spec.stable import STABLE

__all__ = [
    *("Arguments", "Origin", "Run", "arguments_of", "build", "named", "not_options", "options", "text_of", "traced"),
]

MOST_INPUTS = 5
"""Most inputs of an elementwise kernel, the target among them."""

Run = Callable[[Mapping[str, Operand]], Any]
"""Function that computes a user's formula for operands by the names of its arguments."""


class Arguments(NamedTuple):
    """Arguments of a user's formula."""

    predictions: tuple[str, ...]
    target: str | None
    defaults: dict[str, float]
    """Parameters with their defaults."""
    flags: frozenset[str] = frozenset()
    """Parameters that are True or False."""

    @property
    def data(self) -> list[str]:
        """Names of the arrays."""
        return [*self.predictions, *([self.target] if self.target else [])]


class Origin(NamedTuple):
    """Where a loss of a user's own comes from: what `check` and `pickle` need beside the record."""

    text: str
    """Text of the formula with its derivatives."""
    written: str
    """Text of the value as the user wrote it, without stabilising rules."""
    rewrites: tuple[str, ...]
    """Stabilising rules that were applied."""
    by_hand: int
    """Number of derivatives that the user wrote."""
    shown: str
    """The user's own text."""
    doc: str
    compiled: str = ""
    """Text that kernels compile, where it differs from `text`: that of a loss of rows is guarded."""

    @property
    def function(self) -> FunctionType:
        """Formula with its derivatives."""
        return restored("formula", self.text)


def arguments_of(function: Callable[..., Any], name: str, target: bool, most: int = MOST_INPUTS) -> Arguments:
    """Return the arguments of a user's function: data first, the target last of them, then parameters."""
    if not isinstance(function, FunctionType):
        raise FormulaError(f"{name}: the formula is a {type(function).__name__}; expected a function")
    data, defaults, flags = [], {}, set()
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise FormulaError(f"{name}: the formula takes *{p.name}; give each argument a name")
        if p.default is p.empty:
            data.append(p.name)
        elif isinstance(p.default, (bool, int, float, np.number)):
            defaults[p.name] = float(p.default)
            flags |= {p.name} if isinstance(p.default, bool) else set()
        else:
            raise FormulaError(f"{name}: the default of {p.name} is {check.shown(p.default)}; expected a number")
    return sorted_arguments(name, data, defaults, target and len(data) > 1, frozenset(flags), most)


def sorted_arguments(
    name: str,
    data: Sequence[str],
    defaults: dict[str, float],
    target: bool,
    flags: frozenset[str] = frozenset(),
    most: int = MOST_INPUTS,
) -> Arguments:
    """Return arguments whose last data is the target, where there is one."""
    if not data:
        raise FormulaError(f"{name}: the formula has no prediction; its first argument is one, without a default")
    if len(data) > most:
        raise FormulaError(f"{name}: the formula has {len(data)} arguments without a default; at most {most}")
    predictions = tuple(data[:-1] if target else data)
    return Arguments(predictions, data[-1] if target else None, defaults, flags)


def _domain(name: str, what: str, given: Any) -> Any:
    """Return a domain from what a user writes: a pair of bounds, the set of both signs, or a domain."""
    if isinstance(given, (Interval, Signs)):
        return given
    if isinstance(given, (set, frozenset)) and given == {-1, 1}:
        return Signs()
    if isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(x, (int, float)) for x in given):
        low, high = map(float, given)
        if low < high:
            return Interval(low, high)
    raise FormulaError(f"{name}: {what} is {check.shown(given)}; expected bounds such as (0, 1), or {{-1, 1}}")


def options(name: str, arguments: Arguments, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record from the keywords of a user's decorator."""
    unknown = sorted(set(fields) - set(PROPERTIES))
    if unknown:
        raise FormulaError(f"{name}: no option {unknown[0]!r}; {check.nearest(unknown[0], PROPERTIES)}")
    found = dict(fields)
    given = found.get("prediction", REAL)
    if not isinstance(given, dict):
        given = dict.fromkeys(arguments.predictions, given)
    if set(given) - set(arguments.predictions):
        raise FormulaError(f"{name}: domains of {sorted(given)}; the predictions are {list(arguments.predictions)}")
    found["prediction"] = tuple(_domain(name, f"the domain of {n}", given.get(n, REAL)) for n in arguments.predictions)
    found["target"] = _domain(name, "the domain of the target", found.get("target", REAL))
    own = found.get("parameters", {})
    if not isinstance(own, Mapping):
        raise FormulaError(f"{name}: parameters is {check.shown(own)}; expected a dictionary by their names")
    if set(own) - set(arguments.defaults):
        raise FormulaError(f"{name}: describes {sorted(own)}; its parameters are {sorted(arguments.defaults)}")
    found["parameters"] = {k: _parameter(name, k, own.get(k, ""), k in arguments.flags) for k in arguments.defaults}
    for key, value in arguments.defaults.items():
        allowed = found["parameters"][key].allowed
        if allowed.outside(value):
            raise FormulaError(f"{name}: the default of {key} is {value}; allowed: {allowed}")
    if found.get("reduction", "mean") not in REDUCTIONS:
        allowed = ", ".join(map(repr, REDUCTIONS))
        raise FormulaError(f"{name}: reduction is {check.shown(found['reduction'])}; allowed: {allowed}")
    return found


def not_options(name: str, kind: type, names: Iterable[str], what: str) -> None:
    """Raise for a name that calls take as an option: `weight` would be read as the weights of the call."""
    methods = (kind.__call__, kind.value_and_grad, kind.grad_and_hess)  # type: ignore[attr-defined]
    arguments = [p for m in methods for p in inspect.signature(m).parameters.values()]
    taken = {"backend", *(p.name for p in arguments if p.kind is p.KEYWORD_ONLY)}
    for key in names:
        if key in taken:
            raise FormulaError(f"{name}: {key} is an option of every call; give the {what} another name")


PROPERTIES = (
    *("prediction", "target", "parameters", "link", "convex", "differentiable", "bounded", "robust", "lipschitz"),
    *("minimum_at_target", "reduction", "paper", "math"),
)
"""Fields of the record that a user may give."""


def _parameter(name: str, key: str, given: Any, flag: bool) -> Parameter:
    if isinstance(given, Parameter):
        return given
    if isinstance(given, str):
        return Parameter(given or "parameter of the formula", flag=flag)
    return Parameter("parameter of the formula", _domain(name, f"the domain of {key}", given), flag=flag)


def traced(name: str, arguments: Arguments, run: Run, rules: Any) -> tuple[UserGraph, list[Operand], tuple[Any, ...]]:
    """Return the graph of a user's formula, its symbols and its results."""
    graph = UserGraph(rules, Symbol)
    operands = symbols(graph, arguments.data, list(arguments.defaults))
    found = run(dict(zip([*arguments.data, *arguments.defaults], operands, strict=True)))
    results = found if isinstance(found, tuple) else (found,)
    if not 1 <= len(results) <= 4:
        raise FormulaError(f"{name}: returns {len(results)} results; expected the value, or (value, first, second)")
    for x in (x for part in results for x in tuples(part)):
        if not isinstance(x, (Node, int, float, np.number)):
            raise FormulaError(f"{name}: returns {check.shown(x)}; expected numbers")
    return graph, operands, tuple(map(_as_number, results))


def _as_number(x: Any) -> Operand:
    if isinstance(x, tuple):
        return tuple(map(_as_number, x))
    if isinstance(x, Node):
        return x.graph.make("where", x, 1.0, 0.0) if is_condition(x) else x
    return float(x)


def named(name: str) -> None:
    """Raise for a name that no kernel can have."""
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 100:
        raise FormulaError(f"{name}: the name of a loss is a Python name; give one by name=")


def build(
    name: str, arguments: Arguments, run: Run, fields: dict[str, Any], shown: str, doc: str, stable: bool = True
) -> tuple[Formula, Origin]:
    """Return the record of a user's formula, and where it comes from."""
    named(name)
    given = options(name, arguments, fields)
    graph, operands, results = traced(name, arguments, run, STABLE if stable else EXACT)
    value, predictions = results[0], operands[: len(arguments.predictions)]
    for part in results[1:]:
        if len(tuples(part)) != len(predictions):
            count = f"{len(tuples(part))} derivatives; expected one for each of {len(predictions)} predictions"
            raise FormulaError(f"{name}: returns {count}")
    first, second = _derived(name, value, predictions, results)
    rest = _surrogate(given, second, results)
    names, defaults = [*arguments.data, *arguments.defaults], arguments.defaults
    compiled = formula("formula", names, _shared((value, first, second, *rest)), defaults, doc)
    plain = traced(name, arguments, run, EXACT)[2][0]
    written = formula("formula", names, (plain,), defaults)
    given.setdefault("math", _short(plain))
    # Not claimed of a formula with choices, whose sides may or may not meet smoothly; check() looks at them.
    given.setdefault("differentiable", not any(x.op in CHOICES for x in reachable([plain])))
    origin = Origin(source(compiled), source(written), tuple(graph.rewrites), len(results) - 1, shown, doc)
    record = described(compiled, "elementwise", "elementwise", {**given, "second": second is not None}, name)
    record = record._replace(predictions=arguments.predictions, target=arguments.target)
    return record, origin


def _shared(results: tuple[Any, ...]) -> list[Any]:
    """Return results, which may be tuples, with shared exponentials."""
    flat = iter(sharing([x for part in results for x in tuples(part)]))
    return [tuple(next(flat) for _ in part) if isinstance(part, tuple) else next(flat) for part in results]


CHOICES = frozenset(["abs", "sign", "where", "maximum", "minimum"])
"""Operations whose derivatives may jump."""


def _short(value: Operand) -> str:
    """Return a value as one expression, or nothing where that is long."""
    text = expression(DIALECT, value).text
    return (text[1:-1] if text.startswith("(") else text) if len(text) < 200 else ""


def _derived(name: str, value: Operand, predictions: Sequence[Operand], results: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return both derivatives: those that the user wrote, and the others derived."""
    several = len(predictions) > 1
    by_hand = results[1:3]
    try:
        if len(by_hand) == 2:
            return by_hand[0], by_hand[1]
        if by_hand:
            slopes = tuples(by_hand[0])
            bends = [derivatives(s, [z])[0] for s, z in zip(slopes, predictions, strict=True)]
            return by_hand[0], tuple(bends) if several else bends[0]
        return derivatives(value, predictions)
    except NotDerivableError as error:
        raise FormulaError(f"{name}: {error}; return (value, first, second) with the derivatives written out") from None


def _surrogate(given: dict[str, Any], second: Any, results: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the surrogate curvature as a tuple of one: the user's, or 1 where all curvatures are 0; or nothing."""
    if len(results) == 4:
        given["surrogate"] = "as written"
        return results[3:]
    bends = tuples(second)
    if any(isinstance(x, Node) or x != 0.0 for x in bends):
        return ()
    given["surrogate"] = "1"
    return (tuple(1.0 for _ in bends) if len(bends) > 1 else 1.0,)


def text_of(function: Callable[..., Any]) -> str:
    """Return the source of a user's function, without its decorators; empty where there is none."""
    try:
        lines, _ = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return ""
    text = textwrap.dedent("".join(lines))
    return text[max(text.find("def "), 0) :].strip()
