"""Losses of PyTorch tensors: a function of each name, with gradients by autograd, and the module `Loss`.

``fastloss.torch.huber(pred, target)`` takes the arguments of ``fastloss.huber`` and returns a tensor. As in torch,
``weight`` of a loss of classes weights the classes, which lie along axis 1; ``sample_weight`` weights rows.
"""

from typing import TYPE_CHECKING, Any

from .interop.hosts import host, no_attribute
from .losses.catalogue import LOSSES

if TYPE_CHECKING:
    from .interop.torch import Loss as Loss

__all__ = ["Loss"]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'fastloss.torch' has no attribute {name!r}")
    host("torch", "torch", f"fastloss.torch.{name}")
    from .interop import torch as adapter

    if name == "Loss":
        found: Any = adapter.Loss
    elif name in [*LOSSES]:
        found = adapter.function(LOSSES[name])
    else:
        raise no_attribute("fastloss.torch", name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, *LOSSES]
