"""Update rules as scalar formulas: (parameter, gradient, states, numbers) -> (parameter, states).

Each rule is written once, in the vocabulary of the losses' formulas, and compiled in float32 and float64. The numbers
(corrections of bias, 1 - beta) are computed in float64 for each step and rounded once: 1 - 0.999 in float32 would be
5e-5 off. Options that are off cost a comparison, not a pass over memory.
"""

from typing import NamedTuple

from ..spec.vocabulary import maximum, sign, sqrt, where

__all__ = ["adadelta", "adagrad", "adam", "adamax", "lion", "nadam", "rmsprop", "sgd"]


class SgdNumbers(NamedTuple):
    """Numbers of a step of `sgd`."""

    direction: float
    """1 where the objective is minimised, -1 where it is maximised; so for every rule."""
    decay: float
    """Weight decay that is added to the gradient; so for every rule."""
    momentum: float
    """Share of the buffer that is kept."""
    kept: float
    """Share of the gradient that enters the buffer: 1 - dampening."""
    first: float
    """1 at the first step, which fills the buffer with the gradient; else 0."""
    nesterov: float
    """1 for Nesterov's momentum, else 0."""
    lr: float


class AdagradNumbers(NamedTuple):
    """Numbers of a step of `adagrad`."""

    direction: float
    decay: float
    lr: float
    """Learning rate after its decay."""
    eps: float
    """Term added to the denominator; so for every rule."""


class RmspropNumbers(NamedTuple):
    """Numbers of a step of `rmsprop`."""

    direction: float
    decay: float
    alpha: float
    """Share of the mean square that is kept."""
    rest: float
    """1 - alpha."""
    centered: float
    """1 where the variance divides, 0 where the mean square does."""
    momentum: float
    lr: float
    eps: float


class AdadeltaNumbers(NamedTuple):
    """Numbers of a step of `adadelta`."""

    direction: float
    decay: float
    rho: float
    """Share of both averages that is kept."""
    rest: float
    """1 - rho."""
    lr: float
    eps: float


class AdamNumbers(NamedTuple):
    """Numbers of a step of `adam`."""

    direction: float
    decay: float
    shrink: float
    """Factor of decoupled weight decay; so for every rule."""
    rest1: float
    """1 - beta1; so for every rule."""
    beta2: float
    rest2: float
    """1 - beta2; so for every rule."""
    scale: float
    """Correction of the root for its start at 0: (1 - beta2**step) ** -0.5."""
    amsgrad: float
    """1 where the largest mean square so far divides, else 0."""
    lr: float
    """Learning rate over 1 - beta1**step."""
    eps: float


class AdamaxNumbers(NamedTuple):
    """Numbers of a step of `adamax`."""

    direction: float
    decay: float
    rest1: float
    beta2: float
    lr: float
    """Learning rate over 1 - beta1**step."""
    eps: float


class NadamNumbers(NamedTuple):
    """Numbers of a step of `nadam`."""

    direction: float
    decay: float
    shrink: float
    rest1: float
    beta2: float
    rest2: float
    scale: float
    """Correction of the root for its start at 0: (1 - beta2**step) ** -0.5."""
    by_gradient: float
    """Learning rate of the gradient, corrected by the product of the momenta."""
    by_mean: float
    """Learning rate of the moving average, corrected by that product and the next momentum."""
    eps: float


class LionNumbers(NamedTuple):
    """Numbers of a step of `lion`."""

    direction: float
    shrink: float
    rest1: float
    rest2: float
    lr: float


def decayed(g, p, direction, decay):
    """Gradient of the minimised objective, with that of the L2 penalty."""
    d = direction * g
    # Without decay an infinite parameter must not make the gradient NaN.
    return where(decay != 0.0, d + decay * p, d)


def sgd(p, g, buffer, n: SgdNumbers):
    """Gradient descent, with momentum where the buffer is kept."""
    d = decayed(g, p, n.direction, n.decay)
    buffer = where(n.first > 0.0, d, n.momentum * buffer + n.kept * d)
    d = where(n.nesterov > 0.0, d + n.momentum * buffer, buffer)
    return p - n.lr * d, buffer


def adagrad(p, g, total, n: AdagradNumbers):
    """Steps divided by the root of the sum of squared gradients."""
    d = decayed(g, p, n.direction, n.decay)
    total = total + d * d
    return p - n.lr * (d / (sqrt(total) + n.eps)), total


def rmsprop(p, g, square, mean, buffer, n: RmspropNumbers):
    """Steps divided by the root of a moving average of squared gradients."""
    d = decayed(g, p, n.direction, n.decay)
    square = n.alpha * square + n.rest * (d * d)
    mean = mean + n.rest * (d - mean)
    # Rounding can leave the variance of a constant gradient below 0.
    spread = where(n.centered > 0.0, maximum(square - mean * mean, 0.0), square)
    buffer = n.momentum * buffer + d / (sqrt(spread) + n.eps)
    return p - n.lr * buffer, square, mean, buffer


def adadelta(p, g, square, moved, n: AdadeltaNumbers):
    """Steps scaled by the ratio of moving averages of squared steps and squared gradients."""
    d = decayed(g, p, n.direction, n.decay)
    square = n.rho * square + n.rest * (d * d)
    step = sqrt(moved + n.eps) / sqrt(square + n.eps) * d
    moved = n.rho * moved + n.rest * (step * step)
    return p - n.lr * step, square, moved


def adam(p, g, m, v, largest, n: AdamNumbers):
    """Moving averages of gradients and of their squares, corrected for their start at 0."""
    d = decayed(g, p, n.direction, n.decay)
    m = m + n.rest1 * (d - m)
    v = n.beta2 * v + n.rest2 * (d * d)
    largest = maximum(largest, v)
    root = sqrt(where(n.amsgrad > 0.0, largest, v)) * n.scale + n.eps
    return n.shrink * p - n.lr * (m / root), m, v, largest


def adamax(p, g, m, largest, n: AdamaxNumbers):
    """Moving average of gradients over a decaying maximum of their magnitude."""
    d = decayed(g, p, n.direction, n.decay)
    m = m + n.rest1 * (d - m)
    largest = maximum(n.beta2 * largest, abs(d) + n.eps)
    return p - n.lr * (m / largest), m, largest


def nadam(p, g, m, v, n: NadamNumbers):
    """Adam with Nesterov's look ahead: the step is along the gradient and its moving average."""
    d = decayed(g, p, n.direction, n.decay)
    m = m + n.rest1 * (d - m)
    v = n.beta2 * v + n.rest2 * (d * d)
    root = sqrt(v) * n.scale + n.eps
    return n.shrink * p - n.by_gradient * (d / root) - n.by_mean * (m / root), m, v


def lion(p, g, m, n: LionNumbers):
    """Steps of equal size along the sign of an interpolated moving average of gradients."""
    d = n.direction * g
    return n.shrink * p - n.lr * sign(m + n.rest1 * (d - m)), m + n.rest2 * (d - m)
