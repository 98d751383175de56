"""Binary classification: from logits, from probabilities, and from margins with targets -1 and +1."""

from ..spec.record import (
    CAPPED,
    NONNEGATIVE,
    POSITIVE,
    SIGNS,
    UNIT,
    Parameter,
    elementwise,
)
from ..spec.special import finite, logistic_parts, share
from ..spec.vocabulary import (
    epsilon,
    exp,
    log,
    log1p,
    log1p_unit,
    maximum,
    minimum,
    pow,
    where,
)

POS_WEIGHT = Parameter("factor on the positive part of the loss", POSITIVE, spread=True)
LABEL_SMOOTHING = Parameter("share of the target moved to 1/2", UNIT)
MARGIN = Parameter("least product of prediction and target that costs nothing")


@elementwise(
    math="-pos_weight t max(log p, -100) - (1 - t) max(log(1 - p), -100), t smoothed as in bce_with_logits",
    prediction=UNIT,
    from_logits="bce_with_logits",
    target=UNIT,
    parameters={"pos_weight": POS_WEIGHT, "label_smoothing": LABEL_SMOOTHING},
    convex=True,
    bounded=True,
    surrogate=CAPPED,
    paper="Good (1952), Rational decisions",
)
def bce(p, t, pos_weight=1.0, label_smoothing=0.0):
    """Binary cross-entropy from probabilities, with soft targets.

    As torch: each logarithm is at least -100 and the gradient divides by at least 1e-12.
    """
    soft = t - label_smoothing * t + 0.5 * label_smoothing
    positive, negative = pos_weight * soft, 1.0 - soft
    n = 1.0 - p
    value = -positive * maximum(log(p), -100.0) - negative * maximum(log1p(-p), -100.0)
    first = (p - soft - (pos_weight - 1.0) * soft * n) / maximum(p * n, 1e-12)
    i, j = 1.0 / maximum(p, 1e-12), 1.0 / maximum(n, 1e-12)
    second = positive * i * i + negative * j * j
    return value, first, second, finite(second)


@elementwise(
    math="pos_weight t softplus(-z) + (1 - t) softplus(z), t smoothed to (1 - label_smoothing) t + label_smoothing / 2",
    target=UNIT,
    link="logit",
    parameters={"pos_weight": POS_WEIGHT, "label_smoothing": LABEL_SMOOTHING},
    convex=True,
    lipschitz=1.0,
    paper="Good (1952), Rational decisions",
)
def bce_with_logits(z, t, pos_weight=1.0, label_smoothing=0.0):
    """Binary cross-entropy from logits, with soft targets.

    As torch, optax and sklearn's HalfBinomialLoss; label_smoothing as keras and XGBoost, t (1 - e) + e / 2.
    """
    e, p, n = logistic_parts(z)
    s = log1p_unit(e)
    half = 0.5 * label_smoothing
    positive = pos_weight * (t - label_smoothing * t + half)
    negative = 1.0 - t + label_smoothing * t - half
    value = share(positive, s + maximum(-z, 0.0)) + share(negative, s + maximum(z, 0.0))
    return value, negative * p - positive * n, (positive + negative) * (p * n)


@elementwise(
    math="alpha_t (1 - p_t)^gamma bce_with_logits(z, t), with p = sigmoid(z) and p_t = p t + (1 - p) (1 - t); "
    "alpha_t = 1 where alpha is None",
    target=UNIT,
    link="logit",
    parameters={
        "alpha": Parameter(
            "weight of the positive class, 1 - alpha of the negative; None: 1 and 1", UNIT, none=-1.0, spread=True
        ),
        "gamma": Parameter("power of the wrong class's probability", NONNEGATIVE),
    },
    surrogate="alpha_t (1 - p_t)^gamma p (1 - p): the weight of the cross-entropy is held constant",
    paper="Lin et al. (2017), Focal loss for dense object detection",
)
def focal(z, t, alpha=0.25, gamma=2.0):
    """Focal loss from logits: cross-entropy weighted by a power of the wrong class's probability.

    As torchvision, optax and keras, for soft targets too: p_t = p t + (1 - p) (1 - t), alpha_t is interpolated alike,
    and the cross-entropy is that of soft targets.
    """
    e, p, n = logistic_parts(z)
    s = log1p_unit(e)
    f = 1.0 - t
    entropy = s + share(t, maximum(-z, 0.0)) + share(f, maximum(z, 0.0))
    # 1 - p_t = wide / (1 + e) keeps its logarithm where it underflows: a wide of a single term e is not formed.
    large, small = where(z >= 0.0, f, t), where(z >= 0.0, t, f)
    alone = large == 0.0
    wide = where(alone, 1.0, large + small * e)
    wrong = t * n + f * p
    power = where(gamma == 2.0, wrong * wrong, exp(share(gamma, log(wide) - where(alone, abs(z), 0.0) - s)))
    w = where(alpha < 0.0, 1.0, alpha * t + (1.0 - alpha) * f) * power
    slope = f * p - t * n
    # d log(1 - p_t) / dz, and that times gamma.
    turn = (f - t) * (where(alone, 1.0, e) / wide * maximum(p, n))
    rise = gamma * turn
    pull = share(rise, entropy)
    bend = p * n + pull * (rise - turn + n - p)
    return w * entropy, w * (slope + pull), w * (bend + 2.0 * rise * slope), w * (p * n)


