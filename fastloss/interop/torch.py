"""Losses of PyTorch tensors: functions with gradients, and modules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..call.errors import CallValueError
from ..losses.base import Loss as PlainLoss
from ..losses.catalogue import LOSSES
from .calls import OPTIONS, array_names, kind_of, name_of
from .hosts import loss_of
from .torch_autograd import apply, apply_pair, value_of
from .torch_graph import loss_in_graph, named
from .torch_text import describe

__all__ = ["Loss", "function"]

_modes, _autocast = torch._C._len_torch_dispatch_stack, torch._C._is_any_autocast_enabled
_functorch, _grad_enabled = torch._C._are_functorch_transforms_active, torch.is_grad_enabled


def function(loss: PlainLoss) -> Callable[..., Tensor]:
    """Return a loss as a function of tensors, with gradients, under torch's names of options."""
    record, (name, bound) = loss.record, name_of(loss)
    arrays, of_classes = array_names(record), loss._of_classes
    usual = kind_of(name, False, 2, (), ())[0] if not bound and _takes_two(record) else None

    def call(*tensors: Any, **options: Any) -> Tensor:
        if usual is not None and len(tensors) == 2 and not options and not torch.compiler.is_compiling():
            p, t = tensors
            is_known = type(p) is type(t) is Tensor and p.requires_grad and (p.ndim < 3 or not of_classes)
            if is_known and not _is_unusual():
                return apply_pair(usual, p, t)
        is_grouped = bool(tensors) and type(tensors[0]) in (tuple, list)
        given = [*tensors[0], *tensors[1:]] if is_grouped else list(tensors)
        if isinstance(options.get("divisor"), Tensor) and "divisor" not in record.parameters:
            divisor = _one_number(loss, options.pop("divisor"), {**bound, **options}.get("reduction"))
            total = call(*tensors, **{**options, "reduction": "sum"})
            return total / divisor.to(total)
        options = {**bound, **options}
        if of_classes:
            _as_torch(loss.name, options, given[0] if given else options.get("prediction"))
        elif "sample_weight" in options and "sample_weight" not in arrays:
            if options.get("weight") is not None:
                raise TypeError(f"{loss.name}: weight and sample_weight are both given; pass one")
            options["weight"] = options.pop("sample_weight")
        words = tuple([k for k in options if k in arrays and options[k] is not None])
        rest = tuple([(k, _static(loss.name, k, v)) for k, v in options.items() if k not in arrays])
        given = [x if isinstance(x, Tensor) else torch.as_tensor(x) for x in (*given, *(options[k] for k in words))]
        kind = (name, is_grouped, len(given) - len(words), words, rest)
        if torch.compiler.is_compiling() or _modes() or any([type(x) not in PLAIN for x in given]):
            text, order = named(*kind)
            return loss_in_graph([_wide(given[i]) for i in order], text)[0]
        found, order = kind_of(*kind)
        return _eager(found, tuple([given[i] for i in order]))

    describe(call, loss)
    return call


def _one_number(loss: PlainLoss, divisor: Tensor, reduction: Any) -> Tensor:
    """Return a divisor as a scalar, which divides a sum: kinds of calls are remembered by numbers alone."""
    if (loss.record.reduction if reduction is None else reduction) == "none":
        raise CallValueError("is given with reduction='none'; it divides a reduced loss", "divisor", loss=loss.name)
    if divisor.numel() != 1:
        raise CallValueError(f"has shape {tuple(divisor.shape)}; expected one number", "divisor", loss=loss.name)
    return divisor.reshape(())


def _static(name: str, key: str, value: Any) -> Any:
    """Return an option as a Python value; raise for a tensor by which there is no derivative."""
    if isinstance(value, Tensor) and value.ndim == 0:
        if value.requires_grad:
            raise TypeError(f"{name}: {key} requires grad, but there is no derivative by it; pass {key}.detach()")
        return value.item()
    return tuple(value) if type(value) is list else value


