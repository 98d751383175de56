"""Losses of ranking: scores of the items of each group, beside their relevance, grade by grade or as a list."""

from .record import POSITIVE, Input, Integers, Interval, Parameter, arrays
from .vocabulary import exp, log1p_unit, where

SCORES = Input("n", "predicted scores, the higher the better", grad=True)
OFFSETS = Input(
    "g+1", "where each group of items begins, and the end of the last; one group if left out", "offsets", classes="n"
)._replace(optional=True)


def graded(domain=None):
    """The inputs of a loss of scores and grades."""
    relevance = Input("n", "how good each item is, the higher the better")
    relevance = relevance if domain is None else relevance._replace(domain=domain)
    return {"scores": SCORES, "relevance": relevance, "offsets": OFFSETS}


SIGMA = Parameter("steepness of the logistic function", POSITIVE)
PAIRS = Parameter("whether a group's loss is the mean or the sum over its pairs", choices=("mean", "sum"))
GAIN = Parameter("whether an item of relevance r gains 2^r - 1 or r", choices=("exponential", "linear"))
EXAMPLE = "np.array([0.2, 1.0, -0.5]), np.array([1.0, 0.0, 2.0])"
# Beyond it a gain of 2^r leaves the range of doubles.
GRADES = Interval(0.0, 1000.0)


def logistic(d, t):
    """Cross-entropy of t and the probability sigmoid(d), and its slope."""
    e = exp(-abs(d))
    q = 1.0 / (1.0 + e)
    p = where(d >= 0.0, q, e * q)
    n = where(d >= 0.0, e * q, q)
    # Not max(d, 0) - t d, which is infinity less infinity where an infinite score is right.
    beyond = where(d >= 0.0, where(t < 1.0, d * (1.0 - t), 0.0), where(t > 0.0, -d * t, 0.0))
    return log1p_unit(e) + beyond, (1.0 - t) * p - t * n


@arrays(
    "ranking",
    inputs=graded(),
    units="g",
    math="mean of log(1 + exp(-sigma (s_i - s_j))) over the pairs of a group with r_i > r_j",
    parameters={"sigma": SIGMA},
    options={"pairs": (0.0, PAIRS)},
    convex=True,
    paper="Burges et al. (2005), Learning to rank using gradient descent",
    example=EXAMPLE,
)
def pairwise_logistic(d, t, dgain, ddiscount, sigma=1.0):
    """Pairwise logistic loss: each better item should score above each worse one.

    A group without such a pair has the loss 0 and does not count in the mean over groups. TensorFlow Ranking averages
    over all pairs of the batch: that is ``pairs="sum"`` with ``reduction="sum"`` over the number of pairs as the
    ``divisor``. XGBoost (rank:pairwise) and LightGBM add up pairs, as ``pairs="sum"`` does.
    """
    value, slope = logistic(sigma * d, t)
    return value, sigma * slope


@arrays(
    "ranking",
    inputs=graded(),
    units="g",
    math="mean of log(1 + exp(sigma d)) - P sigma d over all pairs, d = s_i - s_j, P = 1, 1/2, 0 as r_i >, =, < r_j",
    parameters={"sigma": SIGMA},
    options={"pairs": (0.0, PAIRS)},
    convex=True,
    paper="Burges et al. (2005), Learning to rank using gradient descent",
    example=EXAMPLE,
)
def ranknet(d, t, dgain, ddiscount, sigma=1.0):
    """RankNet: cross-entropy of which item of a pair is better; ties pull scores together.

    Every pair of a group counts once. A group of fewer than two items has the loss 0 and does not count in the mean
    over groups.
    """
    value, slope = logistic(sigma * d, t)
    return value, sigma * slope


@arrays(
    "ranking",
    inputs=graded(GRADES),
    units="g",
    math="sum of w_ij log(1 + exp(-sigma (s_i - s_j))) over r_i > r_j, w_ij = |NDCG@k with i, j swapped - NDCG@k|",
    parameters={"sigma": SIGMA},
    options={
        "k": (0.0, Parameter("how many positions count in NDCG; None: all", Integers(1.0), none=0.0)),
        "gain": (0.0, GAIN),
        "pairs": (1.0, PAIRS),
    },
    differentiable=False,
    paper="Burges (2010), From RankNet to LambdaRank to LambdaMART, MSR-TR-2010-82; Wang et al. (2018), LambdaLoss",
    example=EXAMPLE,
)
def lambda_rank(d, t, dgain, ddiscount, sigma=1.0):
    """LambdaRank: the pairwise logistic loss, each pair weighted by how much NDCG its swap would change.

    The gradient is the lambdas: the weights, which follow from the order of the scores alone, are held constant.
    Items of equal scores rank in the order in which they come. A position below k discounts to 0, so that pairs
    below it do not count; LightGBM keeps their discounts where one of the two is above, and by default divides by the
    spread of the scores, which this does not. A group without a better and a worse item has the loss 0 and does
    not count.
    """
    weight = abs(dgain) * abs(ddiscount)
    value, slope = logistic(sigma * d, t)
    # A pair that does not count has no loss, not even an infinite one.
    return where(weight == 0.0, 0.0, value) * weight, sigma * slope * weight
