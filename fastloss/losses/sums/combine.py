"""Sums of losses: `0.7 * fl.mse + 0.3 * fl.mae`, or `combine` with names; one formula and one pass for all parts."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ...call import check
from ...call.errors import CallTypeError, CallValueError
from ...call.reduction import REDUCTIONS
from ...spec.record import Formula
from ..base import ComposedDoc, Loss
from ..elementwise import ElementwiseLoss
from .build import Term, claims, fused, parameter_names, weight_of, with_usual_parameters

__all__ = ["SumLoss", "added", "combine", "scaled", "subtracted"]


class SumLoss(ElementwiseLoss):  # noqa: D101
    __doc__ = ComposedDoc("A weighted sum of losses, made by operators or by `fastloss.combine`.")

    __slots__ = ("_terms",)

    _terms: tuple[Term, ...]

    def __init__(self, record: Any, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        # Keeps one kernel for all weights: the kernel of default parameters has them as constants.
        object.__setattr__(self, "_usual", False)

    def __reduce__(self) -> Any:
        return _restore, (self._current(), self.name, self._backend)

    def __repr__(self) -> str:
        terms = self._current()
        if self.name != _joined(terms):
            parts = ", ".join(f"{t.name!r}: ({t.weight:g}, {t.loss!r})" for t in terms)
            return f"fastloss.combine({{{parts}}}, name={self.name!r})"
        if [t.name for t in terms] != [n.name for n in _apart([t._replace(name=t.loss.name) for t in terms])]:
            return f"fastloss.combine({{{', '.join(f'{t.name!r}: ({t.weight:g}, {t.loss!r})' for t in terms)}}})"
        return " + ".join(f"{t.weight:g} * {t.loss!r}" for t in terms).replace("+ -", "- ")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SumLoss):
            return False
        mine, others = (self.name, self._backend, self._current()), (other.name, other._backend, other._current())
        return mine == others

    def __hash__(self) -> int:
        return hash((self.name, self._current()))

    @property
    def _compiled(self) -> Formula:
        usual = self.record.defaults.items()
        weights = {weight_of(term.name) for term in self._terms}
        is_usual = all(self.defaults[k] == v for k, v in usual if k not in weights)
        return with_usual_parameters(self.record, self._terms) if is_usual else self.record

    def _current(self) -> tuple[Term, ...]:
        """Return the parts with their weights and parameters in this sum."""
        found = []
        for term, names in zip(self._terms, parameter_names(self._terms), strict=True):
            own = {k: self.defaults[n] for k, n in names.items()}
            kept = dict(term.loss.defaults) == own
            loss = term.loss if kept else term.loss.bind(**_meant(term.loss, own))
            if self._backend and loss._backend != self._backend:
                loss = loss.bind(backend=self._backend)
            found.append(Term(term.name, self.defaults[weight_of(term.name)], loss))
        return tuple(found)

    def _with(self, parameters: dict[str, Any]) -> "SumLoss":
        weights = parameters.pop("weights", None) if "weights" in parameters else None
        if weights is not None:
            parameters = parameters | self._by_parts(weights)
        return super()._with(parameters) if parameters else self

    def _by_parts(self, weights: Any) -> dict[str, Any]:
        """Return the parameters of weights by the names of parts."""
        names = [term.name for term in self._terms]
        if not isinstance(weights, Mapping):
            problem = f"is {check.shown(weights)}; expected a dictionary by the names of parts, {', '.join(names)}"
            raise CallTypeError(problem, "weights", loss=self.name)
        for name, value in weights.items():
            if name not in names:
                problem = f"names {check.shown(name)}; the parts are {', '.join(names)}"
                raise CallValueError(problem, "weights", loss=self.name)
            _finite(value, f"{self.name}: weights[{name!r}]")
        return {weight_of(name): float(value) for name, value in weights.items()}

    def _bind(self, parameters: dict[str, Any]) -> "SumLoss":
        found = super()._bind(parameters)
        object.__setattr__(found, "_terms", self._terms)
        if any(k.endswith("_weight") for k in parameters):
            object.__setattr__(found, "record", found.record._replace(**claims(found._current())))
        return found

    def __call__(self, prediction: Any, target: Any = None, *more: Any, parts: bool = False, **options: Any) -> Any:
        """Return the reduced sum, or one value per element with ``reduction="none"``.

        ``weights={"mae": 0.2}`` replaces weights of parts. With ``parts=True``, the result is (value, parts): the mean
        of each part by its name, without its weight. The parts take one further pass each.
        """
        value = super().__call__(prediction, target, *more, **options)
        return (value, self._parts(prediction, target, options)) if parts else value

    def value_and_grad(
        self, prediction: Any, target: Any = None, *more: Any, parts: bool = False, **options: Any
    ) -> tuple[Any, ...]:
        """Return the sum and its gradient with respect to the prediction, in one pass over the data.

        ``weights={"mae": 0.2}`` replaces weights of parts. With ``parts=True``, the result is (value, gradient, parts):
        the mean of each part by its name, without its weight. The parts take one further pass each.
        """
        found = super().value_and_grad(prediction, target, *more, **options)
        return (*found, self._parts(prediction, target, options)) if parts else found

    def _parts(self, prediction: Any, target: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return the value of each part, without its weight."""
        options = {k: v for k, v in options.items() if k != "out"}
        kept = {k: options.pop(k) for k in ("weight", "reduction", "divisor") if k in options}
        if not (kept.get("reduction") is None or kept["reduction"] in REDUCTIONS):
            # The risk of a sum is not the sum of risks.
            kept["reduction"] = "mean"
        loss, prediction = self._resolve(prediction, options)
        found = {}
        for term in loss._current():  # type: ignore[attr-defined]
            own_target = () if term.loss.record.target is None else (target,)
            found[term.name] = term.loss(prediction, *own_target, **kept)
        return found

    def _docstring(self) -> str:
        """Return the docstring: the parts with their weights, and the parameters."""
        lines = [f"Weighted sum of {len(self._terms)} losses, computed in one pass."]
        lines += [f"{t.name} : {t.weight:g} times {t.loss!r}" for t in self._current()]
        for key, spec in self.record.parameters.items():
            value = spec.show(self.defaults[key])
            lines.append(f"{key} : default {value}, allowed {spec.allowed}\n    {spec.doc}")
        return "\n\n".join(lines) + "\n"


