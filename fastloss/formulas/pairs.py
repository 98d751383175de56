"""Embedding pair and triplet losses: formulas of distances or cosines that the kernels compute."""

from ..spec.record import (
    NONNEGATIVE,
    SIGNS,
    UNIT,
    Input,
    Interval,
    Parameter,
    arrays,
)
from ..spec.special import above_zero
from ..spec.vocabulary import where
from .adversarial import gradient_norm_penalty
from .margins import contrastive_distance, triplet_distance

PAIR = {
    "x1": Input("* d", "embeddings", grad=True),
    "x2": Input("* d", "embeddings to compare with them", grad=True),
}
TWO = "np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 0.5]])"


@arrays(
    "embeddings.pairs",
    inputs={**PAIR, "same": Input("*", "whether a pair belongs together: 1, or 0", domain=UNIT)},
    units="*",
    math="same max(d - pos_margin, 0)^2 + (1 - same) max(margin - d, 0)^2, with d = ||x1 - x2||",
    parameters={
        "margin": Parameter("distance from which a pair that differs costs nothing", NONNEGATIVE),
        "pos_margin": Parameter("distance up to which a pair that belongs together costs nothing", NONNEGATIVE),
    },
    paper="Hadsell et al. (2006), Dimensionality reduction by learning an invariant mapping",
    example=f"{TWO}, np.array([1, 0])",
)
def contrastive(d, t, margin=1.0, pos_margin=0.0):
    """Contrastive loss of two embeddings: near each other where they belong together, else apart by the margin.

    Twice the loss of the paper. At distance 0 the gradient is 0.
    """
    value, slope, _, _ = contrastive_distance(d, t, margin, pos_margin)
    return value, slope


@arrays(
    "embeddings.pairs",
    inputs={
        "anchor": Input("* d", "embeddings", grad=True),
        "positive": Input("* d", "embeddings that belong to them", grad=True),
        "negative": Input("* d", "embeddings that do not", grad=True),
    },
    units="*",
    math="max(||a - p|| - ||a - n|| + margin, 0)",
    differentiable=False,
    parameters={"margin": Parameter("by how much the negative should be farther away", NONNEGATIVE)},
    options={
        "p": (2.0, Parameter("order of the norm", Interval(1.0, high_open=True))),
        "squared": (0.0, Parameter("whether distances are squared, as in the paper", flag=True)),
        "swap": (
            0.0,
            Parameter("whether the negative's distance from the positive counts where it is the smaller", flag=True),
        ),
        "distance": (
            0.0,
            Parameter("norm of the difference, or one minus the cosine", choices=("euclidean", "cosine")),
        ),
    },
    paper="Schroff et al. (2015), FaceNet, arXiv:1503.03832; swap: Balntas et al. (2016), BMVC",
    example=f"{TWO}, np.array([[0.0, 2.0], [2.0, 0.5]])",
)
def triplet(d_positive, d_negative, margin=1.0):
    """Triplet loss of three embeddings: the negative should be farther from the anchor than the positive.

    As torch, without the epsilon that torch adds to differences: at distance 0 the gradient is 0. Its gradient at the
    kink is that of a violated margin.
    """
    value, slopes, _, _ = triplet_distance(d_positive, d_negative, margin)
    return value, slopes


@arrays(
    "embeddings.pairs",
    inputs={**PAIR, "t": Input("*", "+1 for a pair that belongs together, -1 for one that does not", domain=SIGNS)},
    units="*",
    math="1 - cos(x1, x2) where t = 1, max(cos(x1, x2) - margin, 0) where t = -1",
    bounded=True,
    differentiable=False,
    parameters={"margin": Parameter("cosine up to which a pair that differs costs nothing", Interval(-1.0, 1.0))},
    paper="the convention of torch",
    example=f"{TWO}, np.array([1, -1])",
)
def cosine_embedding(h, c, t, margin=0.0):
    """Cosine embedding loss: parallel where the target is +1, at most a cosine of margin where it is -1.

    As torch, except for vectors of length 0: their cosine with any other is 0, and so is its gradient.
    """
    value, slope = above_zero(c - margin)
    # A target that is neither is NaN, which stays.
    value, slope = where(t < 0.0, value, t), where(t < 0.0, slope, t)
    return where(t > 0.0, h, value), where(t > 0.0, -1.0, slope)


@arrays(
    "embeddings.pairs",
    inputs=PAIR,
    units="*",
    math="1 - cos(x1, x2)",
    bounded=True,
    paper="scipy.spatial.distance.cosine",
    example=TWO,
)
def cosine_distance(h, c):
    """One minus the cosine of two vectors, without cancellation for nearly parallel ones.

    The cosine of a vector of length 0 with any other is 0, and so is its gradient.
    """
    return h, where(c == c, -1.0, c)


@arrays(
    "embeddings.pairs",
    inputs={"gradients": Input("n +", "gradients of the critic with respect to its inputs", grad=True)},
    units="n",
    math="lam (||g|| - center)^2; one-sided: lam max(||g|| - center, 0)^2",
    parameters={
        "lam": Parameter("factor of the penalty", NONNEGATIVE),
        "center": Parameter("the norm that costs nothing", NONNEGATIVE),
        "one_sided": Parameter("whether smaller norms cost nothing either", flag=True),
    },
    paper="Gulrajani et al. (2017), Improved training of Wasserstein GANs, arXiv:1704.00028",
    example="np.array([[0.6, 0.8], [3.0, 4.0]])",
)
def gradient_penalty(d, lam=10.0, center=1.0, one_sided=0.0):
    """Gradient penalty: squared deviation of each sample's gradient norm from the center.

    Where a norm is 0 the derivative is 0.
    """
    value, slope, _, _ = gradient_norm_penalty(d, center, one_sided, lam)
    return value, slope
