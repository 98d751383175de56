"""Ensembles of one linear model under several losses."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from ...call import check
from ...call.errors import CallValueError, naming
from ..blend import blend
from ..optim_checks import whole
from .estimators import LossRegressor

__all__ = ["LossEnsemble"]

COMBINATIONS = ("mean", "median", "stacked")


class LossEnsemble(RegressorMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Regressions of the same data under several losses, whose predictions are combined.

    Parameters
    ----------
    losses : sequence of str or Loss
        Loss of each member.
    estimator : LossRegressor, optional
        Model that is fitted under each loss; by default ``LossRegressor()``.
    combine : {"mean", "median", "stacked"}
        How predictions are combined. "stacked" weighs the members by `fastloss.blend` of their predictions out of fold.
    metric : str or Loss
        Loss that the weights of "stacked" minimise.
    folds : int
        Folds of "stacked".

    Attributes
    ----------
    estimators_ : list of LossRegressor
        Members, fitted on all samples.
    weights_ : (m,) array
        Weights of the members; only of "mean" and "stacked".
    blend_ : Blend
        Weights with their intervals, and the gain on the best member; only of "stacked".

    References
    ----------
    Wolpert (1992), Stacked generalization.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 2))
    >>> y = X @ [1.0, 2.0] + rng.standard_t(1.5, 200)
    >>> model = fl.linear.LossEnsemble(("mse", "huber", "mae"), combine="stacked", metric="mae").fit(X, y)
    >>> model.weights_.shape, len(model.estimators_)
    ((3,), 3)
    """

    def __init__(
        self,
        losses: Any = ("mse", "huber", "mae"),
        *,
        estimator: Any = None,
        combine: str = "mean",
        metric: Any = "mse",
        folds: int = 5,
    ) -> None:
        self.losses = losses
        self.estimator = estimator
        self.combine = combine
        self.metric = metric
        self.folds = folds

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "LossEnsemble":
        """Fit a model under each loss, and their weights.

        Parameters
        ----------
        X : (n_samples, n_features) array or CSR matrix
            Samples.
        y : (n_samples,) array
            Targets.
        sample_weight : (n_samples,) array, optional
            Weights.
        """
        with naming("LossEnsemble"):
            check.one_of("combine", self.combine, COMBINATIONS)
            losses = [self.losses] if isinstance(self.losses, str) else list(self.losses)
            if len(losses) < 2:
                raise CallValueError(f"holds {len(losses)} losses; expected at least two", "losses")
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", y_numeric=True)
        template = LossRegressor() if self.estimator is None else self.estimator
        members = [clone(template).set_params(loss=loss) for loss in losses]
        if self.combine == "stacked":
            self.blend_ = self._stacked(members, X, y, sample_weight)
        self.estimators_ = [member.fit(X, y, sample_weight) for member in members]
        if self.combine != "median":
            m = len(members)
            self.weights_ = self.blend_.weights if self.combine == "stacked" else np.full(m, 1.0 / m)
        return self

    def _stacked(self, members: list[Any], X: Any, y: Any, weight: Any) -> Any:
        """Return the blend of predictions by members that were fitted without the fold."""
        found = np.empty((X.shape[0], len(members)))
        weight = None if weight is None else np.asarray(weight, np.float64)
        folds = whole("LossEnsemble: folds", self.folds, 2)
        for kept, out in KFold(folds, shuffle=True, random_state=0).split(X):
            for j, member in enumerate(members):
                own = None if weight is None else weight[kept]
                found[out, j] = clone(member).fit(X[kept], y[kept], own).predict(X[out])
        return blend(found, y, self.metric, weight=weight)

    def predict(self, X: Any) -> Any:
        """Return the combined predictions."""
        check_is_fitted(self)
        found = np.stack([member.predict(X) for member in self.estimators_])
        return np.median(found, axis=0) if self.combine == "median" else self.weights_ @ found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
