"""Weights that follow the gradients of the tasks, of which they need the inner products alone."""

import math
from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import F64, incoming
from ...call.errors import CallValueError, naming
from ...spec.record import FINITE_NONNEGATIVE, POSITIVE
from .base import Balancer, square
from .quadratic import minimum

__all__ = ["IMTLG", "MGDA", "AlignedMTL", "CAGrad", "NashMTL", "PCGrad", "UPGrad"]


def _preference(name: str, given: Any) -> Any:
    """Return a preference vector as float64; None where it is left out."""
    if given is None:
        return None
    with naming(name):
        a = incoming(given, "preference").astype(F64)
        if a.ndim != 1 or not (a >= 0.0).all() or not a.any():
            raise CallValueError(f"is {check.shown(given)}; expected non-negative numbers, one per task", "preference")
    return a


def _preferred(name: str, preference: Any, k: int) -> Any:
    """Return the preference of k tasks, 1 / k each if left out."""
    if preference is None:
        return np.full(k, 1.0 / k)
    if len(preference) != k:
        raise CallValueError(f"has {len(preference)} entries; expected {k}, one per task", "preference", loss=name)
    return preference


class PCGrad(Balancer):
    """Gradient surgery: each gradient loses its part against every other that it conflicts with; then all are added.

    Parameters
    ----------
    seed : int
        Seed of the order in which a gradient meets the others, which differs from step to step.

    References
    ----------
    Yu et al. (2020), Gradient surgery for multi-task learning, arXiv:2001.06782.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> grads = np.array([[1.0, 0.0], [-1.0, 1.0]])
    >>> weights = fl.balance.PCGrad().weights(gramian=fl.balance.gramian(grads))
    >>> weights, weights @ grads
    (array([2. , 1.5]), array([0.5, 1.5]))
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = int(seed)

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("PCGrad", gramian)
        k, rng = len(g), np.random.default_rng([self.seed, step])
        total = np.zeros(k)
        for i in range(k):
            w = np.zeros(k)
            w[i] = 1.0
            for j in rng.permutation(k):
                along = g[j] @ w
                if j != i and along < 0.0:
                    w[j] -= along / g[j, j]
            total += w
        return total


class MGDA(Balancer):
    r"""Multiple-gradient descent: the convex combination of the gradients that is shortest.

    .. math:: \min_{w \ge 0, \sum w = 1} \left| \sum_i w_i g_i \right|

    No loss grows along it, and its length 0 means that none can fall without another's growing. The minimum is exact.

    References
    ----------
    Désidéri (2012), Multiple-gradient descent algorithm; Sener, Koltun (2018), Multi-task learning as multi-objective
    optimization, arXiv:1810.04650.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> fl.balance.MGDA().weights(gramian=[[4.0, 0.0], [0.0, 1.0]])
    array([0.2, 0.8])
    """

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("MGDA", gramian)
        return minimum(g, np.zeros(len(g)), True)


class CAGrad(Balancer):
    r"""Conflict-averse gradient: the direction near the mean gradient g0 by which the slowest task gains most.

    .. math:: \max_d \min_i \langle g_i, d \rangle \quad \text{with} \quad |d - g_0| \le c \, |g_0|

    Parameters
    ----------
    c : float, at least 0
        Radius relative to the mean gradient; 0 is the mean, and 1 and above come near MGDA.

    References
    ----------
    Liu et al. (2021), Conflict-averse gradient descent for multi-task learning, arXiv:2110.14048.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.CAGrad(c=0.5).weights(gramian=[[4.0, 0.0], [0.0, 1.0]]).round(3)
    array([0.5  , 1.059])
    """

    def __init__(self, c: float = 0.5) -> None:
        self.c = check.within("c", c, FINITE_NONNEGATIVE, "CAGrad")

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("CAGrad", gramian)
        k = len(g)
        mean = np.full(k, 1.0 / k)
        # The dual: min over the simplex of <g_w, g0> + c |g0| |g_w|, with g_w the combination by w.
        radius = self.c * math.sqrt(max(float(mean @ g @ mean), 0.0))
        b = g @ mean
        if radius == 0.0:
            return mean
        # |g_w| is the smallest of |g_w|^2 / (2 s) + s / 2: a quadratic program for each s, and a convex search for s.
        low, high = 0.0, math.sqrt(float(np.diagonal(g).max()))
        w = mean
        for _ in range(100):
            s = 0.5 * (low + high)
            w = minimum(g * (radius / s), b, True)
            length = math.sqrt(max(float(w @ g @ w), 0.0))
            if length < s:
                high = s
            else:
                low = s
            if high - low <= 1e-15 * high:
                break
        length = math.sqrt(max(float(w @ g @ w), 0.0))
        if length <= 1e-10 * math.sqrt(float(np.diagonal(g).max())):
            # Some combination of the gradients is 0: no direction helps all tasks.
            return np.zeros(k)
        return mean + radius / length * w


class NashMTL(Balancer):
    r"""Nash bargaining: weights for which every task gains in inverse proportion to its weight.

    .. math:: \langle g_i, \sum_j w_j g_j \rangle = 1 / w_i

    They minimise :math:`w^\top G w / 2 - \sum_i \log w_i`, by Newton's method, not by a sequence of linearised
    programs. Weights of 0 mean that some combination of the gradients is 0, so that no bargain exists.

    Parameters
    ----------
    max_norm : float above 0, or None
        Length to which the combined gradient, sqrt(k) by the equation, is cut.

    References
    ----------
    Navon et al. (2022), Multi-task learning as a bargaining game, arXiv:2202.01017.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.NashMTL(max_norm=None).weights(gramian=[[4.0, 0.0], [0.0, 1.0]])
    array([0.5, 1. ])
    """

    def __init__(self, max_norm: float | None = 1.0) -> None:
        self.max_norm = None if max_norm is None else check.within("max_norm", max_norm, POSITIVE, "NashMTL")

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("NashMTL", gramian)
        k = len(g)
        sizes = np.sqrt(np.maximum(np.diagonal(g), 0.0))
        if not (sizes > 0.0).all():
            return np.zeros(k)
        unit = g / np.outer(sizes, sizes)
        shortest = minimum(unit, np.zeros(k), True)
        if shortest @ unit @ shortest <= 1e-12:
            return np.zeros(k)
        # Gradients of length 1, whose solution is that of the others times their lengths.
        w = np.full(k, 1.0)
        for _ in range(200):
            slope = unit @ w - 1.0 / w
            move = np.linalg.solve(unit + np.diag(1.0 / w**2), -slope)
            decrement = math.sqrt(max(float(-slope @ move), 0.0))
            # The barrier is self-concordant: this length of a step keeps w positive and always descends.
            w = w + move * (1.0 if decrement < 0.25 else 1.0 / (1.0 + decrement))
            if decrement < 1e-13:
                break
        w = w / sizes
        norm = math.sqrt(float(w @ g @ w))
        return w * (self.max_norm / norm) if self.max_norm is not None and norm > self.max_norm else w


class IMTLG(Balancer):
    """Impartial multi-task learning: weights of sum 1 by which the sum of the gradients has equal projections on all.

    The weights may be negative. They are 0 where no such combination exists.

    References
    ----------
    Liu et al. (2021), Towards impartial multi-task learning, ICLR; for dependent gradients: Quinton, Rey (2024),
    Jacobian descent for multi-objective optimization, arXiv:2406.16232.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.IMTLG().weights(gramian=[[4.0, 0.0], [0.0, 1.0]]).round(12)
    array([0.33333333, 0.66666667])
    """

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("IMTLG", gramian)
        w = np.linalg.pinv(g, hermitian=True) @ np.sqrt(np.maximum(np.diagonal(g), 0.0))
        total = w.sum()
        return w / total if abs(total) > 1e-12 * np.abs(w).sum() else np.zeros(len(g))


class AlignedMTL(Balancer):
    r"""Independent component alignment: the gradients are made orthogonal and of one length, and then added.

    .. math:: w = \sigma \, G^{-1/2} p

    sigma is the square root of the smallest, the median or the mean eigenvalue of the Gramian; eigenvalues of 0 are
    left out.

    Parameters
    ----------
    preference : (k,) array-like, optional
        Preference p; 1 / k if left out.
    scale : {"min", "median", "rmse"}
        Eigenvalue that sets the length.

    References
    ----------
    Senushkin et al. (2023), Independent component alignment for multi-task learning, arXiv:2305.19000.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.AlignedMTL().weights(gramian=[[4.0, 0.0], [0.0, 1.0]])
    array([0.25, 0.5 ])
    """

    def __init__(self, preference: Any = None, scale: str = "min") -> None:
        check.one_of("scale", scale, ("min", "median", "rmse"), "AlignedMTL")
        self.preference, self.scale = _preference("AlignedMTL", preference), scale

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("AlignedMTL", gramian)
        p = _preferred("AlignedMTL", self.preference, len(g))
        values, vectors = np.linalg.eigh(g)
        kept = values > values.max() * len(g) * np.finfo(F64).eps
        if not kept.any():
            return p.copy()
        values, vectors = values[kept], vectors[:, kept]
        # The lower of two middle ones, as torch.median takes it.
        middle = np.sort(values)[(len(values) - 1) // 2]
        length = {"min": values.min(), "median": middle, "rmse": values.mean()}[self.scale]
        return math.sqrt(float(length)) * (vectors / np.sqrt(values)) @ (vectors.T @ p)


class UPGrad(Balancer):
    """Unconflicting projection: each gradient is moved to the nearest direction that harms no task; then their mean.

    Parameters
    ----------
    preference : (k,) array-like, optional
        Weight of each projected gradient; 1 / k if left out.

    References
    ----------
    Quinton, Rey (2024), Jacobian descent for multi-objective optimization, arXiv:2406.16232.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> grads = np.array([[1.0, 0.0], [-1.0, 1.0]])
    >>> weights = fl.balance.UPGrad().weights(gramian=fl.balance.gramian(grads))
    >>> weights, weights @ grads
    (array([1.  , 0.75]), array([0.25, 0.75]))
    """

    def __init__(self, preference: Any = None) -> None:
        self.preference = _preference("UPGrad", preference)

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        g = square("UPGrad", gramian)
        p = _preferred("UPGrad", self.preference, len(g))
        # The projection of p_i g_i is the shortest combination by weights of at least p_i at i and 0 elsewhere.
        return p + sum(minimum(g, p[i] * g[:, i], False) for i in range(len(g)))
