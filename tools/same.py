"""Execute the expressions of tools/elsewhere.py: `python -m tools.same` checks all libraries that are installed."""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import fastloss as fl

from .elsewhere import LIBRARIES, Library, Same

__all__ = ["difference", "differences", "samples"]

N, K, D = 8, 4, 6


def samples() -> dict[str, Any]:
    """Return the variables of the expressions, in float64."""
    rng = np.random.default_rng(0)
    real = {name: rng.normal(size=N) for name in ("z", "t", "x")}
    positive = {name: rng.uniform(0.5, 3.0, N) for name in ("mu", "a", "v")}
    bits = rng.permutation(np.arange(N) % 2).astype(float)
    weights = rng.uniform(0.1, 1.0, (N, K))
    logits, labels = rng.normal(size=(N, K)), np.arange(N) % K
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    corners = rng.uniform(0.0, 3.0, (2, N, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1.0, 3.0, (2, N, 2))], axis=2)
    pixels = np.exp(rng.normal(size=(2, 3, 4, 5)))
    histograms = rng.uniform(0.1, 1.0, (2, 5))
    histograms /= histograms.sum(1, keepdims=True)
    places = np.arange(5.0)
    return {
        **real,
        **positive,
        "eta": np.log(positive["mu"]),
        "n": rng.integers(1, 6, N).astype(float),
        "p": 1.0 / (1.0 + np.exp(-real["x"])),
        "b": bits,
        "s": 2.0 * bits - 1.0,
        "Z": logits,
        "P": probabilities,
        "lp": np.log(probabilities),
        "y": labels,
        "y2": np.arange(N) // 2,
        "Q": weights / weights.sum(1, keepdims=True),
        "H": np.eye(K)[labels],
        **dict(zip("ABC", rng.normal(size=(3, N, D)), strict=True)),
        "W": rng.normal(size=(K, D)),
        "d1": rng.uniform(0.0, 2.0, N),
        "d2": rng.uniform(0.0, 2.0, N),
        "box": boxes[0],
        "box2": boxes[1],
        "M": pixels / pixels.sum(1, keepdims=True),
        "Y": np.moveaxis(np.eye(3)[rng.integers(0, 3, (2, 4, 5))], -1, 1),
        "u1": rng.normal(size=9),
        "u2": rng.normal(size=9),
        "h1": histograms[0],
        "h2": histograms[1],
        "cost": (places[:, None] - places) ** 2 / 16.0,
        "L": rng.normal(size=(3, 4, K)),
        "words": rng.integers(0, K, (3, 4)),
        "rel": rng.integers(0, 4, N).astype(float),
        "K": K,
        "np": np,
    }


def _tensors(given: dict[str, Any]) -> dict[str, Any]:
    """Return the variables as tensors, and the names of PyTorch's expressions."""
    import torch

    functional = torch.nn.functional
    found = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    return {
        **found,
        "torch": torch,
        "F": functional,
        "unit": functional.normalize,
        "kernel": lambda a, b: torch.exp(-(torch.cdist(a, b) ** 2) / 2.0),
    }


