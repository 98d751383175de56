"""Arguments of one call, passed to every backend."""

from typing import Any, NamedTuple

__all__ = ["Request"]

ORDERS = {"value": 0, "grad": 1, "hess": 2, "surrogate": 2}


class Request(NamedTuple):
    """Arguments of one call, as the caller passed them."""

    mode: str
    """"value"; or "grad", "hess" or "surrogate" for derivatives too."""
    prediction: Any
    """The prediction, or a tuple of several; of a loss over several arrays, all its inputs."""
    target: Any = None
    weight: Any = None
    reduction: Any = None
    divisor: Any = None
    out: Any = None
    class_weight: Any = None
    ignore_index: int | None = -100
    axis: int = -1
    details: bool = False
    """Whether the call returns by-products of each row."""
    names: tuple[str, ...] = ()
    """Names of the inputs of a loss over several arrays."""

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Arguments that may be device arrays: inputs, then outputs."""
        return (self.prediction, self.target, self.weight, self.class_weight, self.out)

    def with_arrays(self, prediction: Any, target: Any, weight: Any, class_weight: Any, out: Any) -> "Request":
        """Return this call with other arrays."""
        return self._replace(prediction=prediction, target=target, weight=weight, class_weight=class_weight, out=out)

    @property
    def orders(self) -> int:
        """Number of derivative orders that the call returns."""
        return ORDERS[self.mode]
