"""Distributions predicted by several numbers per element, scored at a real target t: likelihoods and proper scores."""

from .record import NONNEGATIVE, POSITIVE, REAL, UNIT, Interval, Parameter, elementwise
from .special import gamma_ratio, log1p_square, normal_within, square_parts
from .vocabulary import exp, log, maximum, minimum, sign, sqrt, where

FISHER = "Fisher information"


@elementwise(
    prediction=(REAL, NONNEGATIVE),
    switched={"log_var": ((REAL, NONNEGATIVE), (REAL, REAL))},
    math="var^beta (log(var) + (mean - t)^2 / var) / 2, plus var^beta log(2 pi) / 2 if full, with var = max(var, eps)",
    parameters={
        "full": Parameter("add log(2 pi) / 2, which makes it the negative log-likelihood", UNIT, flag=True),
        "beta": Parameter("power of the variance that weighs each element, held constant in the derivatives", UNIT),
        "eps": Parameter("least variance; no part in log_var", POSITIVE),
        "log_var": Parameter("whether the second prediction is the logarithm of the variance", UNIT, flag=True),
    },
    surrogate=FISHER,
    paper="Nix and Weigend (1994), Estimating the mean and variance of the target; beta: Seitzer et al. (2022)",
)
def gaussian_nll(mean, var, t, full=0.0, beta=0.0, eps=1e-6, log_var=0.0):
    """Gaussian negative log-likelihood of a mean and a variance or its logarithm.

    As torch: a variance below eps counts as eps and still gets the gradient found there; a negative one is refused.
    With beta, both the value and the gradient carry the factor var^beta as a constant, as in the authors' code.
    """
    logarithmic = log_var > 0.0
    r = mean - t
    s = minimum(var, 0.0)
    v = maximum(var, eps) + sqrt(where(logarithmic, 0.0, s))
    logarithm = where(logarithmic, var, log(v))
    precision = where(logarithmic, exp(-var), 1.0 / v)
    q = r * (r * precision)
    w = exp(beta * logarithm)
    # d var / d prediction over the variance.
    step = where(logarithmic, 1.0, precision)
    value = 0.5 * w * (logarithm + q + where(full > 0.0, 1.8378770664093453, 0.0))
    second = w * step * step * where(logarithmic, 0.5 * q, q - 0.5)
    fisher = w * step * (0.5 * step)
    wp = w * precision
    return value, (r * wp, 0.5 * w * step * (1.0 - q)), (wp, second), (wp, fisher)


@elementwise(
    math="log(2 scale) + |mean - t| / scale",
    prediction=(REAL, POSITIVE),
    differentiable=False,
    surrogate=FISHER,
    paper="Laplace (1774), Probabilite des causes par les evenements",
)
def laplace_nll(mean, scale, t):
    """Laplace negative log-likelihood of a location and a scale; gradient 0 in the location at the target.

    As scipy.stats.laplace.
    """
    r = mean - t
    i = 1.0 / scale
    a = abs(r) * i
    w = i * i
    return log(2.0 * scale) + a, (sign(r) * i, (1.0 - a) * i), (0.0, (2.0 * a - 1.0) * w), (w, w)


@elementwise(
    math="(df + 1) / 2 log(1 + r^2 / df) + log(scale sqrt(df) B(1/2, df/2)), with r = (mean - t) / scale",
    prediction=(REAL, POSITIVE),
    parameters={"df": Parameter("degrees of freedom", POSITIVE)},
    robust=True,
    surrogate=FISHER,
    paper="Lange et al. (1989), Robust statistical modeling using the t distribution",
)
def student_t_nll(mean, scale, t, df=4.0):
    """Student t negative log-likelihood of a location and a scale.

    As scipy.stats.t.
    """
    i = 1.0 / scale
    u = (mean - t) * i / sqrt(df)
    w, share = square_parts(u)
    far = abs(u) > 1e9
    slope = where(far, 1.0 / where(far, u, 1.0), u * w)
    more = df + 1.0
    ratio, _first, _second = gamma_ratio(0.5 * df)
    value = log(scale) + 0.5 * more * log1p_square(u) + (0.9189385332046727 - ratio)
    k = i * i
    heavy = more * share
    first = (more / sqrt(df) * slope * i, (1.0 - heavy) * i)
    second = (more / df * k * (w * (2.0 * w - 1.0)), (heavy * (1.0 + 2.0 * w) - 1.0) * k)
    return value, first, second, (more / (df + 3.0) * k, 2.0 * df / (df + 3.0) * k)


@elementwise(
    math="log(pi / nu) / 2 + (alpha + 1/2) log(1 + nu r^2 / w) + log(w) / 2 + log(G(alpha) / G(alpha + 1/2))"
    " + lam |r| (2 nu + alpha), with r = gamma - t, w = 2 beta (1 + nu) and G the gamma function",
    prediction=(REAL, POSITIVE, Interval(1.0, low_open=True), POSITIVE),
    parameters={"lam": Parameter("weight of the penalty on evidence for wrong predictions", NONNEGATIVE)},
    differentiable=False,
    paper="Amini et al. (2020), Deep evidential regression",
)
def evidential_regression(gamma, nu, alpha, beta, t, lam=0.01):
    """Deep evidential regression: the evidence of a normal-inverse-gamma prior, with a penalty on evidence for errors.

    lam as in the paper; the authors' code has 1.
    """
    r = gamma - t
    a = abs(r)
    shape = alpha + 0.5
    i, j = 1.0 / nu, 1.0 / beta
    d = i / (1.0 + nu)
    # nu r^2 / (2 beta (1 + nu)) is its square.
    root = r * sqrt(0.5 * j / (1.0 + i))
    w, share = square_parts(root)
    logarithm = log1p_square(root)
    ratio, ratio1, ratio2 = gamma_ratio(alpha)
    value = 0.5 * log(6.283185307179586 * beta * (1.0 + i) / alpha) + shape * logarithm - ratio
    excess = shape * share - 0.5
    weight = shape * (j / (1.0 + i)) * w
    first = (
        weight * r + lam * sign(r) * (2.0 * nu + alpha),
        excess * d + 2.0 * lam * a,
        logarithm - ratio1 + lam * a,
        -excess * j,
    )
    second = (
        weight * (2.0 * w - 1.0),
        d * d * (0.5 + nu - shape * share * (share + 2.0 * nu)),
        -ratio2,
        j * j * (shape * share * (1.0 + w) - 0.5),
    )
    return value + lam * a * (2.0 * nu + alpha), first, second


@elementwise(
    math="scale (u (2 Phi(u) - 1) + 2 phi(u) - 1 / sqrt(pi)), with u = (mean - t) / scale",
    prediction=(REAL, POSITIVE),
    convex=True,
    robust=True,
    lipschitz=1.0,
    paper="Gneiting et al. (2005), Calibrated probabilistic forecasting using ensemble model output statistics",
)
def crps_gaussian(mean, scale, t):
    """Continuous ranked probability score of a normal distribution.

    As scoringrules.crps_normal.
    """
    i = 1.0 / scale
    u = (mean - t) * i
    inner = maximum(minimum(u, 1e3), -1e3)
    within = normal_within(u)
    density = 0.7978845608028654 * exp(-0.5 * inner * inner)
    spread = density - 0.5641895835477563
    second = density * i
    return (mean - t) * within + scale * spread, (within, spread), (second, second * inner * inner)
