"""Tokens of sequences as rows of scores: the softmax rows of cross_entropy, over those rows that are kept.

What is kept lies in runs of rows. Each run is handed to the kernel of cross_entropy where it lies; between runs the
derivatives are set to zero and nothing is read.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import config

from ...call import check
from ...call.arrays import I64, NAMES, constants
from ...call.errors import CallValueError
from ...spec.record import registered
from .. import dispatch
from ..runtime.intrinsics import call as call_chunk
from ..runtime.slots import Number, unbound
from ..runtime.units import all_between, kernel

__all__ = ["Tokens", "nll", "of", "prepare", "run"]

use = unbound(Number)

WORTH = 1 << 10
"""Elements that cost as much as one more call of the kernel."""


def keep(lo, hi, labels, lengths, mask, rules, kept, counted, counts, wrong):
    """Labels of the tokens of each sequence that count, -1 for the others; 1 and 0 for these; how many count.

    The last result is one more than the place of the first label that is no word; 0 where there is none.
    """
    words, ignored, ignores = rules[0], rules[1], rules[2] != 0
    for i in range(lo, hi):
        n = labels.shape[1]
        stop = lengths[i] if lengths.size > 0 else n
        counts[i] = 0
        wrong[i] = 0
        for j in range(n):
            # Decided once a token: the kernel of rows knows labels and -1, neither lengths nor masks.
            y = labels[i, j]
            inside = j < stop and not (ignores and y == ignored)
            if mask.size > 0:
                inside = inside and mask[i, j] != 0
            if inside and (y < 0 or y >= words) and wrong[i] == 0:
                wrong[i] = j + 1
            kept[i, j] = y if inside else -1
            counted[i, j] = 1.0 if inside else 0.0
            counts[i] += 1 if inside else 0


def runs(lo, hi, numbers, scale, z, labels, weight, class_weight, params, helpers, values, grad):
    """Loss and derivatives of the rows that are kept, run by run, and zeros in the others."""
    T = use.T
    nothing, details = z[:0], np.empty((0, 0), np.float64)
    scratch, stats = np.empty(numbers[1], T), np.empty(2, np.float64)
    gap, block, stride = numbers[3], numbers[4], numbers[5]
    blocks = (z.shape[0] + block - 1) // block
    for q in range(lo, hi):
        # Scattered: a batch sorted by length would give one thread all tokens and another all padding.
        i = (q * stride) % blocks * block
        end = min(z.shape[0], i + block)
        while i < end:
            if labels[i] < 0:
                if grad.size > 0:
                    # Written by the thread whose row it is: clearing the whole gradient before would be a second pass
                    # over memory.
                    g = grad[i]
                    for j in range(g.size):
                        g[j] = T(0.0)
                i += 1
                continue
            a, b = i, i + 1
            # A few rows between runs go with them.
            while i < end and i - b <= gap:
                b = i + 1 if labels[i] >= 0 else b
                i += 1
            inputs = (z[a:b], labels[a:b], nothing, weight[a:b], class_weight)
            outputs = (values[a:b], grad[a:b], nothing, details)
            # Where the rows lie: gathering those that are kept would copy the scores.
            call_chunk(numbers[0], (inputs, outputs, scale[0], params, helpers, numbers[2] != 0, scratch, stats))
            i = b


class Few(NamedTuple):
    """Arrays of a small call: n sequences of up to s tokens, of v scores each."""

    labels: Any
    """(n, s) int64."""
    lengths: Any
    """(n,) int64; empty where all sequences have s tokens."""
    mask: Any
    """(n, s) uint8; empty where no token is masked."""
    rules: Any
    """As `keep` takes them, and whether the sum is divided by the number of tokens, (4,) int64."""
    scale: Any
    """Factor of the derivatives where the sum is not divided, (1,) float64."""
    numbers: Any
    """As `runs` takes them."""
    z: Any
    """Scores, (n * s, v)."""
    class_weight: Any
    params: Any
    helpers: Any
    values: Any
    """Loss of each token, (n * s,) float64, written."""
    grad: Any
    """Derivatives by the scores, (n * s, v), written; empty where they are not wanted."""
    counted: Any
    """1 for each token that is kept and 0 for the others, (n, s) float64, written."""
    found: Any
    """Number of tokens that are kept, and of sequences with a label that is no word, (2,) float64, written."""


def few(lo, hi, a: Few):
    """A small call in one step: which tokens are kept, the divisor of their mean, losses and derivatives."""
    n = a.labels.shape[0]
    kept, counts, wrong = np.empty(a.labels.shape, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    keep(0, n, a.labels, a.lengths, a.mask, a.rules, kept, a.counted, counts, wrong)
    mass, bad = 0.0, 0.0
    for i in range(n):
        mass += counts[i]
        bad += 1.0 if wrong[i] > 0 else 0.0
    a.found[0], a.found[1] = mass, bad
    # Nothing is written yet: the general path names the label.
    if bad > 0.0:
        return
    scale = np.empty(1)
    scale[0] = a.scale[0] if a.rules[3] == 0 else 1.0 / mass if mass != 0.0 else 0.0
    values: Any = np.zeros(a.values.size, use.T)
    weight: Any = np.empty(0, use.T)
    labels, block = kept.reshape(kept.size), a.numbers[4]
    blocks = (a.values.size + block - 1) // block
    runs(0, blocks, a.numbers, scale, a.z, labels, weight, a.class_weight, a.params, a.helpers, values, a.grad)
    for i in range(values.size):
        a.values[i] = values[i]


class Settings(NamedTuple):
    """Settings of the kernel of runs of rows, passed beside the arrays of rows."""

    blocks: int
    numbers: Any
    """Address, scratch, streaming, gap, block and stride."""
    class_weight: Any
    parameters: Any
    helpers: Any


@lru_cache(maxsize=8)
def _ones(k: int, dtype: Any) -> Any:
    """Return equal class weights, one array for batches of all sizes: those of a vocabulary take 0.5 MB."""
    return np.ones(k, dtype)


@lru_cache(maxsize=64)
def _settings(n: int, k: int, dtype: Any, mode: str, smoothing: float, streamed: bool) -> Settings:
    """Return the settings of rows of k scores, which kernels only read."""
    name, tiled, smooth = NAMES[dtype], k <= dispatch.TILED_TO, smoothing > 0.0
    address = dispatch.rows(registered["cross_entropy"], name, mode, "labels", smooth, tiled)[0]
    block = dispatch.rows_per_chunk(k)
    blocks = -(-n // block)
    # A few rows between two runs cost less than another call of the kernel.
    gap, room = 64 if tiled else WORTH // k, dispatch.room(k, mode, "labels", tiled, "softmax", block)
    numbers: Any = [address, room, streamed, gap, block, _stride(blocks)]
    if not config.DISABLE_JIT:
        numbers = np.array(numbers, np.int64)
    class_weight = _ones(k, dtype) if smooth else dispatch.EMPTY[dtype]
    return Settings(blocks, numbers, class_weight, np.array([1.0, smoothing, 0.0]), dispatch.helpers(k, dtype, tiled))


def _stride(blocks: int) -> int:
    """An order of blocks in which every thread gets some of each part of a batch, which may be sorted by length."""
    # By the golden ratio, and coprime to the number of blocks: successive blocks lie far apart, and each comes once.
    stride = max(1, int(0.618 * blocks))
    while math.gcd(stride, blocks) != 1:
        stride += 1
    return stride


@lru_cache(maxsize=64)
def _of_few(n: int, k: int, dtype: Any, mode: str, smoothing: float) -> tuple[Settings, Callable[..., None]]:
    """Return the settings of few rows, and the function that runs the kernel."""
    own = _settings(n, k, dtype, mode, smoothing, False)
    return own, kernel(runs, "tokens", NAMES[dtype]).bound(own.blocks, 0.0)


def nll(z: Any, labels: Any, weight: Any, scale: float, smoothing: float, grad: Any) -> Any:
    """Cross-entropy of each row against its label, times its weight; -1 is a row to leave out, with a loss of 0.

    `weight` may be negative, and empty where all are 1. Fills `grad`, unless it is empty, with the derivatives times
    `scale`.
    """
    n, k = z.shape
    dtype, values = z.dtype, np.zeros(n, z.dtype)
    mode = "grad" if grad.size else "value"
    if z.size < dispatch.PARALLEL_FROM // 2:
        # Small work need not be counted.
        own, launch = _of_few(n, k, dtype, mode, smoothing)
    else:
        own = _settings(n, k, dtype, mode, smoothing, grad.size > 0 and dispatch.overflows((z, grad)))
        work = float(np.count_nonzero(labels >= 0)) * k + 0.1 * grad.size
        launch = kernel(runs, "tokens", NAMES[dtype]).bound(own.blocks, work)
    arrays = (z, labels, weight, own.class_weight, own.parameters, own.helpers, values, grad)
    launch(own.numbers, np.array([scale]), *arrays)
    return values


class Tokens(NamedTuple):
    """The tokens of a call as rows."""

    rows: Any
    """Logits, (tokens, v)."""
    labels: Any
    """The label of each token; -1 where it is left out."""
    counts: Any
    """Number of tokens of each sequence."""
    counted: Any
    """1 for each token that is kept and 0 for the others (float64)."""


@lru_cache(maxsize=64)
def _keeper(n: int, size: int) -> Callable[..., None]:
    """Return the function that looks through the labels of n sequences."""
    return kernel(keep, "keep", "float64").bound(n, size)


def of(
    logits: Any,
    labels: Any,
    lengths: Any,
    mask: Any,
    ignore: int | None,
    quoted: Any,
    weight: Any = None,
) -> Tokens:
    """Tokens that are kept: within their sequence's length, in the mask, and not to be ignored by their label.

    `quoted` are the labels as the caller gave them, for messages.
    """
    n, v = len(labels), logits.shape[-1]
    if weight is not None and not weight.all():
        # A token of weight 0 may have any label, and still is a token of its sequence: any class will do.
        away = (weight == 0.0).reshape(labels.shape) & ((labels < 0) | (labels >= v))
        if ignore is not None:
            away &= labels != ignore
        labels = np.where(away, next((k for k in range(min(v, 2)) if k != ignore), -1), labels)
    kept, counted = np.empty(labels.shape, np.int64), np.empty(labels.shape)
    counts, wrong = np.empty(n, np.int64), np.empty(n, np.int64)
    given = (NO_LENGTHS if lengths is None else lengths, NO_MASK if mask is None else mask)
    rules = constants(I64, v, 0 if ignore is None else ignore, ignore is not None)
    _keeper(n, labels.size)(labels, *given, rules, kept, counted, counts, wrong)
    if not all_between(wrong, 0):
        i = int(np.argmax(wrong > 0))
        first = i * labels.shape[1] + int(wrong[i]) - 1
        problem = f"is {quoted.reshape(-1)[first]}; allowed: {check.labels_allowed(v, ignore)}"
        raise CallValueError(problem, "labels", check.index_of(first, quoted.shape))
    return Tokens(logits.reshape(labels.size, v), kept.reshape(-1), counts, counted.reshape(-1))


def run(call: Any) -> None:
    """Cross-entropy of every token of a batch of sequences."""
    options = call.parameters
    arrays = (call["logits"], call["labels"], call["lengths"], call["mask"])
    labels_given = call.given["labels"]
    rows, labels, counts, call.counted = of(*arrays, options["ignore_index"], labels_given, call.weight)
    weight, share, kept = dispatch.EMPTY[call.dtype], None, labels
    if options["normalization"] == "sequence":
        share = np.repeat(1.0 / np.maximum(counts, 1), call.shape[1])
        call.counted *= share
        weight = share.astype(call.dtype)
    grad = call.grads.get("logits")
    factors = call.factors() if grad is not None else ONE
    scale = float(factors[0])
    if factors.size > 1:
        scale, labels = 1.0, np.where(factors, labels, -1)
        weight = (factors if share is None else factors * share).astype(call.dtype)
    if not rows.size:
        return
    out = np.empty((0, rows.shape[1]), call.dtype) if grad is None else grad.reshape(rows.shape)
    values = nll(rows, labels, weight, scale, options["label_smoothing"], out)
    if factors.size > 1:
        np.divide(values, factors, out=call.values, where=kept >= 0)
    else:
        call.values[:] = values


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates calls like one: in one step where they are small and tokens count alike."""
    logits, options, dtype, writes = call["logits"], call.parameters, call.dtype, bool(call.grads)
    size, v, ignore = logits.size, logits.shape[-1], options["ignore_index"]
    if options["normalization"] == "sequence" or not 0 < size < dispatch.PARALLEL_FROM // 2:
        return run
    own = _settings(size // v, v, dtype, "grad" if writes else "value", options["label_smoothing"], False)
    launch = kernel(few, "few_tokens", NAMES[dtype], None, (keep, runs)).bound(1, 0.0)
    rules = [constants(I64, v, 0 if ignore is None else ignore, ignore is not None, k) for k in (False, True)]
    fixed, rows, no_grad = (own.class_weight, own.parameters, own.helpers), (size // v, v), np.empty((0, v), dtype)

    def evaluate(call: Any) -> None:
        arrays, averaged = call.arrays, call.averaged
        labels, lengths, mask = arrays["labels"], arrays["lengths"], arrays["mask"]
        call.counted = counted = np.empty(labels.shape)
        found = np.empty(2)
        scale = ONE if averaged or not writes else call.factors()
        masks = NO_LENGTHS if lengths is None else lengths, NO_MASK if mask is None else mask
        grad = call.grads["logits"].reshape(rows) if writes else no_grad
        given = labels, *masks, rules[averaged], scale, own.numbers, arrays["logits"].reshape(rows)
        launch(*given, *fixed, call.values, grad, counted, found)
        if found[1] > 0.0:
            # Has the general path name the label.
            run(call)
        elif averaged:
            call.settle(float(found[0]))

    return evaluate


ONE, NO_LENGTHS, NO_MASK = np.ones(1), np.empty(0, np.int64), np.empty((0, 0), np.uint8)
