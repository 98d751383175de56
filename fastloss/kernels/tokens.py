"""Tokens of sequences as rows of scores: the softmax rows of cross_entropy, over those rows that are kept.

What is kept lies in runs of rows. Each run is handed to the kernel of cross_entropy where it lies; between runs the
derivatives are set to zero and nothing is read.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import config

from .. import check, dispatch
from ..formulas.record import registered
from .blocks import kernel
from .cpu import call as call_chunk

__all__ = ["Tokens", "nll", "of", "run"]

# Names that the template below finds bound when it is specialized.
T: Any = None

WORTH = 1 << 10
"""Elements that cost as much as one more call of the kernel."""


def runs(lo, hi, numbers, scale, pieces, z, labels, weight, class_weight, params, helpers, values, grad):
    """Loss and derivatives of the rows of each piece, and zeros in the rows behind it."""
    nothing, details = z[:0], np.empty((0, 0), np.float64)
    scratch, stats = np.empty(numbers[1], T), np.empty(2, np.float64)
    for q in range(lo, hi):
        a, b, c = pieces[q, 0], pieces[q, 1], pieces[q, 2]
        if b > a:
            inputs = (z[a:b], labels[a:b], nothing, weight[a:b], class_weight)
            outputs = (values[a:b], grad[a:b], nothing, details)
            rest = (scale[0], params, helpers, numbers[2] != 0, scratch, stats)
            call_chunk(numbers[0], (*inputs, *outputs, *rest))
        if grad.size > 0:
            for i in range(b, c):
                g = grad[i]
                for j in range(g.size):
                    g[j] = T(0.0)


def pieces_of(kept: Any, gap: int, longest: int) -> Any:
    """Runs of kept rows as [first, behind the last, first of the next]; a few rows between runs go with them."""
    n = kept.size
    edges = np.flatnonzero(np.diff(kept.view(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    last = np.append(starts[1:] - stops[:-1] > gap, True)[: starts.size]
    starts, stops = starts[np.roll(last, 1)], stops[last]
    counts = -(-(stops - starts) // longest)
    ends = np.cumsum(counts)
    within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    first = np.repeat(starts, counts) + within * longest
    pieces = np.zeros((first.size + 1, 3), np.int64)
    pieces[1:, 0], pieces[1:, 1] = first, np.minimum(first + longest, np.repeat(stops, counts))
    pieces[:, 2] = np.append(first, n)
    return pieces


def nll(z: Any, labels: Any, weight: Any, scale: float, smoothing: float, grad: Any) -> Any:
    """Cross-entropy of each row against its label, times its weight; -1 is a row to leave out, with a loss of 0.

    `weight` may be negative, and empty where all are 1. Fills `grad`, unless it is empty, with the derivatives times
    `scale`.
    """
    n, k = z.shape
    name, dtype = z.dtype.name, z.dtype
    mode, tiled, smooth = "grad" if grad.size else "value", k <= dispatch.TILED_TO, smoothing > 0.0
    address = dispatch.rows(registered["cross_entropy"], name, mode, "labels", smooth, tiled, False)[0]
    kept = labels >= 0
    pieces = pieces_of(kept, 64 if tiled else WORTH // k, dispatch.rows_per_chunk(k))
    values = np.zeros(n, dtype)
    streamed = grad.size > 0 and dispatch.overflows((z, grad))
    numbers: Any = [address, dispatch.room(k, mode, "labels", tiled), streamed]
    if not config.DISABLE_JIT:
        numbers = np.array(numbers, np.int64)
    class_weight = np.ones(k, dtype) if smooth else dispatch.EMPTY[dtype]
    parameters = np.array([1.0, smoothing, 0.0])
    arrays = (pieces, z, labels, weight, class_weight, parameters, dispatch.helpers(k, dtype, tiled), values, grad)
    work = float(np.count_nonzero(kept)) * k + 0.1 * grad.size
    kernel(runs, "tokens", name)(len(pieces), work, numbers, np.array([scale]), *arrays)
    return values


class Tokens(NamedTuple):
    """The tokens of a call as rows."""

    rows: Any
    """Logits, (tokens, v)."""
    labels: Any
    """The label of each token; -1 where it is left out."""


def of(loss: str, logits: Any, labels: Any, lengths: Any, mask: Any, ignore: int | None) -> Tokens:
    """Tokens that are kept: within their sequence's length, in the mask, and not to be ignored by their label."""
    v = logits.shape[-1]
    kept = np.ones(labels.shape, bool)
    if lengths is not None:
        kept &= np.arange(labels.shape[-1]) < lengths[:, None]
    if mask is not None:
        kept &= mask.view(bool)
    if ignore is not None:
        kept &= labels != ignore
    wrong = kept & ((labels < 0) | (labels >= v))
    if wrong.any():
        first = int(np.argmax(wrong.reshape(-1)))
        also = "" if ignore is None else f", or {ignore} (ignore_index)"
        where, value = check.position(first, labels.shape), labels.reshape(-1)[first]
        raise ValueError(f"{loss}: labels[{where}] is {value}; allowed: 0 to {v - 1}{also}")
    return Tokens(logits.reshape(-1, v), np.where(kept, labels, -1).reshape(-1))


def run(call: Any) -> None:
    """Cross-entropy of every token of a batch of sequences."""
    options = call.parameters
    arrays = (call["logits"], call["labels"], call["lengths"], call["mask"])
    tokens = of(call.record.name, *arrays, options["ignore_index"])
    kept = (tokens.labels >= 0).reshape(call.shape)
    share = np.ones(call.shape)
    if options["normalization"] == "sequence":
        share /= np.maximum(kept.sum(axis=1, keepdims=True), 1)
    call.counted = np.where(kept, share, 0.0).reshape(-1)
    smoothing, grad = options["label_smoothing"], call.grads.get("logits")
    factors = call.factors() if grad is not None else np.ones(1)
    scale, labels = float(factors[0]), tokens.labels
    weight = dispatch.EMPTY[call.dtype]
    if factors.size > 1:
        scale, labels = 1.0, np.where(factors, labels, -1)
        weight = (factors * share.reshape(-1)).astype(call.dtype)
    elif options["normalization"] == "sequence":
        weight = share.reshape(-1).astype(call.dtype)
    rows = np.empty((0, tokens.rows.shape[1]), call.dtype) if grad is None else grad.reshape(tokens.rows.shape)
    values = nll(tokens.rows, labels, weight, scale, smoothing, rows)
    if factors.size > 1:
        np.divide(values, factors, out=call.values, where=labels >= 0)
    else:
        call.values[:] = values