@elementwise(
    math="bce_with_logits(z, t) + epsilon (1 - p_t), with p = sigmoid(z)",
    target=UNIT,
    link="logit",
    parameters={"epsilon": Parameter("coefficient of the first polynomial term", NONNEGATIVE)},
    lipschitz=1.0,
    surrogate="p (1 - p) (1 + epsilon |1 - 2 t|), an upper bound",
    paper="Leng et al. (2022), PolyLoss",
)
def poly1_bce(z, t, epsilon=1.0):
    """Binary cross-entropy from logits with its first polynomial coefficient raised by epsilon."""
    e, p, n = logistic_parts(z)
    s = log1p_unit(e)
    f = 1.0 - t
    wrong = t * n + f * p
    value = s + share(t, maximum(-z, 0.0)) + share(f, maximum(z, 0.0)) + epsilon * wrong
    curvature = p * n
    turn = epsilon * (f - t)
    a = abs(turn)
    # 1 + turn (n - p), whose two terms cancel where |turn| is 1.
    bend = 1.0 - a + 2.0 * a * where(turn > 0.0, n, p)
    return value, f * p - t * n + turn * curvature, curvature * bend, curvature * (1.0 + a)


@elementwise(
    math="-t (1 - p)^gamma_pos log p - (1 - t) q^gamma_neg log(1 - q), with p = sigmoid(z) and q = max(p - clip, 0)",
    target=UNIT,
    link="logit",
    parameters={
        "gamma_pos": Parameter("focusing power for positives", NONNEGATIVE),
        "gamma_neg": Parameter("focusing power for negatives", NONNEGATIVE),
        "clip": Parameter("probability shift: negatives predicted below it cost nothing", UNIT),
    },
    surrogate="an upper bound of that of the logarithms: their weights are held constant",
    paper="Ridnik et al. (2021), Asymmetric loss for multi-label classification",
)
def asymmetric(z, t, gamma_pos=0.0, gamma_neg=4.0, clip=0.05):
    """Asymmetric loss (ASL) from logits: focal with separate powers, and easy negatives discarded.

    As the authors' code, without its clamp of the logarithm at 1e-8 and with the true gradient of the weights.
    """
    e, p, n = logistic_parts(z)
    s = log1p_unit(e)
    up, down = s + maximum(z, 0.0), s + maximum(-z, 0.0)
    w = exp(-share(gamma_pos, up))
    pull = share(gamma_pos * p, down)
    positive = w * down
    positive1 = -w * (n + pull)
    positive2 = w * (share(p * n, 1.0 + gamma_pos * (2.0 - down)) + gamma_pos * p * pull)
    shifted = clip > 0.0
    q = maximum(p - clip, 0.0)
    rest = where(shifted, n + clip, 1.0)
    cost = where(shifted, where(q < 0.5, -log1p(-minimum(q, 0.5)), -log(rest)), up)
    active = where(p > clip, 1.0, 0.0)
    divisor = where(q > 0.0, q, 1.0)
    ratio = where(q > 0.0, cost / divisor, 1.0)
    drop = active * where(shifted, p * (n / rest), p)
    lost = where(shifted, p * (clip / rest), 0.0)
    rate = active * where(shifted, p * n / divisor, n)
    v = pow(q, gamma_neg)
    bend = share(rate, gamma_neg * ratio * q)
    negative1 = v * (drop + bend)
    curve = bend * ((gamma_neg - 1.0) * rate + n - p) + 2.0 * gamma_neg * rate * drop + drop * (n - lost)
    negative2 = v * curve
    f = 1.0 - t
    bound = t * (w * (p * n)) + f * (v * drop * (n + lost))
    value = share(t, positive) + share(f, v * cost)
    return value, t * positive1 + f * negative1, t * positive2 + f * negative2, bound


@elementwise(
    math="(p - t)^2",
    prediction=UNIT,
    target=UNIT,
    convex=True,
    bounded=True,
    lipschitz=2.0,
    minimum_at_target=True,
    paper="Brier (1950), Verification of forecasts expressed in terms of probability",
)
def brier(p, t):
    """Brier score: squared error of a probability.

    As sklearn.metrics.brier_score_loss for two classes.
    """
    r = p - t
    return r * r, 2.0 * r, 2.0


