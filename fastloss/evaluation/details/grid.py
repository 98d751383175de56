"""Fixed grid of probabilities, fine near 0 and near 1, that holds the edges of bins of equal width."""

from typing import Any, NamedTuple

import numpy as np

from .kernels import FLOOR, MIRROR, STEP

__all__ = ["DIVISIONS", "GRID", "WIDTHS", "Grid"]

DIVISIONS = 60
"""Equal parts of the unit interval whose ends are edges of the grid."""

WIDTHS = tuple(n for n in range(2, DIVISIONS + 1) if DIVISIONS % n == 0)
"""Numbers of bins of equal width whose edges the grid holds."""


class Grid(NamedTuple):
    """Cells of probabilities: cell k holds those above edges[k], and up to edges[k + 1]."""

    edges: Any
    """Edges (cells + 1), from 0 to 1; the first cell holds 0 too."""
    first: Any
    """First cell of each cell of the lattice of float bits (int32)."""
    split: Any
    """Edge of an equal part that divides a cell of the lattice; infinite where there is none."""

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.edges) - 1


def parts(bins: int) -> Any:
    """Return the inner edges of equal parts of the unit interval."""
    return np.arange(1, bins) * (DIVISIONS // bins) / DIVISIONS


def _grid() -> Grid:
    half = (int(MIRROR) + 1) // 2
    keys = (np.arange(1, half + 1) + (int(FLOOR) >> STEP)) << STEP
    below = keys.view(np.float64)
    # Of cells above 1/2, 1 - p decides: their edges mirror those below, and 1 - 2**-30 is the last.
    lattice = np.concatenate([[0.0], below, 1.0 - below[-2::-1], [1.0]])
    edges = np.unique(np.concatenate([lattice, parts(DIVISIONS)]))
    first = np.searchsorted(edges, lattice[:-1]).astype(np.int32)
    own = np.searchsorted(lattice, parts(DIVISIONS), side="left") - 1
    split = np.full(len(lattice) - 1, np.inf)
    inside = ~np.isin(parts(DIVISIONS), lattice)
    split[own[inside]] = parts(DIVISIONS)[inside]
    return Grid(edges, first, split)


GRID = _grid()
