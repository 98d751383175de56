"""Preference losses of pairs of answers, one chosen and one rejected, and of single answers, desirable or not.

Each answer comes as its log-probability under the policy, and for some losses under a reference model as well.
"""

from ..spec.record import POSITIVE, UNIT, Input, Interval, Parameter, arrays
from ..spec.special import log1mexp
from ..spec.vocabulary import exp, expm1, maximum, sigmoid, softplus, where

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
MARGIN = "m = (chosen - ref_chosen) - (rejected - ref_rejected)"


@arrays(
    "points",
    inputs=WITH_REFERENCE,
    units="*",
    parameters={
        "beta": Parameter("strength of the tie to the reference model", POSITIVE),
        "label_smoothing": Parameter("probability that a preference is the wrong way round (cDPO)", UNIT),
    },
    math=f"-(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m), e = label_smoothing, {MARGIN}",
    convex=True,
    paper="Rafailov et al. (2023), Direct preference optimization, arXiv:2305.18290; label_smoothing: Mitchell (2023)",
    example=EXAMPLE_WITH_REFERENCE,
)
def dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1, label_smoothing=0.0):
    """Direct preference optimization.

    As TRL's and Liger's loss of type sigmoid.
    """
    h = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    kept = 1.0 - label_smoothing
    value = kept * softplus(-h) + where(label_smoothing > 0.0, label_smoothing * softplus(h), 0.0)
    slope = beta * (label_smoothing * sigmoid(h) - kept * sigmoid(-h))
    return value, (slope, -slope)


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
