"""Sample inputs of the losses of boxes."""

import numpy as np
from array_cases import Sample


def pairs(rng, n=24):
    """Boxes that overlap their targets, lie within them, or lie apart."""
    target = np.sort(rng.normal(0, 2, (n, 2, 2)), axis=1).reshape(n, 4)
    boxes = np.sort(target.reshape(n, 2, 2) + rng.normal(0, 0.7, (n, 2, 2)), axis=1).reshape(n, 4)
    return {"boxes": boxes, "target": target}


SAMPLES = {
    "iou": Sample(pairs, empty=lambda: {"boxes": np.empty((0, 4)), "target": np.empty((0, 4))}),
}
