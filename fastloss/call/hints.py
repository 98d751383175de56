"""Suggestions at the end of error messages: what the caller probably meant, in a form that can be typed."""

from typing import Any

__all__ = ["argument", "float_labels", "labels", "rows_of_labels", "shape", "target_value"]

FOREIGN = {
    "prediction": ("y_pred", "input", "inputs", "pred", "preds", "predictions", "output", "outputs", "logits", "y_hat"),
    "target": ("y_true", "y", "targets", "label", "labels", "truth", "y_test"),
    "weight": ("sample_weight", "sample_weights", "weights", "w"),
    "class_weight": ("class_weights",),
    "reduction": ("reduce", "size_average", "agg", "mean"),
    "axis": ("dim",),
    "ignore_index": ("ignore_class", "ignore_label", "ignored"),
    "label_smoothing": ("smoothing", "eps"),
}
"""Names that other libraries give to arguments, by the name that they have here."""


def argument(name: str, inputs: tuple[str, ...], options: tuple[str, ...], order: str) -> str:
    """Return a hint for an argument with another library's name; empty where the name is none.

    `inputs` are the names of the arrays, `order` the arrays as a call takes them, `options` the names of the keywords.
    """
    for own, others in FOREIGN.items():
        if name not in others:
            continue
        if own in inputs:
            return f"did you mean {own}? The order is {order}"
        if own in options:
            return f"did you mean {own}?"
        if own in ("prediction", "target"):
            return f"the arrays are {order}"
    return ""


def shape(what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Return a hint for a column of shape (n, 1) beside an array of shape (n,)."""
    if got == (*expected, 1):
        return f"; pass {what}[..., 0]"
    return "; for a column of predictions pass prediction[..., 0]" if expected == (*got, 1) else ""


def rows_of_labels(got: tuple[int, ...], rows: tuple[int, ...], k: int, axis: int, dense: bool) -> str:
    """Return a hint for integer labels whose shape is not that of the rows: one-hot, a column, or another axis.

    `rows` is the shape of the prediction without its axis of `k` scores, which is `axis`.
    """
    ndim = len(rows) + 1
    whole = (*rows[: axis % ndim], k, *rows[axis % ndim :])
    if got == whole:
        also = ", or target.astype(float) as probabilities" if dense else ""
        return f"; for one-hot rows pass target.argmax({axis}){also}"
    if got == (*rows, 1):
        return "; pass target[..., 0]"
    others = [i for i in range(ndim) if (*whole[:i], *whole[i + 1 :]) == got]
    if others:
        return f"; for classes along another axis pass axis={others[0]}"
    return ""


def float_labels(got: tuple[int, ...], rows: tuple[int, ...]) -> str:
    """Return a hint for class labels that were given as floats."""
    return "; for class labels pass target.astype(int)" if got == rows else ""


def labels(found: Any, classes: int, what: str = "target") -> str:
    """Return a hint for labels from 1 to K, where those from 0 to K - 1 are allowed; `found` are those that count."""
    if classes > 0 and found.size and found.min() >= 1 and found.max() == classes:
        return f"; for labels from 1 to {classes} pass {what} - 1"
    return ""


def target_value(value: float, domain: str) -> str:
    """Return a hint for labels of the other of the two codes, 0 and 1 or -1 and +1."""
    if domain == "{-1, +1}" and value == 0:
        return "; for labels 0 and 1 pass 2 * target - 1"
    return "; for labels -1 and 1 pass (target + 1) / 2" if domain == "[0, 1]" and value == -1 else ""
