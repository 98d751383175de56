"""Parts of a sum of several loops, and which arguments of a call go to which of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...call.errors import CallTypeError
from ...spec.record import Formula
from ..base import Loss
from .build import is_fusible
from .records import target_of
from .terms import Term

__all__ = ["Given", "Route", "routes_of", "with_activations"]

OF_ROWS = frozenset(("class_weight", "ignore_index", "axis"))
"""Options of calls of row-wise losses."""


class Given(NamedTuple):
    """Arguments of one call of a sum."""

    prediction: Any
    target: Any
    weight: Any
    reduction: Any
    divisor: Any
    options: dict[str, Any]
    """Further options and arrays by name."""
    parameters: dict[str, Any]
    """Model parameters by name, for the penalties."""


class Route(NamedTuple):
    """Part of a sum that takes a pass of its own: a loss, or the fused formula of several."""

    names: tuple[str, ...]
    """Names of the parts; more than one of a fused formula."""
    weight: float
    """Factor of the loss; 1 for a fused formula, which has its weights inside."""
    loss: Any
    target: str
    """Name of the input that takes the target; empty where none does."""
    options: frozenset[str]
    """Options and further arrays that calls of the loss take."""

    @property
    def is_fused(self) -> bool:
        """Whether the loss is the fused formula of several parts."""
        return len(self.names) > 1

    @property
    def record(self) -> Formula:
        """Record of the loss."""
        found: Formula = self.loss.record
        return found

    @property
    def has_classes(self) -> bool:
        """Whether the classes of the prediction lie along axis 1, as those of regions."""
        return self.record.family == "arrays" and next(iter(self.record.inputs.values())).dims == "n c +"

    def arguments(self, given: Given, axis: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the named arguments of the loss."""
        record, found = self.record, {k: v for k, v in given.options.items() if k in self.options}
        if record.family == "rows":
            found.setdefault("axis", axis)
        if given.weight is not None:
            of_samples = record.family == "arrays" and not record.units and "sample_weight" in record.inputs
            found.setdefault("sample_weight" if of_samples else "weight", given.weight)
        prediction = given.prediction
        if record.family == "arrays":
            if self.target and given.target is not None:
                found.setdefault(self.target, given.target)
            return prediction if type(prediction) is tuple else (prediction,), found
        return (prediction, given.target) if self.target else (prediction,), found

    def value(self, given: Given, axis: int, parts: bool) -> tuple[Any, dict[str, Any]]:
        """Return the value, and that of each part by its name."""
        arrays, found = self.arguments(given, axis)
        found |= {"reduction": given.reduction, "divisor": given.divisor}
        if self.is_fused and parts:
            value, own = self.loss(*arrays, parts=True, **found)
            return value, own
        value = self.loss(*arrays, **found)
        return value, {self.names[0]: value}

    def value_and_grad(self, given: Given, axis: int, parts: bool, out: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return the value, the gradient, and the value of each part by its name."""
        arrays, found = self.arguments(given, axis)
        found |= {"reduction": given.reduction, "divisor": given.divisor, "out": out}
        if self.is_fused and parts:
            value, grad, own = self.loss.value_and_grad(*arrays, parts=True, **found)
            return value, grad, own
        value, grad = self.loss.value_and_grad(*arrays, **found)
        return value, grad, {self.names[0]: value}


def _route(names: tuple[str, ...], weight: float, loss: Loss) -> Route:
    record = loss.record
    if record.family == "rows":
        return Route(names, weight, loss, "target", OF_ROWS)
    if record.family == "elementwise":
        return Route(names, weight, loss, "target" if record.target else "", frozenset())
    others = [k for k, spec in record.inputs.items() if not spec.grad]
    # The inputs of losses of several predictions keep their names.
    target = "" if len(record.predictions) > 1 else target_of(record)
    return Route(names, weight, loss, target, frozenset(others) - {target})


def routes_of(terms: Sequence[Term], fuse: Any) -> tuple[Route, ...]:
    """Return the parts that take passes, with the elementwise ones of one prediction as one fused formula."""
    together = [t for t in terms if is_fusible(t)]
    found = []
    for term in terms:
        if len(together) < 2 or term not in together:
            found.append(_route((term.name,), term.weight, term.loss))
        elif term == together[0]:
            found.append(_route(tuple(t.name for t in together), 1.0, fuse(together)))
    # Saves a pass: what has its classes along axis 1 adds to the gradient of the others on the way back from rows.
    return tuple(sorted(found, key=lambda route: route.record.family == "rows"))


LINKS = {"softmax": "softmax", "logit": "sigmoid"}
"""Activations that turn the prediction of a loss into probabilities, by its link."""


def with_activations(terms: Sequence[Term], name: str) -> tuple[Term, ...]:
    """Return the parts with the activation of regions that the other parts tell.

    Beside a loss of logits, the probabilities of dice are those of the logits: softmax beside cross_entropy, sigmoid
    beside bce_with_logits.
    """
    links = {LINKS[t.loss.record.link] for t in terms if t.loss.record.link in LINKS}
    found = []
    for term in terms:
        spec = term.loss.record.parameters.get("activation")
        if spec is None or term.loss.defaults["activation"] != spec.none or not links:
            found.append(term)
            continue
        if len(links) > 1:
            problem = f"has parts of a softmax and of a sigmoid, so {term.name} needs the activation; write "
            raise CallTypeError(problem + f'fl.{term.loss.name}.bind(activation="softmax") or "sigmoid"', loss=name)
        (activation,) = links
        if activation in spec.choices:
            term = term._replace(loss=term.loss.bind(activation=activation))
        found.append(term)
    return tuple(found)
