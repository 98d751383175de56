"""Fairness losses beside the textbook in NumPy."""

import numpy as np

import fastloss as fl

from .case import Bench


def odds_numpy(scores, labels, group, count):
    """Squared gaps of true and false positive rates, and their gradient, by bincount."""
    p = 1 / (1 + np.exp(-scores))
    cell = 2 * group + labels
    mass = np.bincount(cell, minlength=2 * count).reshape(count, 2)
    rate = np.bincount(cell, p, 2 * count).reshape(count, 2) / mass
    gap = rate - (rate * mass).sum(axis=0) / mass.sum(axis=0)
    slope = gap / mass - gap.sum(axis=0) / mass.sum(axis=0)
    return float((gap**2).mean()), slope.reshape(-1)[cell] * p * (1 - p) / count


def odds(n, count):
    def make():
        rng = np.random.default_rng(0)
        scores = rng.standard_normal(n, np.float32)
        labels, group = rng.integers(0, 2, n), rng.integers(0, count, n)
        return {
            "fastloss": lambda: fl.equalized_odds.value_and_grad(scores, labels, group),
            "numpy": lambda: odds_numpy(scores, labels, group, count),
        }

    return make


BENCHES = [
    Bench("equalized_odds, 1e6 samples of 8 groups", odds(1_000_000, 8), "numpy", 1.0),
    Bench("equalized_odds, 1000 samples of 2 groups", odds(1000, 2)),
]
