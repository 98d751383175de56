"""Preference losses in plain NumPy."""

import numpy as np

__all__ = ["dpo", "ipo", "kto", "orpo", "simpo"]


def _log_sigmoid(x):
    return -np.logaddexp(0, -x)


def _margin(chosen, rejected, ref_chosen, ref_rejected):
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0, variant="sigmoid", center=0.0):
    """Direct preference optimization, with cDPO's smoothing, and the losses of TRL's other types."""
    if variant == "aot":
        chosen, ref_chosen = np.sort(chosen - rejected, axis=0), np.sort(ref_chosen - ref_rejected, axis=0)
        rejected = ref_rejected = np.zeros_like(chosen)
    if variant == "aot_pair":
        chosen, rejected = np.sort(chosen - ref_chosen, axis=0), np.sort(rejected - ref_rejected, axis=0)
        ref_chosen = ref_rejected = np.zeros_like(chosen)
    x, y, e = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected), label_smoothing
    h = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    good, bad = -_log_sigmoid(h), -_log_sigmoid(-h)
    p, q, u = np.exp(_log_sigmoid(h)), np.exp(_log_sigmoid(x)), np.exp(_log_sigmoid(y))
    s = np.exp(_log_sigmoid(h / 0.05))
    soft = e or 0.001
    forms = {
        "hinge": lambda: np.maximum(0, 1 - h),
        "robust": lambda: ((1 - e) * good - e * bad) / (1 - 2 * e),
        "exo_pair": lambda: p * (np.log(p) - np.log1p(-soft)) + (1 - p) * (-bad - np.log(soft)),
        "nca_pair": lambda: -_log_sigmoid(x) - (_log_sigmoid(-x) + _log_sigmoid(-y)) / 2,
        "bco_pair": lambda: -_log_sigmoid(x - center) - _log_sigmoid(center - y),
        "sppo_hard": lambda: (x / beta - 0.5 / beta) ** 2 + (y / beta + 0.5 / beta) ** 2,
        "apo_zero": lambda: (1 - q) + u,
        "apo_down": lambda: q + 1 - p,
        "discopop": lambda: (1 - s) * good + s * np.exp(-h),
    }
    return forms.get(variant, lambda: (1 - e) * good + e * bad)()


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
