"""Row-wise losses over K classes. lp is a log-probability, t its target (1 at an integer label), u a margin."""

from ..spec.record import (
    NONNEGATIVE,
    REAL,
    SOFTMAX,
    Interval,
    OneOf,
    Parameter,
    rows,
)
from ..spec.special import share
from ..spec.vocabulary import exp, expm1, log, pow, sign, where

SCALES = ("temperature", "logit_scale")


@rows(
    "softmax",
    math="-sum_j t_j log softmax(z)_j, with t smoothed to (1 - label_smoothing) t + label_smoothing / K",
    target=NONNEGATIVE,
    link="softmax",
    loop_parameters=("label_smoothing", "z_loss", *SCALES, "softcap"),
    convex=True,
    surrogate="the second derivative, without the softmax's own where z_loss makes it negative",
    paper="Bridle (1990); label smoothing: Szegedy et al. (2016), arXiv:1512.00567",
)
def cross_entropy(lp, t):
    """Softmax cross-entropy of logits against integer labels or class probabilities."""
    return where(t == 0.0, 0.0, -t * lp), -t, 0.0, 0.0


@rows(
    "log_probs",
    math="-sum_j t_j log p_j, with t smoothed to (1 - label_smoothing) t + label_smoothing / K",
    target=NONNEGATIVE,
    link="log",
    loop_parameters=("label_smoothing",),
    convex=True,
    paper="Good (1952); label smoothing: Szegedy et al. (2016), arXiv:1512.00567",
)
def nll(lp, t):
    """Negative log-likelihood from log-probabilities; cross_entropy takes logits."""
    return where(t == 0.0, 0.0, -t * lp), -t, 0.0


@rows(
    "softmax",
    math="-sum_j t_j (1 - p_j)^gamma log p_j, with p = softmax(z)",
    target=NONNEGATIVE,
    link="softmax",
    parameters={"gamma": Parameter("how strongly easy examples are turned down", NONNEGATIVE)},
    loop_parameters=SCALES,
    surrogate=SOFTMAX,
    paper="Lin et al. (2017), arXiv:1708.02002",
)
def softmax_focal(lp, t, gamma=2.0):
    """Focal loss over a softmax; its alpha is the class weight."""
    p = exp(lp)
    m = -expm1(lp)
    power = pow(m, gamma)
    lower = where(m > 0.0, pow(m, gamma - 1.0), where(gamma == 1.0, 1.0, 0.0))
    # Where p is 0, lp is minus infinity, and their product vanishes.
    pull = where(p > 0.0, p * where(m > 0.0, lp / m, -1.0), 0.0)
    bend = where(p > 0.0, p * (2.0 + lp), 0.0)
    value = where(t == 0.0, 0.0, -t * (power * lp))
    second = t * (gamma * lower * (bend - (gamma - 1.0) * (p * pull)))
    return value, -t * (power * (1.0 - gamma * pull)), second, 0.0


@rows(
    "softmax",
    math="-sum_j t_j log p_j + epsilon sum_j t_j (1 - p_j), with p = softmax(z)",
    target=NONNEGATIVE,
    link="softmax",
    parameters={"epsilon": Parameter("weight of the first polynomial term", Interval(-1.0))},
    loop_parameters=SCALES,
    surrogate=SOFTMAX,
    paper="Leng et al. (2022), arXiv:2204.12511",
)
def poly1_cross_entropy(lp, t, epsilon=1.0):
    """Cross-entropy with its first polynomial coefficient changed."""
    p = exp(lp)
    return where(t == 0.0, 0.0, t * (-epsilon * expm1(lp) - lp)), -t * (1.0 + epsilon * p), -t * (epsilon * p), 0.0


@rows(
    "softmax",
    math="sum_j t_j (1 - p_j^q) / q, with p = softmax(z)",
    target=NONNEGATIVE,
    link="softmax",
    parameters={"q": Parameter("0 is cross-entropy in the limit, 1 the mean absolute error", Interval(0.0, 1.0, True))},
    loop_parameters=SCALES,
    bounded=True,
    robust=True,
    surrogate=SOFTMAX,
    paper="Zhang and Sabuncu (2018), arXiv:1805.07836",
)
def generalized_cross_entropy(lp, t, q=0.7):
    """Cross-entropy that tolerates noisy labels."""
    power = exp(q * lp)
    return -t * (expm1(q * lp) / q), -t * power, -t * (q * power), 0.0


