"""Parts of a sum with their names, weights and parameters, and what all kinds of sums have in common."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from ...call import check
from ...call.errors import CallTypeError, CallValueError
from ...spec.record import Formula
from ..base import Loss
from ..risks.base import alike

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Sum", "Term", "apart", "claims", "finite", "joined", "own_parameters", "parameter_names", "weight_of"]


class Term(NamedTuple):
    """Part of a sum: its name, its weight and its loss, whose defaults are those of the sum."""

    name: str
    weight: float
    loss: Loss


def weight_of(name: str) -> str:
    """Return the name of the parameter that holds the weight of a part."""
    return f"{name}_weight"


def parameter_names(terms: Sequence[Term]) -> list[dict[str, str]]:
    """Return the name in the sum of each parameter of each part: its own where no other part has one of that name."""
    uses = Counter(k for term in terms for k in term.loss.record.parameters)
    weights = {weight_of(term.name) for term in terms}
    found = []
    for term in terms:
        own = term.loss.record.parameters
        found.append({k: k if uses[k] == 1 and k not in weights else f"{term.name}_{k}" for k in own})
    names = Counter([*weights, *(n for own in found for n in own.values())])
    twice = next((n for n, count in names.items() if count > 1), None)
    if twice is not None:
        raise CallValueError(f"has two parameters called {twice}; name the parts apart by combine", loss="combine")
    return found


def own_parameters(terms: Sequence[Term]) -> dict[str, Any]:
    """Return the values of the parameters of a sum: the weights of the parts, then the parameters of each."""
    values: dict[str, Any] = {weight_of(t.name): t.weight for t in terms}
    for term, names in zip(terms, parameter_names(terms), strict=True):
        values |= {names[k]: v for k, v in term.loss.defaults.items()}
    return values


def claims(terms: Sequence[Term]) -> dict[str, Any]:
    """Return the properties of a sum with these weights, as fields of its record."""
    records = [term.loss.record for term in terms if term.weight != 0.0]
    added = all(term.weight >= 0.0 for term in terms)
    slopes = [r.lipschitz for r in records]
    weights = [abs(term.weight) for term in terms if term.weight != 0.0]
    bounded = None if None in slopes else sum(w * s for w, s in zip(weights, slopes, strict=True) if s is not None)
    return {
        "convex": added and all(r.convex for r in records),
        "differentiable": all(r.differentiable for r in records),
        "bounded": all(r.bounded for r in records),
        "robust": added and all(r.robust for r in records),
        "lipschitz": bounded,
        "minimum_at_target": added and all(r.minimum_at_target for r in records),
    }


def finite(value: Any, what: str) -> float:
    """Return a weight as a float; raise for one that is not a finite number."""
    scalar = isinstance(value, Real) or getattr(value, "shape", None) == ()
    try:
        number = float(value) if scalar else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise CallTypeError(f"{what} is {check.shown(value)}; expected a finite number")
    if not math.isfinite(number):
        raise CallValueError(f"{what} is {check.shown(value)}; expected a finite number")
    return number


def apart(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Return terms with a number after the names that others have before them."""
    used: set[str] = set()
    found = []
    for term in terms:
        name, count = term.name, 2
        while name in used:
            name, count = f"{term.name}_{count}", count + 1
        used.add(name)
        found.append(term._replace(name=name))
    return tuple(found)


def joined(terms: Sequence[Term]) -> str:
    """Return the name of a sum that has no other."""
    names = [t.name for t in terms]
    if len(names) == 1:
        return f"weighted_{names[0]}"
    whole = "_plus_".join(names)
    return whole if len(whole) <= 80 else f"sum_of_{len(names)}_losses"