def combine(parts: Mapping[str, Any], /, *, name: str = "") -> SumLoss:
    """Return the weighted sum of losses, with parts that have names.

    value(z, t) = sum over parts of weight * part(z, t). Elementwise losses of one prediction become one formula, so
    that all parts, the gradient and the curvature take one pass. Weights are parameters at run time: other weights
    need no compilation. `0.7 * fl.mse + 0.3 * fl.mae` is a sum too, whose parts have the names of their losses.

    Parameters
    ----------
    parts : mapping of str to Loss or (float, Loss)
        Parts by name, with weights that may be negative; 1 where none is given.
    name : str, optional
        Name of the sum; by default the names of its parts joined.

    Returns
    -------
    SumLoss
        Loss with all that its parts have. Its parameters are `NAME_weight` for each part, and those of the parts:
        by their own names where one part has such a parameter, else as `NAME_parameter`. Calls take
        ``weights={"tail": 0.2}``, and ``parts=True`` to return the value of each part too.

    Raises
    ------
    TypeError
        Parts that are no losses, or not elementwise losses of one prediction, or whose targets have no value in common.
    ValueError
        Weights that are not finite, and names that are not Python names.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> both = fl.combine({"fit": fl.huber, "tail": (0.1, fl.quantile.bind(q=0.9))})
    >>> value, grad, parts = both.value_and_grad(np.array([2.0, 0.0]), np.array([0.0, 1.0]), parts=True)
    >>> round(value, 6), parts
    (1.055, {'fit': 1.0, 'tail': 0.55})
    >>> both(np.array([2.0, 0.0]), np.array([0.0, 1.0]), weights={"tail": 0.0})
    1.0
    """
    if not isinstance(parts, Mapping) or not parts:
        problem = f'takes a dictionary of parts, such as {{"fit": fl.mse}}; given {check.shown(parts)}'
        raise CallTypeError(problem, loss="combine")
    found: list[Term] = []
    for key, part in parts.items():
        if not (isinstance(key, str) and key.isidentifier()):
            raise CallValueError(f"names a part {check.shown(key)}; expected a Python name", loss="combine")
        weight, loss = part if isinstance(part, tuple) and len(part) == 2 else (1.0, part)
        if not isinstance(loss, Loss):
            problem = f"{key} is {check.shown(part)}; expected a loss or (weight, loss)"
            raise CallTypeError(problem, loss="combine")
        weight = _finite(weight, f"combine: the weight of {key}")
        inner = _terms_of(loss)
        for term in inner:
            called = key if len(inner) == 1 else f"{key}_{term.name}"
            found.append(Term(called, weight * term.weight, term.loss))
    return _sum(found, name)


