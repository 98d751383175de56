"""Sums of losses of several loops, evaluated one after another into one gradient."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...call import check
from ...call.arrays import incoming, outgoing
from ...call.backend_choice import chosen
from ...call.errors import CallTypeError, CallValueError, named
from ...call.reduction import second_of
from ...call.request import Request
from ...cuda import placement
from ...spec.record import Formula
from ..base import ComposedDoc
from ..risks.base import Risk, under_risk
from .fused import SumLoss
from .gradients import Gradients, in_rows, laid, scaled_sum
from .penalties import Penalty, penalised
from .quick import quick
from .records import mixed
from .routes import Given, Route, routes_of
from .terms import Sum, Term, claims

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MixedSum"]


class _Held(NamedTuple):
    """Parts and names of a sum as its calls read them."""

    routes: tuple[Route, ...]
    """Parts that take passes over the predictions."""
    penalties: dict[str, Any]
    """Sums of penalties by the names of their parameters."""
    predictions: tuple[str, ...]
    """Names of the predictions."""
    order: tuple[str, ...]
    """Names of the arrays in the order in which they can be given."""
    known: frozenset[str]
    """Names of all arrays, and of the options of calls."""
    quick: Any
    """Function of a prediction and a target for small calls without options; None where every call is another."""


class MixedSum(Sum):  # noqa: D101
    __doc__ = ComposedDoc("A weighted sum of losses of several loops, or with penalties on parameters.")

    __slots__ = ("_held", "_terms")

    _takes_more = True

    _held: Any
    """Parts that take passes, and penalties by the names of their parameters; None before the first call."""

    def __init__(self, record: Any, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        object.__setattr__(self, "_held", None)

    @classmethod
    def _recorded(cls, terms: Sequence[Term], name: str) -> Formula:
        return mixed(terms, name)._replace(**claims(terms))

    def __call__(
        self,
        prediction: Any = None,
        target: Any = None,
        *more: Any,
        weight: Any = None,
        reduction: Any = None,
        divisor: float | None = None,
        parts: bool = False,
        **options: Any,
    ) -> Any:
        """Return the reduced sum, or one value per sample with ``reduction="none"``.

        Options and further arrays go to the parts that have them. ``weights={"dice": 0.2}`` replaces weights of parts.
        With ``parts=True``, the result is (value, parts): the value of each part by its name, without its weight.
        """
        loss, given = self._given((prediction, target, *more), (weight, reduction, divisor), options)
        value, _, _, own = loss._run(given, False, None, parts)
        return (value, own) if parts else value

    def value_and_grad(
        self,
        prediction: Any = None,
        target: Any = None,
        *more: Any,
        weight: Any = None,
        reduction: Any = None,
        divisor: float | None = None,
        out: Any = None,
        parts: bool = False,
        **options: Any,
    ) -> tuple[Any, ...]:
        """Return the sum and its gradient with respect to the prediction, to which each part adds its own.

        A sum with penalties returns their gradients next, as a dictionary by the names of the parameters. With
        ``parts=True``, the last result is the value of each part by its name, without its weight.
        """
        if not (more or options or parts) and weight is reduction is divisor is out is None:
            short = self._calls.quick
            found: tuple[Any, ...] | None = None if short is None or chosen() == "cuda" else short(prediction, target)
            if found is not None:
                return found
        loss, given = self._given((prediction, target, *more), (weight, reduction, divisor), options)
        value, grad, penalties, own = loss._run(given, True, out, parts)
        result = (value, *([grad] if loss._routes else []), *([penalties] if loss._penalties else []))
        return (*result, own) if parts else result

    def grad_and_hess(
        self,
        prediction: Any,
        target: Any = None,
        *more: Any,
        weight: Any = None,
        curvature: str = "exact",
        out: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Return first and second derivatives per element, times the weight, where all parts have them."""
        loss, given = self._given((prediction, target, *more), (weight, "none", None), options)
        loss._refuse_flat(curvature)
        found = []
        for route in loss._routes:
            arrays, own = route.arguments(given, loss._axis(given))
            how = curvature if route.record.surrogate else "exact"
            found.append(route.loss.grad_and_hess(*arrays, curvature=how, **own))
        weights = [route.weight for route in loss._routes]
        totals = [scaled_sum(weights, [pair[i] for pair in found]) for i in range(2)]
        if out is None:
            return totals[0], totals[1]
        for o, total in zip(check.entries("out", out, 2, "a pair (gradient, curvature)"), totals, strict=True):
            o[...] = total
        return tuple(out)

    @named
    def _refuse_flat(self, curvature: str) -> None:
        """Raise where a part has no second derivative."""
        for route in self._routes:
            if not route.record.second and not (curvature == "surrogate" and route.record.surrogate):
                problem = f"has no second derivative, as its part {route.names[0]} has none; use value_and_grad"
                raise CallValueError(problem)
        if self._penalties or not self._routes:
            raise CallValueError("has a penalty on parameters, which has no part in grad_and_hess; use value_and_grad")
        second_of(self.record, curvature)

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        for route in self._routes:
            route.loss.warmup(dtypes)
        for penalty in self._penalties.values():
            penalty.warmup(dtypes)

    def bind(self, **parameters: Any) -> "Self":
        """Return this sum with other parameter defaults, reduction or backend."""
        # The row losses would go on to ignore -100.
        rows = next((r.names[0] for r in self._routes if r.record.family == "rows"), None)
        if "ignore_index" in parameters and rows is not None:
            problem = f"is an option of calls in {rows}; pass it with each call"
            raise CallTypeError(problem, "ignore_index", loss=self.name)
        return self._with(parameters)

    @property
    def _calls(self) -> "_Held":
        """Parts and names as calls read them."""
        if self._held is None:
            object.__setattr__(self, "_held", self._sorted())
        return self._held  # type: ignore[no-any-return]

    def _sorted(self) -> "_Held":
        terms, record = self._current(), self.record
        data = [t for t in terms if not isinstance(t.loss, Penalty)]
        own: dict[str, list[Term]] = {}
        for term in terms:
            if isinstance(term.loss, Penalty):
                own.setdefault(term.loss.of, []).append(term._replace(loss=term.loss.inner))
        routes, penalties = routes_of(data, SumLoss.of), {k: SumLoss.of(t) for k, t in own.items()}
        predictions = [n for n in record.predictions if n not in penalties]
        predictions = ["prediction"] if len(predictions) == 1 else predictions
        order = list(record.inputs)
        if record.family != "arrays":
            order = [*predictions, *(["target"] if record.target else [])]
        known = frozenset(order).union(*(route.options for route in routes))
        is_one = len(predictions) == 1 and not penalties and not self._backend
        axis = 1 if any(r.has_classes for r in routes) else -1
        short = quick(routes, axis, record.reduction) if is_one else None
        return _Held(routes, penalties, tuple(predictions), tuple(order), known, short)

    @property
    def _routes(self) -> tuple[Route, ...]:
        """Parts that take passes over the predictions."""
        return self._calls.routes

    @property
    def _penalties(self) -> dict[str, Any]:
        """Sums of penalties by the names of their parameters."""
        return self._calls.penalties

    @property
    def _of_classes(self) -> bool:
        return any(r.loss._of_classes for r in self._routes)

    def _axis(self, given: Given) -> int:
        """Return the axis of classes: 1 beside losses of regions, as in PyTorch, else the last."""
        region = next((r for r in self._routes if r.has_classes), None)
        if region is None:
            return -1
        axis = given.options.get("axis", 1)
        if axis != 1 and not (type(axis) is int and axis + np.ndim(given.prediction) == 1):
            raise CallValueError(f"is {check.shown(axis)}; {region.names[0]} has its classes along axis 1", "axis")
        return 1

    @named
    def _given(self, arrays: tuple[Any, ...], how: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Given]:
        """Sort the arguments of a call; return the loss with the parameters among them, and the others."""
        _, penalties, predictions, order, known, _ = self._calls
        arrays = arrays[0] + arrays[1:] if type(arrays[0]) is tuple and len(predictions) > 1 else arrays
        while arrays and arrays[-1] is None:
            arrays = arrays[:-1]
        if len(arrays) > len(order):
            raise CallTypeError(f"takes ({', '.join(order)}); {len(arrays)} arrays given")
        found = dict(zip(order, arrays, strict=False))
        changed: dict[str, Any] = {}
        for name, value in options.items():
            if name in known:
                if found.get(name) is not None:
                    raise CallTypeError("is given twice, by position and by name", name)
                found[name] = value
            if name not in known or self._has(name):
                changed[name] = value
        self._refuse_unknown(changed, known)
        loss = self._with(changed) if changed else self
        parameters = {k: found.pop(k, None) for k in penalties}
        own = [found.pop(n, None) for n in predictions]
        prediction = own[0] if len(own) == 1 else tuple(own) if any(x is not None for x in own) else None
        target = found.pop("target", None)
        weight, reduction, divisor = how
        extra = {k: v for k, v in found.items() if v is not None or k == "ignore_index"}
        return loss, Given(prediction, target, weight, reduction, divisor, extra, parameters)

    def _has(self, name: str) -> bool:
        """Whether a parameter of the sum has this name, or those of several parts have."""
        if name == "weights" or name in self.record.parameters:
            return True
        return any(name in term.loss.record.parameters for term in self._terms)

    def _refuse_unknown(self, changed: dict[str, Any], known: frozenset[str]) -> None:
        for name in changed:
            if name not in ("weights", "backend") and not self._has(name):
                hint = check.nearest(name, [*self.record.parameters, *sorted(known)])
                raise CallTypeError(f"is an option of no part; {hint}", name)

    @named
    def _run(self, given: Given, writes: bool, out: Any, parts: bool) -> tuple[Any, Any, dict[str, Any], Any]:
        """Return the value, the gradient, the gradients by parameters, and the values of parts."""
        if given.reduction is None:
            given = given._replace(reduction=self.record.reduction)
        self._refuse_missing(given)
        value: Any = 0.0
        grad, own = None, {}
        if self._routes:
            if isinstance(given.reduction, Risk):
                value, grad = self._under_risk(given, writes, out)
                if parts:
                    own = self._evaluated(given._replace(reduction="mean"), False, None, True)[2]
            else:
                value, grad, own = self._evaluated(given, writes, out, parts)
        grads: dict[str, Any] = {}
        for name, penalty in self._penalties.items():
            extra, grads[name], part = penalised(penalty, given.parameters[name], writes)
            value, own = value + extra, {**own, **part}
        return value, grad, grads, {t.name: own[t.name] for t in self._terms} if parts else None

    def _refuse_missing(self, given: Given) -> None:
        """Raise for missing predictions and parameters, and for penalties where each sample has a value."""
        names = self._calls.order
        if self._routes and given.prediction is None:
            raise CallTypeError(f"needs {self._calls.predictions[0]}; it takes ({', '.join(names)})")
        if "target" not in names and given.target is not None:
            raise CallTypeError("has no part that takes a target", "target")
        for name in self._penalties:
            if given.parameters.get(name) is None:
                raise CallTypeError(f"needs {name}=, the parameters of its penalty: an array, or a list or dictionary")
        if self._penalties and isinstance(given.reduction, str) and given.reduction == "none":
            problem = "is 'none', and a penalty has one value for all parameters; take 'mean' or 'sum'"
            raise CallValueError(problem, "reduction")

    def _evaluated(self, given: Given, writes: bool, out: Any, parts: bool) -> tuple[Any, Any, dict[str, Any]]:
        """Return the value, the gradient and the values of parts, one part after another."""
        axis, routes = self._axis(given), self._routes
        if placement.involved(self._backend, given.prediction, given.target, given.weight):
            return self._placed(given, writes, out, parts)
        back = outgoing(given.prediction[0] if type(given.prediction) is tuple else given.prediction)
        whole = given if len(routes) == 1 else laid(given)
        rows: Any = None
        others = (given.target, given.weight, *given.options.values())
        target = Gradients(given.prediction, len(routes), out, others) if writes else None
        values: list[Any] = []
        found: dict[str, Any] = {}
        for route in routes:
            call, at, turned = whole, axis, None
            if route.record.family == "rows" and len(routes) > 1:
                rows = rows or in_rows(whole, axis)
                call, turned = rows
                at = axis if turned is None else -1
            if target is None:
                value, own = route.value(call, at, parts)
            else:
                value, _, own = route.value_and_grad(call, at, parts, target.room(turned))
                target.add(route.weight, turned)
            values.append(value)
            found |= own
        if given.reduction == "none":
            self._refuse_shapes(values)
        total = scaled_sum([r.weight for r in routes], values)
        if back is not None:
            total = back(total) if isinstance(total, np.ndarray) else total
            found = {k: back(v) if isinstance(v, np.ndarray) else v for k, v in found.items()}
        return total, None if target is None else target.finished(out, back), found

    def _placed(self, given: Given, writes: bool, out: Any, parts: bool) -> tuple[Any, Any, dict[str, Any]]:
        """Evaluate a sum of device arrays, with the operators of their library."""
        first = given.prediction[0] if type(given.prediction) is tuple else given.prediction
        if not hasattr(first, "__mul__"):
            problem = f"is a {type(first).__name__} on a GPU, which has no operators to add gradients by; expected an "
            raise CallTypeError(problem + "array of CuPy, torch or JAX", "prediction")
        axis, values, grads = self._axis(given), [], []
        found: dict[str, Any] = {}
        for route in self._routes:
            if writes:
                value, grad, own = route.value_and_grad(given, axis, parts, None)
                grads.append(grad if type(grad) is tuple else (grad,))
            else:
                value, own = route.value(given, axis, parts)
            values.append(value)
            found |= own
        weights = [r.weight for r in self._routes]
        total = scaled_sum(weights, values)
        if not writes:
            return total, None, found
        sums = tuple(scaled_sum(weights, list(of_one)) for of_one in zip(*grads, strict=True))
        if out is not None:
            for o, x in zip(out if type(out) is tuple else (out,), sums, strict=True):
                o[...] = x
            return total, out, found
        return total, sums if len(sums) > 1 else sums[0], found

    def _refuse_shapes(self, values: Sequence[Any]) -> None:
        """Raise where the losses of the samples have not one shape."""
        shapes = [np.shape(v) for v in values]
        for route, shape in zip(self._routes, shapes, strict=True):
            if shape != shapes[0]:
                first = self._routes[0].names[0]
                problem = f"has values of shape {shapes[0]} from {first} and {shape} from {route.names[0]}"
                raise CallValueError(f"{problem}, which cannot be added one by one; take reduction='mean' or 'sum'")

    def _under_risk(self, given: Given, writes: bool, out: Any) -> tuple[Any, Any]:
        """Return the risk of the losses of the samples, and its gradient."""
        uncounted = [r for r in self._routes if r.record.family == "arrays" and not _counts_alike(r, given)]
        if uncounted:
            name = uncounted[0].names[0]
            raise CallValueError(f"has no risk: {name} has samples that do not count; take reduction='mean'")
        plain = given._replace(weight=None, reduction="none", divisor=None)
        shape = np.shape(self._evaluated(plain, False, None, False)[0])
        ignored = None
        t = None if given.target is None else incoming(given.target, "target")
        index = given.options.get("ignore_index", -100)
        if self._of_classes and t is not None and t.dtype.kind in "iub" and t.shape == shape and index is not None:
            ignored = t == index if (t == index).any() else None

        def run(request: Request) -> tuple[Any, Any]:
            reduction = request.reduction
            asked = given._replace(prediction=request.prediction, weight=request.weight, reduction=reduction)
            return self._evaluated(asked, request.orders > 0, request.out, False)[:2]

        request = Request("grad" if writes else "value", given.prediction, given.target, given.weight, given.reduction)
        request = request._replace(divisor=given.divisor, out=out)
        return under_risk(self.record, run, request, shape, ignored)


def _counts_alike(route: Route, given: Given) -> bool:
    """Whether every sample counts as one in the mean of a loss over several arrays."""
    from ..risks.base import UNITS

    arrays, options = route.arguments(given._replace(weight=None), -1)
    loss, inputs = route.loss._sorted(arrays, options)
    counted = loss._run(inputs, None, UNITS, None, None, False)[0][1]
    return counted is None or bool((counted == 1.0).all())
