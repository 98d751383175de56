"""Policy losses in plain NumPy."""

import numpy as np

__all__ = ["cispo", "grpo", "minimum_risk", "ppo_clip", "reinforce", "sapo", "self_critical"]


def ppo_clip(log_prob, old_log_prob, advantage, clip=0.2, clip_high=None):
    """Clipped surrogate."""
    ratio = np.exp(log_prob - old_log_prob)
    clipped = np.clip(ratio, 1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -np.minimum(ratio * advantage, clipped * advantage)


def _k3(log_prob, ref_log_prob, beta):
    d = ref_log_prob - log_prob
    return beta * (np.exp(d) - d - 1)


def grpo(log_prob, old_log_prob, advantage, ref_log_prob=0.0, clip=0.2, clip_high=None, beta=0.0):
    """Clipped surrogate and divergence from a reference."""
    return ppo_clip(log_prob, old_log_prob, advantage, clip, clip_high) + _k3(log_prob, ref_log_prob, beta)


def cispo(log_prob, old_log_prob, advantage, ref_log_prob=0.0, clip_high=5.0, beta=0.0, held=None):
    """Policy gradient with clipped weights, which may be held constant."""
    weight = np.minimum(np.exp(log_prob - old_log_prob), clip_high) if held is None else held
    return -weight * advantage * log_prob + _k3(log_prob, ref_log_prob, beta)


def sapo(log_prob, old_log_prob, advantage, ref_log_prob=0.0, tau_pos=1.0, tau_neg=1.05, beta=0.0):
    """Gated surrogate."""
    tau = np.where(advantage > 0, tau_pos, tau_neg)
    gate = 4 / tau / (1 + np.exp(tau * (1 - np.exp(log_prob - old_log_prob))))
    return -advantage * gate + _k3(log_prob, ref_log_prob, beta)


def reinforce(log_prob, reward, baseline=0.0, entropy=0.0, entropy_weight=0.01):
    """Policy gradient."""
    return -(reward - baseline) * log_prob - entropy_weight * entropy


def self_critical(log_prob, reward, baseline):
    """Self-critical sequence training."""
    return -(reward - baseline) * log_prob


def minimum_risk(log_prob, reward, alpha=0.005):
    """Minimum risk training."""
    q = np.exp(alpha * (log_prob - log_prob.max(-1, keepdims=True)))
    return -(q * reward).sum(-1) / q.sum(-1)
