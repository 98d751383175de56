"""Textbook forms of losses of classes, margins and adversarial training, as in reference.py."""

import numpy as np


def margin_ranking(x1, x2, t, margin=0.0):
    """Margin ranking loss."""
    return np.maximum(-t * (x1 - x2) + margin, 0)


def hinge_embedding(x, t, margin=1.0):
    """Hinge embedding loss."""
    return np.where(t == 1, x, np.maximum(margin - x, 0))


def contrastive_distance(d, t, margin=1.0):
    """Contrastive loss of a distance."""
    return t * d**2 + (1 - t) * np.maximum(margin - d, 0) ** 2


def triplet_distance(d_positive, d_negative, margin=1.0):
    """Triplet loss of two distances."""
    return np.maximum(d_positive - d_negative + margin, 0)


def wasserstein_critic(z, t):
    """Loss of a Wasserstein critic."""
    return (1 - t) * z - t * z


def wasserstein_generator(z):
    """Loss of a Wasserstein generator."""
    return -z


def gradient_norm_penalty(n, center=1.0, one_sided=False, lam=10.0):
    """Gradient penalty from gradient norms."""
    return lam * (np.maximum(n - center, 0) if one_sided else n - center) ** 2


def gan_bce(z, t, label_smoothing=0.0):
    """Cross-entropy of a discriminator, with one-sided label smoothing."""
    s = (1 - label_smoothing) * t
    return s * np.logaddexp(0.0, -z) + (1 - s) * np.logaddexp(0.0, z)


def gan_hinge(z, t, generator=False):
    """Hinge loss of a discriminator, or of a generator."""
    return -z if generator else t * np.maximum(1 - z, 0) + (1 - t) * np.maximum(1 + z, 0)


def lsgan(z, t):
    """Least-squares loss of a discriminator."""
    return (z - t) ** 2 / 2
