"""A call of every loss, in float64 and off the kinks, for checks that need derivatives to agree with differences."""

import numpy as np
import row_cases
from array_cases import SAMPLES
from array_cases import inputs as sample

import fastloss as fl

NAMES = list(fl.LOSSES)
HELD = {name for name, s in SAMPLES.items() if s.held is not None}
"""Losses whose derivative holds a part constant on purpose, so that differences of their values disagree."""


def _numbers(domain, rng, shape):
    """Numbers of a domain away from its ends and from 0."""
    for low, high in ((-2.0, 2.0), (0.3, 2.0), (0.1, 0.9), (1.1, 3.0)):
        x = rng.uniform(low, high, shape)
        if not np.any(domain.outside(x)):
            return x
    for signs in ((-1.0, 1.0), (0.0, 1.0), (1.0, 2.0)):
        x = rng.choice(signs, shape)
        if not np.any(domain.outside(x)):
            return x
    raise ValueError(f"no numbers of {domain} are known")


def case(name, seed=3):
    """Return (arrays by position, arrays by name) of a call."""
    record, rng = fl.LOSSES[name].record, np.random.default_rng(seed)
    if record.family == "arrays":
        return (), sample(name)
    if record.family == "rows":
        kind = row_cases.kinds(name)[0]
        z = row_cases.scores(rng, name, 4, 3, np.float64, 1.0)
        return (z, row_cases.targets(rng, name, kind, 4, 3, np.float64)), {}
    predictions = tuple(_numbers(d, rng, (7,)) for d in record.prediction_domains)
    first = predictions if len(predictions) > 1 else predictions[0]
    return (first,) if record.target is None else (first, _numbers(record.target_domain, rng, (7,))), {}