@elementwise(
    math="-t log p - (1 - t) log(1 - p), with p clipped to [eps, 1 - eps], eps the machine epsilon of its type",
    prediction=UNIT,
    from_logits="bce_with_logits",
    target=UNIT,
    convex=True,
    bounded=True,
    paper="Good (1952), Rational decisions",
)
def log_loss(p, t):
    """Logistic loss of a probability clipped away from 0 and 1 by the machine epsilon.

    As sklearn.metrics.log_loss. The gradient is that at the clipped probability: finite, and pointing inwards.
    """
    eps = epsilon(p)
    c = maximum(minimum(p, 1.0 - eps), eps)
    n = 1.0 - c
    f = 1.0 - t
    i, j = 1.0 / c, 1.0 / n
    return -t * log(c) - f * log1p(-c), (c - t) * i * j, t * i * i + f * j * j


@elementwise(
    math="max(margin - t z, 0)",
    target=SIGNS,
    link="margin",
    parameters={"margin": MARGIN},
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    paper="Cortes and Vapnik (1995), Support-vector networks",
)
def hinge(z, t, margin=1.0):
    """Hinge loss for targets -1 and +1.

    As sklearn and keras (which also accepts 0 and 1); the gradient at the kink is -t, as in sklearn.
    """
    m = margin - z * t
    met = m < 0.0
    return where(met, 0.0, m), where(met, 0.0, where(m >= 0.0, -t, m)), 0.0, 1.0


@elementwise(
    math="max(margin - t z, 0)^2",
    target=SIGNS,
    link="margin",
    parameters={"margin": MARGIN},
    convex=True,
    surrogate="2",
    paper="Lee and Mangasarian (2001), SSVM: a smooth support vector machine",
)
def squared_hinge(z, t, margin=1.0):
    """Squared hinge loss for targets -1 and +1.

    As sklearn and keras.
    """
    m = maximum(margin - z * t, 0.0)
    return m * m, -2.0 * t * m, where(m > 0.0, 2.0, 0.0), 2.0


@elementwise(
    math="0 where m <= 0, m^2 / 2 where m < 1, else m - 1/2, with m = margin - t z",
    target=SIGNS,
    link="margin",
    parameters={"margin": MARGIN},
    convex=True,
    lipschitz=1.0,
    surrogate="1",
    paper="Rennie and Srebro (2005), Loss functions for preference levels",
)
def smooth_hinge(z, t, margin=1.0):
    """Hinge loss for targets -1 and +1 with its kink rounded by a parabola."""
    m = maximum(margin - z * t, 0.0)
    c = minimum(m, 1.0)
    return c * (m - 0.5 * c), -t * c, where(m > 0.0, where(m < 1.0, 1.0, 0.0), 0.0), 1.0


@elementwise(
    math="max(1 - t z, 0)^2 where t z >= -1, else -4 t z",
    target=SIGNS,
    link="margin",
    convex=True,
    lipschitz=4.0,
    surrogate="2",
    paper="Zhang (2004), Solving large scale linear prediction problems using stochastic gradient descent algorithms",
)
def modified_huber(z, t):
    """Squared hinge loss for targets -1 and +1, linear where the margin is below -1.

    As sklearn's SGDClassifier.
    """
    m = maximum(1.0 - z * t, 0.0)
    c = minimum(m, 2.0)
    return c * (2.0 * m - c), -2.0 * t * c, where(m > 0.0, where(m < 2.0, 2.0, 0.0), 0.0), 2.0


@elementwise(
    math="max(-t z, 0)",
    target=SIGNS,
    link="margin",
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    paper="Rosenblatt (1958), The perceptron",
)
def perceptron(z, t):
    """Perceptron loss for targets -1 and +1.

    The gradient at z = 0 is -t, as in sklearn, so that learning leaves a zero start; optax halves it there.
    """
    m = -z * t
    return maximum(m, 0.0), where(m >= 0.0, -t, where(m < 0.0, 0.0, m)), 0.0, 1.0


@elementwise(
    math="exp(-t z)",
    target=SIGNS,
    link="half-logit",
    convex=True,
    surrogate=CAPPED,
    paper="Freund and Schapire (1997), A decision-theoretic generalization of on-line learning",
)
def exponential(z, t):
    """Exponential loss of AdaBoost for targets -1 and +1.

    sklearn's ExponentialLoss takes targets 0 and 1: its value there is this one at 2 t - 1.
    """
    e = exp(-z * t)
    return e, -t * e, e, finite(e)


@elementwise(
    math="log(1 + exp(-t z))",
    target=SIGNS,
    link="logit",
    convex=True,
    lipschitz=1.0,
    paper="Cox (1958), The regression analysis of binary sequences",
)
def logistic(z, t):
    """Logistic loss for targets -1 and +1.

    bce_with_logits at (t + 1) / 2.
    """
    y = z * t
    e, p, n = logistic_parts(y)
    return log1p_unit(e) + maximum(-y, 0.0), -t * n, p * n
