"""Transport losses: distances between distributions, given as histograms, samples or point clouds."""

from ..spec.record import (
    NONNEGATIVE,
    POSITIVE,
    Input,
    Integers,
    OneOf,
    Parameter,
    arrays,
)

POWER = Parameter("power of the distance that mass moves", OneOf((1.0, 2.0)))
ITERATIONS = {
    "epsilon": (0.1, Parameter("strength of the entropic term, in units of the cost", POSITIVE)),
    "tolerance": (1e-6, Parameter("error of the marginals (sum of absolute differences) to stop at", POSITIVE)),
    "max_iterations": (1000, Parameter("iterations after which to stop with a warning", Integers(1, 1e6))),
}

SAMPLES = {
    "x": Input("* n", "samples of one distribution, in any order", grad=True),
    "y": Input("* m", "samples of the other", grad=True),
    "x_weight": Input("* n", "masses of x, up to a factor; equal ones if absent", optional=True, domain=NONNEGATIVE),
    "y_weight": Input("* m", "masses of y, up to a factor; equal ones if absent", optional=True, domain=NONNEGATIVE),
}
TWO_SAMPLES = "np.array([3.0, 0.5, 1.0]), np.array([2.0, 4.0])"
CLOUDS = {
    "x": Input("n d", "points of one distribution", grad=True),
    "y": Input("m d", "points of the other", grad=True),
}
TWO_CLOUDS = "np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 1.0], [3.0, 1.0], [0.5, 2.0]])"


@arrays(
    "transport.histograms",
    inputs={
        "prediction": Input("* k", "masses, of which each row is divided by its sum", grad=True, domain=NONNEGATIVE),
        "target": Input("* k", "masses, of which each row is divided by its sum", domain=NONNEGATIVE),
        "positions": Input("k", "where the bins lie, ascending; 0, 1, 2 ... if absent", optional=True),
    },
    checked_by_kernel=("prediction", "target"),
    options={"p": (1.0, POWER)},
    units="*",
    math="integral |F(u) - G(u)| du for p = 1, integral (Q_F(s) - Q_G(s))^2 ds for p = 2",
    convex=True,
    differentiable=False,
    minimum_at_target=True,
    paper="Peyre and Cuturi (2019), Computational Optimal Transport, arXiv:1803.00567, section 2.6",
    example="np.array([[0.2, 0.5, 0.3]]), np.array([[0.1, 0.1, 0.8]])",
)
def wasserstein_1d():
    """Wasserstein distance of histograms over common bins, to the power p.

    Rows need not sum to 1: each is divided by its sum, and the gradient is that of the whole, so it is orthogonal to
    the row. Behind a softmax nothing changes by that. A row without mass has distance 0 to another such row; beside
    one with mass it is an error. The distance is symmetric: for the gradient by the target, exchange the two. Where
    the distribution functions agree (to rounding), the subgradient is 0.
    """


@arrays(
    "transport.samples",
    inputs=SAMPLES,
    together=("x", "y"),
    options={"p": (1.0, POWER)},
    units="*",
    math="integral |Q_x(s) - Q_y(s)|^p ds, Q the quantile functions",
    differentiable=False,
    minimum_at_target=True,
    paper="Peyre and Cuturi (2019), Computational Optimal Transport, arXiv:1803.00567, section 2.6",
    example=TWO_SAMPLES,
)
def wasserstein_samples():
    """Wasserstein distance of two samples, to the power p.

    As ``scipy.stats.wasserstein_distance`` for p = 1. The gradient is with respect to x and y, the weights fixed.
    Samples that are equal share their gradient by mass.
    """


@arrays(
    "transport.samples",
    inputs=SAMPLES,
    together=("x", "y"),
    units="*",
    math="sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|)",
    differentiable=False,
    minimum_at_target=True,
    paper="Szekely and Rizzo (2013), Energy statistics, J. Stat. Plann. Inference 143",
    example=TWO_SAMPLES,
)
def energy_distance():
    """Energy distance of two samples.

    As ``scipy.stats.energy_distance``, and sqrt(2) times ``cramer``. Where it is 0, the gradient is 0.
    """


@arrays(
    "transport.samples",
    inputs=SAMPLES,
    together=("x", "y"),
    units="*",
    math="sqrt(integral (F_x(u) - F_y(u))^2 du)",
    differentiable=False,
    minimum_at_target=True,
    paper="Bellemare et al. (2017), The Cramer distance, arXiv:1705.10743",
    example=TWO_SAMPLES,
)
def cramer():
    """Cramer distance of two samples: the l2 distance of their distribution functions.

    Where it is 0, the gradient is 0.
    """


