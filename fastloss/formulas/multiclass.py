"""Further row-wise losses over K classes, in the notation of softmax.py."""

from ..spec.record import NONNEGATIVE, SOFTMAX, Interval, Parameter, rows
from ..spec.special import digamma_tail, lgamma_tail, log1p_minus, logistic_parts, sine_cosine, trigamma_tail
from ..spec.vocabulary import (
    digamma,
    epsilon,
    exp,
    expm1,
    largest,
    lgamma,
    log,
    log1p,
    log1p_unit,
    maximum,
    minimum,
    sign,
    sqrt,
    trigamma,
    where,
)
from .softmax import SCALES


@rows(
    "divergence",
    math="sum_j |p_j - t_j| / 2, with p = exp(lp)",
    target=NONNEGATIVE,
    link="log",
    differentiable=False,
    bounded=True,
    surrogate="p / 2",
    paper="Gibbs and Su (2002), On choosing and bounding probability metrics",
)
def tv_distance(lp, t):
    """Total variation distance between the target and predicted log-probabilities; gradient 0 where they agree."""
    p = exp(lp)
    r = p - t
    slope = 0.5 * (sign(r) * p)
    return 0.5 * abs(r), slope, slope, 0.5 * p


@rows(
    "divergence",
    math="sum_j p_j (lp_j - log t_j), with p = exp(lp)",
    target=NONNEGATIVE,
    link="log",
    surrogate="p, without the curvature of p (Gauss-Newton)",
    paper="Kullback and Leibler (1951); as the objective of a policy: Gu et al. (2024), arXiv:2306.08543",
)
def reverse_kl(lp, t):
    """Kullback-Leibler divergence of predicted log-probabilities from the target, summed over classes.

    Infinite where a class of target 0 is given a probability; kl_div is the divergence the other way round.
    """
    p = exp(lp)
    # A finite log-probability is that of a probability above 0, though its exponential may underflow.
    q = where((t == 0.0) & (lp >= -largest(lp)), 1.0, p)
    gap = where(q > 0.0, lp - log(t), 0.0)
    return q * gap, q * (gap + 1.0), q * (gap + 2.0), p


@rows(
    "softmax",
    math="0 where p_y >= 1 - alpha, else (1 - alpha) log((1 - alpha) / p_y) + alpha log(alpha / (1 - p_y))",
    target=NONNEGATIVE,
    link="softmax",
    parameters={
        "alpha": Parameter("share of the target that may lie on other classes", Interval(0.0, 1.0, False, True))
    },
    loop_parameters=SCALES,
    surrogate=SOFTMAX,
    paper="Lienen and Hullermeier (2021), From label smoothing to label relaxation",
)
def label_relaxation(lp, t, alpha=0.1):
    """Label relaxation: the divergence from the nearest distribution with at least 1 - alpha on the label.

    For class probabilities, the losses of the labels are averaged with them.
    """
    n = -expm1(lp)
    keep = 1.0 - alpha
    over = n - alpha
    # Near the edge of what is free of cost, two logarithms cancel but for their second-order terms.
    x = over / keep
    far = where(alpha > 0.0, alpha * log(alpha / n), 0.0) + keep * (log(keep) - lp)
    near = -keep * log1p_minus(-minimum(x, 0.5)) - where(alpha > 0.0, alpha * log1p_minus(over / alpha), -over)
    met = n <= alpha
    value = where(t == 0.0, 0.0, t * where(met, 0.0, where(x < 0.25, near, far)))
    first = where(met, 0.0, -over / n)
    # n^2 may be 0 where n is not.
    return value, t * first, where(met, 0.0, t * (alpha * (exp(lp) / n) / n)), 0.0


@rows(
    "sparsemax",
    math="sum_j ((p_j - t_j)^2 / 2 + t_j max(tau - z_j, 0)), with p = max(z - tau, 0) and tau so that sum_j p_j = 1",
    target=NONNEGATIVE,
    convex=True,
    paper="Martins and Astudillo (2016), From softmax to sparsemax",
)
def sparsemax_loss(v, t):
    """Sparsemax loss: the Fenchel-Young loss of the squared norm, for labels or rows of t that sum to 1.

    It is 0 where the label leads by 1 or more. The gradient is p - t. With class weights, a row counts as much as
    they sum to, weighted by t.
    """
    p = maximum(v, 0.0)
    r = p - t
    return 0.5 * (r * r) + where(t == 0.0, 0.0, t * maximum(-v, 0.0)), r, where(v > 0.0, 1.0, 0.0)


@rows(
    "ordinal",
    math="sum_k bce_with_logits(z_k, [y > k]), for the K labels of K - 1 logits",
    link="logit",
    convex=True,
    paper="Cao et al. (2020), Rank consistent ordinal regression (CORAL), arXiv:1901.07884",
)
def ordinal(z, t):
    """Ordinal regression by thresholds: column k is the logit that the label exceeds k.

    A row of K - 1 logits takes labels from 0 to K - 1. The class weights are those of the thresholds.
    """
    e, p, n = logistic_parts(z)
    s = log1p_unit(e)
    above = t > 0.0
    return s + maximum(where(above, -z, z), 0.0), where(above, -n, p), p * n


