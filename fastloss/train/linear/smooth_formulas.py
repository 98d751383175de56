"""Smooth formulas in place of losses with kinks, and a steeper curvature for the Huber loss.

|u| becomes sqrt(u^2 + w^2), which is above it by w at most.
"""

from ...spec.vocabulary import maximum, sqrt, where

__all__ = ["smooth_hinge", "smooth_mae", "smooth_mape", "smooth_quantile", "steep_huber"]


def smooth_mae(z, t, width=1.0):
    """Absolute error, rounded within the width of the target."""
    r = z - t
    s = sqrt(r * r + width * width)
    share = width / s
    return s, r / s, share * share / s, 1.0 / s


def smooth_quantile(z, t, q=0.5, width=1.0):
    """Quantile loss, rounded within the width of the target."""
    r = z - t
    s = sqrt(r * r + width * width)
    share = width / s
    return 0.5 * s + (0.5 - q) * r, 0.5 * (r / s) + 0.5 - q, 0.5 * share * share / s, 0.5 / s


def smooth_mape(z, t, eps=2.220446049250313e-16, width=1.0):
    """Absolute error relative to the target, rounded within the width of the target."""
    scale = 1.0 / maximum(abs(t), eps)
    r = z - t
    s = sqrt(r * r + width * width)
    share = width / s
    return scale * s, scale * (r / s), scale * (share * share / s), scale / s


def smooth_hinge(z, t, margin=1.0, width=1.0):
    """Hinge loss, rounded within the width of the margin."""
    u = margin - t * z
    s = sqrt(u * u + width * width)
    share = width / s
    return 0.5 * (s + u), -0.5 * t * (u / s + 1.0), 0.5 * share * share / s, 0.5 / s


def steep_huber(z, t, delta=1.0):
    """Huber loss with the curvature of the widest parabola above it that touches it at z."""
    r = z - t
    a = abs(r)
    beyond = a > delta
    m = where(beyond, delta, a)
    slope = where(beyond, where(r > 0.0, delta, -delta), r)
    return m * (a - 0.5 * m), slope, where(beyond, 0.0, 1.0), delta / maximum(a, delta)
