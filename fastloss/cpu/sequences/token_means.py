"""Figures of all tokens together: functions of their summed cross-entropy and their number."""

from typing import Any

import numpy as np

from ...call.errors import CallValueError
from .. import dispatch
from . import tokens

__all__ = ["run"]


def run(call: Any) -> None:
    """Sum up the tokens, then the gradient with what the sum's derivative makes of it."""
    logits, labels, mask = call["logits"], call["labels"], call["mask"]
    mask = None if mask is None else mask.reshape(-1, 1)
    ignore, given = call.parameters["ignore_index"], call.given["labels"]
    rows, kept, counts, _ = tokens.of(logits, labels.reshape(-1, 1), None, mask, ignore, given)
    numbers = [float(call[k]) for k, spec in call.record.inputs.items() if not spec.dims]
    if not all(x > 0.0 for x in numbers):
        raise CallValueError(f"is {numbers[0]:g}; expected 1 or more", "n_bytes")
    count = float(counts.sum())
    if not count:
        call.values[0] = call.record.function(0.0, 1.0, *numbers)[0]
        for g in call.grads.values():
            g[...] = 0.0
        return
    empty = np.empty((0, rows.shape[1]), call.dtype)
    losses = tokens.nll(rows, kept, dispatch.EMPTY[call.dtype], 1.0, 0.0, empty).astype(np.float64)
    call.values[0], slope = call.record.function(dispatch.sum_in_order(losses)[0], count, *numbers)
    if call.grads:
        grad = call.grads["logits"]
        scale = float(call.factors()[0]) * slope
        # What overflows must not meet the zeros of the softmax.
        once = scale if abs(scale) <= float(np.finfo(call.dtype).max) else 1.0
        tokens.nll(rows, kept, dispatch.EMPTY[call.dtype], once, 0.0, grad)
        if once != scale:
            with np.errstate(over="ignore"):
                np.multiply(grad, call.dtype.type(scale), out=grad, where=grad != 0.0)