PLAIN = (Tensor, torch.nn.Parameter)
"""Types of tensors that kernels read; subclasses may hold no memory of their own."""


def _takes_two(record: Any) -> bool:
    reduced = record.reduction != "none"
    return (
        record.family in ("elementwise", "rows")
        and len(record.predictions) == 1
        and record.target is not None
        and reduced
    )


def _as_torch(name: str, options: dict[str, Any], prediction: Any) -> None:
    """Rename options of a loss of classes: torch's weight is that of classes, which lie along axis 1."""
    if options.get("weight") is not None:
        if options.get("class_weight") is not None:
            raise TypeError(f"{name}: weight and class_weight are both given; weight= is that of classes, as in torch")
        options["class_weight"] = options.pop("weight")
    if "sample_weight" in options:
        options["weight"] = options.pop("sample_weight")
    if options.get("axis", 0) is None:
        del options["axis"]
    if getattr(prediction, "ndim", 0) > 2:
        options.setdefault("axis", 1)


def _wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 where autocast is on: it runs losses in full precision."""
    is_half = x.dtype in (torch.float16, torch.bfloat16)
    return x.float() if is_half and torch.is_autocast_enabled(x.device.type) else x


def _eager(call: Any, tensors: tuple[Tensor, ...]) -> Tensor:
    """Return a loss of tensors, with a graph where one of them requires grad."""
    if _autocast():
        tensors = tuple(map(_wide, tensors))
    needed = [x.requires_grad for x in tensors]
    if not (True in needed and _grad_enabled()):
        return value_of(call, tensors)
    if _functorch():
        raise RuntimeError(f"{call.loss.name}: torch.func does not see into fl.torch; use backward() or autograd.grad")
    return apply(call, *tensors)


def _is_unusual() -> bool:
    """Whether a dispatch mode, autocast, no_grad or a transform of functorch is on."""
    return bool(_modes() or _autocast() or not _grad_enabled() or _functorch())


class Loss(torch.nn.Module):
    """A loss as a module: ``Loss("focal", gamma=1.5)(logits, target)``.

    Parameters
    ----------
    loss : str or fastloss.Loss
        Name of a loss, or a loss with its parameters bound.
    **options
        Parameters and options of the loss, such as ``reduction``. Tensors, such as ``weight``, become buffers: they
        move with the module and are part of its state.

    Examples
    --------
    >>> import torch
    >>> import fastloss as fl
    >>> fl.torch.Loss("focal", gamma=1.5)
    Loss('focal', gamma=1.5)
    """

    def __init__(self, loss: Any, **options: Any) -> None:
        super().__init__()
        self.loss = loss_of(loss)
        self.options = {k: v for k, v in options.items() if not isinstance(v, Tensor)}
        self.tensors = [k for k, v in options.items() if isinstance(v, Tensor)]
        for name in self.tensors:
            self.register_buffer(name, options[name])
        known = {*array_names(self.loss.record), *OPTIONS, "sample_weight"}
        self.loss.bind(**{k: v for k, v in self.options.items() if k not in known})  # refuses what is no parameter
        self._make()

    def _make(self) -> None:
        self._function = function(self.loss)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_function"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._make()

    def forward(self, *tensors: Any, **options: Any) -> Tensor:
        """Return the loss of predictions and target; options override those of the module."""
        own = {k: getattr(self, k) for k in self.tensors}
        return self._function(*tensors, **{**own, **self.options, **options})

    def extra_repr(self) -> str:
        """Return the name of the loss and its options, as they were given."""
        shown = repr(self.loss.name) if self.loss == LOSSES.get(self.loss.name) else repr(self.loss)
        tensors = [f"{k}=<{tuple(getattr(self, k).shape)}>" for k in self.tensors]
        return ", ".join([shown, *(f"{k}={v!r}" for k, v in self.options.items()), *tensors])