@rows(
    "log_probs",
    math="sum_j t_j (log t_j - lp_j), with lp the predicted log-probabilities",
    target=NONNEGATIVE,
    link="log",
    convex=True,
    paper="Kullback and Leibler (1951)",
)
def kl_div(lp, t):
    """Kullback-Leibler divergence of the target from predicted log-probabilities, summed over classes."""
    return where(t == 0.0, 0.0, t * (log(t) - lp)), -t, 0.0


@rows(
    "divergence",
    math="beta KL(t || m) + (1 - beta) KL(p || m), with m = beta t + (1 - beta) p and p = exp(lp)",
    target=NONNEGATIVE,
    link="log",
    parameters={"beta": Parameter("weight of the target in the mixture", Interval(0.0, 1.0, True, True))},
    surrogate="beta (1 - beta) t p / m, without the curvature of p (Gauss-Newton)",
    paper="Lin (1991); generalized: Agarwal et al. (2023), arXiv:2306.13649",
)
def js_div(lp, t, beta=0.5):
    """Jensen-Shannon divergence between the target and predicted log-probabilities, summed over classes."""
    p = exp(lp)
    rest = 1.0 - beta
    # Keeps m above 0 where t and p are subnormal: there it is multiplied by 2^66.
    faint = t + p < 1e-30
    lift = where(faint, 73786976294838206464.0, 1.0)
    q = p * lift
    m = beta * (t * lift) + rest * q
    log_m = log(m) - where(faint, 45.747713916956386, 0.0)
    gap = where(p > 0.0, lp - log_m, 0.0)
    value = where(t == 0.0, 0.0, beta * t * (log(t) - log_m)) + share(rest, p * gap)
    bend = where(p > 0.0, p * (1.0 - share(rest, q / m)), 0.0)
    return value, share(rest, p * gap), share(rest, p * gap + bend), share(rest, bend)


@rows(
    "margin",
    math="sum_{j != y} max(0, margin + z_j - z_y)^p / K",
    parameters={
        "p": Parameter("power of each term", OneOf((1.0, 2.0))),
        "margin": Parameter("distance by which the label must win", REAL),
    },
    convex=True,
    differentiable=False,
    surrogate="1",
    paper="Weston and Watkins (1999); the convention of torch",
)
def multi_margin(u, p=1.0, margin=1.0):
    """Multiclass hinge loss over every wrong class."""
    a = u + margin
    inside = a > 0.0
    # Neither inside nor outside is NaN, which stays.
    outside = where(a <= 0.0, 0.0, a)
    value = where(inside, where(p == 1.0, a, a * a), outside)
    first = where(inside, where(p == 1.0, 1.0, 2.0 * a), outside)
    return value, first, where(inside, where(p == 1.0, 0.0, 2.0), 0.0), where(inside, p, 0.0)


@rows(
    "top_margin",
    math="max(0, margin + max_{j != y} z_j - z_y)",
    parameters={"margin": Parameter("distance by which the label must win", NONNEGATIVE)},
    convex=True,
    differentiable=False,
    surrogate="1",
    paper="Crammer and Singer (2001)",
)
def crammer_singer(u, margin=1.0):
    """Multiclass hinge loss over the strongest wrong class."""
    a = u + margin
    inside = a > 0.0
    outside = where(a <= 0.0, 0.0, a)
    return where(inside, a, outside), where(inside, 1.0, outside), 0.0, where(inside, 1.0, 0.0)


@rows(
    "ensemble",
    math="mean_j |x_j - t| - c sum_ij |x_i - x_j| / 2, with c = 1/M^2, or 1/(M (M - 1)) where fair",
    parameters={"fair": Parameter("unbiased for the distribution that the members are drawn from", flag=True)},
    convex=False,
    differentiable=False,
    surrogate="1 / M",
    paper="Gneiting and Raftery (2007); fair: Ferro (2014)",
)
def crps_ensemble(x, t, rank, m, fair=0.0):
    """Continuous ranked probability score of an ensemble forecast."""
    pairs = where(fair > 0.0, where(m > 1.0, m * (m - 1.0), 1.0), m * m)
    spread = (2.0 * rank - m - 1.0) / pairs
    r = x - t
    return abs(r) / m - spread * r, sign(r) / m - spread, 0.0, 1.0 / m
