"""Blends: the convex combination of several models' predictions that minimises a loss."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..call import check
from ..call.arrays import incoming
from ..call.errors import CallTypeError, CallValueError, naming
from ..losses.base import Loss
from ..spec.record import UNIT
from .balance.quadratic import minimum
from .linear.objective import MeanLoss
from .linear.smoothing import MAJORANTS, smoothed
from .linear.targets import loss_of
from .optim_checks import number, whole

__all__ = ["Blend", "blend"]

STEPS = 200
"""Largest number of steps of one fit."""

ACCURACY = 1e-10
"""Expected decrease, relative to the loss, below which a fit ends."""


class Blend:
    """Result of `fastloss.blend`: weights of models, and what they gain.

    Attributes
    ----------
    weights : (m,) array
        Weights of the models, at least 0, of sum 1.
    names : tuple of str
        Names of the models.
    loss : float
        Mean loss of the blend on the samples that the weights were fitted on.
    losses : (m,) array
        Mean loss of each model.
    out_of_fold : float
        Mean loss of the blend on samples that its weights were not fitted on.
    gain : float
        Mean loss of the best single model, chosen on the other folds, less `out_of_fold`.
    gain_interval : tuple of float
        Confidence interval of the gain.
    intervals : (m, 2) array
        Bootstrap intervals of the weights.
    confidence : float
        Confidence of the intervals.
    """

    def __init__(self, **fields: Any) -> None:
        self.weights, self.names, self.loss, self.losses = (fields[k] for k in ("weights", "names", "loss", "losses"))
        self.out_of_fold, self.gain, self.gain_interval = (fields[k] for k in ("out_of_fold", "gain", "gain_interval"))
        self.intervals, self.confidence, self.loss_name = (fields[k] for k in ("intervals", "confidence", "loss_name"))

    def predict(self, predictions: Any) -> Any:
        """Return the blend of other predictions of the same models."""
        parts, _ = _parts(predictions)
        if len(parts) != len(self.weights):
            problem = f"holds {len(parts)} models; expected {len(self.weights)}"
            raise CallValueError(problem, "predictions", loss="blend")
        return sum(w * np.asarray(p) for w, p in zip(self.weights, parts, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain numbers, lists and texts."""
        found = {"loss": self.loss_name, "mean": self.loss, "out_of_fold": self.out_of_fold, "gain": self.gain}
        found |= {"gain_interval": list(self.gain_interval), "confidence": self.confidence}
        rows = zip(self.names, self.weights, self.intervals, self.losses, strict=True)
        models = [{"name": n, "weight": float(w), "interval": i.tolist(), "loss": float(x)} for n, w, i, x in rows]
        return {**found, "models": models}

    def __str__(self) -> str:
        width = max([5, *map(len, self.names)])
        share = f"{100.0 * self.confidence:g}%"
        lines = [f"{'model':<{width}}  weight  {share + ' interval':<15}  {self.loss_name}"]
        for name, w, (low, high), x in zip(self.names, self.weights, self.intervals, self.losses, strict=True):
            lines.append(f"{name:<{width}}  {w:6.3f}  {f'{low:.3f} to {high:.3f}':<15}  {x:.6g}")
        lines.append(f"{'blend':<{width}}  {'':6}  {'':15}  {self.loss:.6g}, out of fold {self.out_of_fold:.6g}")
        low, high = self.gain_interval
        verdict = "gains on" if low > 0.0 else "loses to" if high < 0.0 else "cannot be told from"
        lines.append(f"The blend {verdict} the best single model: {self.gain:.3g} ({share}: {low:.3g} to {high:.3g}).")
        return "\n".join(lines)

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}={w:.3f}" for n, w in zip(self.names, self.weights, strict=True))
        return f"Blend({inside})"


