"""A call of a loss of regions on a device: which kernels, over how many pieces."""

from typing import Any

import numpy as np

from ...call import check
from ...cpu.regions.domains import ACTIVATIONS, POWERS, SOFTMAX, check_single, first_class
from ...spec.record import FINITE_NONNEGATIVE, NONNEGATIVE, UNIT
from ..runtime.labels import signed
from ..runtime.launch import MAX_BLOCKS
from ..runtime.scalars import Watch
from ..runtime.sums import NONE
from ..runtime.totals import Total, at, blocks_for, threads
from .kernels import collecting, judging, measuring, normalising, spreading
from .slots import Averaging, Ends, Pixels, Reading, Slopes, Units

__all__ = ["launch"]

MAX_CLASSES = 65535
"""Largest second and third dimension of a grid of blocks."""


def _watches(call: Any, second: str, classes: int, ignore: int | None) -> list[Watch]:
    target = check.labels_allowed(max(classes, 2), ignore) if second in call.labelled else UNIT
    domains = {"prediction": UNIT, second: target, "mask": "0 (left out) or 1", "class_weight": FINITE_NONNEGATIVE}
    return [Watch(name, domain, "", None) for name, domain in (*domains.items(), ("weight", NONNEGATIVE))]


def launch(call: Any) -> Total:
    """Launch the kernels of a call."""
    place, options, number, stored = call.place, call.parameters, call.number, call.stored
    second = "distance" if "distance" in call.arrays else "target"
    z, target, mask = call.arrays["prediction"], call.arrays[second], call.arrays["mask"]
    n, c = (0, 0) if call.nothing else (call.dims["n"], call.dims["c"])
    s = 0 if call.nothing else z.size // (n * c)
    free, whole, activation = second == "distance", options["per"] == "batch", ACTIVATIONS[options["activation"]]
    if c == 1:
        check_single(call)
    if c > MAX_CLASSES:
        raise NotImplementedError(f"{call.record.name} of more than {MAX_CLASSES:,} classes has no CUDA kernel")
    for name, usual in (("overlap", "min"), ("classes", "all")):
        if options.get(name, usual) != usual:
            raise NotImplementedError(f"{call.record.name} with {name}={options[name]!r} has no CUDA kernel")
    ignore = options.get("ignore_index")
    call.watches = _watches(call, second, c, ignore)
    squared = free or bool(options.get("squared", False))
    dense, labels = (None, target) if second in call.labelled else (target, None)
    if labels is not None and labels.dtype == "uint64":
        labels = signed(place, labels, max(c, 2), ignore)
    formats = (
        stored if dense is None else dense.dtype,
        "int64" if labels is None else labels.dtype,
        "uint8" if mask is None else mask.dtype.replace("bool", "uint8"),
    )
    shares = place.empty((n * s * 2 if activation == SOFTMAX else 0,), number)
    sums, places = place.empty((call.units * c * 10,), number), place.empty((call.units * c,), "int64")
    slopes, factors = place.empty((call.units * c * 2,), number), place.empty((call.units,), number)
    size, stream = (np.uint64(c), np.uint64(s)), place.stream
    read = Reading(NONE if ignore is None else np.int64(ignore), np.int32(activation), squared)
    pixels = Pixels(*at(z, dense, labels, mask, shares))
    across = -(-s // threads())
    if not call.nothing:
        # Few images are cut into pieces, so that they fill the device; many are not.
        pieces = min(across, -(-MAX_BLOCKS // (n * c)))
        partials, firsts = place.empty((n * c * pieces * 10,), number), place.empty((n * c * pieces,), "int64")
        if activation == SOFTMAX:
            normalising(stored)((n, min(across, MAX_BLOCKS)), threads(), stream, *at(z, shares), *size)
        measure = measuring(stored, *formats)
        measure((n, pieces, c), threads(), stream, pixels, *at(partials, firsts), *size, read, free)
        count = np.uint64(n * pieces if whole else pieces)
        collecting(number)((call.units, c), threads(), stream, *at(partials, firsts, sums, places), count)
    total, mass = (Total.of(place, number, blocks_for(call.units)) for _ in range(2))
    class_weight = call.arrays["class_weight"]
    arrays = Units(*at(sums, places, class_weight, call.weight)), Slopes(*at(call.values, factors, slopes))
    micro = "weighting" in options or options.get("average") == "micro"
    power = POWERS[options.get("weighting", "uniform")]
    judge = judging(call.record, stored, number if class_weight is None else class_weight.dtype)
    ends = Ends(*at(total.partials, total.firsts, mass.partials, mass.firsts))
    by_class = Averaging(np.uint64(first_class(call)), micro, np.int32(power), squared)
    params = call.params()[: max(1, len(call.record.function.__defaults__ or ()))]
    judge(total.blocks, threads(), stream, *arrays, ends, np.uint64(call.units), np.uint64(c), by_class, params)
    if call.averaged:
        call.divide(mass.end(1.0)[0])
    if call.grads[0] is not None and not call.nothing:
        spread = spreading(stored, *formats)
        more = (*at(slopes, factors, call.grads[0]), *size, whole, *call.factor(), read)
        spread((n, min(across, MAX_BLOCKS)), threads(), stream, pixels, *more)
    return total
