"""Random calls of every loss, valid or not: shapes, parameters, labels, lengths, masks, weights, reductions, dtypes."""

from dataclasses import dataclass, field, replace

import numpy as np
from array_cases import SAMPLES
from row_cases import ROWS, VARIANTS, kinds, scores, targets
from sampling import sample, variants

import fastloss as fl

SIZES = (1, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 100, 129, 255, 257, 1000, 1025)
"""Lengths of elementwise arrays: around the widths of vectors and blocks."""
LARGE = (9000, 33_000, 70_001)
"""Elements of several chunks, and of a parallel call."""
CLASSES = (1, 2, 3, 10, 31, 32, 33, 41, 100, 257, 1000)
"""Numbers of classes: below 41 each has kernels of its own, so that those which other tests compile are taken."""
SHORT = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 24)
"""Lengths of the axes of losses of several arrays, of which some take the cube."""
NARROW = {"c": (1, 2, 3, 4), "g": (1, 2, 3), "v": (2, 3, 5, 17, 40), "k": (2, 3, 10, 33, 70), "s": (1, 2, 3, 4)}
"""Lengths of axes by name, where others would make no sense or cost too much."""


@dataclass(frozen=True)
class Call:
    """One call: the arrays by name, a target if it has one, and keywords."""

    name: str
    arrays: dict
    options: dict = field(default_factory=dict)
    valid: bool = True
    """Whether it must be accepted; else it may be refused."""
    plain: bool = True
    """Whether all numbers are ordinary, so that the reference can be asked."""

    @property
    def loss(self):
        return fl.LOSSES[self.name]

    @property
    def differentiable(self):
        """Names of the inputs that have a gradient."""
        record = self.loss.record
        return [k for k in record.predictions if k in self.arrays]

    def __call__(self, method="value_and_grad", **more):
        options = {**self.options, **more}
        record, arrays = self.loss.record, self.arrays
        if method == "grad_and_hess":
            options = {k: v for k, v in options.items() if k not in ("reduction", "divisor")}
        function = self.loss if method == "value" else getattr(self.loss, method)
        if record.family == "arrays":
            return function(**arrays, **options)
        given = [arrays[k] for k in record.predictions]
        return function(given[0] if len(given) == 1 else tuple(given), arrays.get("target"), **options)

    def moved(self, change):
        """The same call on other arrays of the same numbers."""
        return replace(self, arrays={k: change(a) for k, a in self.arrays.items()})

    def __str__(self):
        shown = ", ".join(f"{k} {a.dtype}{a.shape}" for k, a in self.arrays.items())
        return f"{self.name}({shown}, {self.options})"


def pick(rng, values):
    return values[rng.integers(len(values))]


def draw(rng, name, dtype=None, weighted=None, small=False):
    """A valid call of a loss."""
    dtype = dtype or pick(rng, (np.float32, np.float64))
    family = fl.LOSSES[name].record.family
    arrays, options, units = {"elementwise": elements, "rows": rows, "arrays": several}[family](rng, name, dtype, small)
    weighted = rng.random() < 0.3 if weighted is None else weighted
    reduction = pick(rng, (None, "mean", "sum", "none")) if family != "arrays" or units is not None else None
    if reduction:
        options["reduction"] = reduction
    if weighted and units is not None:
        options["weight"] = rng.integers(0, 4, units) / 2
        if rng.random() < 0.3 and options.get("reduction") != "none":
            options["divisor"] = 3.5
    return Call(name, arrays, options)