@arrays(
    "transport.sliced",
    inputs={
        **CLOUDS,
        "projections": Input("k d", "directions in place of drawn ones, of length 1", optional=True, filled=True),
    },
    together=("x", "y"),
    options={
        "n_projections": (50, Parameter("number of directions", Integers(1))),
        "seed": (0, Parameter("seed of the directions", Integers(0))),
        "p": (2.0, POWER),
    },
    math="(mean over directions of W_p(<x, u>, <y, u>)^p)^(1/p)",
    differentiable=False,
    minimum_at_target=True,
    paper="Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures, JMIV 51",
    example=TWO_CLOUDS,
)
def sliced_wasserstein():
    """Sliced Wasserstein distance of two clouds of points.

    As ``ot.sliced_wasserstein_distance`` of POT defines it. The directions are the rows of
    ``numpy.random.default_rng(seed).standard_normal((n_projections, d))``, each divided by its length: the same on
    any machine and any number of threads; `projections` that are given are taken as they are. Where the distance is
    0, the gradient is 0.
    """


@arrays(
    "transport.sinkhorn",
    inputs={
        "a": Input("n", "masses of one side, divided by their sum", grad=True, domain=NONNEGATIVE),
        "b": Input("m", "masses of the other side, divided by their sum", grad=True, domain=NONNEGATIVE),
        "cost": Input("n m", "cost of moving a unit of mass", grad=True),
    },
    together=("a", "b"),
    options=ITERATIONS,
    math="min over P of <P, C> + epsilon KL(P | a b^T), P with marginals a and b",
    paper="Cuturi (2013), Sinkhorn distances, arXiv:1306.0895",
    example="np.array([0.5, 0.5]), np.array([0.2, 0.8]), np.array([[0.0, 1.0], [1.0, 0.0]])",
)
def sinkhorn():
    """Entropic optimal transport between two histograms with a matrix of costs.

    Computed with potentials in the log domain, so that a small epsilon neither overflows nor underflows. The gradient
    with respect to the cost is the plan P; with respect to a and b it is the dual potentials, each less its mean under
    the histogram and divided by the sum of that as given, since the histograms are divided by their sums. A
    RuntimeWarning says when the marginals have not reached the tolerance. A cost may be inf where no mass may move.
    """


@arrays(
    "transport.sinkhorn",
    inputs={
        **CLOUDS,
        "x_weight": Input("n", "masses of x, up to a factor; equal ones if absent", optional=True, domain=NONNEGATIVE),
        "y_weight": Input("m", "masses of y, up to a factor; equal ones if absent", optional=True, domain=NONNEGATIVE),
    },
    together=("x", "y"),
    options={
        **ITERATIONS,
        "debias": (0.0, Parameter("subtract half the losses of x to x and of y to y, so that x = y has 0", flag=True)),
    },
    math="sinkhorn with the costs |x_i - y_j|^2",
    paper="Feydy et al. (2019), Interpolating between optimal transport and MMD, arXiv:1810.08278",
    example=TWO_CLOUDS,
)
def sinkhorn_points():
    """Entropic optimal transport between two clouds of points, the cost their squared distance.

    The gradient is with respect to the points, the weights fixed. A RuntimeWarning says when the marginals have not
    reached the tolerance.
    """


@arrays(
    "transport.mmd",
    inputs={
        **CLOUDS,
        "bandwidths": Input(
            "s",
            "several bandwidths, whose kernels are summed, instead of sigma",
            optional=True,
            domain=POSITIVE,
            filled=True,
        ),
    },
    together=("x", "y"),
    options={
        "sigma": (1.0, Parameter("bandwidth of the kernel", POSITIVE)),
        "unbiased": (1.0, Parameter("leave pairs of a point with itself out", flag=True)),
    },
    math="E k(x, x') + E k(y, y') - 2 E k(x, y), k = exp(-|x - y|^2 / (2 sigma^2))",
    paper="Gretton et al. (2012), A kernel two-sample test, JMLR 13",
    example=TWO_CLOUDS,
)
def mmd():
    """Squared maximum mean discrepancy of two clouds of points under a Gaussian kernel.

    The unbiased estimate may be negative and needs two points a side. Distances are never held for more than some
    points at a time: memory grows with n + m.
    """
