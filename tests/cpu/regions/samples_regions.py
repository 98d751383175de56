"""Sample inputs of the losses of regions: small images with soft, hard, ignored and missing pixels."""

import numpy as np
from array_cases import Sample

SIGMOID, SOFTMAX, BATCH = {"activation": "sigmoid"}, {"activation": "softmax"}, {"per": "batch"}


def soft(rng):
    """Soft targets away from the probabilities, as they are and after either activation."""
    prediction = rng.uniform(0.02, 0.98, (3, 3, 4, 5))
    target = np.where(rng.random(prediction.shape) < 0.6, rng.random(prediction.shape) < 0.5, 0.05)
    target[1] = np.where(prediction[1] < 0.5, 0.99, 0.01)
    return {"prediction": prediction, "target": target}


def labels(rng):
    """Labels, of which the last sample has none that counts, a mask and weights of classes."""
    target = rng.integers(0, 3, (3, 4, 5))
    target[0, 0, :3] = -100
    target[2] = -100
    mask = np.ones((3, 4, 5), bool)
    mask[1, 2] = False
    weight = np.array([1.0, 0.0, 2.5])
    return {"prediction": soft(rng)["prediction"], "target": target, "mask": mask, "class_weight": weight}


def label_counts(target, mask, per="sample", **_):
    """A sample counts if any of its pixels does."""
    some = ((target != -100) & (mask != 0)).reshape(len(target), -1).any(axis=1)
    return some if per == "sample" else some.any()


def distances(rng):
    """Distances to a border, and a mask."""
    shape = (3, 2, 7)
    mask = rng.random((3, 7)) < 0.7
    return {"prediction": rng.uniform(0.02, 0.98, shape), "distance": rng.normal(0, 3, shape), "mask": mask}


def hard(rng):
    """Scores, and regions of which the last class of the first sample has none."""
    target = (rng.random((3, 2, 4, 5)) < 0.4).astype(float)
    target[0, 1] = 0.0
    return {"prediction": rng.normal(0, 1.5, target.shape), "target": target}


def nothing(second="target"):
    return lambda: {"prediction": np.empty((0, 2, 3)), second: np.empty((0, 2, 3))}


SAMPLES = {
    "dice": Sample(
        labels,
        [{}, {**SOFTMAX, "include_background": False}, {**SIGMOID, "squared": True, **BATCH, "smooth_num": 0.5}],
        counted=label_counts,
        empty=nothing(),
    ),
    "jaccard": Sample(soft, [{}, {**SIGMOID, "squared": True}, {**SOFTMAX, "average": "micro"}], empty=nothing()),
    "tversky": Sample(
        soft,
        [{}, {**SIGMOID, "alpha": 0.3, "beta": 0.7, **BATCH}, {**SOFTMAX, "overlap": "product", "log": True}],
        empty=nothing(),
    ),
    "focal_tversky": Sample(soft, [{}, {**SOFTMAX, "gamma": 2.0, "alpha": 0.3, "beta": 0.7}], empty=nothing()),
    "generalized_dice": Sample(
        labels, [{}, {**SOFTMAX, "weighting": "simple", **BATCH}], counted=label_counts, empty=nothing()
    ),
    "mcc": Sample(soft, [{}, {**SOFTMAX, **BATCH}, {**SIGMOID, "average": "micro"}], empty=nothing()),
    "lovasz_hinge": Sample(hard, [{}, BATCH], empty=nothing()),
    "lovasz_softmax": Sample(
        labels, [{}, {**SOFTMAX, **BATCH}, {**SIGMOID, "classes": "all"}], counted=label_counts, empty=nothing()
    ),
    "boundary": Sample(distances, [{}, SIGMOID, {**SOFTMAX, **BATCH}], empty=nothing("distance")),
}
