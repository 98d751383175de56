"""Autograd for losses of PyTorch tensors: functions for eager calls, an operator for graphs that are traced."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..losses.base import Loss
from ..losses.catalogue import LOSSES
from .calls import Call, sorted_call

__all__ = ["OWN", "apply", "apply_pair", "kind_of", "loss_in_graph", "named", "value_of"]


OWN: dict[str, Loss] = {}
"""Losses that are not in the catalogue, by name."""


@lru_cache(maxsize=1024)
def kind_of(name: str, is_grouped: bool, count: int, words: tuple[str, ...], options: tuple[Any, ...]) -> Any:
    """Return the kind of a call, and the positions of its arrays among those given by position and then by name."""
    given: Any = tuple(range(count))
    keywords = dict(zip(words, range(count, count + len(words)), strict=True))
    loss = OWN[name] if name in OWN else LOSSES[name]
    if is_grouped:
        n = len(loss.record.predictions)
        given = (given[:n], *given[n:])
    return sorted_call(loss, given, {**keywords, **dict(options)})


@torch.compiler.assume_constant_result
def named(*kind: Any) -> tuple[str, tuple[int, ...]]:
    """Return the kind of a call as text, which a graph can hold, and the positions of its arrays."""
    return json.dumps(kind), kind_of(*kind)[1]


@lru_cache(maxsize=1024)
def _read(text: str) -> Call:
    name, is_grouped, count, words, options = json.loads(text)
    pairs = tuple((k, tuple(v) if type(v) is list else v) for k, v in options)
    call: Call = kind_of(name, is_grouped, count, tuple(words), pairs)[0]
    return call


def _plain(tensors: Sequence[Tensor]) -> list[Any]:
    """Return tensors as arrays that share their memory; bfloat16, which NumPy lacks, as float32."""
    return [_lent(t) if t.is_cuda or t.dtype is torch.bfloat16 else t.detach().numpy() for t in tensors]


def _lent(t: Tensor) -> Any:
    return t.detach() if t.is_cuda else t.detach().float().numpy()


def _tensor(x: Any, like: Tensor) -> Tensor:
    """Return a result as a tensor of the dtype of an input."""
    if type(x) is float:
        return torch.scalar_tensor(x, dtype=like.dtype, device=like.device)
    t: Tensor = torch.from_numpy(x) if type(x) is np.ndarray else torch.as_tensor(x)
    return t if t.dtype is like.dtype else t.to(like.dtype)


def value_of(call: Call, tensors: Sequence[Tensor]) -> Tensor:
    """Return the loss alone."""
    return _tensor(call.value(_plain(tensors)), tensors[call.differentiable[0]])


def _both(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the loss and its gradients; none where they depend on what comes from above."""
    if call.is_pulled:
        return value_of(call, tensors), []
    value, grads = call.value_and_grads(_plain(tensors))
    own = [tensors[i] for i in call.differentiable]
    return _tensor(value, own[0]), [_tensor(g, x) for g, x in zip(grads, own, strict=True)]


def _pull(call: Call, tensors: Sequence[Tensor], up: Tensor) -> list[Tensor]:
    """Return the gradients for one factor per unit, of a loss whose units may share elements."""
    grads = call.pull(_plain(tensors), _plain([up])[0])
    return [_tensor(g, tensors[i]) for g, i in zip(grads, call.differentiable, strict=True)]


def _times(call: Call, grads: Sequence[Tensor], up: Tensor) -> list[Tensor]:
    """Return gradients times what comes from above."""
    if call.reduction == "none" and call.loss.record.family == "rows":
        up = up.unsqueeze(call.axis(grads[0].ndim))
    return [g * up for g in grads]


def _placed(call: Call, grads: Sequence[Tensor], count: int) -> list[Tensor | None]:
    """Return gradients at the positions of their arrays."""
    found: list[Tensor | None] = [None] * count
    for i, g in zip(call.differentiable, grads, strict=True):
        found[i] = g
    return found


