"""Functions that a formula may use, defined for Python floats.

Each backend binds these names to its own versions: vectorised polynomials on a CPU, device functions on a GPU,
arbitrary precision in mpmath, symbols in SymPy. Called directly, formulas compute in Python floats.
"""

import math
import sys

__all__ = [
    "atan",
    "digamma",
    "epsilon",
    "exp",
    "expm1",
    "largest",
    "lgamma",
    "log",
    "log1p",
    "log1p_unit",
    "maximum",
    "mills",
    "minimum",
    "ndtr",
    "pow",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "tanh",
    "trigamma",
    "where",
]

atan, tanh = math.atan, math.tanh


def epsilon(x):
    """Return the machine epsilon of the dtype of x."""
    return 2.0**-52


def largest(x):
    """Return the largest finite number of the dtype of x."""
    return sys.float_info.max


def exp(x):
    """e to the x, inf where it overflows."""
    return math.inf if x > 709.782712893384 else math.exp(x)


def expm1(x):
    """exp(x) - 1, exact for small x."""
    return math.inf if x > 709.782712893384 else math.expm1(x)


def sqrt(x):
    """Square root, NaN below 0."""
    return math.nan if x < 0.0 else math.sqrt(x)


def lgamma(x):
    """log of the gamma function, for x >= 0."""
    return math.inf if x == 0.0 or x > 2.5e305 else math.lgamma(x)


def log(x):
    """Natural logarithm, -inf at 0."""
    return math.log(x) if x > 0.0 else -math.inf if x == 0.0 else math.nan


def log1p(x):
    """log(1 + x), exact for small x, -inf at -1."""
    return math.log1p(x) if x > -1.0 else -math.inf if x == -1.0 else math.nan


log1p_unit = log1p
"""log(1 + x) for x in [0, 1], where a shorter polynomial serves."""


def where(condition, a, b):
    """Choose a or b; both are evaluated, as a vector unit does."""
    return a if condition else b


def maximum(a, b):
    """The larger; NaN if either is NaN."""
    return a if a > b or a != a else b


def minimum(a, b):
    """The smaller; NaN if either is NaN."""
    return a if a < b or a != a else b


def sign(x):
    """-1, 0 or 1."""
    return float((x > 0.0) - (x < 0.0)) if x == x else x


def pow(x, y):
    """x to the power y, for x >= 0."""
    try:
        return math.pow(x, y) if x > 0.0 or y >= 0.0 else math.inf
    except OverflowError:
        return math.inf


def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    e = math.exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return maximum(x, 0.0) + math.log1p(math.exp(-abs(x)))


def ndtr(x):
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def mills(x):
    """(1 - ndtr(x)) over the normal density at x, for x >= 0."""
    if x < 4.0:
        return math.sqrt(0.5 * math.pi) * math.erfc(x / math.sqrt(2.0)) * math.exp(0.5 * x * x)
    rest = 0.0
    for k in range(80, 0, -1):
        rest = k / (x + rest)
    return 1.0 / (x + rest)


def digamma(x):
    """Derivative of lgamma, for x > 0."""
    shift = 0.0
    while x < 12.0:
        shift -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1.0 / 12.0 - r * (1.0 / 120.0 - r * (1.0 / 252.0 - r * (1.0 / 240.0 - r / 132.0))))
    return shift + math.log(x) - 0.5 / x - series


def trigamma(x):
    """Second derivative of lgamma, for x > 0."""
    shift = 0.0
    while x < 12.0:
        shift += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1.0 / 6.0 - r * (1.0 / 30.0 - r * (1.0 / 42.0 - r * (1.0 / 30.0 - r * 5.0 / 66.0))))
    return shift + (1.0 + 0.5 / x + series) / x
