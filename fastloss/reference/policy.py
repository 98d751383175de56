"""Policy losses in plain NumPy."""

import numpy as np

__all__ = ["minimum_risk", "ppo_clip", "reinforce", "self_critical"]


def ppo_clip(log_prob, old_log_prob, advantage, clip=0.2, clip_high=None):
    """Clipped surrogate."""
    ratio = np.exp(log_prob - old_log_prob)
    clipped = np.clip(ratio, 1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -np.minimum(ratio * advantage, clipped * advantage)


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
