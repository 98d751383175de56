"""Regression losses: the prediction z against a real target t; and penalties on parameters, which have no target."""

from ..spec.record import POSITIVE, UNIT, Interval, Parameter, elementwise
from ..spec.special import finite
from ..spec.vocabulary import (
    exp,
    expm1,
    log,
    log1p,
    log1p_unit,
    maximum,
    sign,
    where,
)

ABOVE_MINUS_ONE = Interval(-1.0, low_open=True)


@elementwise(
    math="(z - t)^2",
    convex=True,
    minimum_at_target=True,
    paper="Gauss (1809), Theoria motus",
)
def mse(z, t):
    """Squared error.

    As torch and sklearn.metrics; twice sklearn's HalfSquaredError and optax.l2_loss.
    """
    r = z - t
    return r * r, 2.0 * r, 2.0


@elementwise(
    math="|z - t|",
    convex=True,
    differentiable=False,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate="1",
    paper="Laplace (1774), Probabilite des causes par les evenements",
)
def mae(z, t):
    """Absolute error; the gradient at the target is 0, as in torch."""
    r = z - t
    return abs(r), sign(r), 0.0, 1.0


@elementwise(
    math="r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2), with r = z - t",
    parameters={"delta": Parameter("residual at which the loss turns from quadratic to linear", POSITIVE)},
    convex=True,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate="1",
    paper="Huber (1964), Robust estimation of a location parameter",
)
def huber(z, t, delta=1.0):
    """Huber loss: quadratic near the target, linear beyond delta.

    As torch, optax and keras.
    """
    r = z - t
    a = abs(r)
    beyond = a > delta
    m = where(beyond, delta, a)
    return m * (a - 0.5 * m), where(beyond, where(r > 0.0, delta, -delta), r), where(beyond, 0.0, 1.0), 1.0


@elementwise(
    math="r^2 / (2 beta) where |r| < beta, else |r| - beta / 2, with r = z - t",
    parameters={"beta": Parameter("residual at which the loss turns linear; 0 is mae", Interval(0.0))},
    convex=True,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate="1 / beta (1 where beta = 0)",
    paper="Girshick (2015), Fast R-CNN",
)
def smooth_l1(z, t, beta=1.0):
    """Smooth L1: Huber's loss divided by its width, of slope 1 outside.

    As torch, beta = 0 included.
    """
    r = z - t
    a = abs(r)
    inside = a < beta
    curvature = finite(1.0 / where(beta > 0.0, beta, 1.0))
    value = where(inside, 0.5 * a * (a * curvature), a - 0.5 * beta)
    return value, where(inside, r * curvature, sign(r)), where(inside, curvature, 0.0), curvature


@elementwise(
    math="log(cosh(z - t))",
    convex=True,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    paper="Green (1990), Bayesian reconstructions from emission tomography data",
)
def log_cosh(z, t):
    """Logarithm of the hyperbolic cosine of the residual: half its square near 0, |r| - log 2 far away.

    As keras and optax, without overflow or loss of small values.
    """
    r = z - t
    a = abs(r)
    e = exp(-2.0 * a)
    h = expm1(-2.0 * a)
    near = a < 0.875
    # cosh^2 = 1 + sinh^2; where that serves, e is at least 0.17.
    s = log1p_unit(where(near, 0.25 * h * h / maximum(e, 0.125), e))
    value = where(near, 0.5 * s, a - 0.6931471805599453 + s)
    return value, sign(r) * (-h / (1.0 + e)), 4.0 * (e / ((1.0 + e) * (1.0 + e)))


@elementwise(
    math="max(q (t - z), (q - 1) (t - z))",
    parameters={"q": Parameter("level of the quantile", UNIT, vector=True)},
    convex=True,
    differentiable=False,
    robust=True,
    lipschitz=0.5,
    minimum_at_target=True,
    surrogate="1",
    paper="Koenker and Bassett (1978), Regression quantiles",
)
def quantile(z, t, q=0.5):
    """Pinball loss, minimal in expectation at the q-quantile; the gradient at the target is 0.

    As sklearn's mean_pinball_loss; half of mae at q = 0.5. sklearn's PinballLoss has gradient -q at the target.
    """
    r = z - t
    over = 1.0 - q
    return maximum(over * r, -q * r), where(r > 0.0, over, where(r < 0.0, -q, r)), 0.0, 1.0


