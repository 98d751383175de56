"""Metric-learning losses of a labelled batch, whose triplets or pairs the kernel mines."""

from ..spec.record import NONNEGATIVE, POSITIVE, UNIT, Input, Parameter, arrays
from ..spec.special import above_zero
from ..spec.vocabulary import maximum, sigmoid, softplus, where

BATCH = {
    "embeddings": Input("n d", "embeddings", grad=True, shared=True),
    "labels": Input("n", "what each is of: any whole numbers", "labels", shared=True),
}
EXAMPLE = "np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0], [2.0, 0.0]]), np.array([0, 0, 1, 1])"
MARGIN = {
    "margin": Parameter("by how much the negative should be farther away", NONNEGATIVE),
    "soft": Parameter("whether log(1 + exp(d_positive - d_negative)) is taken instead, without a margin", flag=True),
}
SQUARED = {"squared": (0.0, Parameter("whether distances are squared", flag=True))}
HERMANS = "Hermans et al. (2017), In defense of the triplet loss for person re-identification, arXiv:1703.07737"


def violation(x, margin, soft):
    """Return max(x + margin, 0) or softplus(x), and its slopes by the two distances of which x is the difference."""
    value, slope = above_zero(x + margin)
    value, slope = where(soft > 0.0, softplus(x), value), where(soft > 0.0, sigmoid(x), slope)
    return value, (slope, -slope)


@arrays(
    "embeddings.mining",
    inputs=BATCH,
    units="n",
    math="max(max_p ||a - p|| - min_n ||a - n|| + margin, 0)",
    differentiable=False,
    parameters=MARGIN,
    options=SQUARED,
    paper=HERMANS,
    example=EXAMPLE,
)
def batch_hard_triplet(d_positive, d_negative, margin=1.0, soft=0.0):
    """Triplet loss of each anchor with its farthest positive and its nearest negative in the batch.

    An anchor without a positive or without a negative does not count. At distance 0 the gradient is 0.
    """
    return violation(d_positive - d_negative, margin, soft)


@arrays(
    "embeddings.mining",
    inputs=BATCH,
    units="n",
    math="sum over p, n of max(||a - p|| - ||a - n|| + margin, 0)",
    differentiable=False,
    parameters=MARGIN,
    options=SQUARED,
    paper=HERMANS,
    example=EXAMPLE,
)
def batch_all_triplet(d_positive, d_negative, margin=1.0, soft=0.0):
    """Triplet loss of all triplets of a batch, averaged over those that violate the margin.

    Each anchor's value is the sum over its triplets, and counts in the mean as often as it has active ones; soft, all
    are active, and the time grows with the number of triplets. With no active triplet the mean is 0. At distance 0 the
    gradient is 0.
    """
    return violation(d_positive - d_negative, margin, soft)


@arrays(
    "embeddings.mining",
    inputs=BATCH,
    units="n",
    math="sum over p of max(||a - p|| - ||a - n_p|| + margin, 0)",
    differentiable=False,
    parameters=MARGIN,
    options=SQUARED,
    paper="Schroff et al. (2015), FaceNet, arXiv:1503.03832; the convention of TensorFlow Addons",
    example=EXAMPLE,
)
def semi_hard_triplet(d_positive, d_negative, margin=1.0, soft=0.0):
    """Triplet loss of all pairs of an anchor and a positive, each with the nearest negative that is farther away.

    Where no negative is farther than the positive, the farthest negative is taken. Each anchor's value is the sum over
    its positives, and counts in the mean as often as it has some; one without a negative does not count, where
    TensorFlow Addons counts it. FaceNet squares the distances. At distance 0 the gradient is 0.
    """
    return violation(d_positive - d_negative, margin, soft)


@arrays(
    "embeddings.circle",
    inputs=BATCH,
    units="n",
    math="log(1 + sum_n exp(gamma max(s_n + m, 0) (s_n - m)) sum_p exp(gamma max(1 + m - s_p, 0) (1 - m - s_p)))",
    parameters={
        "m": Parameter("relaxation: cosines should exceed 1 - m for positives and stay below m for negatives", UNIT),
        "gamma": Parameter("scale of the cosines", POSITIVE),
        "detach": Parameter(
            "whether the weights max(...) are held constant in the gradient, as in the paper", flag=True
        ),
    },
    paper="Sun et al. (2020), Circle loss, arXiv:2002.10857",
    example=EXAMPLE,
)
def circle(s, positive, m=0.25, gamma=256.0, detach=0.0):
    """Circle loss of the cosines of each anchor with its positives and with its negatives.

    By default the gradient is that of the value. An anchor without a positive or without a negative does not count.
    The cosine of an embedding of length 0 with any other is 0, and so is its gradient.
    """
    same = positive > 0.0
    beyond = where(same, m - 1.0 + s, s - m)
    weight = maximum(where(same, 1.0 + m - s, s + m), 0.0)
    bend = where((detach > 0.0) | (weight == 0.0), 0.0, where(same, -beyond, beyond))
    scale = where(same, -gamma, gamma)
    return scale * weight * beyond, scale * (weight + bend)
