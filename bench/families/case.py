"""What a benchmark of a family is: who takes part, and what was asked."""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Bench", "in_torch"]


class Bench(NamedTuple):
    """One measurement. `make` draws the data and returns what is timed in turn, by name; "fastloss" is ours."""

    name: str
    make: Callable[[], dict[str, Callable[[], object]]]
    against: str = ""
    """The contestant that the target speaks of."""
    at_most: float = float("inf")
    """The target: our time over that contestant's; infinite where none was set."""
    megabytes: float = float("inf")
    """The target: what our call may allocate at most beyond its inputs, at its peak."""
    rounds: int = 7


def in_torch(function: Callable[..., Any], leaves: tuple[Any, ...], rest: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The contestant "torch": function(torch, *leaves, *rest) with its gradients by the leaves; none without torch."""
    try:
        import torch
    except ImportError:
        return {}
    differentiated = [torch.from_numpy(a.copy()).requires_grad_() for a in leaves]
    others = [torch.from_numpy(a) for a in rest]

    def call() -> tuple[float, list[Any]]:
        for leaf in differentiated:
            leaf.grad = None
        value = function(torch, *differentiated, *others)
        value.backward()
        return value.item(), [leaf.grad for leaf in differentiated]

    return {"torch": call}
