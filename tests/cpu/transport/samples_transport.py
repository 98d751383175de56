"""Sample inputs of the losses of transport."""

import numpy as np
from array_cases import Sample


def histograms(rng, rows=(3, 6), k=11):
    """Histograms of any mass, some bins empty on one side."""
    target = rng.gamma(1.0, 1.0, (*rows, k))
    target[..., 4] = 0.0
    return {
        "prediction": rng.gamma(1.0, 1.0, (*rows, k)) + 0.01,
        "target": target,
        "positions": np.cumsum(rng.uniform(0.2, 1.5, k)),
    }


def plain_histograms(rng):
    """Without positions, one row alone."""
    given = histograms(rng, ())
    return {k: given[k] for k in ("prediction", "target")}


def samples(rng, rows=5, n=7, m=9):
    """Two samples a row, with weights."""
    weights = {"x_weight": rng.uniform(0.1, 2.0, (rows, n)), "y_weight": rng.uniform(0.1, 2.0, (rows, m))}
    return {"x": rng.normal(0, 1, (rows, n)), "y": rng.normal(0.3, 1.5, (rows, m)), **weights}


def clouds(rng, n=9, m=7, d=3):
    """Two clouds of points that overlap."""
    return {"x": rng.normal(0, 1, (n, d)), "y": rng.normal(0.4, 0.8, (m, d))}


def problem(rng, n=9, m=7):
    """Two histograms and costs."""
    return {"a": rng.uniform(0.2, 1.0, n), "b": rng.uniform(0.2, 1.0, m), "cost": rng.uniform(0.0, 1.0, (n, m))}


def empty_clouds():
    return {"x": np.empty((0, 3)), "y": np.empty((0, 3))}


def empty_samples():
    return {"x": np.empty(0), "y": np.empty(0)}


# Differences of the reference need potentials to the last digit; the reference itself takes no tolerance.
CONVERGED = {"tolerance": 1e-13, "max_iterations": 20000}

SAMPLES = {
    "wasserstein_1d": Sample(
        histograms,
        [{}, {"p": 2.0}],
        empty=lambda: {"prediction": np.empty((0, 5)), "target": np.empty((0, 5))},
    ),
    "wasserstein_samples": Sample(samples, [{}, {"p": 2.0}], empty=empty_samples),
    # A square root of a difference of means of distances, each some times as large as it.
    "energy_distance": Sample(samples, empty=empty_samples, condition=4.0),
    "cramer": Sample(samples, empty=empty_samples, condition=4.0),
    "sliced_wasserstein": Sample(clouds, [{"n_projections": 6}, {"p": 1.0, "seed": 3}], empty=empty_clouds),
    # In float32 a difference of 1e-7 in a cost counts 1 / epsilon times.
    "sinkhorn": Sample(
        problem,
        [CONVERGED, {"epsilon": 0.5, **CONVERGED}],
        empty=lambda: {"a": np.empty(0), "b": np.empty(0), "cost": np.empty((0, 0))},
        condition=10.0,
    ),
    "sinkhorn_points": Sample(
        clouds,
        [{"epsilon": 1.0, **CONVERGED}, {"epsilon": 1.0, "debias": True, **CONVERGED}],
        empty=empty_clouds,
        condition=10.0,
    ),
    # A difference of three means, each up to 1, in float32.
    "mmd": Sample(clouds, [{}, {"unbiased": False, "sigma": 0.7}], empty=empty_clouds, condition=4.0),
}