class Value(torch.autograd.Function):
    """A loss; its gradient is computed with it, and given away in the backward pass."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> Tensor:
        for i, needed in enumerate(ctx.needs_input_grad[1:]):
            if needed and i not in call.differentiable:
                name, loss = call.names[i], call.loss.name
                raise TypeError(f"{loss}: {name} requires grad, but there is no derivative by it; pass {name}.detach()")
        value, ctx.grads = _both(call, tensors)
        ctx.call = call
        ctx.save_for_backward(*tensors)
        return value

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> Any:
        call: Call = ctx.call
        count = len(ctx.needs_input_grad) - 1
        if torch.is_grad_enabled():
            return None, *_placed(call, _Slope.apply(call, up, *ctx.saved_tensors), count)
        # The only reference: torch makes it the parameter's .grad without a copy.
        grads, ctx.grads = ctx.grads, None
        if call.is_pulled:
            return None, *_placed(call, _pull(call, ctx.saved_tensors, up), count)
        if grads is None:  # a second backward pass: torch raises here unless the graph was retained
            grads = _both(call, ctx.saved_tensors)[1]
        if up.ndim or up.is_cuda:
            grads = _times(call, grads, up)
        # Multiplying by 1 would cost 9 of 12 ms at 1e7.
        elif up.item() != 1.0:
            grads = [g.mul_(up) for g in grads]
        return None, *_placed(call, grads, count)


class Pair(Value):
    """The same for one prediction and its target, the most frequent call: 42 us for 48 with 100 elements."""

    @staticmethod
    def forward(ctx: Any, call: Call, p: Tensor, t: Tensor) -> Tensor:
        if t.requires_grad:
            return Value.forward(ctx, call, p, t)
        try:
            arrays = p.numpy(), t.numpy()  # which need no detach here, where no graph is built
        except TypeError:  # bfloat16, or a GPU
            return Value.forward(ctx, call, p, t)
        value, grad = call.loss.value_and_grad(*arrays)
        ctx.call = call
        ctx.save_for_backward(p, t)
        ctx.grads = (torch.from_numpy(grad),)
        return torch.scalar_tensor(value, dtype=p.dtype)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> Any:
        if ctx.grads is None or torch.is_grad_enabled() or up.is_cuda or up.item() != 1.0:
            return Value.backward(ctx, up)
        grads, ctx.grads = ctx.grads, None
        return None, grads[0], None


def _bare(function: type[torch.autograd.Function]) -> Any:
    """Return `apply` without its Python, which takes 2 us and serves functorch."""
    return torch._C._FunctionBase.__dict__["apply"].__get__(None, function)


apply, apply_pair = _bare(Value), _bare(Pair)


class _Slope(torch.autograd.Function):
    """The gradient as a function of the arrays and of what comes from above; its derivative is the curvature."""

    @staticmethod
    def forward(ctx: Any, call: Call, up: Tensor, *tensors: Tensor) -> Any:
        ctx.call = call
        ctx.save_for_backward(up, *tensors)
        pulled = call.is_pulled
        return tuple(_pull(call, tensors, up) if pulled else _times(call, _both(call, tensors)[1], up))

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> Any:
        up, *tensors = ctx.saved_tensors
        if not ctx.call.is_curved:
            name = ctx.call.loss.name
            raise RuntimeError(f"{name} has no second derivative in fl.torch; expected one backward pass")
        above, bend = _Bend.apply(ctx.call, up, by[0], *tensors)
        return None, above, bend, *([None] * (len(tensors) - 1))


class _Bend(torch.autograd.Function):
    """The derivatives of `_Slope` times what comes from above."""

    @staticmethod
    def forward(ctx: Any, call: Call, up: Tensor, by: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.name = call.loss.name
        g, h = (_tensor(x, tensors[0]) for x in call.derivatives(_plain(tensors)))
        slope = by * g
        return slope if call.reduction == "none" else slope.sum(), by * h * up

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> Any:
        raise RuntimeError(f"{ctx.name} has no third derivative in fl.torch; expected two backward passes")


@torch.library.custom_op("fastloss::loss", mutates_args=())
def loss_in_graph(tensors: list[Tensor], call: str) -> tuple[Tensor, list[Tensor]]:
    """Return a loss and its gradients, as one node of a graph."""
    return _both(_read(call), tensors)


@torch.library.custom_op("fastloss::pull", mutates_args=())
def _pull_in_graph(tensors: list[Tensor], up: Tensor, call: str) -> list[Tensor]:
    return _pull(_read(call), tensors, up)


def _like(call: Call, tensors: list[Tensor]) -> list[Tensor]:
    """Return empty gradients."""
    return [torch.empty_like(tensors[i], memory_format=torch.contiguous_format) for i in call.differentiable]


@loss_in_graph.register_fake
def _(tensors: list[Tensor], call: str) -> tuple[Tensor, list[Tensor]]:
    kind = _read(call)
    first = tensors[kind.differentiable[0]]
    return first.new_empty(kind.shape(tensors)), [] if kind.is_pulled else _like(kind, tensors)


@_pull_in_graph.register_fake
def _(tensors: list[Tensor], up: Tensor, call: str) -> list[Tensor]:
    return _like(_read(call), tensors)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, ctx.text = inputs
    ctx.count = len(tensors)
    ctx.save_for_backward(*(tensors if _read(ctx.text).is_pulled else output[1]))


def _back(ctx: Any, up: Tensor, _: Any) -> Any:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("a loss of fl.torch has no second derivative under torch.compile and dispatch modes")
    call, saved = _read(ctx.text), ctx.saved_tensors
    grads = _pull_in_graph(list(saved), up, ctx.text) if call.is_pulled else _times(call, saved, up)
    return _placed(call, grads, ctx.count), None


loss_in_graph.register_autograd(_back, setup_context=_keep)