def shape_of(rng, size):
    """A shape of this many elements."""
    if size % 2 == 0 and rng.random() < 0.3:
        return (2, size // 2)
    return (size, 1) if rng.random() < 0.1 else (size,)


def elements(rng, name, dtype, small):
    record = fl.LOSSES[name].record
    variant = pick(rng, variants(record))
    size = pick(rng, LARGE if rng.random() < 0.03 and not small else SIZES)
    predictions, target = sample(record, max(size, 12), rng, dtype, **variant)
    shape = shape_of(rng, size)
    arrays = {k: p[:size].reshape(shape) for k, p in zip(record.predictions, predictions, strict=True)}
    if target is not None:
        arrays["target"] = target[:size].reshape(shape)
    return arrays, dict(variant), shape


def rows(rng, name, dtype, small):
    record, k = ROWS[name].record, pick(rng, CLASSES)
    n = pick(rng, (1, 2, 3, 7, 8, 63, 64, 65, 100, 130))
    n = min(n, 30_000 // k) if not small else min(n, 4000 // k + 1)
    if name == "crps_ensemble":
        k = min(k, 100)
    kind, variant = pick(rng, kinds(name)), pick(rng, VARIANTS.get(name, [{}]))
    arrays = {record.predictions[0]: scores(rng, name, n, k, dtype), "target": targets(rng, name, kind, n, k, dtype)}
    options = dict(variant)
    if kind == "labels" and rng.random() < 0.3:
        arrays["target"][rng.random(n) < 0.3] = -100
    if name in ("cross_entropy", "nll", "multi_margin") and kind == "labels" and rng.random() < 0.3:
        options["class_weight"] = rng.integers(0, 4, k) / 2 + (np.arange(k) == 0)
    return arrays, options, (n,)


def several(rng, name, dtype, small):
    """Arrays of a loss of several: every axis has one length, and labels, lengths and offsets fit it."""
    record, variant = fl.LOSSES[name].record, pick(rng, SAMPLES[name].variants)
    axes = {"*": tuple(pick(rng, SHORT) for _ in range(pick(rng, (0, 1, 1, 2)))), "+": (pick(rng, SHORT),)}
    if rng.random() < 0.1:
        axes["+"] = ()
    axes |= {"c": pick(rng, NARROW["c"][1:])} if variant.get("activation") == "softmax" else {}
    axes |= {k: pick(rng, SHORT[2:]) for k in "nm"} if name == "mmd" else {}
    arrays = {}
    for key, spec in record.inputs.items():
        # A divergence from a reference model needs that model's log-probabilities.
        if spec.optional and rng.random() < 0.5 and not (key == "ref_log_prob" and variant.get("beta")):
            continue
        shape = ()
        for token in spec.dims.split():
            axis, _, more = token.partition("+") if token != "+" else (token, "", "")
            if axis.isdecimal():
                shape += (int(axis),)
            elif axis in ("*", "+"):
                shape += axes[axis]
            else:
                length = axes.setdefault(axis, pick(rng, NARROW.get(axis, SHORT)))
                shape += (length + int(more or 0),)
        arrays[key] = fill(rng, name, key, spec, shape, axes, dtype)
    for low, high in record.ordered:
        both = np.stack([arrays[low], arrays[high]])
        arrays[low], arrays[high] = both.min(axis=0, keepdims=True)[0, ...], both.max(axis=0, keepdims=True)[0, ...]
    SPECIAL.get(name, lambda rng, arrays, axes, variant: None)(rng, arrays, axes, variant)
    arrays = {k: np.asarray(a) for k, a in arrays.items()}  # a sum of two arrays of no axes is a number
    units = record.axes({k: record.parameters[k].meant(record.defaults[k]) for k in record.defaults} | variant)
    where, shape = {"g": 1, **axes, "2": 2}, ()  # one group, where there are no offsets
    for axis in units.split():
        shape += where[axis] if axis in "*+" else (where[axis],)
    return arrays, dict(variant), shape


def fill(rng, name, key, spec, shape, axes, dtype):
    """One input of a kind."""
    if spec.kind in ("mask", "binary"):
        return np.asarray(rng.random(shape) < 0.7).astype(pick(rng, (bool, np.int64)))
    if spec.kind == "offsets":
        inner = np.sort(rng.integers(0, axes[spec.classes] + 1, shape[0] - 2))
        return np.concatenate([[0], inner, [axes[spec.classes]]]).astype(np.int64)
    if spec.kind == "lengths":
        return np.array(7) if not shape else rng.integers(0, axes[spec.classes] + 1, shape)
    if spec.kind == "labels":
        labels = rng.integers(0, axes.get(spec.classes, axes.get("v", 3)), shape)
        if "ignore_index" in fl.LOSSES[name].record.parameters:
            labels[rng.random(shape) < 0.2] = -100
        return labels
    if spec.kind == "regions":
        if rng.random() < 0.5:
            return rng.integers(0, max(shape[1], 2), (shape[0], *shape[2:]))
        return (rng.random(shape) < 0.4).astype(dtype)
    low, high = getattr(spec.domain, "low", None), getattr(spec.domain, "high", None)
    dtype = np.float64 if spec.kind == "double" else dtype
    if low is None:
        return rng.choice([-1.0, 1.0], shape).astype(dtype)
    if np.isfinite(low) and np.isfinite(high):
        return rng.uniform(low, min(high, low + 5.0), shape).astype(dtype)
    if np.isfinite(low):
        return (low + rng.gamma(2.0, 1.0, shape) + 0.01).astype(dtype)
    if np.isfinite(high):
        return (high - rng.gamma(2.0, 1.0, shape) - 0.01).astype(dtype)
    return rng.normal(0, 1.5, shape).astype(dtype)


def boxes(rng, arrays, axes, variant):
    """Corners in order; centres and sizes where the format says so."""
    for key, a in arrays.items():
        a[..., 2:] = abs(a[..., 2:]) + 0.1 + (0 if variant.get("box_format") == "cxcywh" else a[..., :2])
        arrays[key] = a


def regions(rng, arrays, axes, variant):
    """Probabilities, or scores where there is an activation; masks of pixels that count."""
    if "activation" not in variant:
        arrays["prediction"] = (1 / (1 + np.exp(-arrays["prediction"]))).astype(arrays["prediction"].dtype)


def spoken(rng, arrays, axes, variant):
    """Log-probabilities, targets without blanks."""
    z = arrays["log_probs"]
    arrays["log_probs"] = (z - np.logaddexp.reduce(z, axis=-1, keepdims=True)).astype(z.dtype)
    arrays["targets"] = rng.integers(1, axes["v"], arrays["targets"].shape)


def probabilities(rng, arrays, axes, variant):
    """Log-probabilities are below 0."""
    for key, a in arrays.items():
        arrays[key] = a if key in ("desirable",) else -abs(a) - a.dtype.type(0.01)


def either(rng, arrays, axes, variant):
    """Candidates or a mask, not both, and one of them."""
    if "candidates" in arrays:
        arrays.pop("mask", None)
    elif "mask" not in arrays:
        arrays["mask"] = rng.random(arrays["logits"].shape) < 0.3


def scored(rng, arrays, axes, variant):
    """A probability of each class, where no activation makes one."""
    if "activation" not in variant:
        arrays["prediction"] = (1 / (1 + np.exp(-arrays["prediction"]))).astype(arrays["prediction"].dtype)


def positive_costs(rng, arrays, axes, variant):
    arrays["cost"] = abs(arrays["cost"])


def sorted_positions(rng, arrays, axes, variant):
    if "positions" in arrays:
        arrays["positions"] = np.sort(arrays["positions"])


def growing_levels(rng, arrays, axes, variant):
    # In the precision of the call, no two are equal.
    k = len(arrays["levels"])
    arrays["levels"] = ((np.arange(k) + 0.5) / max(k, 1)).astype(arrays["levels"].dtype)


SPECIAL = {
    **dict.fromkeys(("iou", "giou", "diou", "ciou", "siou"), boxes),
    **dict.fromkeys(
        ("dice", "jaccard", "tversky", "focal_tversky", "generalized_dice", "mcc", "lovasz_softmax", "boundary"),
        regions,
    ),
    "ctc": spoken,
    "ordered_quantiles": growing_levels,
    "orpo": probabilities,
    "soft_f1": scored,
    "sinkhorn": positive_costs,
    "unlikelihood": either,
    "wasserstein_1d": sorted_positions,
}
"""What some losses ask of their arrays beyond shapes and domains."""
