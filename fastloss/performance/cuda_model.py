"""Model of GPU time by memory traffic: the bytes that a kernel must move, at the speed of a copy. No measurement."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .._terminal import console as make_console
from ..cuda.placement import has_kernel, waits_for_all
from ..evaluation.columns import InputError
from ..evaluation.files import write_text
from ..losses.catalogue import LOSSES
from ..spec.record import Formula, Input
from .cases import MODES, Case, power

__all__ = ["CACHE", "SPEED", "Estimate", "estimates", "show"]

SPEED = 3.0e12
"""Assumed bandwidth (bytes per second): that of a copy on devices with the newest memory."""

CACHE = 50 << 20
"""Assumed size of the L2 cache (bytes)."""

BLOCKS = 1024
"""Number of rows in progress at once, where each has a block."""

SIZE = 1 << 24
"""Number of elements in a prediction."""

CLASSES = (10, 1000, 131072)
"""Numbers of columns of rows."""

AXES = {
    "points": {"*": 1 << 20},
    "embeddings.pairs": {"*": 1 << 17, "d": 128, "n": 1 << 10, "+": 3 * 64 * 64},
    "regions.sums": {"n": 16, "c": 1, "+": 512 * 512},
}
"""Axis lengths of losses over several arrays: 2**20 boxes, pairs of 128-element vectors, small images."""


class Estimate(NamedTuple):
    """Memory traffic (bytes) of one kernel at one size."""

    loss: str
    shape: str
    dtype: str
    mode: str
    moved: int

    @property
    def microseconds(self) -> float:
        """Time for the memory traffic (microseconds)."""
        return self.moved / SPEED * 1e6


def _again(record: Formula, read: int, row: int) -> int:
    """Return the bytes read again from memory, of rows or regions that the cache cannot hold."""
    waiting = read if waits_for_all(record) else min(read, row * BLOCKS)
    return read if waiting > CACHE else 0


def _of_elements(name: str, dtype: str, mode: str) -> Estimate:
    return Estimate(name, power(SIZE), dtype, mode, Case(name, SIZE, dtype, mode).traffic)


def _of_rows(name: str, dtype: str, mode: str, k: int) -> Estimate:
    record = LOSSES[name].record
    target = "labels" if record.row_loop.labels else record.row_loop.dense
    case = Case(name, SIZE, dtype, mode, classes=k, target=target)
    row = k * np.dtype(dtype).itemsize
    again = _again(record, case.rows * row, row) if mode != "value" else 0
    return Estimate(name, f"{case.rows} x {k}", dtype, mode, case.traffic + again)


def _elements(spec: Input, axes: dict[str, int]) -> int:
    lengths = (
        int(token) if token.isdecimal() else axes[token.partition("+")[0] or token] for token in spec.dims.split()
    )
    return math.prod(lengths)


def _of_arrays(name: str, dtype: str, mode: str) -> Estimate:
    record = LOSSES[name].record
    axes = AXES[record.loop]
    item = np.dtype(dtype).itemsize
    given = {k: x for k, x in record.inputs.items() if not x.optional}
    sizes = {k: _elements(x, axes) * (item if x.kind in ("float", "regions") else 8) for k, x in given.items()}
    read = sum(sizes.values())
    written = sum(sizes[k] for k, x in given.items() if x.grad) if mode != "value" else 0
    first = next(iter(given.values()))
    row = math.prod(axes[t] for t in first.dims.split()[1:] if not t.isdecimal()) * item
    again = _again(record, read, row) if mode != "value" else 0
    shape = " x ".join(t if t.isdecimal() else power(axes[t]) for t in first.dims.split())
    return Estimate(name, shape, dtype, mode, read + again + written)


def _supported(names: Sequence[str]) -> list[str]:
    known = [name for name, loss in LOSSES.items() if has_kernel(loss.record)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{unknown[0]} has no CUDA kernel; fastloss bench --cuda-model shows the losses that have one")
    return list(names) or known


def estimates(names: Sequence[str], dtypes: Iterable[str], modes: Iterable[str]) -> list[Estimate]:
    """Return the estimates of the named losses with CUDA kernels, or of all."""
    found = []
    dtypes, modes = list(dtypes), list(modes)
    for name in _supported([LOSSES[n].name for n in names]):
        record = LOSSES[name].record
        for dtype in dtypes:
            for mode in modes:
                if mode == MODES[2] and not record.second:
                    continue
                if record.family == "rows":
                    found += [_of_rows(name, dtype, mode, k) for k in CLASSES]
                else:
                    found.append((_of_elements if record.family == "elementwise" else _of_arrays)(name, dtype, mode))
    return found


def show(names: Sequence[str], dtypes: Iterable[str], modes: Iterable[str], to_json: str | None) -> None:
    """Print the table, or write it as JSON."""
    lines = estimates(names, dtypes, modes)
    if to_json is not None:
        text = json.dumps([{**x._asdict(), "microseconds": round(x.microseconds, 2)} for x in lines], indent=1)
        _write(to_json, text)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, side in (("loss", "left"), ("shape", "right"), ("dtype", "left"), ("computed", "left")):
        table.add_column(title, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("MB moved", justify="right", no_wrap=True)
    table.add_column("us at best", justify="right", no_wrap=True)
    previous = ""
    for x in lines:
        name = "" if x.loss == previous else x.loss
        previous = x.loss
        table.add_row(name, x.shape, x.dtype, x.mode, f"{x.moved / 1e6:,.1f}", f"{x.microseconds:,.1f}")
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=200, no_color=True)
    console.print(table)
    console.print(
        f"A model, not a measurement: inputs are read once and results written once, at {SPEED / 1e12:.1f} TB/s; "
        f"rows that {CACHE >> 20} MiB of cache cannot hold until the gradient are read twice."
    )


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text + "\n")
    else:
        write_text(path, text + "\n")
