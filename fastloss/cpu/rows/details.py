"""By-products of softmax rows, on request: log-sum-exp, index of the maximum, rank of the label (0 is the top).

Each softmax kernel calls one of these functions by its address where there is room for by-products. A kernel of its
own for calls with by-products took twice the compilation, and rounded the gradient of some rows differently: which
products LLVM fuses and regroups depends on what stands around.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..runtime.intrinsics import array
from ..runtime.slots import unbound
from ..runtime.specialize import Chunk, compile_chunk
from ..runtime.worlds import cpu
from .tiles import TAIL, TOP

__all__ = ["describer"]


class Slots(NamedTuple):
    """Constants and functions that the writers of by-products read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    log1p: Callable[..., Any]
    """Logarithm of 1 + x in that type."""


use = unbound(Slots)


def describe_rows(z, labels, params, s, details):
    """Write log-sum-exp, index of the maximum and rank of the label of each row of a group."""
    n, k = z.shape
    beta = use.T(params[-3])
    for i in range(n):
        x = z[i]
        best = 0
        for j in range(k):
            # The maximum is known: its first place is found without another comparison of scores.
            if x[j] == s[TOP + i]:
                best = j
                break
        details[i, 0] = s[TOP + i] * beta + use.log1p(s[TAIL + i])
        details[i, 1] = best
        y = labels[i]
        ahead = k
        if 0 <= y < k:
            ahead = 0
            for j in range(k):
                # Ranks equal scores by their index, as a stable sort does.
                ahead += x[j] > x[y] or (x[j] == x[y] and j < y)
        details[i, 2] = ahead
    return 0.0


def describe_target(x, t, details):
    """Write the index of the largest logit of a row, and the rank of the class that its target favours most."""
    best = 0
    y = 0
    for j in range(x.size):
        best = j if x[j] > x[best] else best
        y = j if t[j] > t[y] else y
    ahead = x.size
    # A target that favours no class has no rank.
    if t[y] > use.T(0.0):
        ahead = 0
        for j in range(x.size):
            # Ranks equal scores by their index, as a stable sort does.
            ahead += x[j] > x[y] or (x[j] == x[y] and j < y)
    details[1] = best
    details[2] = ahead
    return 0.0


@cache
def describer(dtype: str, kind: str) -> Chunk:
    """Compile, or load from the disk cache, the function that writes by-products for one kind of target."""
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    use = Slots(getattr(np, dtype), cpu(dtype).words["log1p"])
    if kind == "dense":
        return compile_chunk(describe_target, f"describe_target_{dtype}", types.float64(one, one, doubles), use)
    signature = types.float64(two, array("int64"), doubles, one, array("float64", 2))
    return compile_chunk(describe_rows, f"describe_rows_{dtype}", signature, use)
