"""Losses of a user's own over several arrays: the scalar formula of one point, and the built-in loop over points."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...call import check
from ...spec.derive import NotDerivableError, derivative
from ...spec.graph import EXACT
from ...spec.record import Input, described
from ...spec.render import formula, source
from ...spec.spelling import FormulaError, run
from ...spec.stable import STABLE
from ..arrays import ArrayLoss
from . import build as building
from .elements import DOC, Own, made

__all__ = ["CustomArrayLoss", "array_loss"]

MOST_NUMBERS = 64
"""Most numbers of one point, in all arrays together."""


class CustomArrayLoss(Own, ArrayLoss):  # noqa: D101
    __doc__ = DOC

    __slots__ = ("origin",)


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


def array_loss(
    loop: str = "points",
    /,
    *,
    inputs: Mapping[str, int],
    grad: Sequence[str] = (),
    name: str = "",
    stable: bool = True,
    **properties: Any,
) -> Callable[[Callable[..., Any]], CustomArrayLoss]:
    """Return a decorator that makes a loss over several arrays of the scalar formula of one point.

    Parameters
    ----------
    loop : {"points"}, default "points"
        Built-in loop: points by themselves, such as boxes with their targets.
    inputs : mapping of str to int
        How many numbers a point has in each array: 1 for arrays (...,), 4 for boxes (..., 4). The formula takes the
        numbers of all arrays in this order, then parameters with defaults.
    grad : sequence of str, optional
        Arrays that the loss is differentiated by; by default the first.
    name : str, optional
        Name of the loss; by default that of the function.
    stable : bool, default True
        Whether expressions that lose digits are replaced.
    **properties
        As `loss` takes them: parameters, convex, bounded, robust, paper, math ...

    Returns
    -------
    function
        Decorator that returns a loss as `fastloss.iou` is one, with values of its own for each point.

    Raises
    ------
    TypeError
        Functions that are no formula of so many numbers.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> @fl.array_loss("points", inputs={"points": 2, "target": 2})
    ... def distance(x, y, u, v):
    ...     return np.hypot(x - u, y - v)
    >>> distance.value_and_grad(np.array([[3.0, 4.0]]), np.zeros((1, 2)))
    (5.0, array([[0.6, 0.8]]))
    """
    if loop != "points":
        raise FormulaError(f"array_loss: loop is {check.shown(loop)}; expected 'points'")
    _check_inputs(inputs)
    wanted = tuple(grad) or tuple(inputs)[:1]
    for key in wanted:
        if key not in inputs:
            raise FormulaError(f"array_loss: grad names {check.shown(key)}; the inputs are {', '.join(inputs)}")
    return lambda function: _made_of(function, dict(inputs), wanted, name, stable, properties)


def _made_of(
    function: Any, inputs: dict[str, int], wanted: tuple[str, ...], name: str, stable: bool, properties: dict[str, Any]
) -> CustomArrayLoss:
    called = name or getattr(function, "__name__", "loss").replace("<lambda>", "loss")
    building.named(called)
    arguments = building.arguments_of(function, called, False, MOST_NUMBERS)
    if len(arguments.predictions) != sum(inputs.values()):
        counted = " + ".join(map(str, inputs.values()))
        raise FormulaError(
            f"{called}: the formula takes {len(arguments.predictions)} numbers; its inputs hold {counted} of them"
        )
    for key in ("prediction", "target"):
        if key in properties:
            raise FormulaError(f"{called}: {key} is no option of a loss over several arrays; leave it out")
    building.not_options(called, CustomArrayLoss, arguments.defaults, "parameter")
    fields = building.options(called, arguments, properties)

    def run_on(operands: Any) -> Any:
        return run(function, called, operands)

    graph, operands, results = building.traced(called, arguments, run_on, STABLE if stable else EXACT)
    if len(results) > 1:
        raise FormulaError(f"{called}: returns derivatives; return the value alone, from which they are derived")
    owners = [key for key, width in inputs.items() for _ in range(width)]
    try:
        slopes = tuple(derivative(results[0], z) for z, key in zip(operands, owners, strict=False) if key in wanted)
    except NotDerivableError as error:
        raise FormulaError(f"{called}: {error}") from None
    names = [*arguments.predictions, *arguments.defaults]
    doc = function.__doc__ or ""
    compiled = formula("formula", names, (results[0], slopes), arguments.defaults, doc)
    plain = building.traced(called, arguments, run_on, EXACT)[2]
    written = source(formula("formula", names, plain, arguments.defaults))
    origin = building.Origin(source(compiled), written, tuple(graph.rewrites), 0, building.text_of(function), doc)
    fields |= {"inputs": {k: _input(width, k in wanted) for k, width in inputs.items()}, "units": "*"}
    record = described(compiled, "arrays", "points", fields, called)
    return made(CustomArrayLoss(record), origin)  # type: ignore[no-any-return]


def _input(width: int, differentiated: bool) -> Input:
    return Input("*" if width == 1 else f"* {width}", f"{width} numbers of each point", grad=differentiated)
