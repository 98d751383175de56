"""Margin losses of score pairs, and of given distances between embeddings."""

from ..spec.record import NONNEGATIVE, SIGNS, UNIT, Parameter, elementwise
from ..spec.special import above_zero, share
from ..spec.vocabulary import maximum, where


@elementwise(
    math="max(margin - t (x1 - x2), 0)",
    target=SIGNS,
    link="difference",
    parameters={"margin": Parameter("least difference, in the direction of the target, that costs nothing")},
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    paper="Joachims (2002), Optimizing search engines using clickthrough data; the convention of torch",
)
def margin_ranking(x1, x2, t, margin=0.0):
    """Margin ranking loss: x1 should exceed x2 where the target is +1, and fall below it where the target is -1.

    As torch, whose gradient at the kink is that of a violated margin.
    """
    value, slope = above_zero(margin - t * (x1 - x2))
    return value, (-t * slope, t * slope), (0.0, 0.0), (1.0, 1.0)


@elementwise(
    math="x where t = 1, max(margin - x, 0) where t = -1",
    target=SIGNS,
    link="distance",
    parameters={"margin": Parameter("distance from which a pair that differs costs nothing")},
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    paper="Hadsell et al. (2006), Dimensionality reduction by learning an invariant mapping; the convention of torch",
)
def hinge_embedding(x, t, margin=1.0):
    """Hinge embedding loss of a distance: small where the target is +1, at least the margin where it is -1.

    As torch; the gradient at the kink is -1.
    """
    same = 0.5 * t + 0.5
    value, slope = above_zero(margin - x)
    return share(same, x) + share(1.0 - same, value), same - (1.0 - same) * slope, 0.0, 1.0


@elementwise(
    math="t max(d - pos_margin, 0)^2 + (1 - t) max(margin - d, 0)^2",
    prediction=NONNEGATIVE,
    target=UNIT,
    link="distance",
    parameters={
        "margin": Parameter("distance from which a pair that differs costs nothing", NONNEGATIVE),
        "pos_margin": Parameter("distance up to which a pair that belongs together costs nothing", NONNEGATIVE),
    },
    convex=True,
    surrogate="2",
    paper="Hadsell et al. (2006), Dimensionality reduction by learning an invariant mapping",
)
def contrastive_distance(d, t, margin=1.0, pos_margin=0.0):
    """Contrastive loss of a distance: the target is 1 for a pair that belongs together, 0 for one that does not.

    Twice the loss of the paper.
    """
    m = maximum(margin - d, 0.0)
    rest = 1.0 - t
    far = maximum(d - pos_margin, 0.0)
    # The slope at a pos_margin of 0 is that of d^2 at either side of 0.
    bend = where((far > 0.0) | (pos_margin == 0.0), 2.0 * t, 0.0) + where(m > 0.0, 2.0 * rest, 0.0)
    pull, push = share(t, far), share(rest, m)
    return share(pull, far) + share(push, m), 2.0 * (pull - push), bend, 2.0


@elementwise(
    math="max(d_positive - d_negative + margin, 0)",
    prediction=NONNEGATIVE,
    link="difference",
    parameters={"margin": Parameter("by how much the negative should be farther away", NONNEGATIVE)},
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    paper="Schroff et al. (2015), FaceNet: a unified embedding for face recognition and clustering",
)
def triplet_distance(d_positive, d_negative, margin=1.0):
    """Triplet loss of two distances: from an anchor to its positive, and to its negative.

    As torch, whose gradient at the kink is that of a violated margin; FaceNet gives it squared distances.
    """
    value, slope = above_zero(d_positive - d_negative + margin)
    return value, (slope, -slope), (0.0, 0.0), (1.0, 1.0)
