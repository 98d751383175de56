"""Losses of a linear layer and the softmax behind it, in chunks of rows."""

from typing import Any

import numpy as np

from .products import Product, softmax_of_product

__all__ = ["run"]


def run(call: Any) -> None:
    """Cross-entropy of hidden @ projection.T + bias."""
    labels, class_weight = call["labels"], call["class_weight"]
    counted = labels >= 0
    whole = counted.all()
    if class_weight is not None:
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
    if grads and not whole:
        factors = np.where(counted, factors, 0.0)
    softmax_of_product(product, call.values, factors, grads, options["chunk"] or 0)
