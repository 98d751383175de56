"""Functions of all adapters: import of a host library, and look-up of losses by name."""

from importlib import import_module
from typing import Any

from ..call.check import nearest
from ..losses.aliases import suggestion
from ..losses.base import Loss
from ..losses.catalogue import LOSSES

__all__ = ["host", "loss_of", "no_attribute"]


def host(module: str, extra: str, user: str) -> Any:
    """Return a module of a host library; the error for a missing one names the extra that brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        text = f'{user} needs {error.name}, which is not installed; pip install "fastloss[{extra}]"'
        raise ModuleNotFoundError(text, name=error.name) from None


def no_attribute(module: str, name: str) -> AttributeError:
    """Return the error for a name that a module of losses lacks; names of other libraries are suggestions."""
    hint = suggestion(name, LOSSES) or nearest(name, LOSSES)
    return AttributeError(f"module {module!r} has no attribute {name!r}; {hint}")


def loss_of(loss: Any, parameters: dict[str, Any] | None = None) -> Loss:
    """Return a loss given as an object, by name, or as text such as "quantile:q=.9", with parameters bound."""
    if isinstance(loss, str):
        from ..evaluation.losses import named

        loss = named(loss)[0].loss if ":" in loss else LOSSES[loss]
    if not isinstance(loss, Loss):
        raise TypeError(f"a loss is given as {type(loss).__name__}; expected a name such as 'huber:delta=2' or a Loss")
    return loss.bind(**parameters) if parameters else loss
