"""Preference losses of pairs of answers, one chosen and one rejected, and of single answers, desirable or not.

Each answer comes as its log-probability under the policy, and for some losses under a reference model as well.
"""

from ..spec.record import POSITIVE, UNIT, Input, Interval, Parameter, arrays
from ..spec.special import log1mexp
from ..spec.vocabulary import exp, expm1, log, log1p, maximum, sigmoid, softplus, where

PAIR = {
    "chosen": Input("*", "log-probability of the chosen answer", grad=True),
    "rejected": Input("*", "log-probability of the rejected answer", grad=True),
}
WITH_REFERENCE = {
    **PAIR,
    "ref_chosen": Input("*", "log-probability of the chosen answer under the reference model"),
    "ref_rejected": Input("*", "log-probability of the rejected answer under the reference model"),
}
EXAMPLE = "np.array([-12.0, -9.5]), np.array([-14.0, -9.0])"
EXAMPLE_WITH_REFERENCE = f"{EXAMPLE}, np.array([-12.5, -9.0]), np.array([-13.0, -9.0])"
VARIANTS = (
    *("sigmoid", "hinge", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"),
    *("discopop", "aot", "aot_pair"),
)
"""Losses of pairs with a reference, by TRL's names; "aot" and "aot_pair" are "sigmoid" of sorted log ratios."""

MARGIN = "m = (chosen - ref_chosen) - (rejected - ref_rejected)"


def of_margin(h, e, variant):
    """Return the variants of dpo that are functions of the margin h, and their derivative by it."""
    p, q = sigmoid(h), sigmoid(-h)
    good, bad = softplus(-h), softplus(h)
    robust, by_robust = ((1.0 - e) * good - e * bad) / (1.0 - 2.0 * e), -((1.0 - e) * q + e * p) / (1.0 - 2.0 * e)
    soft = where(e > 0.0, e, 0.001)
    right, wrong = log1p(-soft), log(soft)
    exo, by_exo = p * (-good - right) + q * (-bad - wrong), p * q * (h - right + wrong)
    # The temperature of discopop's weights is 0.05, the paper's.
    # exp(-h) s as one exponential: where h is far below 0, one factor is infinite and the other 0.
    s, rest = sigmoid(20.0 * h), sigmoid(-20.0 * h)
    tilted = exp(-h - softplus(-20.0 * h))
    mixed = rest * good + tilted
    by_mixed = -rest * q - tilted - 20.0 * (s * rest * good - tilted * rest)
    short = 1.0 - h
    value = where(variant == 1.0, where(short <= 0.0, 0.0, short), where(variant == 2.0, robust, exo))
    slope = where(variant == 1.0, where(short <= 0.0, 0.0, -1.0), where(variant == 2.0, by_robust, by_exo))
    return where(variant == 9.0, mixed, value), where(variant == 9.0, by_mixed, slope)


def of_answers(a, b, beta, variant, center):
    """Return the variants of dpo that judge each answer by itself, and their derivatives by the two log ratios."""
    x, y = beta * a, beta * b
    h = x - y
    p, q, u, v = sigmoid(x), sigmoid(-x), sigmoid(y), sigmoid(-y)
    nca = softplus(-x) + 0.5 * (softplus(x) + softplus(y))
    bco = softplus(center - x) + softplus(y - center)
    far, near = a - 0.5 / beta, b + 0.5 / beta
    zero, down, bend = q + u, p + sigmoid(-h), sigmoid(h) * sigmoid(-h)
    value = where(variant == 4.0, nca, where(variant == 5.0, bco, far * far + near * near))
    value = where(variant == 7.0, zero, where(variant == 8.0, down, value))
    first = where(variant == 4.0, beta * (0.5 * p - q), where(variant == 5.0, -beta * sigmoid(center - x), 2.0 * far))
    first = where(variant == 7.0, -beta * (p * q), where(variant == 8.0, beta * (p * q - bend), first))
    second = where(variant == 4.0, 0.5 * beta * u, where(variant == 5.0, beta * sigmoid(y - center), 2.0 * near))
    second = where(variant == 7.0, beta * (u * v), where(variant == 8.0, beta * bend, second))
    return value, first, second


@arrays(
    "points",
    inputs=WITH_REFERENCE,
    units="*",
    parameters={
        "beta": Parameter("strength of the tie to the reference model", POSITIVE),
        "label_smoothing": Parameter("probability that a preference is the wrong way round (cDPO)", UNIT),
        "variant": Parameter("loss of the pair, by TRL's loss_type", choices=VARIANTS, constant=True),
        "center": Parameter("reference point of bco_pair: the running mean of beta times the log ratios"),
    },
    math=f"-(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m), e = label_smoothing, {MARGIN}",
    paper="Rafailov et al. (2023), Direct preference optimization, arXiv:2305.18290; label_smoothing: Mitchell (2023)",
    example=EXAMPLE_WITH_REFERENCE,
)
def dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0, variant=0.0, center=0.0):
    """Direct preference optimization, and other losses of a chosen and a rejected answer by `variant`.

    As TRL's and Liger's losses of these types. With x and y for beta times the log ratios of the chosen and the
    rejected answer, and h = x - y:

    - "sigmoid": the loss above. "hinge": max(0, 1 - h) (SLiC, arXiv:2305.10425).
    - "robust": (-(1 - e) log sigmoid(h) + e log sigmoid(-h)) / (1 - 2 e) (arXiv:2403.00409), for e below 1/2.
    - "exo_pair": KL of (sigmoid(h), sigmoid(-h)) from (1 - e, e), where an e of 0 is 0.001 (arXiv:2402.00856).
    - "nca_pair": -log sigmoid(x) - (log sigmoid(-x) + log sigmoid(-y)) / 2 (arXiv:2402.05369).
    - "bco_pair": -log sigmoid(x - center) - log sigmoid(center - y) (arXiv:2404.04656).
    - "sppo_hard": ((x - 1/2)^2 + (y + 1/2)^2) / beta^2 (arXiv:2405.00675).
    - "apo_zero": 1 - sigmoid(x) + sigmoid(y). "apo_down": sigmoid(x) + 1 - sigmoid(h) (arXiv:2408.06266).
    - "discopop": (1 - s) log(1 + exp(-h)) + s exp(-h), s = sigmoid(h / 0.05) (arXiv:2406.08414).
    - "aot": "sigmoid" of the sorted chosen - rejected against the sorted ref_chosen - ref_rejected, along the first
      axis. "aot_pair": of the sorted log ratios of chosen and of rejected answers (arXiv:2406.05882).
    """
    a, b = chosen - ref_chosen, rejected - ref_rejected
    h = beta * (a - b)
    kept = 1.0 - label_smoothing
    value = kept * softplus(-h) + where(label_smoothing > 0.0, label_smoothing * softplus(h), 0.0)
    slope = beta * (label_smoothing * sigmoid(h) - kept * sigmoid(-h))
    other, by_margin = of_margin(h, label_smoothing, variant)
    pair, by_chosen, by_rejected = of_answers(a, b, beta, variant, center)
    usual = (variant == 0.0) | (variant > 9.0)
    apart = (variant > 3.0) & (variant < 9.0)
    value = where(usual, value, where(apart, pair, other))
    slope = where(usual, slope, beta * by_margin)
    return value, (where(apart, by_chosen, slope), where(apart, by_rejected, -slope))


