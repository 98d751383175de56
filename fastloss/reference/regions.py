"""Region (segmentation) losses in plain NumPy."""

import numpy as np

__all__ = [
    "boundary",
    "dice",
    "focal_tversky",
    "generalized_dice",
    "jaccard",
    "lovasz_hinge",
    "lovasz_softmax",
    "mcc",
    "tversky",
]


def _probabilities(prediction, activation):
    """Return the probabilities of each class (n, c, pixels)."""
    z = prediction.reshape(*prediction.shape[:2], -1)
    if activation == "sigmoid":
        return 0.5 * (1 + np.tanh(z / 2))
    if activation == "softmax":
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    return z


def _regions(prediction, target, ignore_index):
    """Return the region of each class, and the mask of labelled pixels."""
    n, c = prediction.shape[:2]
    if target.shape == prediction.shape:
        return target.reshape(n, c, -1), np.ones((n, int(np.prod(prediction.shape[2:]))), bool)
    labels = target.reshape(n, -1)
    classes = [1] if c == 1 else range(c)
    known = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    return np.stack([labels == k for k in classes], axis=1).astype(float), known


def _units(per, *arrays):
    """Return the classes and pixels of each unit: one sample, or all samples together."""
    if per == "sample":
        return list(zip(*arrays, strict=True))
    return [tuple(np.concatenate(list(a), axis=-1) for a in arrays)]


def _means(
    score,
    prediction,
    target,
    mask=None,
    class_weight=None,
    activation=None,
    per="sample",
    average="macro",
    include_background=True,
    ignore_index=-100,
    classes="all",
    axis=1,
):
    """Return the mean over classes of score(p, t) for each unit; for "micro" the score gets all classes and weights."""
    if target.ndim == prediction.ndim:
        target = np.moveaxis(target, axis, 1)
    prediction = np.moveaxis(prediction, axis, 1)
    p = _probabilities(prediction, activation)
    t, known = _regions(prediction, target, ignore_index)
    if mask is not None:
        known = known & (mask.reshape(known.shape) != 0)
    first = 0 if include_background else 1
    weight = np.ones(p.shape[1]) if class_weight is None else class_weight
    values = []
    for a, b, m in _units(per, p, t, known):
        kept = (weight != 0) & (np.arange(weight.size) >= first)
        kept = kept & (b[:, m].sum(axis=1) > 0) if classes == "present" else kept
        a, b, w = a[kept][:, m], b[kept][:, m], weight[kept]
        if a.size == 0:
            values.append(0.0)
        elif average == "micro":
            values.append(score(a, b, w[:, None]))
        else:
            scores = [score(x, y, 1.0) for x, y in zip(a, b, strict=True)]
            values.append(np.average(scores, weights=w))
    return np.array(values) if per == "sample" else np.array(values[0])


def _confusion(p, t, w, overlap="min"):
    """Return weighted sums of true and false positives, false and true negatives of soft regions."""
    if overlap == "product":
        return [(w * x).sum() for x in (p * t, p * (1 - t), (1 - p) * t, (1 - p) * (1 - t))]
    parts = np.minimum(p, t), np.maximum(p - t, 0), np.maximum(t - p, 0), np.minimum(1 - p, 1 - t)
    return [(w * x).sum() for x in parts]


def _rest(above, below, log=False):
    if log:
        return -np.log(max(above / below, 1e-7)) if below else 0.0
    return 1 - above / below if below else 0.0


def dice(prediction, target, smooth_num=1e-5, smooth_den=1e-5, log=False, squared=False, overlap="min", **options):
    """One minus twice the overlap over the sum of the regions."""

    def score(p, t, w):
        if squared:
            return _rest(2 * (w * p * t).sum() + smooth_num, (w * (p**2 + t**2)).sum() + smooth_den, log)
        both = (w * (p + t)).sum() - (w * abs(p - t)).sum() if overlap == "min" else 2 * (w * p * t).sum()
        return _rest(both + smooth_num, (w * (p + t)).sum() + smooth_den, log)

    return _means(score, prediction, target, **options)