def blend(
    predictions: Any,
    target: Any,
    loss: Any,
    *,
    weight: Any = None,
    folds: int = 5,
    bootstrap: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Blend:
    """Return the weights of several models' predictions, at least 0 and of sum 1, that minimise the mean of a loss.

    The weights minimise ``mean(loss(sum_j w_j p_j, target))``. How good the blend is on new samples is measured out of
    fold: weights are fitted on all folds but one, losses taken on that one, and compared with the single model that was
    best on the other folds. The predictions must not have seen the target, or the blend prefers the models that
    overfit: pass those of validation samples, or of cross-validation.

    Parameters
    ----------
    predictions : (n, m) array, or list or dict of m arrays
        Predictions of m models as the loss takes them; rows of scores as a list or dict of (n, K) arrays.
    target : (n,) or (n, K) array
        Targets of the loss.
    loss : str or Loss
        Elementwise or row-wise loss of one prediction: a name, text such as "quantile:q=.9", or an object.
    weight : (n,) array, optional
        Sample weights.
    folds : int
        Number of folds, at least 2.
    bootstrap : int
        Resamples for the intervals of the weights; 0 leaves them out (NaN).
    confidence : float
        Confidence of all intervals.
    seed : int
        Seed of folds and resamples.

    Returns
    -------
    Blend
        Weights, losses, gain and intervals; `print` shows a table.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> rng = np.random.default_rng(0)
    >>> y = rng.standard_normal(1000)
    >>> models = {"a": y + rng.standard_normal(1000), "b": y + rng.standard_normal(1000), "c": np.zeros(1000)}
    >>> found = fl.blend(models, y, "mse", bootstrap=0)
    >>> found.weights.round(1), bool(found.gain > 0.2)
    (array([0.3, 0.3, 0.3]), True)

    References
    ----------
    Wolpert (1992), Stacked generalization; Breiman (1996), Stacked regressions.
    """
    with naming("blend"):
        made = loss_of("blend", loss)
        folds = whole("blend: folds", folds, 2)
        resamples = 0 if bootstrap == 0 else whole("blend: bootstrap", bootstrap, 2)
        share = number("blend: confidence", confidence, UNIT)
        return _Blending(predictions, target, made, weight).result(folds, resamples, share, np.random.default_rng(seed))


def _parts(predictions: Any) -> tuple[list[Any], tuple[str, ...]]:
    """Return the predictions of each model, and the models' names."""
    if isinstance(predictions, Mapping):
        return [incoming(p, "predictions") for p in predictions.values()], tuple(map(str, predictions))
    if isinstance(predictions, (list, tuple)):
        return [incoming(p, "predictions") for p in predictions], tuple(f"model {i}" for i in range(len(predictions)))
    array = incoming(predictions, "predictions")
    if array.ndim != 2:
        problem = f"has shape {array.shape}; expected (n, models), or a list or dictionary of arrays"
        raise CallValueError(problem, "predictions")
    names = tuple(map(str, getattr(predictions, "columns", ()))) or tuple(f"model {i}" for i in range(array.shape[1]))
    return list(array.T), names


class _Blending:
    """Samples of a blend, and fits of its weights to some of them."""

    def __init__(self, predictions: Any, target: Any, loss: Loss, weight: Any) -> None:
        parts, self.names = _parts(predictions)
        if len(parts) < 2:
            raise CallValueError(f"holds {len(parts)} models; expected at least two", "predictions")
        record, self.loss = loss.record, loss
        if record.family not in ("elementwise", "rows") or len(record.predictions) != 1 or record.target is None:
            raise CallTypeError(f"is {record.name}; expected an elementwise or row-wise loss of one prediction", "loss")
        self.rows = record.family == "rows"
        first = parts[0].shape
        for i, p in enumerate(parts):
            if p.shape != first or p.ndim != 1 + self.rows:
                wanted = "(n, K)" if self.rows else "(n,)"
                raise CallValueError(f"has shape {p.shape}; expected {wanted} alike for all", "predictions", (i,))
            if not np.isfinite(p).all():
                raise CallValueError("holds NaN or infinity", "predictions", (i,))
        self.target = incoming(target, "target")
        if len(self.target) != first[0]:
            raise CallValueError(f"has {len(self.target)} samples; expected {first[0]}", "target")
        self.n, self.m = first[0], len(parts)
        self.p = np.ascontiguousarray(np.stack([np.asarray(p, np.float64) for p in parts], axis=1))
        self.weight = None if weight is None else np.asarray(incoming(weight, "weight"), np.float64)
        if self.weight is not None:
            check.same_shape("weight", self.weight.shape, (self.n,))
        # Names a target or a prediction outside its domain.
        self.losses = np.array([self._mean(self.p[:, j], slice(None)) for j in range(self.m)])

    @property
    def inward(self) -> float:
        """Factor of the weights that keeps the rounded sum of predictions of 1 from exceeding 1."""
        return 1.0 - 1e-15 if math.isfinite(getattr(self.loss.record.prediction_domains[0], "high", math.inf)) else 1.0

    def _options(self, index: Any) -> dict[str, Any]:
        return {} if self.weight is None else {"weight": self.weight[index]}

    def _mean(self, z: Any, index: Any) -> float:
        return float(self.loss(np.ascontiguousarray(z), self.target[index], **self._options(index)))

    def blended(self, w: Any, index: Any = slice(None)) -> Any:
        """Return the blend of some samples."""
        return np.tensordot(self.p[index], w * self.inward, axes=(1, 0))

    def fit(self, index: Any, w: Any, counts: Any = None) -> Any:
        """Return the best weights for some samples, from other weights; counts multiply the samples' weights."""
        weight = self.weight if counts is None else counts * (1.0 if self.weight is None else self.weight)
        weight = None if weight is None else weight[index]
        if self.rows:
            return _minimise(self._by_rows(index, weight), w)
        p, t = np.ascontiguousarray(self.p[index]), self.target[index]
        if self.loss.record.name not in MAJORANTS:
            return _minimise(self._affine(self.loss, p, t, weight), w)
        exact = self._affine(self.loss, p, t, weight)
        width = max(float(np.mean(np.abs(p @ w - t))), 1e-300)
        last = 1e-8 * width
        while width > last:
            w = _minimise(self._affine(smoothed(self.loss, width), p, t, weight), w)
            width *= 0.1
        return w if math.isfinite(exact(w, False)[0]) else np.full(self.m, 1.0 / self.m)

    def _affine(self, loss: Any, p: Any, t: Any, weight: Any) -> Callable[..., Any]:
        """Return value, gradient and curvature by the weights, from one pass over predictions of one number."""
        mean, inward = MeanLoss(loss, p, t, weight, 1, {}), self.inward

        def evaluate(w: Any, slope: bool = True) -> Any:
            value, g, hess = mean(np.append(w * inward, 0.0)[None], slope, mean.curvature if slope else "")
            if not slope:
                return value, None, None
            if hess.size:
                return value, g[0, :-1], hess[0, :-1, :-1]
            return value, g[0, :-1], np.eye(len(w)) * max(float(np.abs(g).max()), 1e-12)

        return evaluate

    def _by_rows(self, index: Any, weight: Any) -> Callable[..., Any]:
        """Return value, gradient and Gauss-Newton curvature by the weights, for rows of scores."""
        p, t = self.p[index], self.target[index]
        options = {} if weight is None else {"weight": weight}

        def evaluate(w: Any, slope: bool = True) -> Any:
            z = np.ascontiguousarray(np.tensordot(p, w * self.inward, axes=(1, 0)))
            if not slope:
                return float(self.loss(z, t, **options)), None, None
            value, r = self.loss.value_and_grad(z, t, **options)
            g = np.einsum("nk,nmk->m", r, p)
            if not self.loss.record.second:
                return float(value), g, np.eye(self.m) * float(np.abs(p).max() ** 2)
            how = "surrogate" if self.loss.record.surrogate and not self.loss.record.convex else "exact"
            h = self.loss.grad_and_hess(z, t, curvature=how, **options)[1]
            mass = len(z) if weight is None else float(weight.sum())
            return float(value), g, np.einsum("nk,nik,njk->ij", h / mass, p, p)

        return evaluate

    def result(self, folds: int, resamples: int, confidence: float, seed: Any) -> Blend:
        """Fit the weights, measure them out of fold, and resample them."""
        if self.n < 2 * folds:
            raise CallValueError(f"is {folds}, for {self.n} samples; expected at most {self.n // 2}", "folds")
        whole_set, even = slice(None), np.full(self.m, 1.0 / self.m)
        w = self.fit(whole_set, even)
        own, single = np.empty(self.n), np.empty(self.n)
        part = seed.permutation(self.n) % folds
        for k in range(folds):
            out, kept = np.flatnonzero(part == k), np.flatnonzero(part != k)
            fold_w = self.fit(kept, w)
            best = int(np.argmin([self._mean(self.p[kept, j], kept) for j in range(self.m)]))
            own[out] = self.loss(self.blended(fold_w, out), self.target[out], reduction="none")
            picked = np.ascontiguousarray(self.p[out, best])
            single[out] = self.loss(picked, self.target[out], reduction="none")
        gain, interval = self._gain(single - own, confidence)
        share = np.full(self.n, 1.0 / self.n) if self.weight is None else self.weight / self.weight.sum()
        return Blend(
            weights=w,
            names=self.names,
            loss=self._mean(self.blended(w), whole_set),
            losses=self.losses,
            out_of_fold=float(share @ own),
            gain=gain,
            gain_interval=interval,
            intervals=self._resampled(w, resamples, confidence, seed),
            confidence=confidence,
            loss_name=self.loss.record.name,
        )

    def _gain(self, differences: Any, confidence: float) -> tuple[float, tuple[float, float]]:
        """Return the weighted mean of differences and its interval by the normal distribution."""
        from statistics import NormalDist

        share = np.full(self.n, 1.0 / self.n) if self.weight is None else self.weight / self.weight.sum()
        mean = float(share @ differences)
        error = math.sqrt(float((share * share) @ (differences - mean) ** 2) * self.n / (self.n - 1.0))
        reach = NormalDist().inv_cdf(0.5 + 0.5 * confidence) * error
        return mean, (mean - reach, mean + reach)

    def _resampled(self, w: Any, resamples: int, confidence: float, seed: Any) -> Any:
        """Return the bootstrap's intervals of the weights, by percentiles."""
        if not resamples:
            return np.full((self.m, 2), np.nan)
        found = np.empty((resamples, self.m))
        for b in range(resamples):
            counts = np.bincount(seed.integers(self.n, size=self.n), minlength=self.n).astype(np.float64)
            found[b] = self.fit(slice(None), w, counts)
        tail = 0.5 - 0.5 * confidence
        return np.quantile(found, [tail, 1.0 - tail], axis=0).T


def _minimise(evaluate: Callable[..., Any], w: Any) -> Any:
    """Return the weights at the minimum: each step solves the quadratic on the simplex, and is searched along."""
    value, g, hess = evaluate(w)
    damping = 0.0
    for _ in range(STEPS):
        size = max(float(np.trace(hess)) / len(w), 1e-300)
        own = hess + (damping + 1e-12) * size * np.eye(len(w))
        step = minimum(own, g - own @ w, True) - w
        expected = float(g @ step)
        if not -expected > ACCURACY * max(abs(value), 1e-300):
            break
        length, found = 1.0, evaluate(w + step, False)[0]
        while not found <= value + 1e-4 * length * expected and length > 1e-8:
            length *= 0.5
            found = evaluate(w + length * step, False)[0]
        if length <= 1e-8:
            if damping > 1e6:
                break
            damping = max(100.0 * damping, 1e-4)
            continue
        damping = damping / 10.0 if length == 1.0 and damping > 1e-10 else damping
        w = np.maximum(w + length * step, 0.0)
        w = w / w.sum()
        value, g, hess = evaluate(w)
    return w