@elementwise(
    math="|q - [t < z]| (z - t)^2",
    parameters={"q": Parameter("level of the expectile", Interval(0.0, 1.0, True, True), vector=True)},
    convex=True,
    minimum_at_target=True,
    paper="Newey and Powell (1987), Asymmetric least squares",
)
def expectile(z, t, q=0.5):
    """Asymmetric squared error, minimal in expectation at the q-expectile.

    Half of mse at q = 0.5, as XGBoost's reg:expectileerror.
    """
    r = z - t
    w = where(r > 0.0, 1.0 - q, q)
    return w * r * r, 2.0 * w * r, 2.0 * w


@elementwise(
    math="(log(1 + z) - log(1 + t))^2",
    prediction=ABOVE_MINUS_ONE,
    target=ABOVE_MINUS_ONE,
    minimum_at_target=True,
    surrogate="2 / (1 + z)^2, without the curvature of the logarithm (Gauss-Newton)",
    paper="Pedregosa et al. (2011), scikit-learn",
)
def msle(z, t):
    """Squared error of log(1 + x).

    As sklearn.metrics.mean_squared_log_error; keras first lifts both sides to 1e-7.
    """
    i = 1.0 / (1.0 + z)
    base = 1.0 + t
    x = (z - t) / base
    # log(1 + x) is right where the ratio is near 1, log(ratio) where x is near -1.
    d = where(abs(x) < 0.5, log1p(maximum(x, -0.5)), log((1.0 + z) / base))
    return d * d, 2.0 * d * i, 2.0 * (1.0 - d) * i * i, finite(2.0 * i * i)


@elementwise(
    math="|z - t| / max(|t|, eps)",
    parameters={"eps": Parameter("least denominator", POSITIVE)},
    convex=True,
    differentiable=False,
    robust=True,
    minimum_at_target=True,
    surrogate="1 / max(|t|, eps)",
    paper="de Myttenaere et al. (2016), Mean absolute percentage error for regression models",
)
def mape(z, t, eps=2.220446049250313e-16):
    """Absolute error relative to the target, as a fraction and not in percent.

    As sklearn.metrics.mean_absolute_percentage_error; keras multiplies by 100.
    """
    r = z - t
    w = 1.0 / maximum(abs(t), eps)
    return abs(r) * w, sign(r) * w, 0.0, finite(w)


@elementwise(
    math="2 |z - t| / max(|z| + |t|, eps)",
    parameters={"eps": Parameter("least denominator", POSITIVE)},
    differentiable=False,
    bounded=True,
    robust=True,
    minimum_at_target=True,
    surrogate="2 / max(|z| + |t|, eps)",
    paper="Armstrong (1985), Long-range forecasting",
)
def smape(z, t, eps=2.220446049250313e-16):
    """Absolute error relative to the mean size of prediction and target, between 0 and 2.

    As torchmetrics. Constant 2 where the signs differ; at a zero prediction the gradient is the one towards the target.
    """
    r = z - t
    s = sign(r)
    total = abs(z) + abs(t)
    i = 1.0 / maximum(total, eps)
    floored = total <= eps
    slope = where(floored, 2.0 * i, where(sign(z) * sign(t) < 0.0, 0.0, 4.0 * (abs(t) * i) * i))
    second = where(floored, 0.0, -2.0 * i * slope * (s * sign(z)))
    return 2.0 * (abs(r) * i), s * slope, second, finite(2.0 * i)


@elementwise(
    math="|z|",
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    reduction="sum",
    paper="Tibshirani (1996), Regression shrinkage and selection via the lasso",
)
def l1(z):
    """Absolute value of a parameter, a penalty to be summed with a loss; gradient 0 at 0."""
    return abs(z), sign(z), 0.0, 1.0


@elementwise(
    math="z^2 / 2",
    convex=True,
    reduction="sum",
    paper="Hoerl and Kennard (1970), Ridge regression",
)
def l2(z):
    """Half the square of a parameter, a penalty to be summed with a loss.

    Its gradient is the parameter itself, as in weight decay and sklearn's ElasticNet; Ridge and keras have z^2.
    """
    return 0.5 * z * z, z, 1.0


@elementwise(
    math="l1_ratio |z| + (1 - l1_ratio) z^2 / 2",
    parameters={"l1_ratio": Parameter("share of the absolute value", UNIT)},
    convex=True,
    differentiable=False,
    surrogate="1",
    reduction="sum",
    paper="Zou and Hastie (2005), Regularization and variable selection via the elastic net",
)
def elastic_net(z, l1_ratio=0.5):
    """Mixture of the l1 and l2 penalties on a parameter.

    As sklearn's ElasticNet.
    """
    ridge = 1.0 - l1_ratio
    return l1_ratio * abs(z) + ridge * (0.5 * z * z), l1_ratio * sign(z) + ridge * z, ridge, 1.0
