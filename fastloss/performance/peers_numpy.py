"""Contestants that work on NumPy arrays: scikit-learn's own losses, and numexpr on the traced formulas."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..cpu.runtime.threads import get_num_threads
from ..spec.graph import Graph, Node
from ..spec.render import Dialect, MissingWordError, expression
from .cases import Case, Data
from .contestants import Contestant, Outcome
from .numpy_reference import arrays, traced

__all__ = ["numexpr", "sklearn"]


def _sklearn_losses(case: Case) -> dict[str, tuple[Callable[[], Any], float]]:
    """Return scikit-learn's losses by name, with the factors that convert value and derivatives to fastloss's."""
    from sklearn._loss import loss as losses

    given = case.bound.defaults
    return {
        "mse": (losses.HalfSquaredError, 2.0),
        "mae": (losses.AbsoluteError, 1.0),
        "quantile": (lambda: losses.PinballLoss(quantile=given["q"]), 1.0),
        "huber": (lambda: losses.HuberLoss(delta=given["delta"]), 1.0),
        "poisson": (losses.HalfPoissonLoss, 1.0),
        "gamma": (losses.HalfGammaLoss, 1.0),
        "bce_with_logits": (losses.HalfBinomialLoss, 1.0),
        "cross_entropy": (lambda: losses.HalfMultinomialLoss(n_classes=max(3, case.classes)), 1.0),
    }


PLAIN_DEFAULTS = ("bce_with_logits", "poisson", "gamma", "cross_entropy")
"""Losses that scikit-learn has with default parameters only."""


def sklearn(case: Case, data: Data) -> Contestant | None:
    """Build scikit-learn's compiled loss; derivatives are not divided by n, as in its estimators."""
    known = _sklearn_losses(case)
    if case.loss not in known or (case.parameters and case.loss in PLAIN_DEFAULTS):
        return None
    if case.target == "probabilities" or 0 < case.classes < 3:
        return None
    make, factor = known[case.loss]
    loss, scores, n = make(), data.predictions[0], case.rows
    target = data.target.astype(scores.dtype)
    values, first = np.empty(n, scores.dtype), np.empty_like(scores)
    given: dict[str, Any] = {"y_true": target, "raw_prediction": scores, "n_threads": get_num_threads()}
    if case.mode == "value":
        return Contestant(
            lambda: loss.loss(**given, loss_out=values).sum(), lambda r: Outcome(factor * float(r) / n, ())
        )
    if case.mode == "value_and_grad":

        def call() -> Any:
            loss.loss_gradient(**given, loss_out=values, gradient_out=first)
            return values.sum() / n

        return Contestant(call, lambda r: Outcome(factor * float(r), (first * (factor / n),)))
    if not case.bound.record.differentiable or case.loss == "huber":
        return None  # its second derivatives are 1 there, as boosting takes them
    second = np.empty_like(scores)
    return Contestant(
        lambda: loss.gradient_hessian(**given, gradient_out=first, hessian_out=second),
        lambda r: Outcome(None, (first * factor, second * factor)),
    )


@cache
def _known() -> frozenset[str]:
    from numexpr import expressions

    return frozenset(expressions.functions)


def numexpr(case: Case, data: Data) -> Contestant | None:
    """Build one numexpr expression for each result; NumPy sums the values."""
    import numexpr as library

    if case.classes:
        return None
    library.set_num_threads(get_num_threads())
    names, graph = arrays(case), Graph()
    results = traced(case, **{n: graph.named("input", n) for n in names})
    words = {
        w: w for w in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "abs", "where", "maximum", "minimum", "sign")
    }
    mean = case.bound.record.reduction == "mean"
    inputs: dict[str, Any] = dict(zip(names, (*data.predictions, data.target), strict=False))
    s = graph.named("scalar", "s") if mean and case.mode != "grad_and_hess" else 1.0
    bound: dict[str, Any] = {**inputs, "s": data.predictions[0].dtype.type(1.0 / case.size)}
    texts = {}
    for key, x in results.items():
        operand = x if key == "value" else s * x
        if not isinstance(operand, Node) or operand.op == "input":
            return None
        try:
            source = expression(Dialect(words, data.predictions[0].dtype.type), operand)
        except MissingWordError:
            return None
        if len(source.text) > 1500 or not {w for w in source.names if not w.startswith("k_")} <= _known() | {"abs"}:
            return None
        texts[key] = source.text
        bound |= {k: v for k, v in source.names.items() if k.startswith("k_")}
    outs = {key: np.empty_like(data.predictions[0]) for key in texts}
    scale = 1.0 / case.size if mean else 1.0

    def call() -> Any:
        for key, text in texts.items():
            library.evaluate(text, local_dict=bound, global_dict={}, out=outs[key], casting="same_kind")
        return outs["value"].sum() * scale if "value" in outs else None

    derivatives = tuple(a for k, a in outs.items() if k != "value")
    return Contestant(call, lambda r: Outcome(None if r is None else float(r), derivatives))
