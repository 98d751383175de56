"""Sample rows of scores and their targets, and the parameters to test, for every loss of rows."""

import numpy as np
import pytest
from numba import config

import fastloss as fl
from fastloss.spec.record import LOOPS

ROWS = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "rows"}
VARIANTS = {
    "cross_entropy": [
        {},
        {"label_smoothing": 0.1},
        {"temperature": 2.5},
        {"logit_scale": 0.3, "z_loss": 1e-2},
        {"label_smoothing": 0.3, "z_loss": 0.1, "temperature": 0.7},
    ],
    "softmax_focal": [{}, {"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 1.0}, {"temperature": 2.0}],
    "poly1_cross_entropy": [{}, {"epsilon": -0.5}, {"logit_scale": 2.0}],
    "generalized_cross_entropy": [{}, {"q": 0.1}, {"q": 1.0}],
    "js_div": [{}, {"beta": 0.1}],
    "multi_margin": [{}, {"p": 2.0}, {"margin": 0.3}],
    "crammer_singer": [{}, {"margin": 0.3}, {"margin": 0.0}],
    "crps_ensemble": [{}, {"fair": True}],
    "label_relaxation": [{}, {"alpha": 0.0}, {"alpha": 0.4, "temperature": 2.0}],
    "dirichlet_evidential": [{}, {"lam": 0.0}, {"lam": 0.25}],
    "distillation": [{}, {"temperature": 1.0}, {"temperature": 0.7}],
    "arcface": [{}, {"margin": 0.0}, {"margin": 1.5, "scale": 4.0}],
    "cosface": [{}, {"margin": 0.1, "scale": 8.0}],
}


def probabilities(rng, n, k, dtype=np.float64):
    """Rows of probabilities, some of them 0."""
    t = rng.gamma(0.5, size=(n, k)) * (rng.random((n, k)) < 0.8)
    t[:, 0] += 0.01
    return (t / t.sum(axis=1, keepdims=True)).astype(dtype)


def scores(rng, name, n, k, dtype, spread=3.0):
    """Logits, or log-probabilities where the loss takes them."""
    z = rng.normal(0, spread, (n, k))
    if ROWS[name].record.loop in ("log_probs", "divergence"):
        z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
    return (np.tanh(z / spread / 2) if ROWS[name].record.loop == "angular" else z).astype(dtype)


def targets(rng, name, kind, n, k, dtype):
    if name == "crps_ensemble":
        return rng.normal(size=n).astype(dtype)
    if kind == "labels":
        return rng.integers(0, k + (name == "ordinal"), n)
    if name == "distillation":
        return rng.normal(0, 2, (n, k)).astype(dtype)
    # Where a target is 0, reverse_kl is infinite.
    return rng.dirichlet(np.ones(k), n).astype(dtype) if name == "reverse_kl" else probabilities(rng, n, k, dtype)


def kinds(name):
    """The kinds of target that a loss takes."""
    loop = LOOPS[ROWS[name].record.loop]
    return ("labels",) * loop.labels + {"": (), "number": ("observed",)}.get(loop.dense, ("dense",))


DTYPES = [np.float32, np.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
# Below 33 classes labels go through a transposed tile, from there on row by row; 512 is the block of a sum.
CLASSES = [1, 2, 3, 10, 31, 32, 33, 100, 1000]
if config.DISABLE_JIT:
    CLASSES = [1, 2, 3, 10, 33]
SOFTMAX = ["cross_entropy", "softmax_focal", "poly1_cross_entropy", "generalized_cross_entropy", "label_relaxation"]
CURVED = [name for name, loss in ROWS.items() if loss.record.second]
