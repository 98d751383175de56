"""Ranking losses of the scores of each group's items against their relevance, pairwise or listwise."""

from ..spec.record import (
    FINITE,
    FINITE_NONNEGATIVE,
    NONNEGATIVE,
    POSITIVE,
    UNIT,
    Input,
    Integers,
    Interval,
    Parameter,
    arrays,
)
from ..spec.vocabulary import exp, log1p_unit, where

SCORES = Input("n", "predicted scores, the higher the better", grad=True)
OFFSETS = Input(
    "g+1", "where each group of items begins, and the end of the last; one group if left out", "offsets", classes="n"
)._replace(optional=True)


def graded(domain=FINITE):
    """Return the inputs of a ranking loss: scores, graded relevance and offsets."""
    relevance = Input("n", "how good each item is, the higher the better", domain=domain)
    return {"scores": SCORES, "relevance": relevance, "offsets": OFFSETS}


SIGMA = Parameter("steepness of the logistic function", POSITIVE)
PAIRS = Parameter("whether a group's loss is the mean or the sum over its pairs", choices=("mean", "sum"))
GAIN = Parameter("whether an item of relevance r gains 2^r - 1 or r", choices=("exponential", "linear"))
EXAMPLE = "np.array([0.2, 1.0, -0.5]), np.array([1.0, 0.0, 2.0])"
# Beyond it a gain of 2^r leaves the range of doubles.
GRADES = Interval(0.0, 1000.0)


def logistic(d, t):
    """Return the cross-entropy of t and the probability sigmoid(d), and its slope."""
    e = exp(-abs(d))
    q = 1.0 / (1.0 + e)
    p = where(d >= 0.0, q, e * q)
    n = where(d >= 0.0, e * q, q)
    # Not max(d, 0) - t d, which is infinity less infinity where an infinite score is right.
    beyond = where(d >= 0.0, where(t < 1.0, d * (1.0 - t), 0.0), where(t > 0.0, -d * t, 0.0))
    return log1p_unit(e) + beyond, (1.0 - t) * p - t * n


@arrays(
    "ranking.pairs",
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
    "ranking.pairs",
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
    "ranking.pairs",
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


@arrays(
    "ranking.approx_ndcg",
    inputs=graded(GRADES),
    units="g",
    math="1 - sum of gain(r_i) / log2(1 + rank_i) / best, rank_i = 1 + sum of sigmoid((s_j - s_i) / temperature)",
    parameters={"temperature": Parameter("scores this far apart count as ranked", POSITIVE)},
    options={"gain": (0.0, GAIN)},
    bounded=True,
    paper="Qin, Liu, Li (2010), A general approximation framework for direct optimization of IR measures",
    example=EXAMPLE,
)
def approx_ndcg(d, t, dgain, ddiscount, temperature=0.1):
    """ApproxNDCG: one minus NDCG with each rank replaced by a smooth one.

    The paper's alpha is 1 / temperature. A group whose items are all equally relevant has the loss 0 and does not
    count.
    """
    e = exp(-abs(d) / temperature)
    q = 1.0 / (1.0 + e)
    return where(d >= 0.0, e * q, q), -dgain * (e * q * q) / temperature


@arrays(
    "ranking.listwise",
    inputs=graded(),
    units="g",
    math="-sum of p_i log softmax(s)_i, p = softmax(r)",
    convex=True,
    paper="Cao et al. (2007), Learning to rank: from pairwise approach to listwise approach",
    example=EXAMPLE,
)
def listnet(r, top):
    """ListNet: cross-entropy of the chances of being first, by relevance and by score.

    A group of fewer than two items has the loss 0 and does not count in the mean over groups.
    """
    return exp(r - top)


@arrays(
    "ranking.listwise",
    inputs=graded(FINITE_NONNEGATIVE),
    units="g",
    math="-sum of p_i log softmax(s)_i, p = r / sum(r)",
    convex=True,
    paper="Bruch et al. (2019), An analysis of the softmax cross entropy loss for learning-to-rank",
    example=EXAMPLE,
)
def softmax_ranking(r, top):
    """Softmax cross-entropy of ranking: the relevance, made to sum to one, is the target.

    TensorFlow Ranking weights each list by its sum of relevance; pass that as ``weight`` for the same. A group of
    fewer than two items, or without relevance above 0, has the loss 0 and does not count in the mean over groups.
    """
    return r


@arrays(
    "ranking.risk_sets",
    inputs=graded(),
    units="g",
    math="sum of log(sum of exp(s_j) over j from i on) - s_i, items by falling relevance",
    convex=True,
    paper="Xia et al. (2008), Listwise approach to learning to rank: theory and algorithm",
    example=EXAMPLE,
)
def list_mle():
    """ListMLE: negative log-likelihood of the order of relevance under the Plackett-Luce model.

    Items of equal relevance are taken to be in the order in which they come. A group of fewer than two items has the
    loss 0 and does not count in the mean over groups.
    """


@arrays(
    "ranking.auc",
    inputs={
        "scores": SCORES,
        "labels": Input("n", "1 for a positive, 0 for a negative", "binary"),
        "offsets": OFFSETS,
        "sample_weight": Input(
            "n", "factor of each sample; that of a pair is the product of two", "double", domain=NONNEGATIVE
        )._replace(optional=True),
    },
    units="g",
    math="mean of max(0, margin - (s_i - s_j))^2 over positives i and negatives j",
    options={"margin": (1.0, Parameter("by how much a positive should score above a negative", NONNEGATIVE))},
    convex=True,
    paper="Gao, Zhou (2015), On the consistency of AUC pairwise optimization",
    example="np.array([0.2, 1.0, -0.5]), np.array([1, 0, 0])",
)
def auc_pairwise():
    """Squared hinge of every positive above every negative: a convex bound on one minus the area under the ROC curve.

    Takes the time of sorting, not of going through all pairs. A group without a positive and a negative has the loss
    0 and does not count in the mean over groups.
    """


@arrays(
    "ranking.soft_counts",
    inputs={
        "prediction": Input("n +", "probabilities in [0, 1], or scores if activation is given", grad=True),
        "target": Input("n +", "the truth", domain=UNIT),
    },
    units="+",
    math="1 - 2 tp / (2 tp + fp + fn), tp = sum min(p, t), fp = sum max(p - t, 0), fn = sum max(t - p, 0)",
    options={
        "activation": (-1.0, Parameter("what makes probabilities of scores", choices=("sigmoid",), none=-1.0)),
    },
    bounded=True,
    minimum_at_target=True,
    paper="Benedict et al. (2022), sigmoidF1: A smooth F1 score surrogate loss for multilabel classification",
    example="np.array([0.9, 0.4, 0.2]), np.array([1.0, 1.0, 0.0])",
)
def soft_f1(wrong, total):
    """Soft F1: one minus the F1 score of each class, counted in probabilities; the mean over classes is macro F1.

    Samples lie along the first axis; every index of the others is a class. Where targets are 0 or 1 the counts are
    sum(p t), sum(p (1 - t)) and sum((1 - p) t); for those between, the ones above make the loss 0 where p = t. A class
    of which all predictions and targets are 0 has the loss 0 and does not count.
    """
    inverse = where(total > 0.0, 1.0 / total, 0.0)
    return wrong * inverse, inverse, -wrong * inverse * inverse
