"""Custom row-wise losses: a built-in loop around a user's formula of each class's log-probability or margin."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...call import check
from ...spec.graph import EXACT, Graph, Node, Operand, evaluate, symbols
from ...spec.record import NONNEGATIVE, REAL, SOFTMAX, UNIT, Domain, Interval, described
from ...spec.render import formula, restored, source
from ...spec.spelling import FormulaError
from ..rows import RowLoss
from . import build as building
from .elements import DOC, CustomLoss, Own, loss, made
from .points import evaluated

__all__ = ["CustomRowLoss", "row_loss"]


class _Form(NamedTuple):
    """Signature of the formulas of one row loop."""

    arguments: str
    """Names of the arguments, for messages."""
    domain: Domain
    """Domain of the first argument."""
    has_target: bool
    link: str
    scales: tuple[str, ...] = ()
    """Parameters of the loop."""


FORMS = {
    "softmax": _Form("lp, t", Interval(high=0.0), True, "softmax", ("temperature", "logit_scale")),
    "log_probs": _Form("lp, t", Interval(high=0.0), True, "log"),
    "margin": _Form("u", REAL, False, "identity"),
    "top_margin": _Form("u", REAL, False, "identity"),
}
"""Built-in row loops that take a custom formula, by name."""


class CustomRowLoss(Own, RowLoss):  # noqa: D101
    __doc__ = DOC

    __slots__ = ("origin",)

    def check(self, points: int = 200, seed: int = 0) -> Any:
        """Return a report on the scalar formula, as `check` of an elementwise loss does."""
        form, own = FORMS[self.record.loop], {k: self.record.parameters[k] for k in self._own()}
        function = restored("formula", self.origin.text)
        record = described(function, "elementwise", "elementwise", {"parameters": own}, self.name)
        first = function.__code__.co_varnames[0]
        record = record._replace(prediction_domains=(form.domain,), target_domain=UNIT, predictions=(first,))
        values = {k: self.defaults[k] for k in own}
        return made(CustomLoss(record, values), self.origin).check(points, seed)

    def _own(self) -> list[str]:
        return [k for k in self.record.parameters if k not in self.record.loop_parameters]


def row_loss(*, loop: str = "softmax", name: str = "", stable: bool = True, **properties: Any) -> Callable[..., Any]:
    """Return a decorator that makes a row-wise loss of a scalar formula, summed over the classes by a built-in loop.

    Parameters
    ----------
    loop : {"softmax", "log_probs", "margin", "top_margin"}, default "softmax"
        softmax, log_probs: the formula is f(lp, t) of each class's log-probability, of logits or as given, and its
        target, which is 1 at an integer label; f(lp, 0) is 0. margin, top_margin: f(u) of u = z_j - z_label, for each
        other class or for the largest.
    name : str, optional
        Name of the loss; by default that of the function.
    stable : bool, default True
        Whether expressions that lose digits are replaced.
    **properties
        As `loss` takes them: parameters, convex, bounded, robust, paper, math ...

    Returns
    -------
    function
        Decorator that returns a loss as `fastloss.cross_entropy` is one: labels or probabilities, class weights,
        ignored labels.

    Raises
    ------
    TypeError
        Functions that are no formula, and formulas that are not 0 for a target of 0.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> @fl.row_loss()
    ... def focal(lp, t, gamma=2.0):
    ...     return -t * (1 - np.exp(lp)) ** gamma * lp
    >>> logits, labels = np.array([[2.0, 0.0, -1.0]]), np.array([0])
    >>> bool(np.isclose(focal(logits, labels), fl.softmax_focal(logits, labels)))
    True
    """
    if not isinstance(loop, str) or loop not in FORMS:
        raise FormulaError(f"row_loss: loop is {check.shown(loop)}; expected one of {', '.join(FORMS)}")
    return lambda function: _made_of(function, loop, name, stable, properties)


KEPT = ("convex", "bounded", "robust", "lipschitz", "paper", "reduction")
"""Properties that the record of rows takes over from the user."""


def _made_of(function: Any, loop: str, name: str, stable: bool, properties: dict[str, Any]) -> CustomRowLoss:
    form = FORMS[loop]
    domains = {"prediction": form.domain, "target": UNIT if form.has_target else None}
    for key in domains:
        if key in properties:
            raise FormulaError(f"{name or function.__name__}: {key} is that of the loop; leave it out")
    scalar = loss(name=name, stable=stable, **domains, **properties)(function)
    record = scalar.record
    building.not_options(record.name, CustomRowLoss, record.parameters, "parameter")
    if len(record.predictions) != 1 or bool(record.target) != form.has_target:
        raise FormulaError(f"{record.name}: the formula of loop={loop!r} takes ({form.arguments}), then parameters")
    graph = Graph(EXACT)
    names = [*record.predictions, *([record.target] if record.target else [])]
    operands = symbols(graph, names, list(record.parameters))
    results = evaluate(record.function, *operands)[:3]
    if form.has_target:
        _vanishes(scalar)
        empty = operands[1] == 0.0
        results = tuple(graph.make("where", empty, 0.0, x) for x in results)
    surrogate, rest = _surrogate(loop, graph, results)
    compiled = formula("formula", [*names, *record.parameters], (*results, *rest), record.defaults, scalar.origin.doc)
    fields: dict[str, Any] = {k: properties[k] for k in KEPT if k in properties}
    fields |= {"parameters": record.parameters, "surrogate": surrogate, "math": record.math, "link": form.link}
    fields |= {"differentiable": record.differentiable, "loop_parameters": form.scales}
    fields |= {"target": NONNEGATIVE} if form.has_target else {}
    whole = described(compiled, "rows", loop, fields, record.name)
    return made(CustomRowLoss(whole), scalar.origin._replace(compiled=source(compiled)))  # type: ignore[no-any-return]


def _surrogate(loop: str, graph: Graph, results: Any) -> tuple[str | None, tuple[Operand, ...]]:
    """Return the name of the surrogate curvature, and the results that it adds to the formula."""
    if loop == "softmax":
        return SOFTMAX, (0.0,)
    if loop == "log_probs" or isinstance(results[2], Node) or results[2] != 0.0 or not isinstance(results[1], Node):
        return None, ()
    return "1", (graph.make("where", results[1] == 0.0, 0.0, 1.0),)


def _vanishes(scalar: CustomLoss) -> None:
    """Raise for a formula whose classes of target 0 count: kernels skip them."""
    lp = -np.logspace(-6, 2, 50)
    values = evaluated(scalar.record.function, [lp, np.zeros_like(lp)], [float(v) for v in scalar.defaults.values()])
    if any((np.abs(x) > 0.0).any() for part in values[:2] for x in part):
        raise FormulaError(f"{scalar.name}: the formula is not 0 where t is 0; multiply what it sums by t")
