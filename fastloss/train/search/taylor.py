"""TaylorGLO: losses of two classes as a polynomial of the third degree in probability and label."""

import numpy as np

from ...losses.custom.elements import CustomLoss, loss

__all__ = ["BOUNDS", "taylor"]

BOUNDS = (-6.0, 6.0)
"""Bounds of every coefficient: five times the first deviation of TaylorGLO, 1.2, around 0."""

PAPER = (
    "Gonzalez, Miikkulainen (2021), Optimizing loss functions through multivariate Taylor polynomials, arXiv:2002.00059"
)

PARAMETERS = {
    **{"a0": "centre of the label", "a1": "centre of the probability"},
    **{"a2": "coefficient of p", "a3": "coefficient of p^2 / 2", "a4": "coefficient of p^3 / 6"},
    **{"a5": "coefficient of t p", "a6": "coefficient of t p^2 / 2", "a7": "coefficient of t^2 p / 2"},
}
"""Meanings of the coefficients, in which p and t are centred."""


def taylor() -> CustomLoss:
    """Return the loss whose coefficients are those of the squared error of the probability, apart from t^2."""
    decorate = loss(name="taylor", target=(0, 1), link="logit", paper=PAPER, parameters=PARAMETERS)
    return decorate(_taylor)


def _taylor(z, t, a0=0.0, a1=0.0, a2=0.0, a3=-2.0, a4=0.0, a5=2.0, a6=0.0, a7=0.0):  # type: ignore[no-untyped-def]
    """Polynomial of TaylorGLO in the probability p = sigmoid(z) and the label t, of the third degree.

    a0 and a1 are the centres of t and p; the others the coefficients that a derivative by p leaves.
    """
    p, x = 1 / (1 + np.exp(-z)) - a1, t - a0
    of_p = a2 * p + a3 * p * p / 2 + a4 * p * p * p / 6
    return -(of_p + a5 * x * p + a6 * x * p * p / 2 + a7 * x * x * p / 2)
