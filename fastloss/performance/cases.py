"""Table of benchmark cases, and their data."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..losses.base import Loss
from ..losses.catalogue import LOSSES
from ..spec.record import POSITIVE, SIGNS, UNIT, Domain

__all__ = ["DTYPES", "MEASURED", "MODES", "SIZES", "Case", "Data", "cases", "draw", "loss_of"]

SIZES = (100, 10_000, 1_000_000, 10_000_000)
DTYPES = ("float32", "float64")
MODES = ("value", "value_and_grad", "grad_and_hess")
CLASSES = 10
"""Default number of columns of a row."""

MEASURED = tuple(name for name, loss in LOSSES.items() if loss.record.family != "arrays")
"""Names of the elementwise and row-wise losses; losses over several arrays have separate benchmarks."""

TILE = 1 << 17
"""Period of the data (elements): larger data repeat one tile, whose exact mean is known."""


@lru_cache(maxsize=64)
def loss_of(name: str) -> Loss:
    """Return the loss of a case: one of the catalogue, or one of a user's own, `file.py:NAME` or `expr:FORMULA`."""
    if name in LOSSES:
        return LOSSES[name]
    from ..evaluation.losses import named

    found: Loss = named([name])[0].loss
    return found


@dataclass(frozen=True)
class Case:
    """Benchmark case: loss, size, dtype, mode and kind of target of one call."""

    loss: str
    size: int
    dtype: str = "float32"
    mode: str = "value_and_grad"
    parameters: tuple[tuple[str, Any], ...] = ()
    classes: int = 0
    """Columns of a row of scores; 0 for elementwise losses."""
    target: str = ""
    """Kind of target of a row: "labels", "probabilities", "logits" or "number"."""

    @property
    def bound(self) -> Loss:
        """Loss with the case's parameters."""
        loss = loss_of(self.loss)
        return loss.bind(**dict(self.parameters)) if self.parameters else loss

    @property
    def rows(self) -> int:
        """Number of losses that the call computes: one per element or row."""
        return max(1, self.size // self.classes) if self.classes else self.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a prediction."""
        return (self.rows, self.classes) if self.classes else (self.size,)

    @property
    def label(self) -> str:
        """Loss in the notation of the command line: `huber:delta=2`, `cross_entropy[K=1000]`."""
        loss = self.bound
        shown = {k: loss.record.parameters[k].show(loss.defaults[k]).lower() for k, _ in self.parameters}
        parameters = ",".join(f"{k}={v}" for k, v in shown.items())
        columns = f"[K={self.classes}]" if self.classes else ""
        return self.loss + (f":{parameters}" if parameters else "") + columns

    @property
    def id(self) -> str:
        """Unique name of the case."""
        target = (
            "/probabilities" if self.target == "probabilities" and loss_of(self.loss).record.row_loop.labels else ""
        )
        return f"{self.label}/n={power(self.size)}/{self.dtype}/{self.mode}{target}"

    @property
    def _loop(self) -> str:
        return loss_of(self.loss).record.loop

    @property
    def traffic(self) -> int:
        """Least memory traffic of the call (bytes): reading the inputs, writing the results."""
        record, item = self.bound.record, np.dtype(self.dtype).itemsize
        scores = math.prod(self.shape) * item
        target = {"labels": self.rows * 8, "number": self.rows * item, "probabilities": scores, "logits": scores}.get(
            self.target
        )
        if target is None:
            target = 0 if record.target is None else scores
        written = MODES.index(self.mode)
        return len(record.predictions) * scores * (1 + written) + target


def power(n: int) -> str:
    """Return a size in a short form: 1e4, 16e6, 4096."""
    text = str(n)
    zeros = len(text) - len(text.rstrip("0"))
    return f"{text[: len(text) - zeros]}e{zeros}" if zeros >= 2 else text


def cases(
    losses: Iterable[str] | None = None,
    sizes: Iterable[int] = SIZES,
    dtypes: Iterable[str] = DTYPES,
    modes: Iterable[str] = MODES,
    classes: int = CLASSES,
) -> Iterator[Case]:
    """Return the cases of every loss, size, dtype and mode; for row-wise losses the size counts all scores."""
    sizes, dtypes, modes = tuple(sizes), tuple(dtypes), tuple(modes)
    for name in MEASURED if losses is None else losses:
        record = loss_of(name).record
        columns = classes if record.family == "rows" else 0
        for size in sizes:
            for dtype in dtypes:
                for mode in modes:
                    if mode == "grad_and_hess" and not record.second:
                        continue
                    yield Case(name, size, dtype, mode, (), columns, target_of(name))


def target_of(name: str) -> str:
    """Return the kind of target that a row-wise loss has in the table; an empty string for other losses."""
    record = loss_of(name).record
    if record.family != "rows":
        return ""
    loop = record.row_loop
    # kl_div with labels would repeat nll.
    return "labels" if loop.labels and name != "kl_div" else loop.dense


class Data(NamedTuple):
    """Inputs of a case."""

    predictions: tuple[Any, ...]
    target: Any
    tile: int
    """Period of the data (rows or elements)."""


def draw(case: Case, seed: int = 0) -> Data:
    """Return valid data for a case, equal at every call."""
    record = case.bound.record
    rng = np.random.default_rng(seed)
    tile = min(case.rows, max(16, TILE // case.classes) if case.classes else TILE)
    if case.classes:
        scores, target = _row_tile(case, tile, rng)
        predictions: tuple[Any, ...] = (scores,)
    else:
        predictions = tuple(_elements(d, record.link, tile, rng) for d in record.prediction_domains)
        target = None if record.target is None else _target(record.target_domain, record.link, tile, rng)
    kind = target.dtype if target is not None and target.dtype.kind == "i" else case.dtype
    return Data(
        tuple(_repeated(p.astype(case.dtype), case.rows) for p in predictions),
        None if target is None else _repeated(target.astype(kind), case.rows),
        tile,
    )


def _repeated(tile: Any, rows: int) -> Any:
    return np.resize(tile, (rows, *tile.shape[1:]))


def _elements(domain: Domain, link: str, n: int, rng: np.random.Generator) -> Any:
    """Return realistic predictions: of moderate size on the real line, or spread over an interval."""
    if domain == SIGNS:
        return rng.choice([-1.0, 1.0], n)
    low, high = domain.low, domain.high  # type: ignore[union-attr]
    if math.isinf(low):
        return rng.standard_normal(n) * (2.0 if link in ("logit", "margin", "identity") else 1.0)
    if math.isinf(high):
        return low + np.exp(rng.standard_normal(n))
    return low + (high - low) * (0.01 + 0.98 * rng.random(n))


def _target(domain: Domain, link: str, n: int, rng: np.random.Generator) -> Any:
    """Return realistic targets: binary labels, counts, positive amounts or real values."""
    if domain == UNIT:
        return (rng.random(n) < 0.5).astype(float)
    if domain != SIGNS and domain.low == 0.0:  # type: ignore[union-attr]
        return np.exp(rng.standard_normal(n)) if domain == POSITIVE else rng.poisson(3.0, n).astype(float)
    return _elements(domain, "", n, rng)


def _row_tile(case: Case, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    k, loop = case.classes, loss_of(case.loss).record.row_loop
    if not loop.has_classes:
        # Members that differ: columns of different remainders. A tie's derivative is a matter of convention.
        return (rng.integers(-(1 << 20) // k, (1 << 20) // k, (n, k)) * k + np.arange(k)) * 2.0**-19, rng.normal(size=n)
    z = 3.0 * rng.standard_normal((n, k))
    if loop.scores == "log-probabilities":
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    if loop.scores == "cosines":
        z = np.tanh(0.1 * z)
    if case.target == "labels":
        return z, rng.integers(0, loop.classes(k), n)
    if case.target == "logits":
        return z, 3.0 * rng.standard_normal((n, k))
    return z, rng.dirichlet(np.ones(k), n)
