"""Sums of elementwise losses: one formula and one pass for all parts."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...call.reduction import REDUCTIONS
from ...spec.record import Formula
from ..base import ComposedDoc
from ..elementwise import ElementwiseLoss
from .build import fused, with_usual_parameters
from .terms import Sum, Term, claims, weight_of

__all__ = ["SumLoss"]


class SumLoss(Sum, ElementwiseLoss):  # noqa: D101
    __doc__ = ComposedDoc("A weighted sum of losses, made by operators or by `fastloss.combine`.")

    __slots__ = ("_terms",)

    def __init__(self, record: Any, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        # Keeps one kernel for all weights: the kernel of default parameters has them as constants.
        object.__setattr__(self, "_usual", False)

    @classmethod
    def _recorded(cls, terms: Sequence[Term], name: str) -> Formula:
        return fused(terms, name)._replace(**claims(terms))

    @property
    def _compiled(self) -> Formula:
        usual = self.record.defaults.items()
        weights = {weight_of(term.name) for term in self._terms}
        is_usual = all(self.defaults[k] == v for k, v in usual if k not in weights)
        return with_usual_parameters(self.record, self._terms) if is_usual else self.record

    def __call__(
        self, prediction: Any = None, target: Any = None, *more: Any, parts: bool = False, **options: Any
    ) -> Any:
        """Return the reduced sum, or one value per element with ``reduction="none"``.

        ``weights={"mae": 0.2}`` replaces weights of parts. With ``parts=True``, the result is (value, parts): the mean
        of each part by its name, without its weight. The parts take one further pass each.
        """
        value = super().__call__(prediction, target, *more, **options)
        return (value, self._parts(prediction, target, options)) if parts else value

    def value_and_grad(
        self, prediction: Any = None, target: Any = None, *more: Any, parts: bool = False, **options: Any
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
        if kept.get("reduction") is None:
            kept["reduction"] = self.record.reduction
        if kept["reduction"] not in REDUCTIONS:
            # The risk of a sum is not the sum of risks.
            kept["reduction"] = "mean"
        loss, prediction = self._resolve(prediction, options)
        found = {}
        for term in loss._current():  # type: ignore[attr-defined]
            own_target = () if term.loss.record.target is None else (target,)
            found[term.name] = term.loss(prediction, *own_target, **kept)
        return found
