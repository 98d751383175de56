"""Functions for `scipy.optimize.minimize`: the mean loss of a linear model, its gradient and its curvature."""

from typing import Any

import numpy as np

from .calls import sorted_call
from .hosts import loss_of

__all__ = ["Linear", "fun"]


def fun(loss: Any, X: Any, y: Any, *, weight: Any = None, l2: float = 0.0, **parameters: Any) -> "Linear":
    """Return the mean loss of X @ w as a function of w, for `scipy.optimize.minimize` with ``jac=True``.

    The value is mean(loss(X @ w, y)) + l2 / 2 |w|^2.

    Parameters
    ----------
    loss : str or Loss
        Elementwise loss of one prediction, or a loss of classes: a name, "name:parameter=value", or a loss.
    X : (n, d) array or sparse matrix
        Inputs of the model; for an intercept, with a column of ones.
    y : array
        Target, as the loss takes it.
    weight : (n,) array, optional
        Weights of the rows.
    l2 : float, default 0
        Factor of the squared norm of w.
    **parameters
        Parameters of the loss.

    Returns
    -------
    Linear
        Callable of w, (d,) or (d K,) for K classes, which returns value and gradient; `hessp(w, v)` is the product of
        the Hessian and a vector, for elementwise losses.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> from scipy.optimize import minimize
    >>> X, y = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 3.0, 5.0])
    >>> f = fl.scipy.fun("log_cosh", X, y)
    >>> minimize(f, np.zeros(2), jac=True, hessp=f.hessp, method="trust-ncg").x.round(4)
    array([1., 2.])
    """
    return Linear(loss_of(loss, parameters), X, y, weight, l2)


class Linear:
    """Mean loss of X @ w."""

    def __init__(self, loss: Any, X: Any, y: Any, weight: Any = None, l2: float = 0.0) -> None:
        record = loss.record
        if record.family == "arrays" or len(record.predictions) > 1:
            raise TypeError(f"{record.name}: fl.scipy.fun needs a loss of one prediction a row, or of classes")
        self.loss, self.l2 = loss, float(l2)
        self.X = X if hasattr(X, "tocsr") else np.asarray(X, np.float64)
        self.y, self.weight = np.asarray(y), None if weight is None else np.asarray(weight, np.float64)
        self.call = sorted_call(loss, (0, 1), {} if weight is None else {"weight": 2})[0]

    def _scores(self, w: Any) -> Any:
        w = np.asarray(w, np.float64)
        return self.X @ (w.reshape(self.X.shape[1], -1) if self.loss.record.family == "rows" else w)

    def __call__(self, w: Any) -> tuple[float, Any]:
        """Return the value and its gradient in w."""
        w = np.asarray(w, np.float64)
        value, grad = self.loss.value_and_grad(self._scores(w), self.y, weight=self.weight)[:2]
        return value + 0.5 * self.l2 * float(w @ w), (self.X.T @ grad).ravel() + self.l2 * w

    def hessp(self, w: Any, v: Any) -> Any:
        """Return the product of the Hessian at w and a vector."""
        if not self.call.is_curved:
            raise ValueError(f"{self.loss.name} has no Hessian in fl.scipy; take a method without it")
        arrays = [self._scores(w), self.y, *([] if self.weight is None else [self.weight])]
        h = self.call.derivatives(arrays)[1]
        return self.X.T @ (h * (self.X @ v)) + self.l2 * np.asarray(v)