def added(a: Loss, b: Any) -> Loss:
    """Return the sum of a loss and another one; 0 changes nothing, as in `sum([...])`."""
    if not isinstance(b, Loss):
        if isinstance(b, Real) and b == 0:
            return a
        problem = f"cannot be added to {check.shown(b)}, as a constant changes no gradient; expected a loss"
        raise CallTypeError(problem, loss=a.name)
    return _sum([*_terms_of(a), *_terms_of(b)])


def subtracted(a: Loss, b: Any) -> Loss:
    """Return the difference of two losses."""
    if not isinstance(b, Loss):
        problem = f"minus {check.shown(b)} is no loss, as a constant changes no gradient; expected a loss"
        raise CallTypeError(problem, loss=a.name)
    return added(a, scaled(b, -1.0))


def scaled(loss: Loss, factor: Any) -> Loss:
    """Return a number times a loss."""
    if isinstance(factor, Loss):
        problem = f"cannot be multiplied by {factor.name}; multiply a loss by a number, or write the product by fl.loss"
        raise CallTypeError(problem, loss=loss.name)
    weight = _finite(factor, f"{loss.name}: the weight")
    terms = [t._replace(weight=weight * t.weight) for t in _terms_of(loss)]
    return _sum(terms, loss.name if isinstance(loss, SumLoss) else "")


def _finite(value: Any, what: str) -> float:
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


def _terms_of(loss: Loss) -> tuple[Term, ...]:
    """Return the parts of a sum, or a loss as the only part."""
    return loss._current() if isinstance(loss, SumLoss) else (Term(loss.name, 1.0, loss),)


def _apart(terms: Sequence[Term]) -> tuple[Term, ...]:
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


def _joined(terms: Sequence[Term]) -> str:
    """Return the name of a sum that has no other."""
    names = [t.name for t in terms]
    if len(names) == 1:
        return f"weighted_{names[0]}"
    joined = "_plus_".join(names)
    return joined if len(joined) <= 80 else f"sum_of_{len(names)}_losses"


def _sum(terms: Sequence[Term], name: str = "", backend: str = "") -> SumLoss:
    """Return the sum of terms as a loss."""
    found = _apart(terms)
    name = name or _joined(found)
    if not isinstance(name, str) or not name.isidentifier():
        raise CallValueError(f"name is {check.shown(name)}; expected a Python name", loss="combine")
    backends = {t.loss._backend for t in found if t.loss._backend}
    if len(backends) > 1:
        problem = f"has parts bound to the backends {' and '.join(sorted(backends))}; expected one"
        raise CallValueError(problem, loss=name)
    record = fused(found, name)._replace(**claims(found))
    defaults: dict[str, Any] = {weight_of(t.name): t.weight for t in found}
    for term, names in zip(found, parameter_names(found), strict=True):
        defaults |= {names[k]: v for k, v in term.loss.defaults.items()}
    made = SumLoss(record, defaults, backend or "".join(backends))
    object.__setattr__(made, "_terms", found)
    return made


def _meant(loss: Loss, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in the form in which a caller gives them."""
    return {k: loss.record.parameters[k].meant(v) for k, v in values.items()}


def _restore(terms: tuple[Term, ...], name: str, backend: str) -> SumLoss:
    return _sum(terms, name, backend)
