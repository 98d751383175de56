"""Calls of losses over several arrays in a form that their kernels do not read, written as calls that they do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..call.arrays import finish, incoming, outgoing, outputs, predicted, rounded, weights
from ..call.errors import CallTypeError, CallValueError
from ..call.reduction import REDUCTIONS, denominator
from ..call.request import Request
from ..cuda import placement
from ..cuda.libraries import on_device

__all__ = ["FORMS", "How", "reformed", "shape_of_form"]


class How(NamedTuple):
    """Options of a call."""

    weight: Any
    reduction: Any
    divisor: Any
    out: Any
    derivatives: bool


def reformed(loss: Any, inputs: dict[str, Any], how: How) -> tuple[Any, Any] | None:
    """Serve a call in another form; return None where the kernels read it as it is."""
    form = FORMS.get(loss.record.name) or FORMS[loss.record.loop]
    if not form.applies(loss, inputs):
        return None
    if any(on_device(x) for x in (*inputs.values(), how.weight) if x is not None):
        names = tuple(inputs)
        mode = "grad" if how.derivatives else "value"
        request = Request(mode, tuple(inputs.values()), None, *how[:4], names=names)
        moved: tuple[Any, Any] = placement.on_host(loss._run_placed, request)
        return moved
    own = loss.record.predictions
    raw = {k: predicted(v, k) if k in own else incoming(v, k) for k, v in inputs.items() if v is not None}
    value, grads = form.serve(loss, raw, how)
    back = outgoing(inputs[own[0]])
    if isinstance(value, np.ndarray):
        value = rounded(value, raw[own[0]].dtype)
        value = value if back is None else back(value)
    if not how.derivatives:
        return value, None
    arrays = tuple(raw[k] for k in own if k in raw)
    others = [v for k, v in raw.items() if k not in own]
    outs = outputs(how.out, 1, arrays, (*others, how.weight))
    for o, grad in zip(outs[0], grads, strict=True):
        o[...] = rounded(np.asarray(grad), o.dtype)
    return value, finish(outs, how.out, back)[0]


def _called(loss: Any, inputs: dict[str, Any], how: How, weight: Any = None) -> tuple[Any, tuple[Any, ...]]:
    """Return the value and the gradients of a call that the kernels read."""
    weight = how.weight if weight is None else weight
    value, grads = loss._run(inputs, weight, how.reduction, how.divisor, None, how.derivatives)
    return value, grads if isinstance(grads, tuple) else (grads,)


def _sorted_ratios(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve dpo's variants of optimal transport, which match log ratios of one rank."""
    plain = loss._with({"variant": "sigmoid"})
    chosen, rejected, *reference = (raw[k] for k in ("chosen", "rejected", "ref_chosen", "ref_rejected"))
    paired = loss._meant["variant"] == "aot_pair"
    if paired:
        first, second = chosen - reference[0], rejected - reference[1]
    else:
        first, second = chosen - rejected, reference[0] - reference[1]
    orders = [np.argsort(x, axis=0, kind="stable") for x in (first, second)]
    ranked = [np.take_along_axis(x, o, axis=0) for x, o in zip((first, second), orders, strict=True)]
    zero = np.zeros_like(first)
    given = dict(zip(("chosen", "rejected", "ref_chosen", "ref_rejected"), (*ranked, zero, zero), strict=True))
    value, grads = _called(plain, given, how)
    if not how.derivatives:
        return value, ()
    found = [np.empty_like(g) for g in grads]
    for into, order, g in zip(found, orders, grads, strict=True):
        np.put_along_axis(into, order, g, axis=0)
    return value, tuple(found) if paired else (found[0], -found[0])


def _has_axis(loss: Any, inputs: dict[str, Any]) -> bool:
    """Whether regions have their classes along another axis, or are judged class by class."""
    if "axis" not in loss._meant:
        return False
    axis = loss._meant["axis"]
    ndim = getattr(inputs["prediction"], "ndim", 0)
    return axis not in (1, 1 - ndim) or loss._meant["average"] == "none"


