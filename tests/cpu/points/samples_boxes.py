"""Sample inputs of the losses of boxes."""

import numpy as np
from array_cases import Sample

from fastloss.reference import boxes


def pairs(rng, n=24):
    """Boxes that overlap their targets, lie within them, or lie apart; as centres and sizes they are boxes too."""
    target = np.sort(rng.normal(0, 2, (n, 2, 2)), axis=1).reshape(n, 4)
    near = np.sort(target.reshape(n, 2, 2) + rng.normal(0, 0.7, (n, 2, 2)), axis=1).reshape(n, 4)
    return {"boxes": near, "target": target}


def frozen(**given):
    """The factor of the aspect ratios in ciou, which its derivatives hold constant."""
    pair = boxes.Pair(given["boxes"], given["target"], given.get("box_format", "xyxy"))
    return {"alpha": boxes.ratio(pair.v, 1 - pair.iou + pair.v)}


def sample(**more):
    formats = [{}, {"box_format": "cxcywh"}]
    return Sample(pairs, formats, empty=lambda: {"boxes": np.empty((0, 4)), "target": np.empty((0, 4))}, **more)


SAMPLES = {
    "iou": sample(),
    "giou": sample(),
    "diou": sample(),
    "ciou": sample(held=frozen),
    "siou": sample(),
}
SAMPLES["siou"].variants.append({"theta": 2.5})
