"""Losses of a linear layer and the softmax behind it, in chunks of rows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...call.arrays import I64_MAX
from ...call.reduction import balanced
from ..dispatch import EMPTY
from ..embeddings.products import Few, Product, bound_few, softmax_of_product
from ..runtime.units import all_between

__all__ = ["prepare", "run"]


def run(call: Any) -> None:
    """Cross-entropy of hidden @ projection.T + bias."""
    labels, class_weight = call["labels"], call["class_weight"]
    # In a kernel: NumPy's comparison and all() take 2 us of a small call.
    whole = all_between(labels, I64_MAX)
    counted: Any = None if whole and class_weight is None else labels >= 0
    if class_weight is not None and call.averaged and call.parameters["z_loss"] > 0.0:
        weight = None if call.weight is None else call.weight[counted]
        class_weight = balanced(class_weight, labels[counted], weight)
        call.counted = counted.astype(np.float64)
    elif class_weight is not None:
        call.counted = np.where(counted, class_weight[labels], 0.0).astype(np.float64)
    elif not whole:
        call.counted = counted.astype(np.float64)
    options = call.parameters
    product = Product(
        call["hidden"],
        call["projection"],
        call["bias"],
        labels,
        class_weight=class_weight,
        beta=options["logit_scale"] / options["temperature"],
        smoothing=options["label_smoothing"],
        z_loss=options["z_loss"],
        lasting=True,
    )
    grads = tuple(call.grads.values())
    factors: Any = call.factors() if grads else None
    if class_weight is not None and not (options["label_smoothing"] or options["z_loss"]):
        # The loss of a row is that of its label alone, which may count for nothing.
        counted &= class_weight[labels] != 0.0
        whole = whole and counted.all()
    if grads and not whole:
        # A factor of 0, not a shorter product: copying the rows that count would take as long.
        factors = np.where(counted, factors, 0.0)
    softmax_of_product(product, call.values, factors, grads, options["chunk"] or 0)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates calls like one; only products have arithmetic that can warn."""
    options, hidden, writes = call.parameters, call["hidden"], bool(call.grads)
    beta = options["logit_scale"] / options["temperature"]
    sizes = len(hidden), len(call["projection"]), hidden.shape[1]
    few = bound_few(
        Few(*sizes, hidden.dtype, writes, beta, options["label_smoothing"], options["z_loss"], lasting=True)
    )
    if few is None or options["chunk"] or call["class_weight"] is not None:
        return run
    no_bias = EMPTY[hidden.dtype]

    def evaluate(call: Any) -> None:
        arrays = call.arrays
        labels, bias = arrays["labels"], arrays["bias"]
        # In this order: the factors depend on the rows that are left out, which only `run` counts.
        if not all_between(labels, I64_MAX) or (writes and call.factors()[0] == 0.0):
            run(call)
            return
        scale = float(call.factors()[0]) if writes else 1.0
        given = arrays["hidden"], arrays["projection"], no_bias if bias is None else bias, labels
        few(*given, call.values, scale, tuple(call.grads.values()))

    return evaluate
