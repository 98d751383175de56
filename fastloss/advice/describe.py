"""Recommendations of single losses: output, optimiser and code follow from the loss's record."""

from typing import Any

from ..losses.catalogue import LOSSES
from .result import Recommendation

__all__ = ["recommended"]

OUTPUTS = {
    "logit": "The output is a logit z: the probability is 1 / (1 + exp(-z)).",
    "half-logit": "The output is a score z: the probability is 1 / (1 + exp(-2 z)).",
    "margin": "The output is a score; its sign is the class, and it is no probability.",
    "log": "The output is the logarithm of the mean: predict exp(z). A floor on z keeps exp from vanishing.",
    "softmax": "The outputs are K logits a row: softmax gives the probabilities. No softmax before the loss.",
}
SECOND = {
    # Further predictions: what they are, and a line that stands for the model's second output.
    "gaussian_nll": ("var", "its variance", "variance = np.full(len(y), np.var(y - pred))"),
    "student_t_nll": ("scale", "its scale", "scale = np.full(len(y), np.std(y - pred))"),
    "laplace_nll": ("scale", "its scale", "scale = np.full(len(y), np.mean(np.abs(y - pred)))"),
    "negative_binomial_nll": ("r", "its concentration r", "r = np.full(len(y), 10.0)"),
}
CONVEX = {"logit": "bce_with_logits", "softmax": "cross_entropy", "identity": "huber"}
"""Convex loss of the same outputs, by the link of one that is not convex."""


def recommended(
    name: str, /, reasons: list[str], warnings: list[str] | None = None, code: str = "", **parameters: Any
) -> Recommendation:
    """Return a recommendation; output, optimiser and code come from the loss unless they are given."""
    record = LOSSES[name].record
    output = OUTPUTS.get(record.link, "The output is the prediction itself.")
    if name in SECOND:
        output = f"The model has two outputs: the mean or location, and {SECOND[name][1]}, which is positive."
    if name == "ordered_quantiles":
        output = "The outputs are the lowest quantile, and what softplus turns into the steps to the others."
    if name == "ordinal":
        output = "The outputs are K - 1 logits a row: column k is that of a label above k."
    return Recommendation(
        name, parameters, output, reasons, warnings or [], _optimizer(record), code or _code(name, parameters)
    )


def _optimizer(record: Any) -> str:
    if not record.differentiable:
        return "It has a kink: use Adam or SGD with a decreasing rate, not Newton's method."
    if not record.convex:
        known = CONVEX.get(record.link) if record.family != "arrays" else None
        return f"It is not convex: start from {f'the solution of {known}, or from ' if known else ''}several points."
    if record.second:
        return "It is convex and smooth: Newton's method, LBFGS and every gradient method suit it."
    return "It is convex: LBFGS and every gradient method suit it."


def _code(name: str, parameters: dict[str, Any]) -> str:
    given = "".join(f", {k}={v!r}" for k, v in parameters.items())
    if name in SECOND:
        keyword, _, line = SECOND[name]
        variable = line.partition(" ")[0]
        return f"{line}\nvalue, grads = fl.{name}.value_and_grad(pred, y, {keyword}={variable}{given})"
    return f"value, grad = fl.{name}.value_and_grad(pred, y{given})"
