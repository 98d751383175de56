"""Sums of elementwise losses: one formula and one pass for all parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...call.request import Request
from ...cpu.dispatch import PARALLEL_FROM, elementwise, launch
from ...cuda import placement
from ...spec.record import Formula
from ..base import ComposedDoc
from ..elementwise import ElementwiseLoss
from ..risks.base import Risk
from .build import compiled, fused
from .terms import Sum, Term, claims, weight_of

__all__ = ["SumLoss"]


class SumLoss(Sum, ElementwiseLoss):  # noqa: D101
    __doc__ = ComposedDoc("A weighted sum of losses, made by operators or by `fastloss.combine`.")

    __slots__ = ("_now", "_terms")

    def __init__(self, record: Any, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        # Keeps one kernel for all weights: the kernel of default parameters has them as constants.
        object.__setattr__(self, "_usual", False)

    @classmethod
    def _recorded(cls, terms: Sequence[Term], name: str) -> Formula:
        return fused(terms, name)._replace(**claims(terms))

    @property
    def _compiled(self) -> Formula:
        return compiled(self.record, self._terms, self._has_usual_parameters)

    @property
    def _has_usual_parameters(self) -> bool:
        """Whether all parameters but the weights have their defaults."""
        weights = {weight_of(term.name) for term in self._terms}
        return all(self.defaults[k] == v for k, v in self.record.defaults.items() if k not in weights)

    def __call__(
        self, prediction: Any = None, target: Any = None, *more: Any, parts: bool = False, **options: Any
    ) -> Any:
        """Return the reduced sum, or one value per element with ``reduction="none"``.

        ``weights={"mae": 0.2}`` replaces weights of parts. With ``parts=True``, the result is (value, parts): the mean
        of each part by its name, without its weight, from the same pass where arrays are large.
        """
        if not parts:
            return super().__call__(prediction, target, *more, **options)
        return self._with_parts("value", (prediction, target, *more), options)[::2]

    def value_and_grad(
        self, prediction: Any = None, target: Any = None, *more: Any, parts: bool = False, **options: Any
    ) -> tuple[Any, ...]:
        """Return the sum and its gradient with respect to the prediction, in one pass over the data.

        ``weights={"mae": 0.2}`` replaces weights of parts. With ``parts=True``, the result is (value, gradient, parts):
        the mean of each part by its name, without its weight, from the same pass where arrays are large.
        """
        if not parts:
            return super().value_and_grad(prediction, target, *more, **options)
        return self._with_parts("grad", (prediction, target, *more), options)

    def _with_parts(
        self, mode: str, arrays: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Return the value, the gradient, and the value of each part, without its weight."""
        prediction, target = self._in_order(*arrays) if len(arrays) > 2 else arrays
        kept = {k: options.get(k) for k in ("weight", "reduction", "divisor", "out")}
        loss, prediction = self._resolve(prediction, {k: v for k, v in options.items() if k not in kept})
        reduction = self.record.reduction if kept["reduction"] is None else kept["reduction"]
        given = (mode, prediction, target, kept["weight"], reduction, kept["divisor"], kept["out"])
        own = None
        # Small arrays take 2 us a pass by their plans, and 60 us without one.
        is_small = type(prediction) is np.ndarray and prediction.size < PARALLEL_FROM
        is_reduced = isinstance(reduction, str) and reduction in ("mean", "sum")
        if is_reduced and not is_small and not placement.involved(loss._backend, prediction, target, kept["weight"]):
            tallied = Tallied(loss)  # type: ignore[arg-type]
            value, grad = tallied._run_any(Request(*given))
            own = tallied.parts
        else:
            value, grad = loss._run(*given)
        if own is None:
            # The risk of a sum is not the sum of risks.
            apart = "mean" if isinstance(reduction, Risk) else reduction
            own = loss._one_by_one(prediction, target, kept["weight"], apart, kept["divisor"])  # type: ignore[attr-defined]
        return value, grad, own

    def _one_by_one(self, prediction: Any, target: Any, weight: Any, reduction: Any, divisor: Any) -> dict[str, Any]:
        """Return the value of each part by a pass of its own."""
        found = {}
        for term in self._current():
            own_target = () if term.loss.record.target is None else (target,)
            found[term.name] = term.loss(prediction, *own_target, weight=weight, reduction=reduction, divisor=divisor)
        return found


class Tallied(ElementwiseLoss):
    """One call of a sum whose parts are wanted: its kernel adds each of them up beside the sum."""

    __slots__ = ("_of", "parts")

    _of: SumLoss

    parts: dict[str, Any] | None
    """Value of each part; None before the call, and where one overflows."""

    def __init__(self, of: SumLoss) -> None:
        super().__init__(of.record, of.defaults, of._backend)
        for name, value in (("_of", of), ("parts", None), ("_usual", False)):
            object.__setattr__(self, name, value)

    @property
    def _compiled(self) -> Formula:
        return compiled(self.record, self._of._terms, self._of._has_usual_parameters, parted=True)

    def _code(
        self, record: Formula, dtype: str, mode: str, weighted: bool, formats: tuple[str, str]
    ) -> tuple[int, Any]:
        return elementwise(record, dtype, mode, weighted, *formats, self._usual, len(self._of._terms))[:2]

    def _launched(self, call: Any, driver: Any, size: int, *arguments: Any) -> tuple[float, float]:
        sums = np.zeros(len(self._of._terms))
        # Without the array for the value of each element.
        found: tuple[float, float] = launch(driver, size, *arguments[:4], *arguments[5:], sums)
        if np.isfinite(sums).all():
            values = sums / call.divided if call.divided != 0.0 else np.zeros_like(sums)
            own = {term.name: float(v) for term, v in zip(self._of._terms, values, strict=True)}
            object.__setattr__(self, "parts", own)
        return found

    def _remember(self, *arguments: Any) -> None:
        """Leave no plan: the object serves one call."""