@arrays(
    "points",
    inputs=WITH_REFERENCE,
    units="*",
    parameters={"beta": Parameter("strength of the tie to the reference model", POSITIVE)},
    math=f"(m - 1 / (2 beta))^2, {MARGIN}",
    convex=True,
    paper="Azar et al. (2023), A general theoretical paradigm to understand learning from human preferences, "
    "arXiv:2310.12036",
    example=EXAMPLE_WITH_REFERENCE,
)
def ipo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    """Identity preference optimization: the margin is drawn to 1 / (2 beta).

    As TRL's loss of type ipo on the log-probabilities given; divide them by the lengths of the answers for its average
    over tokens.
    """
    r = (chosen - ref_chosen) - (rejected - ref_rejected) - 0.5 / beta
    return r * r, (2.0 * r, -2.0 * r)


@arrays(
    "points",
    inputs=PAIR,
    units="*",
    parameters={
        "beta": Parameter("scale of the margin; the paper takes 2 to 2.5", POSITIVE),
        "gamma": Parameter("margin to be reached; the paper takes 0.3 to 1.6"),
    },
    math="-log sigmoid(beta (chosen - rejected) - gamma)",
    convex=True,
    paper="Meng et al. (2024), SimPO: simple preference optimization with a reference-free reward, arXiv:2405.14734",
    example=EXAMPLE,
)
def simpo(chosen, rejected, beta=2.0, gamma=0.5):
    """SimPO: log-probabilities divided by the lengths of the answers, without a reference model.

    As TRL's CPO trainer with its loss of type simpo.
    """
    h = beta * (chosen - rejected) - gamma
    slope = -beta * sigmoid(-h)
    return softplus(-h), (slope, -slope)


