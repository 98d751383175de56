"""Risks of the distribution of per-sample losses: tails, trimmed means, quantiles, tilts and robust sets."""

import math
from typing import Any

from ...call import check
from ...cpu import risks
from ...spec.record import FINITE, FINITE_NONNEGATIVE, Interval
from .base import Risk

__all__ = ["KL", "CVaR", "ChiSquare", "Quantile", "Tilted", "Trimmed"]

SHARE = Interval(0.0, 1.0, low_open=True)
TRIMMED = Interval(0.0, 1.0, high_open=True)
STEPS = 200
"""Most steps of a root search: bisection alone takes 64 for all digits of a double."""


def _mean(losses: Any, masses: Any, total: float, writes: bool) -> float:
    """Return the mean of flat losses."""
    return risks.by_level(losses, masses, (0.0, *(1.0 / total,) * 3), writes)


def _at_extreme(losses: Any, masses: Any, total: float, extreme: float, writes: bool) -> float:
    """Return an extreme loss, whose samples share all the weight by their masses."""
    if writes:
        mass, equal = risks.mass_at(losses, masses, extreme), losses == extreme
        losses[...] = (equal if masses is None else equal * masses) / mass
    return extreme


def _counted(losses: Any, masses: Any) -> Any:
    """Return the losses of samples with a mass."""
    return losses if masses is None or masses.all() else losses[masses != 0.0]


class CVaR(Risk):
    r"""Conditional value at risk: the mean of the largest losses, which make up a share alpha of the samples.

    .. math:: \min_\eta \; \eta + \frac{1}{\alpha n} \sum_i \max(l_i - \eta, 0)

    The sample at the boundary counts in part, and losses that equal it share that part. With sample weights, the
    share is one of the total weight. ``CVaR(1.0)`` is the mean.

    Parameters
    ----------
    alpha : float in (0, 1]
        Share of the samples.

    References
    ----------
    Rockafellar, Uryasev (2000), Optimization of conditional value-at-risk.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> pred, target = np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4)
    >>> fl.mae(pred, target, reduction=fl.risk.CVaR(0.5))
    3.5
    """

    __slots__ = ()

    def __init__(self, alpha: float) -> None:
        super().__init__(alpha=check.within("alpha", alpha, SHARE, "CVaR"))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        flat, share = losses.reshape(-1), self.alpha * total
        if self.alpha == 1.0:
            return _mean(flat, masses, total, writes)
        level = risks.level_above(flat, masses, share, total)
        part = min(max(share - level.above, 0.0) / level.equal, 1.0) if level.equal > 0.0 else 0.0
        return risks.by_level(flat, masses, (level.tau, 1.0 / share, part / share, 0.0), writes)


class Trimmed(Risk):
    """Trimmed mean: the mean of the losses without the largest, which make up a fraction of the samples.

    The sample at the boundary counts in part, as in `CVaR`. Outliers lose all influence; the risk is not convex.
    ``Trimmed(0.0)`` is the mean.

    Parameters
    ----------
    fraction : float in [0, 1)
        Share of the samples, or of their weight, that is left out.

    References
    ----------
    Rousseeuw (1984), Least median of squares regression; Shen, Sanghavi (2019), Learning with bad training data via
    iterative trimmed loss minimization.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> fl.risk.Trimmed(0.25)(np.array([1.0, 2.0, 3.0, 1000.0]))
    2.0
    """

    __slots__ = ()

    def __init__(self, fraction: float) -> None:
        super().__init__(fraction=check.within("fraction", fraction, TRIMMED, "Trimmed"))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        flat, left_out = losses.reshape(-1), self.fraction * total
        if left_out == 0.0:
            return _mean(flat, masses, total, writes)
        level, kept = risks.level_above(flat, masses, left_out, total), total - left_out
        part = min(max(level.above + level.equal - left_out, 0.0) / level.equal, 1.0) if level.equal > 0.0 else 0.0
        return risks.by_level(flat, masses, (level.tau, 0.0, part / kept, 1.0 / kept), writes)


class Quantile(Risk):
    """Quantile of the losses: the smallest loss that at least a share q of the samples do not exceed (value at risk).

    The definition is that of ``np.quantile(method="inverted_cdf")``, with weights too. The gradient is that of the
    sample at the quantile alone; samples of equal losses share it by their weights. The risk is not convex.

    Parameters
    ----------
    q : float in (0, 1]
        Level: 0.5 is the lower median, 1.0 the maximum.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> fl.risk.Quantile(0.5)(np.array([1.0, 2.0, 3.0, 1000.0]))
    2.0
    """

    __slots__ = ()

    def __init__(self, q: float) -> None:
        super().__init__(q=check.within("q", q, SHARE, "Quantile"))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        flat = losses.reshape(-1)
        level = risks.level_above(-flat, masses, self.q * total, total)
        return risks.by_level(flat, masses, (-level.tau, 0.0, 1.0 / level.equal if level.equal else 0.0, 0.0), writes)


class Tilted(Risk):
    r"""Tilted (exponential, entropic) risk, between the mean (t = 0) and the largest loss (t to infinity).

    .. math:: \frac{1}{t} \log \frac{1}{n} \sum_i \exp(t \, l_i)

    A negative t draws towards the smallest loss, which makes the risk robust to outliers.

    Parameters
    ----------
    t : finite float
        Tilt, in units of one over the loss.

    References
    ----------
    Li et al. (2021), Tilted empirical risk minimization, arXiv:2007.01162.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> round(float(np.exp(fl.risk.Tilted(1.0)(np.log([1.0, 3.0])))), 12)
    2.0
    """

    __slots__ = ()

    def __init__(self, t: float) -> None:
        super().__init__(t=check.within("t", t, FINITE, "Tilted"))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        flat, t = losses.reshape(-1), float(self.t)
        if t == 0.0:
            return _mean(flat, masses, total, writes)
        counted = _counted(flat, masses)
        origin = float(counted.max() if t > 0.0 else counted.min())
        if math.isinf(origin):
            return _at_extreme(flat, masses, total, origin, writes)
        less = risks.exponential(flat, masses, t, origin)[0]
        if writes:
            risks.write_exponential(flat, masses, t, origin, 1.0 / (total + less))
        return origin + math.log1p(less / total) / t


