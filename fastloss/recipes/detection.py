"""Losses of object detectors: matching of prior boxes, then box, class and objectness losses."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..call import check
from ..call.errors import CallTypeError, CallValueError, naming
from ..cpu.matching import Matches, match
from ..losses.catalogue import LOSSES
from ..spec.record import NONNEGATIVE, POSITIVE, UNIT
from .base import Predictions, Result, Sum
from .boxes import images_of, offsets_of, priors_of, targets_of

__all__ = ["retinanet", "ssd_multibox", "yolo"]

BACKGROUND, BETWEEN = -1, -2
"""Matches of priors without a true box: those that are background, and those that are left out."""

SSD_VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Divisors of the offsets in SSD, by which centres and scales have errors of one size."""

RETINANET_THRESHOLDS = (0.4, 0.5)
"""Overlaps below which an anchor of RetinaNet is background, and from which it is positive."""


@naming("ssd_multibox")
def ssd_multibox(
    offsets: Any,
    logits: Any,
    priors: Any,
    targets: Any,
    *,
    threshold: float = 0.5,
    negatives: float = 3.0,
    variances: tuple[float, float, float, float] = SSD_VARIANCES,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return the multibox loss of SSD: offsets of matched priors, and classes with hard negatives.

    .. math:: (1 / N) (sum_{positives} smooth_l1(offsets) + sum_{positives, negatives} cross_entropy(logits))

    A prior is positive where its intersection over union with a true box is at least the threshold, and where it is
    the best of a true box. The negatives are the other priors of largest cross-entropy, of each image `negatives`
    times as many as it has positives. N is the number of positives in the batch, at least 1.

    Parameters
    ----------
    offsets : array, (n, a, 4)
        Predicted offsets of a priors in n images: shifts of the centre over the prior's size, and logarithms of the
        scales, each over its variance.
    logits : array, (n, a, c)
        Scores of c classes, of which class 0 is the background.
    priors : array, (a, 4)
        Prior boxes, as corners x1, y1, x2, y2.
    targets : sequence of n pairs (boxes (m, 4), labels (m,))
        True boxes of each image, as corners, and their classes from 1 to c - 1.
    threshold : float in [0, 1]
        Least intersection over union of a positive prior.
    negatives : float
        Negatives per positive.
    variances : four floats
        Divisors of the offsets.
    weights : dict, optional
        Weights of the parts "boxes" (1) and "classes" (1); a part of weight 0 is left out.

    Returns
    -------
    Result
        value; grads of "offsets" and "logits"; parts "boxes" and "classes".

    Raises
    ------
    ValueError
        For shapes that do not match, labels outside the classes, boxes without an area.

    References
    ----------
    Liu et al. (2016), SSD: single shot multibox detector, arXiv:1512.02325; torchvision's SSD has the same loss.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> priors = np.array([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0], [0.0, 2.0, 2.0, 4.0]])
    >>> targets = [(np.array([[0.0, 0.0, 2.0, 1.5]]), np.array([1]))]
    >>> found = fl.recipes.ssd_multibox(np.zeros((1, 3, 4)), np.zeros((1, 3, 2)), priors, targets)
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'boxes': 1.6884, 'classes': 2.0794}
    """
    check.within("threshold", threshold, UNIT)
    check.within("negatives", negatives, NONNEGATIVE)
    if not isinstance(variances, (tuple, list)) or len(variances) != 4:
        raise CallTypeError(f"is {check.shown(variances)}; expected four positive numbers", "variances")
    for i, v in enumerate(variances):
        check.within(f"variances[{i}]", v, POSITIVE)
    z = Predictions(offsets=offsets, logits=logits)
    total = Sum(z, weights, {"boxes": 1.0, "classes": 1.0})
    return _ssd_multibox(z, total, priors, targets, (threshold, negatives, variances))


def _ssd_multibox(z: Predictions, total: Sum, priors: Any, targets: Any, options: tuple[Any, ...]) -> Result:
    """Return the multibox loss; options are the threshold, the negatives per positive and the variances."""
    threshold, negatives, variances = options
    n, a, c = _sizes(z, "offsets")
    found = targets_of(targets, n, 1, c)
    boxes = priors_of(priors, "priors", a)
    matches = match(boxes, found.boxes, found.starts)
    matched = _matched(matches, threshold, threshold)
    # As in torchvision, the last of several true boxes with one best prior takes it.
    matched[images_of(found), matches.best] = np.arange(len(found.boxes))
    rows = np.nonzero(matched >= 0)
    divisor = max(1, len(rows[0]))
    if total.wants("boxes"):
        wanted = offsets_of(found.boxes[matched[rows]], boxes[rows[1]], variances)
        value, grad = LOSSES["smooth_l1"].value_and_grad(z["offsets"][rows], wanted, divisor=divisor)
        total.add_rows("boxes", value, "offsets", rows, grad)
    if total.wants("classes"):
        labels = np.zeros((n, a), np.int64)
        labels[rows] = found.labels[matched[rows]]
        kept = np.nonzero(_hard(z["logits"], labels, negatives))
        value, grad = LOSSES["cross_entropy"].value_and_grad(z["logits"][kept], labels[kept], divisor=divisor)
        total.add_rows("classes", value, "logits", kept, grad)
    return total.result()


def _hard(logits: Any, labels: Any, negatives: float) -> Any:
    """Return the mask of positives and of the background priors of largest loss, in each image."""
    losses = LOSSES["cross_entropy"](logits, labels, reduction="none")
    positive = labels > 0
    # A loss that is NaN is no small one: it has to come through.
    losses = np.where(positive, -np.inf, np.where(np.isnan(losses), np.inf, losses))
    kept = positive.copy()
    for i in range(len(labels)):
        count = int(positive[i].sum())
        wanted = min(int(negatives * count), losses.shape[1] - count)
        if wanted > 0:
            kept[i, np.argpartition(-losses[i], wanted - 1)[:wanted]] = True
    return kept


@naming("retinanet")
def retinanet(
    offsets: Any,
    logits: Any,
    anchors: Any,
    targets: Any,
    *,
    thresholds: tuple[float, float] = RETINANET_THRESHOLDS,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return the loss of RetinaNet: focal loss of all anchors' classes, absolute error of matched anchors' offsets.

    .. math:: mean over images of (sum_{anchors, classes} focal(logits) + sum_{positives} |offsets - true offsets|) / N

    An anchor is positive where its intersection over union with a true box is at least the second threshold, background
    where it is below the first with every box, and left out between them. Anchors that are best for a true box are
    positive as well. N is the number of positives in the image, at least 1.

    Parameters
    ----------
    offsets : array, (n, a, 4)
        Predicted offsets of a anchors in n images: shifts of the centre over the anchor's size, and logarithms of the
        scales.
    logits : array, (n, a, c)
        Scores of c classes, without a background.
    anchors : array, (a, 4)
        Anchor boxes, as corners x1, y1, x2, y2.
    targets : sequence of n pairs (boxes (m, 4), labels (m,))
        True boxes of each image, as corners, and their classes from 0 to c - 1.
    thresholds : two floats in [0, 1]
        Intersection over union below which an anchor is background, and from which it is positive.
    alpha, gamma : float
        Parameters of the focal loss.
    weights : dict, optional
        Weights of the parts "boxes" (1) and "classes" (1); a part of weight 0 is left out.

    Returns
    -------
    Result
        value; grads of "offsets" and "logits"; parts "boxes" and "classes".

    Raises
    ------
    ValueError
        For shapes that do not match, labels outside the classes, boxes without an area.

    References
    ----------
    Lin et al. (2017), Focal loss for dense object detection, arXiv:1708.02002; torchvision's RetinaNet has the same
    loss.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> anchors = np.array([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]])
    >>> targets = [(np.array([[0.0, 0.0, 2.0, 1.5]]), np.array([0]))]
    >>> found = fl.recipes.retinanet(np.zeros((1, 2, 4)), np.zeros((1, 2, 1)), anchors, targets)
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'boxes': 0.4127, 'classes': 0.1733}
    """
    low, high = _thresholds(thresholds)
    z = Predictions(offsets=offsets, logits=logits)
    total = Sum(z, weights, {"boxes": 1.0, "classes": 1.0})
    focal = LOSSES["focal"].bind(alpha=alpha, gamma=gamma)
    return _retinanet(z, total, anchors, targets, (low, high, focal))