def _modules(**paths: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda given: {**given, **{name: import_module(path) for name, path in paths.items()}}


def _optax(given: dict[str, Any]) -> dict[str, Any]:
    import jax

    jax.config.update("jax_enable_x64", True)
    found = {k: jax.numpy.asarray(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    return {**found, "optax": import_module("optax")}


def _keras(given: dict[str, Any]) -> dict[str, Any]:
    os.environ["KERAS_BACKEND"] = "numpy"
    keras = import_module("keras")
    keras.backend.set_floatx("float64")
    return {**given, "losses": keras.losses}


def _catboost(given: dict[str, Any]) -> dict[str, Any]:
    evaluate = import_module("catboost.utils").eval_metric
    return {**given, "metric": lambda *arguments: evaluate(*arguments)[0]}


NAMESPACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "PyTorch": _tensors,
    "scikit-learn": _modules(metrics="sklearn.metrics"),
    "SciPy": _modules(special="scipy.special", stats="scipy.stats", spatial="scipy.spatial", optimize="scipy.optimize"),
    "statsmodels": _modules(norms="statsmodels.robust.norms", families="statsmodels.genmod.families"),
    "POT": _modules(ot="ot"),
    "CatBoost": _catboost,
    "optax": _optax,
    "Keras": _keras,
    "MONAI": lambda given: _modules(monai="monai", giou="monai.losses.giou_loss")(_tensors(given)),
    "pytorch-metric-learning": lambda given: _modules(losses="pytorch_metric_learning.losses")(_tensors(given)),
}
"""Function that adds a library's names to the variables, by the library's name."""


def difference(library: Library, same: Same, given: dict[str, Any]) -> float:
    """Return the relative difference of two expressions of one number, or of one gradient."""
    factor = float(eval(same.factor, given))
    if library.name in DERIVATIVES:
        prediction, target, expected = _gradient(same, given)
        found = DERIVATIVES[library.name](same.theirs, prediction, target)
        return float(np.max(np.abs(factor * expected - found) / np.maximum(np.abs(found), 1e-2)))
    ours = factor * float(eval(f"fl.{same.ours}", {**given, "fl": fl}))
    theirs = float(eval(same.theirs, NAMESPACES[library.name](given)))
    return abs(ours - theirs) / max(abs(theirs), 1e-2)


def _gradient(same: Same, given: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return prediction and target of a call, in the library's code of labels, and the gradient of the sum here."""
    called: list[Any] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            def call(prediction: Any, target: Any, **parameters: Any) -> None:
                grad = fl.LOSSES[name].value_and_grad(prediction, target, reduction="sum", **parameters)[1]
                called.extend((prediction, target, grad))

            return call

    eval(f"fl.{same.ours}", {**given, "fl": Recorder()})
    prediction, target, grad = called
    return prediction, given["b"] if target is given["s"] else target, grad


def _xgboost(objective: str, prediction: Any, target: Any) -> Any:
    """Return the gradients of an objective: of one row, a leaf is -G / (H + lambda) for two values of lambda."""
    import xgboost

    def leaf(z: float, t: float, penalty: float) -> float:
        data = xgboost.DMatrix(np.zeros((1, 1)), np.array([t]), base_margin=np.array([z]))
        settings = {"objective": objective, "eta": 1.0, "lambda": penalty, "min_child_weight": 0.0, "nthread": 1}
        settings |= {"max_delta_step": 0.0, "base_score": 0.5, "verbosity": 0}
        model = xgboost.train(settings, data, 1)
        return float(model.predict(data, output_margin=True)[0]) - z

    return np.array(
        [_slope(leaf(z, t, 0.5), leaf(z, t, 2.5), 0.5, 2.5) for z, t in zip(prediction, target, strict=True)]
    )


COPIES = 200
"""Copies of a row in a leaf of LightGBM."""


def _lightgbm(objective: str, prediction: Any, target: Any) -> Any:
    """Return the gradients of an objective, from the leaves of trees that part two rows."""
    import lightgbm

    def leaves(rows: list[int], penalty: float) -> Any:
        settings = {"objective": objective, "learning_rate": 1.0, "num_leaves": 2, "min_data_in_leaf": 1}
        settings |= {"min_sum_hessian_in_leaf": 0.0, "min_data_in_bin": 1, "lambda_l2": penalty, "num_threads": 1}
        settings |= {"boost_from_average": False, "verbosity": -1, "feature_pre_filter": False}
        # Many copies of each row, so that lambda outweighs no gain: the leaves are -copies G / (copies H + lambda).
        x, copies = np.array([[0.0], [1.0]]), np.repeat([0, 1], COPIES)
        chosen = np.array(rows)[copies]
        data = lightgbm.Dataset(x[copies], target[chosen], init_score=prediction[chosen], params=settings)
        return lightgbm.train(settings, data, 1).predict(x, raw_score=True)

    found = np.zeros(len(target))
    for i in range(len(target)):
        for j in range(len(target)):
            # Two rows are parted where their best scores differ enough.
            first, second = leaves([i, j], 0.5), leaves([i, j], 5.0)
            if j != i and first[0] and second[0]:
                found[i] = _slope(first[0], second[0], 0.5, 5.0) / COPIES
                break
    return found


def _slope(a: float, b: float, first: float, second: float) -> float:
    """Return G from two leaves -G / (H + lambda)."""
    return (second - first) / (1.0 / a - 1.0 / b) if a != b else 0.0


DERIVATIVES = {"XGBoost": _xgboost, "LightGBM": _lightgbm}
"""Function that returns the gradients of an objective, by library."""


def differences(library: Library) -> dict[str, float]:
    """Return the relative difference of each pair of expressions of a library."""
    given = samples()
    return {f"{same.ours} | {same.theirs}": difference(library, same, given) for same in library.same}


def main() -> None:
    """Print the largest difference of each installed library."""
    for library in LIBRARIES:
        if find_spec(library.module) is None:
            print(f"{library.name}: not installed")
            continue
        found = differences(library)
        wrong = {k: v for k, v in found.items() if not v <= library.tolerance}
        print(f"{library.name}: {len(found)} expressions, largest difference {max(found.values()):.1e}", *wrong.items())


if __name__ == "__main__":
    main()
