"""Calls of every loss in which some part of the inputs does not count, by whatever takes it out.

For the tests of the rule that a weight of 0 removes an element whatever it holds, on the CPU and on the simulated GPU.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import array_cases
import numpy as np
import sampling

import fastloss as fl
from fastloss.call.layout import shape_of
from fastloss.spec.record import LOOPS

ROWS, CLASSES = 5, (10, 100)


@dataclass
class Case:
    """One call: inputs by name, whatever takes a part out, and where that part lies."""

    name: str
    what: str
    """What takes the part out."""
    given: dict
    """Arrays by name, floats in float64."""
    options: dict = field(default_factory=dict)
    """Parameters and what takes the part out: weights, masks."""
    parts: dict = field(default_factory=dict)
    """By input, the indices of the elements that do not count."""

    def __str__(self):
        return f"{self.name}-{self.what}"


def outsiders(domain):
    """A number outside a domain, if there is any."""
    return [x for x in (-1.0, 2.0, 0.5, 0.0) if domain.outside(x)][:1]


def elementwise(name):
    """Elements of weight 0."""
    record = fl.LOSSES[name].record
    predictions, target = sampling.sample(record, 40, np.random.default_rng(3))
    given = dict(zip(record.predictions, predictions, strict=True))
    if target is not None:
        given["t"] = target
    w = np.random.default_rng(4).uniform(0.5, 2.0, 40)
    w[[3, 21]] = 0.0
    part = np.array([3, 21])
    return [Case(name, "weight", given, {"weight": w}, {k: (part,) for k in given})]


def row_inputs(name, kind, k, n=ROWS, seed=5):
    """Prediction and target of a row-wise loss, in float64; labels count upwards."""
    rng = np.random.default_rng(seed)
    loop = fl.LOSSES[name].record.loop
    z = rng.normal(0, 1.5, (n, k))
    if loop in ("log_probs", "divergence"):
        z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
    if loop == "angular":
        z = np.tanh(z / 4)
    if loop == "ensemble":
        return {"z": z, "t": rng.normal(size=n)}
    if kind == "labels":
        return {"z": z, "t": np.arange(n) % k}
    return {"z": z, "t": rng.normal(0, 2, (n, k)) if name == "distillation" else rng.dirichlet(np.ones(k), n)}


def rows(name):
    """As tiles of a few classes, and row by row."""
    return [case for k in CLASSES for case in rows_of(name, k)]


def rows_of(name, k):
    """Rows of weight 0, rows to ignore, and classes of weight 0."""
    loop = fl.LOSSES[name].record.loop
    found = []
    for kind in LOOPS[loop].kinds():
        given = row_inputs(name, kind, k)
        w = np.array([1.0, 0.5, 0.0, 2.0, 0.0])
        part = np.array([2, 4])
        both = {"z": (part,), "t": (part,)}
        found.append(Case(name, f"weight of a row, {kind}, {k}", given, {"weight": w}, both))
        c = np.linspace(0.5, 1.5, k)
        c[2] = 0.0
        column = {"z": (slice(None), 2)}
        if kind == "labels":
            ignored = {**given, "t": np.where(np.isin(np.arange(ROWS), part), -100, given["t"])}
            found.append(Case(name, f"ignore_index, {k}", ignored, {}, {"z": (part,)}))
            taken = column if loop == "ordinal" else {"z": (np.array([2]),)}
            found.append(Case(name, f"class weight of a label, {k}", given, {"class_weight": c}, taken))
        elif loop in ("log_probs", "divergence"):
            given = {**given, "t": np.where(given["t"] > 0, given["t"], 0.0)}
            parts = {**column, "t": (slice(None), 2)}
            found.append(Case(name, f"class weight, {k}", given, {"class_weight": c}, parts))
        elif loop in ("sparsemax", "evidence"):
            # A row counts as the classes of its target do.
            alone = np.where(np.arange(ROWS)[:, None] == 2, np.eye(k)[2], given["t"])
            given = {**given, "t": alone}
            found.append(Case(name, f"class weight of a row, {k}", given, {"class_weight": c}, {"z": (np.array([2]),)}))
        elif loop == "softmax":
            found.append(Case(name, f"class weight, {k}", given, {"class_weight": c}, {"t": (slice(None), 2)}))
    return found


def owned(name, given, parameters):
    """Where the inputs of some units lie, by input."""
    record = fl.LOSSES[name].record
    units = record.axes({**fl.LOSSES[name]._meant, **parameters}).split()
    found = {}
    for k in given:
        dims = record.inputs[k].dims.split()
        if record.inputs[k].shared:
            continue
        if units == ["g"]:
            if dims == ["n"]:
                found[k] = (slice(*list(pairwise(given["offsets"]))[UNIT]),)
        elif not units:
            if k not in ("positions", "bandwidths", "n_bytes"):
                found[k] = (Ellipsis,)
        elif units == ["+"] or (name == "ctc" and dims[0] == "t"):
            found[k] = (slice(None), UNIT)
        elif dims[: len(units)] == units and not (dims == ["n"] and units != ["n"]):
            found[k] = (UNIT,)
    return found


UNIT = 1
KEPT = ("lengths", "mask", "offsets", "binary")
"""Kinds of inputs that say what counts, or hold nothing else than 0 and 1."""


def arrays(name):
    """Units of weight 0, and what masks, lengths and weights of its own take out."""
    loss, found = fl.LOSSES[name], []
    for parameters in array_cases.SAMPLES[name].variants:
        given = array_cases.inputs(name)
        given["mask"] = np.ones_like(given["mask"]) if "mask" in given else None
        given = {k: a for k, a in given.items() if a is not None}
        shape = (
            array_cases.truth(name, given, parameters).shape if loss.record.axes({**loss._meant, **parameters}) else ()
        )
        w = np.random.default_rng(4).uniform(0.5, 2.0, shape)
        if shape:
            w[UNIT] = 0.0
        w = w if shape else np.zeros(())
        parts = owned(name, given, parameters)
        found.append(Case(name, f"weight {parameters}", given, {**parameters, "weight": w}, parts))
    if "prediction" in loss.record.inputs and "class_weight" in loss.record.inputs:
        found += regions(name)
    found += particular(name)
    return found


def regions(name):
    """Pixels and classes of regions."""
    second = [k for k in fl.LOSSES[name].record.inputs][1]
    rng = np.random.default_rng(6)
    z, mask = rng.uniform(0.1, 0.9, (3, 3, 8)), np.ones((3, 8), bool)
    mask[1, 3:5] = False
    labels, hard = rng.integers(0, 3, (3, 8)), (rng.random(z.shape) < 0.5).astype(float)
    c = np.array([1.0, 0.0, 2.0])
    pixels = {"prediction": (1, slice(None), slice(3, 5))}
    of_class = {"prediction": (slice(None), 1)}
    own = fl.LOSSES[name].record.parameters
    found = []
    for activation in (None, "sigmoid", "softmax"):
        more = {"activation": activation} if "activation" in own else {}
        given = {"prediction": z, second: hard}
        found.append(
            Case(name, f"mask {activation}", given, {**more, "mask": mask}, {**pixels, second: pixels["prediction"]})
        )
        if second == "target":
            ignored = np.where(mask, labels, -100)
            found.append(Case(name, f"ignore_index {activation}", {"prediction": z, second: ignored}, more, pixels))
            tagged = {"prediction": z, second: labels}
            both = {**pixels, second: (1, slice(3, 5))}
            found.append(Case(name, f"mask of labels {activation}", tagged, {**more, "mask": mask}, both))
        parts = {second: of_class["prediction"]} | (of_class if activation != "softmax" else {})
        found.append(Case(name, f"class weight {activation}", given, {**more, "class_weight": c}, parts))
        if "include_background" in own:
            parts = {k: (slice(None), 0) for k in parts}
            found.append(Case(name, f"background {activation}", given, {**more, "include_background": False}, parts))
    return found


def particular(name):
    """Parts that only one loss has."""
    given = array_cases.inputs(name)
    if name in ("wasserstein_samples", "energy_distance", "cramer"):
        for k in ("x_weight", "y_weight"):
            given[k][1, 3] = given[k][2, 0] = 0.0
        at = (np.array([1, 2]), np.array([3, 0]))
        return [Case(name, "mass", given, {}, {"x": at, "y": at})]
    if name == "auc_pairwise":
        given["sample_weight"][[3, 20]] = 0.0
        return [Case(name, "sample_weight", given, {}, {"scores": (np.array([3, 20]),)})]
    if name == "sequence_cross_entropy":
        lengths, mask, labels = given["lengths"], given["mask"].copy(), given["labels"]
        away = ~((np.arange(labels.shape[1]) < lengths[:, None]) & mask)
        found = [Case(name, "lengths and mask", given, {}, {"logits": (away,), "labels": (away,)})]
        return [*found, Case(name, "ignore_index", given, {}, {"logits": (labels == -100,)})]
    if name in ("perplexity", "bits_per_byte"):
        away = ~given["mask"]
        ignored = given["labels"] == -100
        return [
            Case(name, "mask", given, {}, {"logits": (away,), "labels": (away,)}),
            Case(name, "ignore_index", given, {}, {"logits": (ignored,)}),
        ]
    if name == "linear_cross_entropy":
        ignored = given["labels"] == -100
        given["class_weight"][given["labels"][0]] = 0.0
        more = {"label_smoothing": 0.1, "chunk": 5}
        none = {k: a for k, a in given.items() if k != "class_weight"}
        return [
            Case(name, "ignore_index", given, {}, {"hidden": (ignored,)}),
            Case(name, "ignore_index, smoothing", none, more, {"hidden": (ignored,)}),
            Case(name, "class weight", given, {}, {"hidden": (given["labels"] == given["labels"][0],)}),
        ]
    if name == "ctc":
        past = np.arange(len(given["log_probs"]))[:, None] >= given["input_lengths"]
        more = np.arange(given["targets"].shape[1]) >= given["target_lengths"][:, None]
        return [Case(name, "lengths", given, {}, {"log_probs": (past,), "targets": (more,)})]
    if name == "unlikelihood":
        return [Case(name, "no candidates", given, {}, {"logits": (-1,)})]
    return []


def cases(name):
    """All calls of a loss."""
    return {"elementwise": elementwise, "rows": rows}.get(fl.LOSSES[name].record.family, arrays)(name)


def bad_values(case, key):
    """What the part may hold: NaN, infinities, and what is outside of the domain."""
    record, a = fl.LOSSES[case.name].record, case.given[key]
    if record.family == "arrays":
        spec = record.inputs[key]
        if spec.kind in KEPT:
            return []
        if a.dtype.kind in "iu":
            return [10**6, -7]
        outside = outsiders(spec.domain)
        if spec.kind == "regions" or (key == "prediction" and "activation" in record.parameters):
            outside = [-1.0, 2.0]
    else:
        if a.dtype.kind in "iu":
            return [10**6, -7]
        domains = dict(zip(record.predictions, record.prediction_domains, strict=True))
        outside = outsiders(domains.get(key, record.target_domain))
    return [np.nan, np.inf, -np.inf, *outside]


def is_unused(case, key):
    """Whether an input has no part in the loss: a reference model's, without a divergence from it."""
    return key == "ref_log_prob" and not case.options.get("beta")


