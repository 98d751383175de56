"""Discrepancy of the scores of groups: kernel means over all pairs of samples, one row of pairs at a time."""

from typing import Any

import numpy as np

from .fairness import codes_of
from .runtime.intrinsics import widest_vectors
from .runtime.slots import Typed, unbound
from .runtime.units import kernel

__all__ = ["run"]

use = unbound(Typed)


def pair_rows(lo, hi, params, p, shares, codes, count, rows, slopes):
    """Sum the kernel over the pairs of some samples with all others, and its slope, signed by their groups."""
    T = use.T
    widest_vectors()
    parameters = use.unpack(params)
    same, other = T(count[0] - 1), T(-1.0)
    for i in range(lo, hi):
        value, slope = 0.0, 0.0
        # A sample without weight has a row of zeros, and nothing to sum.
        if shares[i] != T(0.0):
            # Blocks in the scores' precision, their sums in float64, as in all kernels.
            for a in range(0, p.size, 512):
                x, u, c = p[a : a + 512], shares[a : a + 512], codes[a : a + 512]
                v, s = T(0.0), T(0.0)
                for j in range(x.size):
                    out = use.formula(p[i] - x[j], *parameters)
                    # A select, so that samples need not be sorted by group for the loop to run in vectors.
                    w = u[j] * (same if c[j] == codes[i] else other)
                    v += w * out[0]
                    s += w * out[1]
                value += np.float64(v)
                slope += np.float64(s)
        rows[i], slopes[i] = value, slope


def run(call: Any) -> None:
    """Evaluate the mean discrepancy of all pairs of groups."""
    scores, labels, weights = call["scores"], call["labels"], call["sample_weight"]
    codes, count = codes_of(call["group"])
    w = np.ones(scores.size) if weights is None else weights.copy()
    samples = call.parameters["samples"]
    if samples != "all":
        w[labels == (samples == "negatives")] = 0.0
    mass = np.bincount(codes, w, count)
    groups = int(np.count_nonzero(mass))
    call.counted = np.array([1.0 if groups else 0.0])
    pairs = groups * (groups - 1) / 2.0
    e = np.exp(-np.abs(scores))
    # A sample of weight 0 may hold anything.
    p = np.where(w != 0.0, np.where(scores >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e)), 0.0).astype(scores.dtype)
    if groups < 2:
        call.values[0] = np.nan if np.isnan(p).any() or np.isnan(w).any() else 0.0
        for grad in call.grads.values():
            grad[...] = call.values[0]
        return
    shares = np.divide(w, mass[codes], out=np.zeros(w.size), where=w != 0.0)
    rows, slopes = np.empty(scores.size), np.empty(scores.size)
    run_pairs = kernel(pair_rows, call.record.name, call.name, call.record.function)
    arrays = call.numbers(), p, shares.astype(p.dtype), codes.astype(np.int32), np.array([groups]), rows, slopes
    run_pairs(scores.size, 2.0 * scores.size**2, *arrays)
    call.values[0] = (shares * rows).sum() / pairs
    for grad in call.grads.values():
        factor = call.factors()[0] * 2.0 / pairs
        inner = shares * slopes * factor * (e / (1.0 + e) ** 2)
        grad[...] = np.where(w != 0.0, inner, 0.0) if factor != 0.0 else 0.0
