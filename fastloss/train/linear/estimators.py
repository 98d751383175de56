"""Estimators of scikit-learn: linear models that minimise any loss."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from ...call.errors import CallTypeError, CallValueError, naming
from .base import Linear, one_epoch
from .fitting import Problem
from .targets import binary_targets, inverse_link, loss_of, require_linear, threshold_of

__all__ = ["LossClassifier", "LossRegressor"]


class LossRegressor(RegressorMixin, Linear):  # type: ignore[misc]
    """Linear regression by any loss.

    Minimises the weighted mean of ``loss(X w + b, y)`` plus ``alpha`` times the penalty: ``|w|^2 / 2`` for "l2",
    ``|w|_1`` for "l1", their mix by ``l1_ratio`` for "elasticnet". The intercept has no penalty. Columns need no
    scaling: solvers see columns of mean 0 and spread 1, and the objective stays that of the data.

    Parameters
    ----------
    loss : str or Loss
        Loss of one prediction: a name, text such as "quantile:q=.9", or an object, also of your own or a sum. Losses
        with several levels, such as ``fl.quantile.bind(q=(0.1, 0.9))``, fit one model a level.
    penalty : {"l2", "l1", "elasticnet", None}
        Penalty on the coefficients.
    alpha : float
        Factor of the penalty.
    l1_ratio : float
        Share of the L1 part of "elasticnet".
    solver : str
        "newton" (curvature from the same pass), "lbfgs", "gd"; for L1 "cd" (coordinate descent on Newton's quadratic)
        and "prox" (accelerated proximal steps); by batches "sgd", "minibatch", "adam", "rmsprop", "adagrad"; or "auto".
    fit_intercept : bool
        Whether b is fitted; otherwise it is 0.
    max_iter : int
        Largest number of iterations, or of epochs.
    tol : float
        Largest element of the gradient at the optimum, relative to the objective or the gradient at the start.
    learning_rate : float, optional
        Length of a step of "gd" and of the solvers by batches, for columns of spread 1; by default it is found.
    batch_size : int
        Samples a step of "minibatch", "adam", "rmsprop" and "adagrad".
    early_stopping : bool
        Whether to stop when the loss on held-out samples no longer falls, and to keep the best coefficients.
    validation_fraction : float
        Share of samples that early stopping holds out.
    n_iter_no_change : int
        Iterations without a better loss after which a fit stops.
    warm_start : bool
        Whether fit starts from the coefficients of the last.
    random_state : int, RandomState or None
        Seed of shuffles and splits.

    Attributes
    ----------
    coef_ : (n_features,) or (n_outputs, n_features) array
        Coefficients.
    intercept_ : float or (n_outputs,) array
        Intercept.
    n_iter_ : int
        Iterations, or epochs.
    solver_ : str
        Solver that ran.
    history_ : dict of lists
        "objective" after each iteration; with early stopping also "validation", the loss on held-out samples.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> X, y = np.arange(8.0).reshape(-1, 1), np.array([1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 99.0])
    >>> model = fl.linear.LossRegressor("mae", penalty=None).fit(X, y)
    >>> model.coef_.round(3), round(model.intercept_, 3)
    (array([2.]), 1.0)
    """

    def __init__(
        self,
        loss: Any = "mse",
        *,
        penalty: str | None = "l2",
        alpha: float = 1e-4,
        l1_ratio: float = 0.15,
        solver: str = "auto",
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-7,
        learning_rate: float | None = None,
        batch_size: int = 64,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.solver = solver
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **arrays: Any) -> "LossRegressor":
        """Fit the coefficients.

        Parameters
        ----------
        X : (n_samples, n_features) array or CSR matrix
            Samples, float32 or float64.
        y : (n_samples,) or (n_samples, n_outputs) array
            Targets in the loss's domain.
        sample_weight : (n_samples,) array, optional
            Weights.
        **arrays
            Further arrays of samples that the loss takes by name, such as ``group`` of a fairness term.
        """
        X, y = self._validated(X, y, True, True)
        problem = self._problem(X, y, self._weights(X, sample_weight), arrays)
        if self.loss_._levels and not self.loss_._rewritten:
            return self._fit_levels(problem)
        self._store(self._fit(problem, self._start(problem.outputs, X.shape[1] + 1, self.warm_start)), y.ndim == 1)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "LossRegressor":
        """Take one epoch of a solver by batches over some samples, from the present coefficients."""
        first = not hasattr(self, "coef_")
        X, y = self._validated(X, y, first, True)
        problem = self._problem(X, y, self._weights(X, sample_weight), {})
        self._store(one_epoch(self, problem, first), y.ndim == 1)
        return self

    def _problem(self, X: Any, y: Any, weight: Any, arrays: dict[str, Any]) -> Problem:
        """Return the samples in the form that the loss takes."""
        name = type(self).__name__
        self.loss_ = loss = loss_of(name, self.loss)
        require_linear(name, loss)
        rows = loss.record.family == "rows"
        if rows and y.ndim != 2:
            text = f"is {loss.record.name}, which takes rows of targets; use LossClassifier for labels"
            raise CallValueError(text, "loss", loss=name)
        y = np.ascontiguousarray(y, X.dtype)
        outputs = y.shape[1] if y.ndim == 2 else 1
        target = y[:, 0] if y.ndim == 2 and outputs == 1 and not rows else y
        if not loss._levels and not arrays and loss.record.target is not None:
            with naming(name), np.errstate(all="ignore"):
                # Names a target outside the domain before any pass.
                loss(np.zeros_like(target), target, **({} if weight is None or target.ndim > 1 else {"weight": weight}))
        return Problem(loss, X, target, weight, outputs, arrays)

    def _fit_levels(self, problem: Problem) -> "LossRegressor":
        """Fit one model for each level of a parameter."""
        name, levels = next((k, v) for k, v in self.loss_.defaults.items() if type(v) is tuple)
        results = [self._fit(problem._replace(loss=self.loss_.bind(**{name: level})), None) for level in levels]
        last = results[-1]
        self._store(last._replace(w=np.concatenate([r.w for r in results])), False)
        self.n_iter_ = max(r.n_iter for r in results)
        return self

    def predict(self, X: Any) -> Any:
        """Return predictions on the scale of the target: the inverse of the loss's link of X w + b."""
        z = self._scores(X)
        mean = inverse_link(self.loss_)
        return z if mean is None else mean(z)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def mean_loss(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the mean loss of X w + b, without the penalty."""
        z = self._scores(X)
        y, weight = np.asarray(y, z.dtype), {} if sample_weight is None else {"weight": np.asarray(sample_weight)}
        return float(self.loss_(z, y, **weight))


def _has_probabilities(model: "LossClassifier") -> bool:
    """Whether the scores of a classifier are probabilities by the loss's link."""
    loss = loss_of(type(model).__name__, model.loss)
    if inverse_link(loss) is not None and loss.record.link in ("logit", "half-logit", "softmax"):
        return True
    raise AttributeError(
        f"{type(model).__name__} with {loss.record.name} has no predict_proba: its scores are margins; "
        "use decision_function, or a loss such as 'cross_entropy'"
    )


class LossClassifier(ClassifierMixin, Linear):  # type: ignore[misc]
    """Linear classification by any loss.

    Minimises the weighted mean of ``loss(X W^T + b, y)`` plus ``alpha`` times the penalty. Losses of one score
    ("bce_with_logits", "focal", "hinge" ...) fit one output for two classes, and one against the rest for more. Losses
    of rows ("cross_entropy", "crammer_singer" ...) fit one output a class; "cross_entropy" of two classes is
    "bce_with_logits".

    Parameters
    ----------
    loss : str or Loss
        Loss: a name, text such as "focal:gamma=1", or an object, also of your own or a sum.
    class_weight : dict or "balanced", optional
        Factors of the sample weights by class.
    penalty, alpha, l1_ratio, solver, fit_intercept, max_iter, tol, learning_rate, batch_size, early_stopping
        As of :class:`LossRegressor`.
    validation_fraction, n_iter_no_change, warm_start, random_state
        As of :class:`LossRegressor`.

    Attributes
    ----------
    classes_ : (n_classes,) array
        Labels.
    coef_ : (1, n_features) or (n_classes, n_features) array
        Coefficients.
    intercept_ : (1,) or (n_classes,) array
        Intercepts.
    n_iter_, solver_, history_
        As of :class:`LossRegressor`.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["no", "no", "yes", "yes"])
    >>> model = fl.linear.LossClassifier("hinge", alpha=0.1).fit(X, y)
    >>> model.predict(X).tolist()
    ['no', 'no', 'yes', 'yes']
    """

    def __init__(
        self,
        loss: Any = "cross_entropy",
        *,
        penalty: str | None = "l2",
        alpha: float = 1e-4,
        l1_ratio: float = 0.15,
        solver: str = "auto",
        fit_intercept: bool = True,
        class_weight: Any = None,
        max_iter: int = 1000,
        tol: float = 1e-7,
        learning_rate: float | None = None,
        batch_size: int = 64,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.solver = solver
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **arrays: Any) -> "LossClassifier":
        """Fit the coefficients.

        Parameters
        ----------
        X : (n_samples, n_features) array or CSR matrix
            Samples, float32 or float64.
        y : (n_samples,) array
            Labels of any type.
        sample_weight : (n_samples,) array, optional
            Weights.
        **arrays
            Further arrays of samples that the loss takes by name, such as ``group`` of a fairness term.
        """
        X, y = self._validated(X, y, True, False)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        problem = self._problem(X, y, self._weights(X, sample_weight), arrays)
        self._store(self._fit(problem, self._start(problem.outputs, X.shape[1] + 1, self.warm_start)), False)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> "LossClassifier":
        """Take one epoch of a solver by batches over some samples; the first call names all classes."""
        first = not hasattr(self, "coef_")
        X, y = self._validated(X, y, first, False)
        check_classification_targets(y)
        if first:
            if classes is None:
                text = "is missing; the first call of partial_fit names all classes"
                raise CallValueError(text, "classes", loss=type(self).__name__)
            self.classes_ = np.unique(classes)
        problem = self._problem(X, y, self._weights(X, sample_weight), {})
        self._store(one_epoch(self, problem, first), False)
        return self

    def _problem(self, X: Any, y: Any, weight: Any, arrays: dict[str, Any]) -> Problem:
        """Return labels and weights in the form that the loss takes."""
        name, classes = type(self).__name__, self.classes_
        if len(classes) < 2:
            raise CallValueError(f"has one class, {classes.tolist()[0]!r}; expected at least two", "y", loss=name)
        labels = np.searchsorted(classes, y)
        if (labels >= len(classes)).any() or (classes[np.minimum(labels, len(classes) - 1)] != y).any():
            raise CallValueError(f"has a label that is none of {classes.tolist()}", "y", loss=name)
        self.loss_ = loss = self._fitted_loss(len(classes))
        require_linear(name, loss)
        if self.class_weight is not None:
            each = compute_class_weight(self.class_weight, classes=classes, y=y)[labels]
            weight = each if weight is None else weight * each
        if loss.record.family == "rows":
            if not loss.record.row_loop.labels:
                raise CallTypeError(f"is {loss.record.name}, which takes no labels", "loss", loss=name)
            thresholds = loss.record.row_loop.thresholds
            return Problem(loss, X, labels.astype(np.int64), weight, len(classes) - thresholds, arrays)
        if len(classes) == 2:
            return Problem(loss, X, binary_targets(loss, labels == 1, X.dtype), weight, 1, arrays)
        if arrays or loss.record.family != "elementwise":
            raise CallValueError(
                f"is {loss.record.name}, which takes two classes; y has {len(classes)}", "loss", loss=name
            )
        each = binary_targets(loss, labels[:, None] == np.arange(len(classes)), X.dtype)
        return Problem(loss, X, np.ascontiguousarray(each), weight, len(classes), arrays)

    def _fitted_loss(self, classes: int) -> Any:
        """Return the loss that is minimised: cross-entropy of two classes takes one output."""
        loss = loss_of(type(self).__name__, self.loss)
        plain = loss.record.name == "cross_entropy" and loss.record.reduction == "mean"
        if classes == 2 and plain and dict(loss.defaults) == loss.record.defaults:
            return loss_of("", "bce_with_logits")
        return loss

    def decision_function(self, X: Any) -> Any:
        """Return scores, (n,) for two classes and (n, n_classes) for more."""
        z = self._scores(X)
        if z.ndim == 2 and len(self.classes_) == 2:
            return z[:, 1] - z[:, 0]
        return z - threshold_of(self.loss_) if z.ndim == 1 else z

    def predict(self, X: Any) -> Any:
        """Return the label with the largest score."""
        z = self._scores(X)
        if self.loss_.record.family == "rows" and self.loss_.record.row_loop.thresholds:
            return self.classes_[(z.reshape(len(z), -1) > 0.0).sum(axis=1)]
        if z.ndim == 1:
            return self.classes_[(z > threshold_of(self.loss_)).astype(int)]
        return self.classes_[np.argmax(z, axis=1)]

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Return probabilities of the classes, (n, n_classes), by the loss's link; one against the rest sums to 1."""
        z = self._scores(X)
        link = inverse_link(self.loss_)
        assert link is not None
        p = link(z)
        if p.ndim == 1:
            return np.column_stack([1.0 - p, p])
        if self.loss_.record.link == "softmax":
            return p
        total = p.sum(axis=1, keepdims=True)
        return np.divide(p, total, out=np.full_like(p, 1.0 / p.shape[1]), where=total > 0.0)

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Any:
        """Return logarithms of the probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))
