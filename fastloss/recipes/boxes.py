"""True boxes of images: checks, matching with prior boxes, and offsets that predict them."""

from typing import Any, NamedTuple

import numpy as np

from ..call import check
from ..call.arrays import F64, incoming
from ..call.errors import CallTypeError, CallValueError

__all__ = ["Targets", "images_of", "offsets_of", "priors_of", "targets_of"]


class Targets(NamedTuple):
    """True boxes of n images in one table."""

    boxes: Any
    """Corners (x1, y1, x2, y2) of all boxes (m, 4) float64."""
    labels: Any
    """Class of each box (m,) int64."""
    starts: Any
    """First box of each image, then m (n + 1,) int64."""


def targets_of(targets: Any, images: int, first: int, classes: int) -> Targets:
    """Return the boxes and labels of all images; labels are from `first` to `classes - 1`."""
    if not isinstance(targets, (tuple, list)) or len(targets) != images:
        size = f"has {len(targets)} entries" if isinstance(targets, (tuple, list)) else f"is {check.shown(targets)}"
        raise CallTypeError(f"{size}; expected {images} pairs (boxes, labels), one per image", "targets")
    boxes, labels, counts = [], [], [0]
    for i, pair in enumerate(targets):
        what = f"targets[{i}]"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise CallTypeError(f"is {check.shown(pair)}; expected a pair (boxes, labels)", what)
        own = _boxes(pair[0], f"{what}[0]")
        boxes.append(own)
        labels.append(_labels(pair[1], f"{what}[1]", len(own), first, classes))
        counts.append(len(own))
    joined = np.concatenate([*boxes, np.empty((0, 4))])
    return Targets(joined, np.concatenate([*labels, np.empty(0, np.int64)]), np.cumsum(counts))


def priors_of(priors: Any, name: str, count: int) -> Any:
    """Return prior boxes (count, 4) as float64."""
    found = _boxes(priors, name)
    if len(found) != count:
        problem = f"has {len(found)} rows; expected {count}, one per predicted box of an image"
        raise CallValueError(problem, name)
    return found


def _boxes(given: Any, what: str) -> Any:
    """Return boxes (m, 4) as float64; raise where one is not finite or has no area."""
    a = incoming(given, what)
    if a.ndim == 1 and a.size == 0:
        a = a.reshape(0, 4)
    if a.ndim != 2 or a.shape[1] != 4:
        raise CallValueError(f"has shape {a.shape}; expected (m, 4), corners x1, y1, x2, y2", what)
    a = np.ascontiguousarray(a, F64)
    wrong = ~(np.isfinite(a).all(axis=1) & (a[:, 0] < a[:, 2]) & (a[:, 1] < a[:, 3]))
    if wrong.any():
        i = int(wrong.argmax())
        problem = f"is {a[i].tolist()}; expected finite corners with x1 < x2 and y1 < y2"
        raise CallValueError(problem, what, (i,))
    return a


def _labels(given: Any, what: str, count: int, first: int, classes: int) -> Any:
    """Return labels (count,) as int64; raise where one is not between `first` and `classes - 1`."""
    a = incoming(given, what)
    if a.shape != (count,):
        raise CallValueError(f"has shape {a.shape}; expected ({count},), one label per box", what)
    if a.size and a.dtype.kind not in "iu":
        raise CallTypeError(f"has dtype {a.dtype}; expected integers", what)
    wrong = (a < first) | (a >= classes)
    if wrong.any():
        i = int(wrong.argmax())
        raise CallValueError(f"is {a[i]}; allowed: {first} to {classes - 1}", what, (i,))
    return a.astype(np.int64)


def images_of(targets: Targets) -> Any:
    """Return the image of each box (m,)."""
    return np.repeat(np.arange(len(targets.starts) - 1), np.diff(targets.starts))


def offsets_of(boxes: Any, priors: Any, variances: tuple[float, ...]) -> Any:
    """Return the offsets by which priors predict boxes: shifts over the prior's size, and logarithms of scales."""
    size, wanted = priors[:, 2:] - priors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = 0.5 * (boxes[:, :2] + boxes[:, 2:] - priors[:, :2] - priors[:, 2:])
    return np.concatenate([shift / size, np.log(wanted / size)], axis=1) / np.array(variances)
