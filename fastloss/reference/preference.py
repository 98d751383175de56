"""Preference losses in plain NumPy."""

import numpy as np

__all__ = ["dpo", "ipo", "kto", "orpo", "simpo"]


def _log_sigmoid(x):
    return -np.logaddexp(0, -x)


def _margin(chosen, rejected, ref_chosen, ref_rejected):
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0):
    """Direct preference optimization, with cDPO's smoothing."""
    h = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    return -(1 - label_smoothing) * _log_sigmoid(h) - label_smoothing * _log_sigmoid(-h)


def ipo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    """Identity preference optimization."""
    return (_margin(chosen, rejected, ref_chosen, ref_rejected) - 1 / (2 * beta)) ** 2


def simpo(chosen, rejected, beta=2.0, gamma=0.5):
    """Simple preference optimization."""
    return -_log_sigmoid(beta * (chosen - rejected) - gamma)


def orpo(chosen, rejected, lam=0.1):
    """Likelihood and odds ratio."""
    odds = (chosen - rejected) - (np.log1p(-np.exp(chosen)) - np.log1p(-np.exp(rejected)))
    return -chosen - lam * _log_sigmoid(odds)


def kto(log_prob, ref_log_prob, desirable, kl=0.0, beta=0.1, lambda_d=1.0, lambda_u=1.0):
    """Kahneman-Tversky optimization."""
    r = beta * (log_prob - ref_log_prob - np.maximum(kl, 0))
    desirable = np.asarray(desirable, bool)
    return np.where(desirable, lambda_d * (1 - np.exp(_log_sigmoid(r))), lambda_u * (1 - np.exp(_log_sigmoid(-r))))
