"""Update rules as scalar formulas: (parameter, gradient, states, numbers) -> (parameter, states).

Each rule is written once, in the vocabulary of the losses' formulas, and compiled in float32 and float64. The numbers
(corrections of bias, 1 - beta) are computed in float64 for each step and rounded once: 1 - 0.999 in float32 would be
5e-5 off. `sign` is -1 where the objective is maximised; `decay` is the weight decay that is added to the gradient;
`shrink` is the factor of decoupled weight decay. Options that are off cost a comparison, not a pass over memory.
"""

from ..spec.vocabulary import maximum, sign, sqrt, where

__all__ = ["adadelta", "adagrad", "adam", "adamax", "lion", "nadam", "rmsprop", "sgd"]


def decayed(g, p, direction, decay):
    """Gradient of the minimised objective, with that of the L2 penalty."""
    d = direction * g
    # Without decay an infinite parameter must not make the gradient NaN.
    return where(decay != 0.0, d + decay * p, d)


def sgd(p, g, buffer, direction, decay, momentum, kept, first, nesterov, lr):
    """Gradient descent, with momentum where the buffer is kept."""
    d = decayed(g, p, direction, decay)
    buffer = where(first > 0.0, d, momentum * buffer + kept * d)
    d = where(nesterov > 0.0, d + momentum * buffer, buffer)
    return p - lr * d, buffer


def adagrad(p, g, total, direction, decay, lr, eps):
    """Steps divided by the root of the sum of squared gradients."""
    d = decayed(g, p, direction, decay)
    total = total + d * d
    return p - lr * (d / (sqrt(total) + eps)), total


def rmsprop(p, g, square, mean, buffer, direction, decay, alpha, rest, centered, momentum, lr, eps):
    """Steps divided by the root of a moving average of squared gradients."""
    d = decayed(g, p, direction, decay)
    square = alpha * square + rest * (d * d)
    mean = mean + rest * (d - mean)
    # Rounding can leave the variance of a constant gradient below 0.
    spread = where(centered > 0.0, maximum(square - mean * mean, 0.0), square)
    buffer = momentum * buffer + d / (sqrt(spread) + eps)
    return p - lr * buffer, square, mean, buffer


def adadelta(p, g, square, moved, direction, decay, rho, rest, lr, eps):
    """Steps scaled by the ratio of moving averages of squared steps and squared gradients."""
    d = decayed(g, p, direction, decay)
    square = rho * square + rest * (d * d)
    step = sqrt(moved + eps) / sqrt(square + eps) * d
    moved = rho * moved + rest * (step * step)
    return p - lr * step, square, moved


def adam(p, g, m, v, largest, direction, decay, shrink, rest1, beta2, rest2, scale, amsgrad, lr, eps):
    """Moving averages of gradients and of their squares, corrected for their start at 0."""
    d = decayed(g, p, direction, decay)
    m = m + rest1 * (d - m)
    v = beta2 * v + rest2 * (d * d)
    largest = maximum(largest, v)
    root = sqrt(where(amsgrad > 0.0, largest, v)) * scale + eps
    return shrink * p - lr * (m / root), m, v, largest


def adamax(p, g, m, largest, direction, decay, rest1, beta2, lr, eps):
    """Moving average of gradients over a decaying maximum of their magnitude."""
    d = decayed(g, p, direction, decay)
    m = m + rest1 * (d - m)
    largest = maximum(beta2 * largest, abs(d) + eps)
    return p - lr * (m / largest), m, largest


def nadam(p, g, m, v, direction, decay, shrink, rest1, beta2, rest2, scale, by_gradient, by_mean, eps):
    """Adam with Nesterov's look ahead: the step is along the gradient and its moving average."""
    d = decayed(g, p, direction, decay)
    m = m + rest1 * (d - m)
    v = beta2 * v + rest2 * (d * d)
    root = sqrt(v) * scale + eps
    return shrink * p - by_gradient * (d / root) - by_mean * (m / root), m, v


def lion(p, g, m, direction, shrink, rest1, rest2, lr):
    """Steps of equal size along the sign of an interpolated moving average of gradients."""
    d = direction * g
    return shrink * p - lr * sign(m + rest1 * (d - m)), m + rest2 * (d - m)
