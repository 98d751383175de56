"""Read-only mapping LOSSES of every loss by name, in the order of the guide."""

from collections.abc import Iterator, Mapping

from ..call import check
from ..call.errors import LossNotFoundError
from ..formulas import ALL
from . import aliases
from .arrays import ArrayLoss
from .base import Loss
from .elementwise import ElementwiseLoss
from .rows import RowLoss

__all__ = ["LOSSES"]


class Catalogue(Mapping[str, Loss]):
    """Read-only mapping of names to losses, which takes names of other libraries in any case.

    The error for an unknown name lists similar ones.
    """

    __slots__ = ("_losses",)

    def __init__(self, losses: dict[str, Loss]) -> None:
        self._losses = losses

    def __getitem__(self, name: str) -> Loss:
        try:
            return self._losses[name]
        except KeyError:
            pass
        if own := aliases.resolved(str(name), self._losses):
            return self._losses[own]
        hint = aliases.suggestion(str(name), self._losses) or check.nearest(str(name), self._losses)
        raise LossNotFoundError(f"no loss named {name!r}; {hint}")

    def __contains__(self, name: object) -> bool:
        return name in self._losses or bool(aliases.resolved(str(name), self._losses))

    def __iter__(self) -> Iterator[str]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

    def __repr__(self) -> str:
        return f"fastloss.LOSSES: {', '.join(self._losses)}"


_FAMILIES = {"elementwise": ElementwiseLoss, "rows": RowLoss, "arrays": ArrayLoss}

LOSSES: Mapping[str, Loss] = Catalogue({name: _FAMILIES[r.family](r) for name, r in ALL.items()})
