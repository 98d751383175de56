"""Sample inputs of the losses of survival times."""

import numpy as np
from array_cases import Sample


def times(rng, n=30):
    """Times that were seen, censored on either side, or in an interval, wide or narrow."""
    lower = rng.gamma(2.0, 2.0, n)
    upper = lower * rng.choice([1.0, 1.1, 3.0], n)
    upper[::5] = np.inf
    lower[1::5] = 0.0
    return {"prediction": rng.normal(1, 0.7, n), "lower": lower, "upper": upper}


WORDS = ("normal", "logistic", "extreme")
SAMPLES = {
    "aft": Sample(
        times,
        [{}, {"sigma": 0.6}, *({"distribution": word, "sigma": 1.4} for word in WORDS[1:])],
        empty=lambda: {k: np.empty(0) for k in ("prediction", "lower", "upper")},
    )
}