NO_SLOPE = {
    # The slope is minus the target, whatever the log-probability.
    ("nll", "z"),
    ("kl_div", "z"),
    # Linear in the log-probability and the entropy.
    ("reinforce", "log_prob"),
    ("reinforce", "entropy"),
    ("self_critical", "log_prob"),
}
"""Losses whose gradient does not depend on an input, and so is no NaN where that is."""


APART = {("mean", "log_var"), ("prior_mean", "log_var"), ("log_var", "mean"), ("log_var", "prior_mean")}
"""Inputs of kl_gaussian, and others by which the gradient does not depend on them."""


SIDES = {"chosen": "chosen", "ref_chosen": "chosen", "rejected": "rejected", "ref_rejected": "rejected"}
"""Side of an answer that each input of dpo belongs to."""

BY_SIDE = ("bco_pair", "nca_pair", "sppo_hard", "apo_zero")
"""Variants of dpo that are a sum of terms of either side."""


def no_slope(case, key, by):
    """Whether the gradient by one input is no NaN where another is."""
    name = case.name
    if name == "dpo" and case.options.get("variant") in BY_SIDE:
        return SIDES[key] != SIDES[by]
    if name == "kl_gaussian" and (key, by) in APART:
        return True
    return (name, key) in NO_SLOPE or (name, by) == ("reinforce", "entropy")


def run(case, given, dtype=np.float64, put=lambda a: a, **more):
    """The value and the gradients by input, in a precision."""
    loss, record = fl.LOSSES[case.name], fl.LOSSES[case.name].record

    def made(a):
        if not isinstance(a, np.ndarray):
            return a
        return put(a.astype(dtype) if a.dtype.kind == "f" else a)

    with np.errstate(over="ignore"):
        named = {k: made(a) for k, a in given.items()}
        options = {k: made(a) for k, a in {**case.options, **more}.items()}
    if record.family == "arrays":
        keys = [k for k in record.predictions if k in given]
        value, grads = loss.value_and_grad(**named, **options)
    else:
        keys = list(record.predictions)
        z = tuple(named[k] for k in keys)
        value, grads = loss.value_and_grad(z if len(z) > 1 else z[0], named.get("t"), **options)
    return value, dict(zip(keys, grads if len(keys) > 1 else (grads,), strict=True))


def planted(case):
    """Copies of the inputs in which the part holds what it should not: input, what, the inputs."""
    for key, index in case.parts.items():
        for bad in bad_values(case, key):
            a = case.given[key].copy()
            a[index] = bad
            yield key, bad, {**case.given, key: a}


__all__ = ["cases", "planted", "run", "shape_of"]
