"""Operator `fastloss::loss` of PyTorch, for calls inside graphs that are traced, with its first derivative."""

import json
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .calls import Call, kind_of
from .torch_autograd import positioned, pulled, scaled, value_and_grads

__all__ = ["loss_in_graph", "named"]


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


@torch.library.custom_op("fastloss::loss", mutates_args=())
def loss_in_graph(tensors: list[Tensor], call: str) -> tuple[Tensor, list[Tensor]]:
    """Return a loss and its gradients, as one node of a graph."""
    return value_and_grads(_read(call), tensors)


@torch.library.custom_op("fastloss::pull", mutates_args=())
def _pull_in_graph(tensors: list[Tensor], up: Tensor, call: str) -> list[Tensor]:
    return pulled(_read(call), tensors, up)


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
    grads = _pull_in_graph(list(saved), up, ctx.text) if call.is_pulled else scaled(call, saved, up)
    return positioned(call, grads, ctx.count), None


loss_in_graph.register_autograd(_back, setup_context=_keep)
