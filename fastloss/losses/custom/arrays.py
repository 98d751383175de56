"""Losses of a user's own over several arrays: a scalar formula of a point, a region or a pair, and a built-in loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...call import check
from ...formulas import pairs, regions
from ...spec.derive import NotDerivableError, derivative, derivatives
from ...spec.graph import EXACT, Graph, evaluate, symbols
from ...spec.record import NONNEGATIVE, REAL, Input, described
from ...spec.render import formula, restored, source, tuples
from ...spec.spelling import FormulaError, run
from ...spec.stable import STABLE
from ..arrays import ArrayLoss
from . import build as building
from .elements import DOC, CustomLoss, Own, made

if TYPE_CHECKING:
    from .check import Check, Subject

__all__ = ["CustomArrayLoss", "array_loss"]

MOST_NUMBERS = 64
"""Most numbers of one point, in all arrays together."""


class CustomArrayLoss(Own, ArrayLoss):  # noqa: D101
    __doc__ = DOC

    __slots__ = ("origin",)

    def check(self, points: int = 200, seed: int = 0) -> "Check":
        """Return a report on the scalar formula, as `check` of an elementwise loss does.

        The numbers of points are drawn from the whole line, sums of regions and distances from those of at least 0. The
        report on points has no errors of second derivatives, which kernels of points do not compute.

        Parameters
        ----------
        points : int, default 200
            Samples in each precision.
        seed : int, default 0
            Seed of the samples.

        Returns
        -------
        Check
            Report, which prints as text.

        Raises
        ------
        ImportError
            mpmath is not installed; the extra `check` brings it.
        """
        from .check import check, report

        if self.record.loop == "points":
            return report(_subject(self), points, seed)
        return check(_scalar(self), points, seed)


def _subject(loss: CustomArrayLoss) -> "Subject":
    """Return the formula of a point as the subject of a report, measured by the loss itself."""
    from .check import Subject

    record, function = loss.record, loss.record.function
    names = tuple(_split(function)[0])
    widths = [1 if x.dims == "*" else int(x.dims.split()[1]) for x in record.inputs.values()]
    ends = np.cumsum(widths)
    grads = [x.grad for x in record.inputs.values()]
    moving = [i for i in range(len(names)) if grads[int(np.searchsorted(ends, i, side="right"))]]

    def measured(data: list[Any]) -> list[list[Any]]:
        columns = [data[end - w : end] for end, w in zip(ends, widths, strict=True)]
        arrays = [c[0] if len(c) == 1 else np.stack(c, axis=-1) for c in columns]
        slopes = tuples(loss.value_and_grad(*arrays, reduction="sum")[1])
        return [[loss(*arrays, reduction="none")], [c for g in slopes for c in (g[None] if g.ndim == 1 else g.T)]]

    numbers = record._replace(predictions=names, target=None, prediction_domains=(REAL,) * len(names))
    return Subject(numbers, loss.origin, list(map(float, loss.defaults.values())), measured, moving)


def _scalar(loss: CustomArrayLoss) -> CustomLoss:
    """Return the elementwise loss of the formula that a loop calls with its sums or distances."""
    record, written = loss.record, restored("formula", loss.origin.text)
    names, parameters = _split(written)
    own = {k: record.parameters[k] for k in (k if k in record.parameters else k.removesuffix("_") for k in parameters)}
    operands = symbols(Graph(EXACT), names, list(own))
    value = evaluate(written, *operands)[0]
    try:
        first, second = derivatives(value, operands[: len(names) - ("t" in names)])
    except NotDerivableError as error:
        raise FormulaError(f"{loss.name}: {error}; check() cannot look at it") from None
    defaults = {k: record.defaults[k] for k in own}
    compiled = formula("formula", [*names, *own], (value, first, second), defaults)
    fields = {"parameters": own, "prediction": NONNEGATIVE}
    scalar = described(compiled, "elementwise", "elementwise", fields, loss.name)
    origin = loss.origin._replace(text=source(compiled))
    return made(CustomLoss(scalar, {k: loss.defaults[k] for k in own}), origin)  # type: ignore[no-any-return]


def _split(function: Any) -> tuple[list[str], list[str]]:
    """Return the names of the numbers and of the parameters of a formula."""
    names = list(function.__code__.co_varnames[: function.__code__.co_argcount])
    count = len(names) - len(function.__defaults__ or ())
    return names[:count], names[count:]


def _check_inputs(inputs: Any) -> None:
    """Raise unless inputs are names with the numbers that a point has in each."""
    if not isinstance(inputs, Mapping):
        raise FormulaError(
            f"array_loss: inputs is {check.shown(inputs)}; expected a dictionary, such as {{'boxes': 4}}"
        )
    building.not_options("array_loss", CustomArrayLoss, inputs, "input")
    for key, width in inputs.items():
        if type(width) is not int or width < 1:
            raise FormulaError(
                f"array_loss: inputs[{key!r}] is {check.shown(width)}; expected how many numbers, 1 or more"
            )


class Loop(NamedTuple):
    """Built-in loop that computes the numbers of a formula from arrays of its own."""

    path: str
    """Kernel module."""
    numbers: tuple[str, ...]
    """Arguments of the formula that the loop computes."""
    fields: dict[str, Any]
    """Arrays, units and options of the losses of the loop."""
    target: bool = False
    """Whether the formula may take the target of a unit, `t`, after those."""


LOOPS = {
    "regions": Loop(
        "regions.sums",
        ("tp", "fp", "fn", "tn"),
        {"inputs": regions.INPUTS, "options": {**regions.SQUARED, **regions.OPTIONS}, **regions.UNITS},
    ),
    "pairs": Loop("embeddings.pairs", ("d",), {"inputs": pairs.PAIR, "units": "*"}, True),
}
"""Loops beside points, by name."""


def array_loss(
    loop: str = "points",
    /,
    *,
    inputs: Mapping[str, int] | None = None,
    grad: Sequence[str] = (),
    name: str = "",
    stable: bool = True,
    **properties: Any,
) -> Callable[[Callable[..., Any]], CustomArrayLoss]:
    """Return a decorator that makes a loss over several arrays of a scalar formula.

    Parameters
    ----------
    loop : {"points", "regions", "pairs"}, default "points"
        Built-in loop. "points" calls the formula for points by themselves, such as boxes with their targets. "regions"
        calls it for each class of each sample, with the sums tp, fp, fn and tn over its pixels; the loss takes the
        arrays and options that `fastloss.dice` takes. "pairs" calls it for each pair of vectors, with their distance d
        and, if the formula has an argument t, the target of the pair.
    inputs : mapping of str to int
        Of points alone: how many numbers a point has in each array, 1 for arrays (...,), 4 for boxes (..., 4). The
        formula takes the numbers of all arrays in this order, then parameters with defaults.
    grad : sequence of str, optional
        Of points alone: arrays that the loss is differentiated by; by default the first.
    name : str, optional
        Name of the loss; by default that of the function.
    stable : bool, default True
        Whether expressions that lose digits are replaced.
    **properties
        As `loss` takes them: parameters, convex, bounded, robust, paper, math ...

    Returns
    -------
    function
        Decorator that returns a loss as `fastloss.iou`, `fastloss.dice` or `fastloss.contrastive` is one, with values
        of its own for each point, sample or pair.

    Raises
    ------
    TypeError
        Functions that are no formula of these numbers.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> @fl.array_loss("points", inputs={"points": 2, "target": 2})
    ... def distance(x, y, u, v):
    ...     return np.hypot(x - u, y - v)
    >>> distance.value_and_grad(np.array([[3.0, 4.0]]), np.zeros((1, 2)))
    (5.0, array([[0.6, 0.8]]))
    >>> @fl.array_loss("regions")
    ... def missed(tp, fp, fn, tn):
    ...     return fn / (tp + fn)
    >>> missed(np.array([[[0.75, 0.5]]]), np.array([[[1.0, 0.0]]]))
    0.25
    """
    if loop in LOOPS:
        if inputs is not None or grad:
            given = "inputs" if inputs is not None else "grad"
            raise FormulaError(f"array_loss: {given} is given for {loop}, whose arrays are fixed; leave it out")
        return lambda function: _made_by(LOOPS[loop], function, name, stable, properties)
    if loop != "points":
        raise FormulaError(f"array_loss: loop is {check.shown(loop)}; expected 'points', 'regions' or 'pairs'")
    if inputs is None:
        raise FormulaError("array_loss: points need inputs, how many numbers a point has in each array: {'boxes': 4}")
    _check_inputs(inputs)
    wanted = tuple(grad) or tuple(inputs)[:1]
    for key in wanted:
        if key not in inputs:
            raise FormulaError(f"array_loss: grad names {check.shown(key)}; the inputs are {', '.join(inputs)}")
    return lambda function: _made_of(function, dict(inputs), wanted, name, stable, properties)


def _made_of(
    function: Any, inputs: dict[str, int], wanted: tuple[str, ...], name: str, stable: bool, properties: dict[str, Any]
) -> CustomArrayLoss:
    called, arguments = _arguments(function, name)
    if len(arguments.predictions) != sum(inputs.values()):
        counted = " + ".join(map(str, inputs.values()))
        raise FormulaError(
            f"{called}: the formula takes {len(arguments.predictions)} numbers; its inputs hold {counted} of them"
        )
    owners = [key for key, width in inputs.items() for _ in range(width)]
    moving = [i for i, key in enumerate(owners) if key in wanted]
    fields = {"inputs": {k: _input(width, k in wanted) for k, width in inputs.items()}, "units": "*"}
    return _compiled("points", function, called, arguments, moving, stable, properties | {"fields": fields})


def _made_by(loop: Loop, function: Any, name: str, stable: bool, properties: dict[str, Any]) -> CustomArrayLoss:
    """Return the loss of a formula whose numbers a loop computes."""
    called, arguments = _arguments(function, name)
    wanted = (*loop.numbers, "t") if loop.target and len(arguments.predictions) > len(loop.numbers) else loop.numbers
    if tuple(arguments.predictions) != wanted:
        takes, expected = ", ".join(arguments.predictions), ", ".join(loop.numbers)
        also = ", and t for a target" if loop.target else ""
        raise FormulaError(f"{called}: the formula takes {takes}; expected {expected}{also}, then parameters")
    fields = dict(loop.fields)
    if wanted != loop.numbers:
        fields["inputs"] = fields["inputs"] | {"target": Input("*", "target of each pair")}
    moving = list(range(len(loop.numbers)))
    return _compiled(loop.path, function, called, arguments, moving, stable, properties | {"fields": fields})


def _arguments(function: Any, name: str) -> tuple[str, building.Arguments]:
    """Return the name of a loss and the arguments of its formula."""
    called = name or getattr(function, "__name__", "loss").replace("<lambda>", "loss")
    building.named(called)
    return called, building.arguments_of(function, called, False, MOST_NUMBERS)


def _compiled(
    path: str,
    function: Any,
    called: str,
    arguments: building.Arguments,
    moving: list[int],
    stable: bool,
    properties: dict[str, Any],
) -> CustomArrayLoss:
    """Return the loss of a formula, with its derivatives by the numbers that move."""
    own = properties.pop("fields")
    for key in ("prediction", "target"):
        if key in properties:
            raise FormulaError(f"{called}: {key} is no option of a loss over several arrays; leave it out")
    building.not_options(called, CustomArrayLoss, arguments.defaults, "parameter")
    if taken := sorted(set(arguments.defaults) & set(own.get("options", ()))):
        raise FormulaError(f"{called}: {taken[0]} is an option of this loop; give the parameter another name")
    fields = building.options(called, arguments, properties)

    def run_on(operands: Any) -> Any:
        return run(function, called, operands)

    graph, operands, results = building.traced(called, arguments, run_on, STABLE if stable else EXACT)
    if len(results) > 1:
        raise FormulaError(f"{called}: returns derivatives; return the value alone, from which they are derived")
    try:
        slopes = tuple(derivative(results[0], operands[i]) for i in moving)
    except NotDerivableError as error:
        raise FormulaError(f"{called}: {error}") from None
    names = [*arguments.predictions, *arguments.defaults]
    doc = function.__doc__ or ""
    # Pairs take the derivative by their distance itself, the other loops a tuple.
    slope = slopes[0] if path == LOOPS["pairs"].path else slopes
    compiled = formula("formula", names, (results[0], slope), arguments.defaults, doc)
    plain = building.traced(called, arguments, run_on, EXACT)[2]
    written = source(formula("formula", names, plain, arguments.defaults))
    origin = building.Origin(source(compiled), written, tuple(graph.rewrites), 0, building.text_of(function), doc)
    record = described(compiled, "arrays", path, fields | own, called)
    return made(CustomArrayLoss(record), origin)  # type: ignore[no-any-return]


def _input(width: int, differentiated: bool) -> Input:
    return Input("*" if width == 1 else f"* {width}", f"{width} numbers of each point", grad=differentiated)