class Sum(Loss):  # noqa: D101
    # Base class of sums: names, weights, parameters, pickles and texts.

    __slots__ = ()

    _terms: tuple[Term, ...]
    _now: tuple[Term, ...] | None
    """Parts as they are in this sum; None before they are first asked for."""

    def __init__(self, record: Formula, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        object.__setattr__(self, "_now", None)

    def __reduce__(self) -> Any:
        return self._restored, (self._current(), self.name, self._backend, self.record.reduction)

    @classmethod
    def of(cls, terms: Sequence[Term], name: str = "", backend: str = "") -> "Self":
        """Return the sum of parts that have distinct names."""
        found = tuple(terms)
        made = cls(cls._recorded(found, name or joined(found)), own_parameters(found), backend)
        object.__setattr__(made, "_terms", found)
        return made

    @classmethod
    def _recorded(cls, terms: Sequence[Term], name: str) -> Formula:
        """Return the record of a sum."""
        raise NotImplementedError

    @classmethod
    def _restored(cls, terms: tuple[Term, ...], name: str, backend: str, reduction: Any) -> "Self":
        found = cls.of(terms, name, backend)
        return found if alike(reduction, found.record.reduction) else found.bind(reduction=reduction)

    def __repr__(self) -> str:
        terms = self._current()
        usual = terms[0].loss.record.reduction
        bound = "" if alike(usual, self.record.reduction) else f".bind(reduction={self.record.reduction!r})"
        parts = ", ".join(f"{t.name!r}: ({t.weight:g}, {t.loss!r})" for t in terms)
        if self.name != joined(terms):
            return f"fastloss.combine({{{parts}}}, name={self.name!r}){bound}"
        if [t.name for t in terms] != [n.name for n in apart([t._replace(name=t.loss.name) for t in terms])]:
            return f"fastloss.combine({{{parts}}}){bound}"
        text = " + ".join(f"{t.weight:g} * {t.loss!r}" for t in terms).replace("+ -", "- ")
        return f"({text}){bound}" if bound else text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sum):
            return False
        mine, others = (self.name, self._backend, self._current()), (other.name, other._backend, other._current())
        return mine == others and alike(self.record.reduction, other.record.reduction)

    def __hash__(self) -> int:
        return hash((self.name, self._current()))

    def _current(self) -> tuple[Term, ...]:
        """Return the parts with their weights and parameters in this sum."""
        if self._now is None:
            object.__setattr__(self, "_now", self._found())
        return self._now  # type: ignore[return-value]

    def _found(self) -> tuple[Term, ...]:
        found = []
        for term, names in zip(self._terms, parameter_names(self._terms), strict=True):
            own = {k: self.defaults[n] for k, n in names.items()}
            kept = dict(term.loss.defaults) == own
            loss = term.loss if kept else term.loss.bind(**_meant(term.loss, own))
            if self._backend and loss._backend != self._backend:
                loss = loss.bind(backend=self._backend)
            found.append(Term(term.name, self.defaults[weight_of(term.name)], loss))
        return tuple(found)

    def _with(self, parameters: dict[str, Any]) -> "Self":
        weights = parameters.get("weights")
        parameters = {k: v for k, v in parameters.items() if k != "weights"}
        if weights is not None:
            parameters |= self._by_parts(weights)
        return super()._with(self._shared(parameters)) if parameters else self

    def _shared(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return parameters with one that several parts have as that of each of them."""
        found: dict[str, Any] = {}
        for key, value in parameters.items():
            names = [key]
            if key not in self.record.parameters:
                names = [own[key] for own in parameter_names(self._terms) if key in own] or names
            found |= {name: value for name in names if name == key or name not in parameters}
        return found

    def _by_parts(self, weights: Any) -> dict[str, Any]:
        """Return the parameters of weights by the names of parts."""
        return {weight_of(k): v for k, v in named_weights(weights, [t.name for t in self._terms], self.name).items()}

    def _bind(self, parameters: dict[str, Any]) -> "Self":
        found = super()._bind(parameters)
        object.__setattr__(found, "_terms", self._terms)
        if any(k.endswith("_weight") for k in parameters):
            object.__setattr__(found, "record", found.record._replace(**claims(found._current())))
        return found

    def _docstring(self) -> str:
        """Return the docstring: the parts with their weights, and the parameters."""
        lines = [f"Weighted sum of {len(self._terms)} losses."]
        lines += [f"{t.name} : {t.weight:g} times {t.loss!r}" for t in self._current()]
        for key, spec in self.record.parameters.items():
            value = self.defaults[key]
            shown = repr(value) if type(value) is tuple else spec.show(value)
            lines.append(f"{key} : default {shown}, allowed {spec.allowed}\n    {spec.doc}")
        return "\n\n".join(lines) + "\n"


def named_weights(weights: Any, names: Sequence[str], owner: str) -> dict[str, float]:
    """Return weights by the names of parts; raise for other names, and for weights that are not finite numbers."""
    if not isinstance(weights, Mapping):
        problem = f"is {check.shown(weights)}; expected a dictionary by the names of parts, {', '.join(names)}"
        raise CallTypeError(problem, "weights", loss=owner)
    for name in weights:
        if name not in names:
            problem = f"names {check.shown(name)}; the parts are {', '.join(names)}"
            raise CallValueError(problem, "weights", loss=owner)
    return {name: finite(value, f"{owner}: weights[{name!r}]") for name, value in weights.items()}


def _meant(loss: Loss, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in the form in which a caller gives them."""
    parameters = loss.record.parameters
    return {k: v if type(v) is tuple else parameters[k].meant(v) for k, v in values.items()}