def _by_class(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve a loss of regions whose classes lie along another axis, or whose values are those of each class."""
    axis, z = loss._meant["axis"], raw["prediction"]
    if not -z.ndim <= axis < z.ndim:
        raise CallValueError(f"is {axis}; the prediction has {z.ndim} dimensions", "axis")
    both = [k for k in ("prediction", "target") if raw[k].ndim == z.ndim]
    moved = raw | {k: np.moveaxis(raw[k], axis, 1) for k in both}
    if loss._meant["average"] != "none":
        value, grads = _called(loss._with({"axis": 1}), moved, how)
    else:
        value, grads = _each_class(loss._with({"axis": 1, "average": "macro"}), moved, how)
    return value, tuple(np.moveaxis(g, 1, axis) for g in grads) if how.derivatives else ()


def _each_class(plain: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Return the loss of each class, and the gradient of their sum: a pass for each class."""
    if how.reduction != "none":
        raise CallValueError(f"is {how.reduction!r}; average='none' goes with reduction='none'", "reduction")
    if raw.get("class_weight") is not None:
        raise CallValueError("is given with average='none', whose values are those of each class", "class_weight")
    classes = raw["prediction"].shape[1]
    values, grad = [], np.zeros(raw["prediction"].shape)
    for k in range(0 if plain._meant["include_background"] else 1, classes):
        value, grads = _called(plain, {**raw, "class_weight": np.eye(classes)[k]}, how)
        values.append(value)
        grad = grad + grads[0] if how.derivatives else grad
    return np.stack(values, axis=-1), (grad,)


def _without_reference(loss: Any, inputs: dict[str, Any]) -> bool:
    """Whether a divergence from a reference model is wanted, and the reference is not given."""
    return loss._meant["beta"] > 0.0 and inputs.get("ref_log_prob") is None


def _refused(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Raise for a divergence from nothing."""
    problem = f"is missing, and beta is {loss._meant['beta']:g}; pass ref_log_prob=, or beta=0 for no divergence"
    raise CallTypeError(problem, "ref_log_prob")


PAIRS = 1 << 16
"""Pairs of boxes that are laid out at a time: 2 to 4 MB of coordinates, which the caches hold."""


def _each_pair(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve a loss of each of N boxes with each of M targets; the gradient of a box is the sum over its targets."""
    boxes, target = raw["boxes"], raw["target"]
    for name, a in raw.items():
        if a.ndim != 2 or a.shape[1] != 4:
            raise CallValueError(f"has shape {a.shape}; expected (..., 4) of two dimensions where pairwise=True", name)
    if how.reduction not in REDUCTIONS:
        raise CallValueError(f"is {how.reduction!r}, which goes not together with pairwise=True", "reduction")
    plain, (n, m) = loss._with({"pairwise": False}), (len(boxes), len(target))
    weight = None if how.weight is None else weights(how.weight, (n, m), np.dtype(np.float64)).reshape(n, m)
    divided = denominator(how.reduction, how.divisor, n * m if weight is None else float(weight.sum())) or 1.0
    each = how.reduction == "none"
    values, grad = np.zeros((n, m), boxes.dtype if each else np.float64), np.zeros(boxes.shape)
    step = max(1, PAIRS // max(m, 1))
    for lo in range(0, n if m else 0, step):
        rows = len(boxes[lo : lo + step])
        given = {"boxes": np.repeat(boxes[lo : lo + step], m, axis=0), "target": np.tile(target, (rows, 1))}
        own = None if weight is None else weight[lo : lo + step].reshape(-1)
        value, slopes = plain._run(given, own, "none", None, None, how.derivatives)
        values[lo : lo + step] = value.reshape(rows, m)
        if how.derivatives:
            grad[lo : lo + step] = slopes.reshape(rows, m, 4).sum(axis=1, dtype=np.float64) / divided
    return values if each else float(values.sum(dtype=np.float64)) / divided, (grad,)


def _with_own_axis(u: Any, is_zero: Any, i: int) -> Any:
    """Return vectors with three more components, of which those of zeros have a 1 in the i-th."""
    more = np.zeros((*u.shape[:-1], 3))
    more[..., i] = is_zero[..., 0]
    return np.concatenate([u, more], axis=-1)


def _by_cosine(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve triplets by their cosines: half of the squared distances of unit vectors, with twice the margin."""
    if loss._meant["squared"]:
        raise CallValueError("is True, which goes not together with distance='cosine'", "squared")
    if how.reduction not in REDUCTIONS:
        raise CallValueError(f"is {how.reduction!r}, which goes not together with distance='cosine'", "reduction")
    changed = {"distance": "euclidean", "squared": True, "p": 2.0, "margin": 2.0 * loss._meant["margin"]}
    wide = {k: a.astype(np.float64) for k, a in raw.items()}
    sizes = {k: np.sqrt(np.einsum("...d,...d->...", a, a))[..., None] for k, a in wide.items()}
    with np.errstate(invalid="ignore"):
        units = {k: np.divide(a, sizes[k], out=np.zeros_like(a), where=sizes[k] != 0.0) for k, a in wide.items()}
    # A vector of zeros has a cosine of 0 with all: it becomes a direction of its own.
    given = {k: _with_own_axis(u, sizes[k] == 0.0, i) for i, (k, u) in enumerate(units.items())}
    value, grads = _called(loss._with(changed), given, how)
    found = []
    for (k, u), whole in zip(units.items(), grads if how.derivatives else (), strict=False):
        g = whole[..., : u.shape[-1]]
        with np.errstate(invalid="ignore"):
            across = 0.5 * (g - u * np.einsum("...d,...d->...", u, g)[..., None])
            # Of a vector that does not count, whose gradient is 0, whatever it holds.
            counts = (sizes[k] != 0.0) & (g != 0.0).any(axis=-1, keepdims=True)
            found.append(np.divide(across, sizes[k], out=np.zeros_like(across), where=counts))
    return 0.5 * value, tuple(found)


def _ndim(x: Any) -> int:
    found: int = x.ndim if hasattr(x, "ndim") else np.ndim(x)
    return found


def _is_loose(loss: Any, inputs: dict[str, Any]) -> bool:
    """Whether CTC gets one sequence without an axis of the batch, or the targets of all sequences one after another."""
    return _ndim(inputs["log_probs"]) == 2 or _ndim(inputs["targets"]) == 1


def _in_batch(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve CTC of one sequence, or of targets one after another, as torch takes them."""
    z, targets = raw["log_probs"], raw["targets"]
    if z.ndim == 2:
        one = {k: a.reshape(1) for k, a in raw.items() if k.endswith("lengths")}
        given = {"log_probs": z[:, None], "targets": targets.reshape(1, -1), **one}
        weight = None if how.weight is None else incoming(how.weight, "weight").reshape(1)
        value, grads = _called(loss, given, how, weight)
        value = float(value[0]) if isinstance(value, np.ndarray) else value
        return value, tuple(g[:, 0] for g in grads) if how.derivatives else ()
    lengths = raw.get("target_lengths")
    if lengths is None:
        raise CallTypeError("is missing; targets of all sequences in one dimension need it", "target_lengths")
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != targets.size:
        problem = f"are {lengths.tolist()}; expected whole numbers whose sum is the number of targets, {targets.size}"
        raise CallValueError(problem, "target_lengths")
    held = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.zeros(held.shape, targets.dtype)
    padded[held] = targets
    return _called(loss, raw | {"targets": padded}, how)


class Form(NamedTuple):
    """Another form of the calls of a loss."""

    applies: Callable[[Any, dict[str, Any]], bool]
    """Function of the loss and its inputs: whether a call has this form."""
    serve: Callable[[Any, dict[str, Any], How], tuple[Any, tuple[Any, ...]]]
    """Function of the loss, the inputs as NumPy arrays and the options: the value, and the gradients."""


FORMS = {
    "dpo": Form(lambda loss, inputs: loss._meant["variant"] in ("aot", "aot_pair"), _sorted_ratios),
    **dict.fromkeys(("grpo", "cispo", "sapo"), Form(_without_reference, _refused)),
    **dict.fromkeys(("iou", "giou", "diou", "ciou", "siou"), Form(lambda loss, _: loss._meant["pairwise"], _each_pair)),
    "triplet": Form(lambda loss, _: loss._meant["distance"] == "cosine", _by_cosine),
    "ctc": Form(_is_loose, _in_batch),
    "regions.sums": Form(_has_axis, _by_class),
}
"""Other forms of calls, by the name of the loss or of its loop."""


def shape_of_form(loss: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the shape of the values of a call in another form, from the shapes of its inputs; None of other calls."""
    meant = getattr(loss, "_meant", {})
    if meant.get("pairwise"):
        return shapes["boxes"][0], shapes["target"][0]
    if loss.record.name == "ctc" and len(shapes["log_probs"]) == 2:
        return ()
    if loss.record.loop == "regions.sums" and meant.get("average") == "none":
        z = shapes["prediction"]
        classes = z[meant["axis"]] - (not meant["include_background"])
        samples = () if meant["per"] == "batch" else (z[0 if meant["axis"] % len(z) else 1],)
        return (*samples, classes)
    return None