def jaccard(prediction, target, smooth_num=1e-5, smooth_den=1e-5, log=False, squared=False, overlap="min", **options):
    """One minus the overlap over the union of the regions."""

    def score(p, t, w):
        both = p * t if squared or overlap == "product" else np.minimum(p, t)
        union = (w * ((p**2 + t**2 if squared else p + t) - both)).sum()
        return _rest((w * both).sum() + smooth_num, union + smooth_den, log)

    return _means(score, prediction, target, **options)


def tversky(prediction, target, alpha=0.5, beta=0.5, smooth_num=1e-5, smooth_den=1e-5, log=False, **options):
    """One minus an overlap with weights of false positives and false negatives."""
    return _tversky(prediction, target, alpha, beta, 1.0, (smooth_num, smooth_den), log, **options)


def focal_tversky(prediction, target, alpha=0.5, beta=0.5, gamma=4 / 3, smooth_num=1e-5, smooth_den=1e-5, **options):
    """Tversky loss to the power 1 / gamma."""
    return _tversky(prediction, target, alpha, beta, gamma, (smooth_num, smooth_den), False, **options)


def _tversky(prediction, target, alpha, beta, gamma, smooth, log, overlap="min", **options):
    def score(p, t, w):
        tp, fp, fn, _ = _confusion(p, t, w, overlap)
        return _rest(tp + smooth[0], tp + alpha * fp + beta * fn + smooth[1], log) ** (1 / gamma)

    return _means(score, prediction, target, **options)


def generalized_dice(
    prediction, target, smooth_num=1e-5, smooth_den=1e-5, weighting="square", class_weight=None, **options
):
    """One minus a ratio of sums over the classes, weighted by powers of their inverse sizes."""
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]

    def score(p, t, w):
        size = t.sum(axis=1, keepdims=True)
        size[size == 0] = size[size > 0].min() if size.any() else 1.0
        w = w * (size.min() / size) ** power
        both = (w * (p + t - abs(p - t))).sum()
        return _rest(both + smooth_num, (w * (p + t)).sum() + smooth_den)

    return _means(score, prediction, target, class_weight=class_weight, average="micro", **options)


def mcc(prediction, target, overlap="min", **options):
    """One minus the Matthews correlation."""

    def score(p, t, w):
        tp, fp, fn, tn = _confusion(p, t, w, overlap)
        below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return 1 - (tp * tn - fp * fn) / np.sqrt(below) if below else float(fp + fn > 0)

    return _means(score, prediction, target, **options)


def boundary(prediction, distance, **options):
    """Mean of distance times probability."""
    return _means(lambda p, d, w: (w * p * d).mean(), prediction, distance, **options)


def _lovasz(errors, region):
    """Return the Lovasz extension of the Jaccard loss, in its authors' form."""
    order = np.argsort(-errors, kind="stable")
    sorted_errors, found = errors[order], region[order]
    inter = region.sum() - np.cumsum(found)
    union = region.sum() + np.cumsum(1 - found)
    jaccard = 1 - inter / union
    jaccard[1:] = jaccard[1:] - jaccard[:-1]
    return sorted_errors @ jaccard


def lovasz_hinge(prediction, target, **options):
    """Lovasz extension of the Jaccard loss at hinge errors."""

    def score(z, t, w):
        return _lovasz(np.maximum(1 - (2 * t - 1) * z, 0), t)

    return _means(score, prediction, target, **options)


def lovasz_softmax(prediction, target, classes="present", mask=None, class_weight=None, **options):
    """Lovasz extension of the Jaccard loss at absolute errors, mean over classes that are present, or over all."""
    per, first = options.get("per", "sample"), 0 if options.get("include_background", True) else 1
    p = _probabilities(prediction, options.get("activation"))
    t, known = _regions(prediction, target, options.get("ignore_index", -100))
    known = known if mask is None else known & (mask.reshape(known.shape) != 0)
    weight = np.ones(p.shape[1]) if class_weight is None else class_weight
    values = []
    for a, b, m in _units(per, p, t, known):
        rows = [
            (_lovasz(abs(y[m] - x[m]), y[m]), w)
            for x, y, w in list(zip(a, b, weight, strict=True))[first:]
            if m.any() and (classes == "all" or y[m].any())
        ]
        total = sum(w for _, w in rows)
        values.append(sum(v * w for v, w in rows) / total if total else 0.0)
    return np.array(values) if per == "sample" else np.array(values[0])
