"""Likelihoods and proper scores of distributions, predicted by several parameters per element, at a real target t."""

from ..spec.record import (
    CAPPED,
    FISHER,
    NONNEGATIVE,
    POSITIVE,
    REAL,
    UNIT,
    Interval,
    Parameter,
    elementwise,
)
from ..spec.special import finite, gamma_ratio, lifted, normal_within, square_parts
from ..spec.vocabulary import (
    exp,
    log,
    log1p,
    maximum,
    minimum,
    sign,
    sqrt,
    where,
)


def times_square(x, factor):
    """Return x factor^2, and 0 where x is 0, even for an infinite factor."""
    return where(x == 0.0, 0.0, x * factor * factor)


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
    w = exp(beta * logarithm)
    i = 1.0 / v
    u, wi = r * i, w * i
    # From a logarithm: in four factors where the precision may overflow, though the residual times it need not.
    power = (beta - 1.0) * var
    extreme = abs(power) > 80.0
    e = exp(where(extreme, 0.25 * power, power))
    root = where(extreme, times_square(r, e), r)
    pull = where(logarithmic, where(extreme, times_square(root, e), r * e), w * u)
    half = 0.5 * where(logarithmic & extreme, root, r)
    half = half * where(logarithmic & extreme, root, pull)
    precision = where(logarithmic, where(extreme, e * e * (e * e), e), wi)
    value = 0.5 * w * (logarithm + where(full > 0.0, 1.8378770664093453, 0.0)) + half
    by_var = where(logarithmic, 0.5 * w - half, 0.5 * (wi - u * pull))
    second = where(logarithmic, half, u * (u * wi) - 0.5 * i * wi)
    fisher = 0.5 * where(logarithmic, w, i * wi)
    return value, (pull, by_var), (precision, second), (finite(precision), finite(fisher))


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
    s, lift = lifted(scale)
    i = 1.0 / s
    a = abs(r) * i * lift
    w = i * lift * (i * lift)
    second = (2.0 * a - 1.0) * i * lift * i * lift
    return log(2.0 * scale) + a, (sign(r) * i * lift, (1.0 - a) * i * lift), (0.0, second), (finite(w), finite(w))


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
    s, lift = lifted(scale)
    i = 1.0 / s
    r = mean - t
    by_root = 1.0 / sqrt(df)
    u = r * (i * by_root) * lift
    w, share = square_parts(u)
    # Keeps the slope and the logarithm of residuals so many scales away that u overflows.
    far = abs(u) > 1e9
    inverse = 1.0 / where(far, r, 1.0)
    beyond = far & (u == 0.5 * u)
    more = df + 1.0
    ratio, _first, _second = gamma_ratio(0.5 * df)
    logarithm = log(scale)
    a = abs(u)
    # Half of log(1 + u^2), or all of it.
    part = log1p(where(beyond, abs(r) - 1.0, where(a > 1e18, a, u * u))) - where(beyond, logarithm + 0.5 * log(df), 0.0)
    value = logarithm + more * where(a > 1e18, part, 0.5 * part) + (0.9189385332046727 - ratio)
    k = finite(i * lift * (i * lift))
    heavy = more * share
    first = (more * where(far, inverse, i * by_root * (u * w) * lift), (1.0 - heavy) * i * lift)
    bend = where(far, -inverse * inverse, k / df * (w * (2.0 * w - 1.0)))
    second = (more * bend, (heavy * (1.0 + 2.0 * w) - 1.0) * k)
    spread = 1.0 / (df + 3.0)
    return value, first, second, (finite(more * spread * k), finite(2.0 * (df * spread) * k))


