"""Base class of the estimators: parameters, the fit and the scores."""

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ...call import check
from ...call.errors import CallValueError, naming
from ...spec.record import FINITE_NONNEGATIVE, POSITIVE, UNIT
from ..optim_checks import number, whole
from .fitting import SOLVERS, Options, Problem, Result, fit
from .stochastic import STOCHASTIC
from .warned import warn_of_fit

__all__ = ["Linear", "one_epoch"]

PENALTIES = ("l2", "l1", "elasticnet", None)


class Linear(BaseEstimator):  # type: ignore[misc]
    """Parameters, the fit and the scores of both estimators."""

    coef_: Any
    intercept_: Any

    def _options(self) -> Options:
        """Return the settings of a fit, checked."""
        name = type(self).__name__
        with naming(name):
            check.one_of("solver", self.solver, SOLVERS)
            if self.penalty not in PENALTIES:
                allowed = ", ".join(map(repr, PENALTIES))
                raise CallValueError(f"is {self.penalty!r}; allowed: {allowed}", "penalty")
            alpha = number(f"{name}: alpha", self.alpha)
            ratio = {"l1": 1.0, "l2": 0.0, None: 0.0}.get(self.penalty)
            if ratio is None:
                ratio = number(f"{name}: l1_ratio", self.l1_ratio, UNIT)
            alpha = 0.0 if self.penalty is None else alpha
            rate = self.learning_rate
            rate = None if rate is None else number(f"{name}: learning_rate", rate, POSITIVE)
            tol = number(f"{name}: tol", self.tol, FINITE_NONNEGATIVE)
            check.flag("fit_intercept", self.fit_intercept)
            check.flag("early_stopping", self.early_stopping)
        counts = [
            whole(f"{name}: {key}", getattr(self, key), 1) for key in ("max_iter", "batch_size", "n_iter_no_change")
        ]
        seed = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
        limits = (counts[0], tol, rate, counts[1], bool(self.early_stopping), counts[2], seed)
        return Options(self.solver, alpha * ratio, alpha * (1.0 - ratio), bool(self.fit_intercept), *limits)

    def _validated(self, X: Any, y: Any, reset: bool, numeric: bool) -> tuple[Any, Any]:
        """Return X as C-contiguous float32 or float64 or as CSR, and y as an array."""
        return validate_data(  # type: ignore[no-any-return]
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            order="C",
            y_numeric=numeric,
            multi_output=numeric,
            reset=reset,
        )

    def _weights(self, X: Any, sample_weight: Any) -> Any:
        """Return sample weights in float64, or None."""
        if sample_weight is None:
            return None
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.sum() > 0.0:
            raise CallValueError(
                "is 0 for all samples; expected a positive one", "sample_weight", loss=type(self).__name__
            )
        return weight

    def _fit(self, problem: Problem, start: Any) -> Result:
        """Minimise, split off held-out samples where early stopping asks for them, and warn of what went wrong."""
        options = self._options()
        with naming(type(self).__name__):
            if options.early_stopping:
                problem = self._split(problem, options)
            result = fit(problem, options, start)
        warn_of_fit(type(self).__name__, problem, options, result)
        return result

    def _split(self, problem: Problem, options: Options) -> Problem:
        """Hold out a share of the samples."""
        share = number("validation_fraction", self.validation_fraction, UNIT)
        n = problem.x.shape[0]
        held = math.ceil(share * n)
        if not 0 < held < n:
            raise CallValueError(f"is {share:g}, which holds out {held} of {n} samples", "validation_fraction")
        order = options.seed.permutation(n)
        out, kept = np.sort(order[:held]), np.sort(order[held:])
        weight = problem.weight
        own = (None, None) if weight is None else (weight[kept], weight[out])
        arrays = {k: np.asarray(v)[kept] for k, v in problem.arrays.items()}
        if problem.arrays:
            raise CallValueError("is True, which takes no further arrays of samples", "early_stopping")
        held_out = (problem.x[out], problem.y[out], own[1])
        return Problem(problem.loss, problem.x[kept], problem.y[kept], own[0], problem.outputs, arrays, held_out)

    def _start(self, outputs: int, columns: int, warm: bool) -> Any:
        """Return the coefficients to start from, (outputs, d + 1), or None."""
        if not warm or not hasattr(self, "coef_"):
            return None
        coef = np.reshape(self.coef_, (-1, columns - 1))
        if coef.shape[0] != outputs:
            return None
        return np.column_stack([coef, np.broadcast_to(self.intercept_, outputs)])

    def _store(self, result: Result, squeeze: bool) -> None:
        """Set the fitted attributes."""
        coef, intercept = np.ascontiguousarray(result.w[:, :-1]), result.w[:, -1].copy()
        self.coef_, self.intercept_ = (coef[0], float(intercept[0])) if squeeze else (coef, intercept)
        self.n_iter_, self.solver_, self.history_ = result.n_iter, result.solver, result.history

    def _scores(self, X: Any) -> Any:
        """Return X W^T + b, (n,) for one output."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", reset=False)
        z = np.asarray(X @ np.asarray(self.coef_, X.dtype).T) + np.asarray(self.intercept_, X.dtype)
        return z[:, 0] if z.ndim == 2 and z.shape[1] == 1 else z

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def one_epoch(model: Any, problem: Problem, first: bool) -> Result:
    """Return the coefficients after one epoch over some samples."""
    options = model._options()
    solver = options.solver if options.solver in STOCHASTIC else "minibatch"
    if model.solver != "auto" and model.solver not in STOCHASTIC:
        allowed = ", ".join(STOCHASTIC)
        problem_text = f"is {model.solver!r}, which has no partial_fit; use 'auto' or one of {allowed}"
        raise CallValueError(problem_text, "solver", loss=type(model).__name__)
    options = options._replace(solver=solver, max_iter=1, early_stopping=False)
    start = None if first else model._start(problem.outputs, problem.x.shape[1] + 1, True)
    with naming(type(model).__name__):
        return fit(problem, options, start)
