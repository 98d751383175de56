"""Sample inputs of the losses of two views of a batch."""

import numpy as np
from array_cases import Sample


def views(rng):
    """Two views of samples; some columns vary too little, some enough."""
    z1 = rng.normal(size=(12, 5)) * np.array([0.3, 0.6, 0.9, 1.6, 2.0])
    return {"z1": z1, "z2": z1 + 0.4 * rng.normal(size=z1.shape)}


def nothing():
    return {"z1": np.empty((0, 3)), "z2": np.empty((0, 3))}


SAMPLES = {
    "barlow_twins": Sample(views, [{}, {"lam": 0.3, "eps": 0.1}], empty=nothing, independent=False),
    "vicreg": Sample(
        views,
        [{}, {"sim": 1.0, "var": 3.0, "cov": 2.0, "gamma": 1.3, "eps": 0.1}],
        empty=nothing,
        independent=False,
    ),
}
