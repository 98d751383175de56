"""Autograd functions for eager losses of PyTorch tensors, with first and second derivatives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .calls import Call

__all__ = ["apply", "apply_pair", "positioned", "pulled", "scaled", "value_and_grads", "value_of"]


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


def value_and_grads(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the loss and its gradients; none where they depend on what comes from above."""
    if call.is_pulled:
        return value_of(call, tensors), []
    value, grads = call.value_and_grads(_plain(tensors))
    own = [tensors[i] for i in call.differentiable]
    return _tensor(value, own[0]), [_tensor(g, x) for g, x in zip(grads, own, strict=True)]


def pulled(call: Call, tensors: Sequence[Tensor], up: Tensor) -> list[Tensor]:
    """Return the gradients for one factor per unit, of a loss whose units may share elements."""
    grads = call.pull(_plain(tensors), _plain([up])[0])
    return [_tensor(g, tensors[i]) for g, i in zip(grads, call.differentiable, strict=True)]


def scaled(call: Call, grads: Sequence[Tensor], up: Tensor) -> list[Tensor]:
    """Return gradients times what comes from above."""
    if call.reduction == "none" and call.loss.record.family == "rows":
        up = up.unsqueeze(call.axis(grads[0].ndim))
    return [g * up for g in grads]


def positioned(call: Call, grads: Sequence[Tensor], count: int) -> list[Tensor | None]:
    """Return gradients at the positions of their arrays."""
    found: list[Tensor | None] = [None] * count
    for i, g in zip(call.differentiable, grads, strict=True):
        found[i] = g
    return found


class Value(torch.autograd.Function):
    """Loss whose gradient is computed with its value, and given away in the backward pass."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> Tensor:
        for i, needed in enumerate(ctx.needs_input_grad[1:]):
            if needed and i not in call.differentiable:
                name, loss = call.names[i], call.loss.name
                raise TypeError(f"{loss}: {name} requires grad, but there is no derivative by it; pass {name}.detach()")
        value, ctx.grads = value_and_grads(call, tensors)
        ctx.call = call
        ctx.save_for_backward(*tensors)
        return value

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> Any:
        call: Call = ctx.call
        count = len(ctx.needs_input_grad) - 1
        if torch.is_grad_enabled():
            return None, *positioned(call, _Slope.apply(call, up, *ctx.saved_tensors), count)
        # The only reference: torch makes it the parameter's .grad without a copy.
        grads, ctx.grads = ctx.grads, None
        if call.is_pulled:
            return None, *positioned(call, pulled(call, ctx.saved_tensors, up), count)
        if grads is None:  # a second backward pass: torch raises here unless the graph was retained
            grads = value_and_grads(call, ctx.saved_tensors)[1]
        if up.ndim or up.is_cuda:
            grads = scaled(call, grads, up)
        # Multiplying by 1 would cost 9 of 12 ms at 1e7.
        elif up.item() != 1.0:
            grads = [g.mul_(up) for g in grads]
        return None, *positioned(call, grads, count)


class Pair(Value):
    """Loss of one prediction and its target, the most frequent call: 42 us where `Value` takes 48, at n = 100."""

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
    """Autograd function that returns the gradients times an incoming one; its backward pass needs the curvature."""

    @staticmethod
    def forward(ctx: Any, call: Call, up: Tensor, *tensors: Tensor) -> Any:
        ctx.call = call
        ctx.save_for_backward(up, *tensors)
        if call.is_pulled:
            return tuple(pulled(call, tensors, up))
        return tuple(scaled(call, value_and_grads(call, tensors)[1], up))

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