@arrays(
    "points",
    inputs={k: x._replace(doc=x.doc + ", divided by its length", domain=Interval(high=0.0)) for k, x in PAIR.items()},
    units="*",
    parameters={"lam": Parameter("factor of the log odds ratio", Interval(0.0))},
    math="-chosen - lam log sigmoid(log(odds(chosen) / odds(rejected))), odds(x) = exp(x) / (1 - exp(x))",
    paper="Hong et al. (2024), ORPO: monolithic preference optimization without reference model, arXiv:2403.07691",
    example="np.array([-1.2, -0.9]), np.array([-1.4, -0.8])",
)
def orpo(chosen, rejected, lam=0.1):
    """ORPO: the negative log-likelihood of the chosen answer and the odds ratio of both.

    As TRL's and Liger's; lam is the paper's lambda and their beta.
    """
    same = chosen == rejected
    # abs, not a minus sign, for 0 and not -0.
    none_c, none_r = abs(expm1(chosen)), abs(expm1(rejected))
    odds = (chosen - rejected) - (log1mexp(-chosen) - log1mexp(-rejected))
    value = softplus(where(same, 0.0, -odds))
    # The probabilities over the larger, so that none of two tiny ones vanishes.
    top = maximum(chosen, rejected)
    p, q = exp(where(same, 0.0, chosen - top)), exp(where(same, 0.0, rejected - top))
    mixed = p * none_r + q * none_c
    # Where the odds are equal, mixed / q is 2 (1 - p), also if both are 0.
    by_chosen = where(same, 0.5 / none_c, q / mixed)
    by_rejected = where(same, 0.5 / none_r, q * none_c / mixed / none_r)
    active = lam > 0.0
    value = where(active, lam * value, 0.0)
    by_chosen, by_rejected = where(active, lam * by_chosen, 0.0), where(active, lam * by_rejected, 0.0)
    return value - chosen, (-1.0 - by_chosen, by_rejected)


@arrays(
    "points",
    inputs={
        "log_prob": Input("*", "log-probability of an answer", grad=True),
        "ref_log_prob": Input("*", "log-probability of it under the reference model"),
        "desirable": Input("*", "whether the answer is wanted", kind="binary"),
        "kl": Input(
            "*", "reference point, an estimate of the divergence from the reference model; below 0: 0", optional=True
        ),
    },
    units="*",
    parameters={
        "beta": Parameter("strength of the tie to the reference model", POSITIVE),
        "lambda_d": Parameter("weight of wanted answers", Interval(0.0)),
        "lambda_u": Parameter("weight of unwanted answers", Interval(0.0)),
    },
    math="lambda_d (1 - sigmoid(beta (r - kl))) if wanted, else lambda_u (1 - sigmoid(beta (kl - r))), "
    "r = log_prob - ref_log_prob",
    bounded=True,
    paper="Ethayarajh et al. (2024), KTO: model alignment as prospect theoretic optimization, arXiv:2402.01306",
    example="np.array([-12.0, -9.5]), np.array([-12.5, -9.0]), np.array([True, False]), 0.2",
)
def kto(log_prob, ref_log_prob, desirable, kl, beta=0.1, lambda_d=1.0, lambda_u=1.0):
    """Kahneman-Tversky optimization: single answers, desirable or not.

    As TRL's; the reference point is held constant. It is 0 where it is not given, and may be one number for all.
    """
    wanted = desirable > 0.0
    h = beta * ((log_prob - ref_log_prob) - maximum(kl, 0.0))
    h = where(wanted, h, -h)
    weight = where(wanted, lambda_d, lambda_u)
    lost = weight * sigmoid(-h)
    slope = beta * lost * sigmoid(h)
    return lost, (where(wanted, -slope, slope),)