@rows(
    "evidence",
    math="sum_j ((t_j - q_j)^2 + q_j (1 - q_j) / (S + 1)) + lam KL(Dir(t + (1 - t) a) || Dir(1)), with "
    "a = 1 + softplus(z), S = sum_j a_j and q = a / S",
    target=NONNEGATIVE,
    parameters={"lam": Parameter("weight of the divergence, which training raises from 0", NONNEGATIVE)},
    second=False,
    paper="Sensoy et al. (2018), Evidential deep learning to quantify classification uncertainty, arXiv:1806.01768",
)
def dirichlet_evidential(e, t, total, excess, k, lam=1.0):
    """Evidential classification: the risk of a Dirichlet distribution, and its evidence for wrong classes.

    The evidence is softplus(z). Annealing of lam is left to the caller.
    """
    s = total + k
    i = 1.0 / s
    q = (e + 1.0) * i
    j = 1.0 / (s + 1.0)
    r = q - t
    spread = q * (1.0 - q) * j
    slope = 2.0 * r + (1.0 - 2.0 * q) * j
    rest = 1.0 - t
    x = rest * e
    one, bend = dirichlet_part(x)
    whole, turn = dirichlet_whole(excess, k)
    value = r * r + spread + lam * (one + whole / k)
    return value, (slope * i + lam * rest * bend, -slope * q * i - spread * j, lam * turn / k)


def dirichlet_part(x):
    """Return -lgamma(1 + x) + x digamma(1 + x) - x, and its derivative."""
    y = x + 1.0
    large = y > 16.0
    z = maximum(y, 16.0)
    i = 1.0 / z
    tail = -0.5 * log(z) - 0.9189385332046727 - lgamma_tail(z) - (z - 1.0) * (0.5 * i + digamma_tail(z)) + 1.0
    lost = (z - 1.0) * trigamma_tail(z) - 0.5 * i * (1.0 + i)
    return where(large, tail, x * digamma(y) - lgamma(y) - x), where(large, lost, x * trigamma(y) - 1.0)


def dirichlet_whole(x, k):
    """Return lgamma(k + x) - lgamma(k) - x digamma(k + x) + x, and its derivative in x."""
    y = k + x
    large = y > 16.0
    z = maximum(y, 16.0)
    i = 1.0 / z
    tail = (k - 0.5) * log1p(x / k) + lgamma_tail(z) - lgamma_tail(k) + x * (0.5 * i + digamma_tail(z))
    left = k * i - x * (0.5 * i * i + trigamma_tail(z))
    return where(large, tail, lgamma(y) - lgamma(k) - x * digamma(y) + x), where(large, left, 1.0 - x * trigamma(y))


@rows(
    "distillation",
    math="temperature^2 sum_j q_j (log q_j - log p_j), with p = softmax(z / temperature), q = softmax(t / temperature)",
    link="softmax",
    loop_parameters={"temperature": 2.0},
    convex=True,
    paper="Hinton et al. (2015), Distilling the knowledge in a neural network, arXiv:1503.02531",
)
def distillation(lp, lq):
    """Distillation: the divergence of a student's softmax from its teacher's, both from logits and both softened.

    A teacher's logit of minus infinity is a probability of 0. The factor temperature^2 keeps the gradient's size.
    """
    q = exp(lq)
    return q * where(q > 0.0, lq - lp, 0.0), -q, 0.0


@rows(
    "angular",
    math="-log softmax(scale c)_y, where c is z, but c_y = cos(arccos(z_y) + margin)",
    parameters={"margin": Parameter("angle in radians that the label must win by", Interval(0.0, 1.5707963267948966))},
    loop_parameters=("scale",),
    surrogate="the softmax's alone: the slope in the cosine is held constant",
    paper="Deng et al. (2019), ArcFace: additive angular margin loss, arXiv:1801.07698",
)
def arcface(x, margin=0.5):
    """Additive angular margin loss of cosines: cross-entropy with the label's angle enlarged.

    Where the angle and the margin exceed pi, the label's cosine is z_y - margin sin(margin), as in the authors' code.
    At a cosine of 1 the slope is infinite; there it is that of the nearest number below 1. Cosines that rounding takes
    beyond 1 count as 1 in the sine.
    """
    s, c = sine_cosine(margin)
    square = maximum((1.0 - x) * (1.0 + x), 0.0)
    root = sqrt(maximum(square, epsilon(x)))
    turned = x >= -c
    value = where(turned, x * c - sqrt(square) * s, x - margin * s)
    bend = s / (root * root * root)
    return value, where(turned, c + s * (x / root), where(x == x, 1.0, x)), where(turned, bend, 0.0), 0.0


@rows(
    "angular",
    math="-log softmax(scale c)_y, where c is z, but c_y = z_y - margin",
    parameters={"margin": Parameter("cosine that the label must win by", NONNEGATIVE)},
    loop_parameters=("scale",),
    convex=True,
    paper="Wang et al. (2018), CosFace: large margin cosine loss, arXiv:1801.09414",
)
def cosface(x, margin=0.35):
    """Additive margin loss of cosines: cross-entropy with the label's cosine lowered."""
    return x - margin, 1.0, 0.0
