"""Conversion of uint64 labels on a GPU to the int64 labels that other kernels read."""

from functools import cache

import numpy as np
from numba import types

from ..placement import Place, Placed
from .launch import ADDRESS, Kernel
from .memory import cuda, reader, writer
from .totals import at, blocks_for, threads

__all__ = ["signed", "signing_kernel"]

read, write = reader("uint64"), writer("int64")


def _sign(labels, result, n, classes, ignored, wrong):
    """Copy labels that are classes or ignored, and write one int64 that is neither for all others."""
    i = np.uint64(cuda.grid(1))
    while i < n:
        # As it is stored: 2**63 and more are no int64.
        y = read(labels, i)[0]
        write(result, i, (np.int64(y) if y < classes or y == ignored else wrong,))
        i += np.uint64(cuda.gridsize(1))


@cache
def signing_kernel() -> Kernel:
    """Return the kernel that converts labels from uint64 to int64."""
    signature = types.void(ADDRESS, ADDRESS, types.uint64, types.uint64, types.uint64, types.int64)
    return Kernel(_sign, "sign_labels", signature)


def signed(place: Place, labels: Placed, classes: int, ignore_index: int | None) -> Placed:
    """Return uint64 labels as int64: a cast would turn 2**64 - 100 into -100, which may be a label to ignore."""
    result = place.empty(labels.shape, "int64")
    # Class 0 stands for an ignore_index below 0, which no unsigned label equals.
    ignored = ignore_index if ignore_index is not None and ignore_index >= 0 else 0
    wrong = -2 if ignore_index == -1 else -1
    sizes = (np.uint64(labels.size), np.uint64(classes))
    arguments = (*at(labels, result), *sizes, np.uint64(ignored), np.int64(wrong))
    signing_kernel()(blocks_for(labels.size), threads(), place.stream, *arguments)
    return result