@elementwise(
    math="log(pi / nu) / 2 + (alpha + 1/2) log(1 + nu r^2 / w) + log(w) / 2 + log(G(alpha) / G(alpha + 1/2))"
    " + lam |r| (2 nu + alpha), with r = gamma - t, w = 2 beta (1 + nu) and G the gamma function",
    prediction=(REAL, POSITIVE, Interval(1.0, low_open=True), POSITIVE),
    parameters={"lam": Parameter("weight of the penalty on evidence for wrong predictions", NONNEGATIVE)},
    differentiable=False,
    surrogate=FISHER,
    paper="Amini et al. (2020), Deep evidential regression",
)
def evidential_regression(gamma, nu, alpha, beta, t, lam=0.01):
    """Deep evidential regression: the evidence of a normal-inverse-gamma prior, with a penalty on evidence for errors.

    lam as in the paper; the authors' code has 1.
    """
    r = gamma - t
    a = abs(r)
    shape = alpha + 0.5
    i, j = finite(1.0 / nu), finite(1.0 / beta)
    part = nu / (1.0 + nu)
    d = i / (1.0 + nu)
    # nu r^2 / (2 beta (1 + nu)) is the square of root; of its factors, the roots stay in range.
    rate = sqrt(0.5 * part) / sqrt(beta)
    root = a * rate
    w, share = square_parts(root)
    # Keep the slope and the logarithm of residuals whose root squared overflows, or that itself.
    far = root > 1e9
    inverse = 1.0 / where(far, r, 1.0)
    beyond = far & (root == 0.5 * root)
    log_part, log_beta = log(part), log(beta)
    some = log1p(where(beyond, a - 1.0, where(root > 1e18, root, root * root)))
    more = where(beyond, 0.5 * (log_part - log_beta) - 0.34657359027997264, 0.0)
    logarithm = where(root > 1e18, 2.0 * (some + more), some)
    ratio, ratio1, ratio2 = gamma_ratio(alpha)
    value = 0.5 * (1.8378770664093453 + log_beta - log_part - log(alpha)) + shape * logarithm - ratio
    excess = shape * share - 0.5
    weight = shape * (j / (1.0 + i)) * w
    first = (
        2.0 * shape * where(far, inverse, sign(r) * rate * (root * w)) + lam * sign(r) * (2.0 * nu + alpha),
        excess / (1.0 + nu) / nu + 2.0 * lam * a,
        logarithm - ratio1 + lam * a,
        -excess / beta,
    )
    second = (
        weight * (2.0 * w - 1.0),
        d * d * (0.5 + nu - shape * share * (share + 2.0 * nu)),
        -ratio2,
        j * j * (shape * share * (1.0 + w) - 0.5),
    )
    known = 1.0 / (2.0 + 3.0 / alpha)
    by_gamma, by_nu, by_beta = 2.0 * known * shape * (j / (1.0 + i)), known * (d * d), known * (j * j)
    fisher = (finite(by_gamma), finite(by_nu), finite(-ratio2), finite(by_beta))
    return value + lam * a * (2.0 * nu + alpha), first, second, fisher


@elementwise(
    math="scale (u (2 Phi(u) - 1) + 2 phi(u) - 1 / sqrt(pi)), with u = (mean - t) / scale",
    prediction=(REAL, POSITIVE),
    convex=True,
    robust=True,
    lipschitz=1.0,
    surrogate=CAPPED,
    paper="Gneiting et al. (2005), Calibrated probabilistic forecasting using ensemble model output statistics",
)
def crps_gaussian(mean, scale, t):
    """Continuous ranked probability score of a normal distribution.

    As scoringrules.crps_normal.
    """
    s, lift = lifted(scale)
    u = (mean - t) / s * lift
    i = finite(1.0 / s * lift)
    inner = maximum(minimum(u, 1e3), -1e3)
    within = normal_within(u)
    density = 0.7978845608028654 * exp(-0.5 * inner * inner)
    spread = density - 0.5641895835477563
    second = density * i
    by_scale = second * inner * inner
    value = (mean - t) * within + scale * spread
    return value, (within, spread), (second, by_scale), (finite(second), finite(by_scale))
