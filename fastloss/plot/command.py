"""Implementation of `fastloss plot`."""

from dataclasses import dataclass
from typing import Any

from ..call.errors import CallError
from ..evaluation.columns import InputError
from .curves import curves
from .style import check_file, save, style

__all__ = ["Request", "plot"]


@dataclass(frozen=True)
class Request:
    """Arguments of the command."""

    names: list[str]
    out: str
    target: float | None
    over: str
    show: str
    sweep: list[str]


def plot(request: Request) -> None:
    """Draw the losses and write the picture."""
    check_file(request.out)
    over: Any = None
    if request.over:
        numbers = [_number(part, "--over", request.over) for part in request.over.split(",")]
        if len(numbers) != 2:
            raise InputError(f"--over is {request.over!r}; expected two numbers, such as -3,3")
        over = numbers[0], numbers[1]
    swept: dict[str, Any] = {}
    for text in request.sweep:
        name, equals, values = text.partition("=")
        if not (name.strip() and equals and values.strip()):
            raise InputError(f"--sweep is {text!r}; expected a parameter and its values, such as delta=0.5,1,2")
        swept[name.strip()] = [_number(part, "--sweep", text) for part in values.split(",")]
    shown = [part.strip() for part in request.show.split(",")]
    try:
        with style():
            axes = curves(request.names, target=request.target, over=over, show=shown, **swept)
            save(axes, request.out)
    except CallError as error:
        # The sentence names the argument of fl.plot.curves; the option has its name.
        problem = str(error).removeprefix("fl.plot.curves: ").removeprefix("fl.plot.curves ")
        raise InputError(f"--{problem}" if error.argument and error.loss == "fl.plot.curves" else problem) from None
    print(f"wrote {request.out}")


def _number(text: str, option: str, given: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option} is {given!r}; {text.strip()!r} is no number") from None
