"""Sample inputs of the losses of uncertain predictions."""

import numpy as np
from array_cases import Sample


def gaussians(rng, n=20):
    """Two Gaussians each."""
    return {k: rng.normal(size=n) for k in ("mean", "log_var", "prior_mean", "prior_log_var")}


def dirichlets(rng):
    """Two Dirichlet distributions each, of four classes."""
    return {k: rng.gamma(2.0, 1.5, (10, 4)) + 0.2 for k in ("alpha", "prior")}


def quantiles(rng):
    """Five quantiles of a target each."""
    return {
        "scores": rng.normal(size=(12, 5)) - [2.0, 0.0, 0.0, 0.0, 0.0],
        "target": rng.normal(size=12),
        "levels": np.array([0.05, 0.25, 0.5, 0.75, 0.95]),
    }


def noisy(rng):
    """Logits, their variances, labels."""
    return {
        "logits": rng.normal(0, 1.5, (9, 4)),
        "log_var": rng.normal(-0.5, 1.0, (9, 4)),
        "labels": rng.integers(0, 4, 9),
    }


def confidences(rng):
    """Confidences, and whether they were justified."""
    confidence = rng.uniform(0.02, 0.98, 40)
    return {"confidence": confidence, "correct": (rng.random(40) < confidence**2).astype(int)}


SAMPLES = {
    "kl_gaussian": Sample(gaussians, empty=lambda: {"mean": np.empty(0), "log_var": np.empty(0)}),
    "kl_dirichlet": Sample(dirichlets, empty=lambda: {"alpha": np.empty((0, 4))}),
    "ordered_quantiles": Sample(
        quantiles,
        empty=lambda: {"scores": np.empty((0, 2)), "target": np.empty(0), "levels": np.array([0.1, 0.9])},
    ),
    # The draws of a row depend on its index.
    "heteroscedastic_cross_entropy": Sample(
        noisy,
        [{}, {"samples": 3, "seed": 7}],
        independent=False,
        empty=lambda: {"logits": np.empty((0, 3)), "log_var": np.empty((0, 3)), "labels": np.empty(0, int)},
    ),
    # One value for all samples.
    "soft_calibration_error": Sample(
        confidences,
        [{}, {"bins": 6, "temperature": 0.05, "p": 1.0}, {"p": 3.0}],
        independent=False,
        empty=lambda: {"confidence": np.empty(0), "correct": np.empty(0, int)},
    ),
}
