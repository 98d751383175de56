"""Redundancy-reduction losses of two views in plain NumPy."""

import numpy as np

__all__ = ["barlow_twins", "vicreg"]


def barlow_twins(z1, z2, lam=0.0051, eps=1e-5):
    """Squared distance of the columns' cross-correlation from the identity, with off-diagonal terms times lam."""
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + eps) for z in (z1, z2))
    c = a.T @ b / len(z1)
    off = c[~np.eye(len(c), dtype=bool)]
    return ((np.diag(c) - 1) ** 2).sum() + lam * (off**2).sum()


def vicreg(z1, z2, sim=25.0, var=25.0, cov=1.0, gamma=1.0, eps=1e-4):
    """Weighted sum of mean squared difference, missing standard deviation and squared covariances."""
    value = sim * ((z1 - z2) ** 2).mean()
    for z in (z1, z2):
        c = np.atleast_2d(np.cov(z, rowvar=False))
        value += var / 2 * np.maximum(gamma - np.sqrt(np.diag(c) + eps), 0).mean()
        value += cov * (c[~np.eye(len(c), dtype=bool)] ** 2).sum() / len(c)
    return value