def _thresholds(thresholds: Any) -> tuple[float, float]:
    """Return two thresholds in order."""
    if not isinstance(thresholds, (tuple, list)) or len(thresholds) != 2:
        raise CallTypeError(f"is {check.shown(thresholds)}; expected two numbers (low, high)", "thresholds")
    low, high = (check.within(f"thresholds[{i}]", t, UNIT) for i, t in enumerate(thresholds))
    if low > high:
        raise CallValueError(f"is {thresholds}; expected the lower one first", "thresholds")
    return low, high


def _retinanet(z: Predictions, total: Sum, anchors: Any, targets: Any, options: tuple[Any, ...]) -> Result:
    """Return the loss of RetinaNet; options are the thresholds and the focal loss."""
    low, high, focal = options
    n, a, c = _sizes(z, "offsets")
    found = targets_of(targets, n, 0, c)
    boxes = priors_of(anchors, "anchors", a)
    matches = match(boxes, found.boxes, found.starts)
    matched = _matched(matches, low, high)
    # As in torchvision, all anchors as good as the best of a true box count, for the box that is best for them.
    matched = np.where(matches.tied, matches.nearest, matched)
    rows = np.nonzero(matched >= 0)
    counts = np.maximum(1, (matched >= 0).sum(axis=1))
    if total.wants("boxes"):
        wanted = offsets_of(found.boxes[matched[rows]], boxes[rows[1]], (1.0,) * 4)
        each = np.repeat(1.0 / (n * counts[rows[0]]), 4).reshape(-1, 4)
        value, grad = LOSSES["mae"].value_and_grad(z["offsets"][rows], wanted, weight=each, reduction="sum")
        total.add_rows("boxes", value, "offsets", rows, grad)
    if total.wants("classes"):
        value, logits = 0.0, z["logits"]
        grad = np.empty(logits.shape, logits.dtype)
        # One image at a time: targets of all classes would take the memory of the logits.
        for i in range(n):
            labels = np.zeros((a, c), logits.dtype)
            positive = np.nonzero(matched[i] >= 0)[0]
            labels[positive, found.labels[matched[i, positive]]] = 1.0
            counted = None if (matched[i] != BETWEEN).all() else (matched[i] != BETWEEN)[:, None] * 1.0
            own, grad[i] = focal.value_and_grad(logits[i], labels, weight=counted, divisor=float(n * counts[i]))
            value += own
        total.add("classes", value, logits=grad)
    return total.result()


