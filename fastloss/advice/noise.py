"""Models of noise fitted to residuals by maximum likelihood, and compared by Schwarz's criterion."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Fit", "fits"]

DEGREES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 30.0)
"""Degrees of freedom of Student's t that are tried; beyond 30 it is hardly told from a normal distribution."""
STEPS = 30
"""Steps of each fit by expectation and maximisation: scales are right to three digits, which the criterion does not
notice."""


@dataclass(frozen=True)
class Fit:
    """A fitted model of noise."""

    name: str
    likelihood: float
    """Logarithm, of all residuals."""
    parameters: int
    scale: float
    shape: float = math.nan
    """Degrees of freedom of Student's t, share of outliers of a contaminated normal distribution."""

    def criterion(self, count: int) -> float:
        """Return Schwarz's criterion (BIC): smaller is better, by 10 is decisive."""
        return self.parameters * math.log(count) - 2.0 * self.likelihood


def fits(residuals: Any) -> list[Fit]:
    """Return the fitted models, the best first."""
    r = np.asarray(residuals, np.float64)
    found = [_normal(r), _laplace(r), _student(r), _contaminated(r)]
    return sorted(found, key=lambda f: f.criterion(len(r)))


def _normal(r: Any) -> Fit:
    r = r - r.mean()
    variance = float(np.mean(r * r))
    return Fit("normal", -0.5 * len(r) * (math.log(2.0 * math.pi * variance) + 1.0), 2, math.sqrt(variance))


def _laplace(r: Any) -> Fit:
    scale = float(np.mean(np.abs(r - np.median(r))))
    return Fit("laplace", -len(r) * (math.log(2.0 * scale) + 1.0), 2, scale)


def _student(r: Any) -> Fit:
    r = r - np.median(r)
    start = float(np.median(np.abs(r))) or float(np.mean(np.abs(r)))
    best = None
    for degrees in DEGREES:
        square, r2 = start * start, r * r
        for _ in range(STEPS):
            square = float(np.mean((degrees + 1.0) * r2 / (degrees + r2 / square)))
        each = (
            math.lgamma(0.5 * (degrees + 1.0)) - math.lgamma(0.5 * degrees) - 0.5 * math.log(degrees * math.pi * square)
        )
        likelihood = len(r) * each - 0.5 * (degrees + 1.0) * float(np.sum(np.log1p(r2 / (degrees * square))))
        if best is None or likelihood > best.likelihood:
            best = Fit("student", likelihood, 3, math.sqrt(square), degrees)
    assert best is not None
    return best


def _contaminated(r: Any) -> Fit:
    """Fit a normal distribution with a share of outliers: a second one of any centre, at least three times as wide."""
    core = float(1.4826 * np.median(np.abs(r - np.median(r)))) or float(np.std(r))
    middle, centre, wide, share = float(np.median(r)), float(np.median(r)), 10.0 * core, 0.05
    likelihood = -math.inf
    for _ in range(STEPS):
        inner = _log_normal(r - middle, core) + math.log1p(-share)
        outer = _log_normal(r - centre, wide) + math.log(share)
        both = np.logaddexp(inner, outer)
        likelihood = float(np.sum(both))
        w = np.exp(outer - both)
        share = min(max(float(np.mean(w)), 1e-6), 0.3)
        middle = float(np.sum((1.0 - w) * r) / np.sum(1.0 - w))
        core = max(math.sqrt(float(np.sum((1.0 - w) * (r - middle) ** 2) / np.sum(1.0 - w))), 1e-300)
        centre = float(np.sum(w * r) / max(float(np.sum(w)), 1e-300))
        wide = max(math.sqrt(float(np.sum(w * (r - centre) ** 2) / max(float(np.sum(w)), 1e-300))), 3.0 * core)
    return Fit("outliers", likelihood, 5, core, share)


def _log_normal(r: Any, scale: float) -> Any:
    return -0.5 * (r / scale) ** 2 - math.log(scale) - 0.5 * math.log(2.0 * math.pi)