class ChiSquare(Risk):
    r"""Largest mean loss over all reweightings of the samples within a chi-square ball around equal weights.

    .. math:: \max_q \sum_i q_i l_i \quad \text{with} \quad \frac{1}{2n} \sum_i (n q_i - 1)^2 \le \rho

    ``ChiSquare(0.0)`` is the mean. Where one sample may take all the weight, the risk is the largest loss.

    Parameters
    ----------
    rho : float, at least 0
        Radius of the ball.

    References
    ----------
    Duchi, Namkoong (2019), Variance-based regularization with convex objectives; Levy et al. (2020), Large-scale
    methods for distributionally robust optimization, arXiv:2010.05893.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> fl.risk.ChiSquare(0.5)(np.array([1.0, 3.0]))
    3.0
    """

    __slots__ = ()

    def __init__(self, rho: float) -> None:
        super().__init__(rho=check.within("rho", rho, FINITE_NONNEGATIVE, "ChiSquare"))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        flat, ratio = losses.reshape(-1), 1.0 + 2.0 * self.rho
        counted = _counted(flat, masses)
        low, high = float(counted.min()), float(counted.max())
        if not low < high or ratio == 1.0 or low == -math.inf:
            return _mean(flat, masses, total, writes)
        if math.isinf(high):
            return _at_extreme(flat, masses, total, high, writes)
        eta, mass = low, total
        for _ in range(STEPS):
            # At a fixed set of samples above eta, the constraint is a quadratic equation in eta. Its root never passes
            # the solution, so the set shrinks until it is that of the solution.
            above, one, two = risks.excess(flat, masses, eta)
            mass = total if eta == low else above
            if mass == 0.0 or ratio * mass <= total:
                break
            mean = one / mass
            moved = eta + mean - math.sqrt(max(two / mass - mean * mean, 0.0) / (ratio * mass / total - 1.0))
            if not moved > eta and eta != low:
                break
            # Below the lowest loss the set is that of all samples, whose root is exact.
            done, eta = moved <= low, moved
            if done:
                break
        above, one, two = risks.excess(flat, masses, eta)
        if not one > 0.0 or eta >= high:
            return _at_extreme(flat, masses, total, high, writes)
        if writes:
            risks.write_excess(flat, masses, eta, 1.0 / one)
        return eta + two / one


class KL(Risk):
    r"""Largest mean loss over all reweightings of the samples within a Kullback-Leibler ball around equal weights.

    .. math:: \max_q \sum_i q_i l_i \quad \text{with} \quad \sum_i q_i \log(n q_i) \le \rho

    The weights are those of `Tilted` with the t at which the divergence is rho. ``KL(0.0)`` is the mean. Where one
    sample may take all the weight, the risk is the largest loss.

    Parameters
    ----------
    rho : float, at least 0
        Radius of the ball, in nats.

    References
    ----------
    Hu, Hong (2013), Kullback-Leibler divergence constrained distributionally robust optimization.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> fl.risk.KL(1.0)(np.array([1.0, 3.0]))
    3.0
    """

    __slots__ = ()

    def __init__(self, rho: float) -> None:
        super().__init__(rho=check.within("rho", rho, FINITE_NONNEGATIVE, "KL"))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        flat = losses.reshape(-1)
        counted = _counted(flat, masses)
        low, high = float(counted.min()), float(counted.max())
        if not low < high or self.rho == 0.0 or low == -math.inf:
            return _mean(flat, masses, total, writes)
        if math.isinf(high) or self.rho >= -math.log(risks.mass_at(flat, masses, high) / total):
            return _at_extreme(flat, masses, total, high, writes)
        rate = self._rate(flat, masses, total, high)
        less, one, _ = risks.exponential(flat, masses, rate, high)
        if writes:
            risks.write_exponential(flat, masses, rate, high, 1.0 / (total + less))
        return high + one / (total + less)

    def _rate(self, losses: Any, masses: Any, total: float, high: float) -> float:
        """Return the tilt at which the divergence of the weights is rho: Newton's method within a shrinking bracket."""

        def spread(rate: float) -> tuple[float, float]:
            """Return the divergence at a tilt, and the variance of the losses there."""
            less, one, two = risks.exponential(losses, masses, rate, high)
            mass = total + less
            mean = one / mass
            return rate * mean - math.log1p(less / total), max(two / mass - mean * mean, 0.0)

        variance = spread(0.0)[1]
        least, most = 0.0, math.inf
        # Near 0 the divergence is rate^2 variance / 2, so its root is close to linear.
        rate = math.sqrt(2.0 * self.rho / variance)
        for _ in range(STEPS):
            divergence, variance = spread(rate)
            if divergence < self.rho:
                least = rate
            else:
                most = rate
            slope = rate * variance
            root = math.sqrt(max(divergence, 0.0))
            moved = rate + 2.0 * root * (math.sqrt(self.rho) - root) / slope if slope > 0.0 else math.inf
            if not least < moved < most:
                moved = 2.0 * rate if math.isinf(most) else 0.5 * (least + most)
            if abs(moved - rate) <= 1e-9 * rate:
                # Newton's next step would be the square of this one.
                return moved
            rate = moved
        return rate