@naming("yolo")
def yolo(
    boxes: Any,
    objectness: Any,
    logits: Any,
    anchors: Any,
    targets: Any,
    *,
    ignore: float = 0.5,
    soft_objectness: bool = False,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return a loss of YOLO detectors: boxes, objectness and classes.

    .. math:: 0.05 mean_{positives} ciou(boxes) + mean bce(objectness) + 0.5 mean_{positives} bce(classes)

    Each true box is assigned to the anchor of largest intersection over union, which is positive (YOLOv3). Other
    anchors whose intersection over union with a true box exceeds `ignore` have no objectness loss. Boxes are compared
    as they are decoded, by CIoU, and the parts have the weights of YOLOv5.

    Parameters
    ----------
    boxes : array, (n, a, 4)
        Predicted boxes of a anchors in n images, decoded to corners x1, y1, x2, y2.
    objectness : array, (n, a)
        Scores of there being an object.
    logits : array, (n, a, c)
        Scores of c classes, each by itself.
    anchors : array, (a, 4)
        Anchor boxes at their places, as corners.
    targets : sequence of n pairs (boxes (m, 4), labels (m,))
        True boxes of each image, as corners, and their classes from 0 to c - 1.
    ignore : float in [0, 1]
        Largest intersection over union of an anchor that counts as background.
    soft_objectness : bool
        Take as target of the objectness, in place of 1, the intersection over union of the predicted box with its
        true box, held constant (YOLOv5).
    weights : dict, optional
        Weights of the parts "boxes" (0.05), "objectness" (1) and "classes" (0.5); a part of weight 0 is left out.

    Returns
    -------
    Result
        value; grads of "boxes", "objectness" and "logits"; parts "boxes", "objectness" and "classes".

    Raises
    ------
    ValueError
        For shapes that do not match, labels outside the classes, boxes without an area.

    References
    ----------
    Redmon, Farhadi (2018), YOLOv3: an incremental improvement, arXiv:1804.02767; CIoU: Zheng et al. (2020),
    Distance-IoU loss, arXiv:1911.08287; weights: Jocher (2020), YOLOv5 by Ultralytics.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> anchors = np.array([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]])
    >>> targets = [(np.array([[0.0, 0.0, 2.0, 1.0]]), np.array([1]))]
    >>> found = fl.recipes.yolo(anchors[None], np.zeros((1, 2)), np.zeros((1, 2, 3)), anchors, targets)
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'boxes': 0.5345, 'objectness': 0.6931, 'classes': 0.6931}
    """
    check.within("ignore", ignore, UNIT)
    soft = check.flag("soft_objectness", soft_objectness)
    z = Predictions(boxes=boxes, objectness=objectness, logits=logits)
    total = Sum(z, weights, {"boxes": 0.05, "objectness": 1.0, "classes": 0.5})
    return _yolo(z, total, anchors, targets, (ignore, soft))


def _yolo(z: Predictions, total: Sum, anchors: Any, targets: Any, options: tuple[Any, ...]) -> Result:
    """Return the loss of YOLO; options are the largest overlap of background, and whether objectness is soft."""
    ignore, soft = options
    n, a, c = _sizes(z, "boxes")
    z.check("objectness", n, a)
    found = targets_of(targets, n, 0, c)
    matches = match(priors_of(anchors, "anchors", a), found.boxes, found.starts)
    matched = np.where(matches.overlap > ignore, BETWEEN, BACKGROUND)
    matched[images_of(found), matches.best] = np.arange(len(found.boxes))
    rows = np.nonzero(matched >= 0)
    own, wanted = z["boxes"][rows], found.boxes[matched[rows]]
    if total.wants("boxes"):
        total.add_rows("boxes", *_split(LOSSES["ciou"].value_and_grad(own, wanted), "boxes", rows))
    if total.wants("objectness"):
        there = (matched >= 0).astype(z["objectness"].dtype)
        if soft:
            there[rows] = np.clip(1.0 - LOSSES["iou"](own, wanted, reduction="none"), 0.0, 1.0)
        counted = (matched != BETWEEN).astype(np.float64)
        value, grad = LOSSES["bce_with_logits"].value_and_grad(z["objectness"], there, weight=counted)
        total.add("objectness", value, objectness=grad)
    if total.wants("classes"):
        scores = z["logits"][rows]
        classes = np.zeros(scores.shape, scores.dtype)
        classes[np.arange(len(classes)), found.labels[matched[rows]]] = 1.0
        total.add_rows("classes", *_split(LOSSES["bce_with_logits"].value_and_grad(scores, classes), "logits", rows))
    return total.result()


def _split(found: tuple[Any, Any], name: str, rows: Any) -> tuple[Any, ...]:
    """Return the arguments of `Sum.add_rows` for a value and the gradient of some rows."""
    return found[0], name, rows, found[1]


def _matched(matches: Matches, low: float, high: float) -> Any:
    """Return the true box of each prior (n, a), BACKGROUND below the lower threshold, BETWEEN below the upper one."""
    overlap = matches.overlap
    return np.where((overlap >= high) & (overlap >= 0.0), matches.nearest, np.where(overlap < low, BACKGROUND, BETWEEN))


def _sizes(z: Predictions, name: str) -> tuple[int, int, int]:
    """Return the numbers of images, priors and classes."""
    z.check(name, "n", "a", 4)
    n, a, _ = z[name].shape
    z.check("logits", n, a, "c")
    c = int(z["logits"].shape[2])
    if 0 in (a, c):
        raise CallValueError(f"has shape {z['logits'].shape}; expected at least one prior and one class", "logits")
    return n, a, c
