"""Fast path of elementwise losses: values of a tile and their exact statistics in one compiled pass over some rows.

Several losses are evaluated by one kernel that shares their exponentials. It serves only where it gives the bits of
each loss alone, which is tried on the first rows: the compiler fuses a product into a sum where nothing else needs it,
so a product that two losses share may be rounded once more.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import config

from ..cpu.together import TILE
from .accumulate import Partials
from .losses import Evaluated

__all__ = ["TOGETHER_FROM", "Lane"]

TOGETHER_FROM = 1 << 22
"""Rows after which one kernel of all losses is compiled: a second or two where it is not in the cache."""


def _fits(e: Evaluated) -> bool:
    """Whether a loss is elementwise, of one prediction, with numbers as parameters, on a CPU."""
    from ..losses.elementwise import ElementwiseLoss

    loss = e.loss
    if not isinstance(loss, ElementwiseLoss) or e.pred_is or loss._backend not in ("", "cpu"):
        return False
    levels = any(type(v) is tuple for v in loss.defaults.values())
    return len(loss.record.predictions) == 1 and not (levels or loss._rewritten or loss.record.switched)


def _codes(addresses: Sequence[int], packed: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Return the addresses of kernels, the ends of their parameters, and the parameters."""
    ends = np.cumsum([len(p) for p in packed], dtype=np.int64)
    return np.array(addresses, np.int64), ends, np.concatenate(packed, dtype=np.float64)


class Lane:
    """Fast path for the losses of a plan that can take it."""

    def __init__(self, losses: Sequence[Evaluated]) -> None:
        fit = [] if config.DISABLE_JIT else [k for k, e in enumerate(losses) if _fits(e)]
        self.losses = tuple(fit)
        """Indices of its losses, among those of the plan."""
        self._loss = [losses[k].loss for k in fit]
        self._which = np.array(fit, np.int64)
        self._codes: Any = None
        self._rows = 0
        self._tried = len(fit) < 2
        self._lock = threading.Lock()
        self._mine = threading.local()

    def takes(self, preds: Sequence[Any], target: Any, count: int) -> bool:
        """Whether the losses can take these rows: numbers as target and as so many predictions."""
        if not self.losses or len(preds) != count or target is None:
            return False
        return target.ndim == 1 and all(p.ndim == 1 for p in preds)

    def run(self, z: Any, t: Any, partials: Partials, *, adds: bool, keeps: bool, strict: bool) -> Any:
        """Evaluate the losses, and add their values to partials; return rows done, and kept values.

        The values are overwritten by the next call of the same thread.
        """
        from . import exact

        codes = self._codes or self._apart()
        kept = self._room(z.size) if keeps else np.empty((len(self.losses), 0))
        state = partials.digits, partials.counts, partials.extremes
        done = exact.tally(*codes, z, t, self._which, *state, kept, adds, strict)
        self._consider(z, t, done)
        return done, kept

    def run_pairs(self, preds: Sequence[Any], t: Any, partials: Partials, *, keeps: bool) -> Any:
        """Evaluate the losses of two predictions; return rows done, kept differences, and ranks.

        Partials come in threes: of the first prediction, of the second, and of the difference. Ranks are numbers of
        rows where the first has the smaller loss, the same, the larger.
        """
        from . import exact

        codes = self._codes or self._apart()
        kept = self._room(t.size) if keeps else np.empty((len(self.losses), 0))
        state = partials.digits, partials.counts, partials.extremes
        ranks = np.zeros((len(self.losses), 3), np.int64)
        done = exact.tally_pairs(*codes, (preds[0], preds[1]), t, 3 * self._which, *state, kept, ranks)
        self._consider(preds[0], t, done)
        return done, kept, ranks

    def _consider(self, z: Any, t: Any, done: int) -> None:
        """Count rows, and after enough of them look for a kernel of all losses."""
        self._rows += done
        if self._rows >= TOGETHER_FROM and not self._tried and done >= TILE and self._lock.acquire(blocking=False):
            # Other threads go on with the kernels that they have.
            try:
                self._try(z[:done], t[:done])
            finally:
                self._lock.release()

    def _apart(self) -> Any:
        """Return the addresses and parameters of the kernels of each loss."""
        from ..cpu.dispatch import elementwise

        with self._lock:
            if self._codes is None:
                found = [elementwise(x._compiled, "float64", "rows", False, usual=x._usual) for x in self._loss]
                self._held = [kept for *_, kept in found]
                self._codes = _codes([address for address, *_ in found], [x._packed for x in self._loss])
        return self._codes

    def _try(self, z: Any, t: Any) -> None:
        """Take the kernel of all losses, if it gives the bits that their own kernels give of these rows."""
        from ..cpu.dispatch import compiling
        from ..cpu.together import room_of, together_chunk
        from . import exact

        records = [x._compiled for x in self._loss]
        with compiling:
            chunk = together_chunk(records, [x._usual for x in self._loss])
        rooms = [np.zeros(room_of(record)) for record in records]
        for room, x in zip(rooms, self._loss, strict=True):
            room[: len(x._packed)] = x._packed
        codes = _codes([chunk.address], [np.concatenate(rooms)])
        found, unused = [], Partials(0, False)
        for each in (self._codes, codes):
            found.append(values := np.empty((len(records), z.size)))
            state = unused.digits, unused.counts, unused.extremes
            exact.tally(*each, z, t, self._which, *state, values, False, False)
        if found[0].tobytes() == found[1].tobytes():
            self._held.append(chunk)
            self._codes = codes
        self._tried = True

    def _room(self, size: int) -> Any:
        """Return this thread's array for the values of all losses."""
        room = getattr(self._mine, "room", None)
        if room is None or room.size < size * len(self.losses):
            room = self._mine.room = np.empty(size * len(self.losses))
        return room[: size * len(self.losses)].reshape(len(self.losses), size)
