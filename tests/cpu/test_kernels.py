"""Values and rounding of every elementwise loss through its compiled kernels, and the optimum.

Two oracles: the textbook in NumPy (fastloss.reference), and the formula itself at fifty digits on the very inputs and
parameters that the kernel had, which shows the rounding.
"""

import math

import numpy as np
import pytest
from kernel_cases import (
    FEW,
    LOSSES,
    Oracle,
    columns,
    draw,
    each_dtype,
    each_loss,
    per_element,
    rows_of,
)
from sampling import flat, variants

from fastloss import reference

# Rounding ------------------------------------------------------------------------------------------------------------


@each_dtype
@each_loss
def test_rounding(name, dtype):
    loss = LOSSES[name]
    for variant in variants(loss.record):
        prediction, target = draw(name, 4 if FEW else 100 if not variant else 60, dtype, **variant)
        results = per_element(loss.bind(**variant), prediction, target)
        assert all(x.dtype == dtype for x in results)
        Oracle(loss.record, dtype, variant).check(results, rows_of(prediction, target))


# The textbook itself cancels here: relative to the size of the terms that cancel.
TERMS = {
    "log_cosh": lambda z, t: 1e-3,
    "msle": lambda z, t: np.log1p(z) ** 2 + np.log1p(t) ** 2 + 1e-3,
    "fair": lambda z, t, c=1.0: c * np.abs(z - t) + 1e-3,
    "barron": lambda z, t, alpha=1.0, c=1.0: 1.0,
    "poisson": lambda z, t, full=0: np.exp(z) + np.abs(t * z) + t * np.log1p(t) + 1,
    "gamma": lambda z, t, full=0: np.abs(z) + t * np.exp(-z) + 1,
    "tweedie": lambda z, t, power=1.5, full=0: np.exp(2 * np.abs(z)) * (1 + t) * (1 + t * t),
    "gaussian_nll": lambda m, v, t, **p: 2.0 + np.abs(v),
    "laplace_nll": lambda m, s, t: 1.0,
    "student_t_nll": lambda m, s, t, df=4.0: 1.0 + df * math.log1p(df),
    "evidential_regression": lambda g, n, a, b, t, lam=0.01: (1 + a) * (10 + np.log1p(a) + np.abs(np.log(b)) + n),
    "negative_binomial_nll": lambda m, r, t: (r + t + 1) * (10 + np.log1p(r + t) + np.abs(np.log(m))),
    "asymmetric": lambda z, t, **p: 1e-3,
    "log_loss": lambda p, t: 40.0,
    "bce": lambda p, t, **q: 1.0,
    "welsch": lambda z, t, c=1.0: 1e-3,
    "margin_ranking": lambda a, b, t, margin=0.0: np.abs(a - b) + margin,
    "triplet_distance": lambda a, b, margin=1.0: np.abs(a - b) + margin,
}


@each_dtype
@each_loss
def test_value_is_that_of_the_textbook(name, dtype):
    """The textbook in float64 at the same inputs and, in their type, the same parameters."""
    if name == "log_loss" and dtype is np.float32:
        pytest.skip("its clipping depends on the type; test_rounding covers it")
    loss = LOSSES[name]
    rel = 1e-12 if dtype is np.float64 else 2e-5
    for variant in variants(loss.record):
        prediction, target = draw(name, 3 if FEW else 500, dtype, seed=2, **variant)
        data = [x.astype(np.float64) for x in columns(prediction, target)]
        given = {k: v if v is None or isinstance(v, bool) else float(dtype(v)) for k, v in variant.items()}
        given = {k: v for k, v in given.items() if k in loss.record.parameters}
        with np.errstate(all="ignore"):
            expected = getattr(reference, name)(*data, **given)
            terms = TERMS.get(name, lambda *a, **k: 0.0)(*data, **given)
        got = loss.value_and_grad(prediction, target, reduction="none", **variant)[0]
        allowed = rel * np.abs(expected) + 10 * np.finfo(dtype).eps * terms + 1e-37
        wrong = np.flatnonzero(~((np.abs(got - expected) <= allowed) | (got == expected)))
        assert wrong.size == 0, (variant, [x[wrong[0]] for x in data], got[wrong[0]], expected[wrong[0]])


# The optimum ---------------------------------------------------------------------------------------------------------


def logit(t):
    return math.log(t) - math.log1p(-t)


# Where a loss of target t is least, for losses that are least elsewhere than at a prediction of t.
OPTIMUM = {
    "bce": lambda t: (t,),
    "log_loss": lambda t: (t,),
    "bce_with_logits": lambda t: (logit(t),),
    "poisson": lambda t: (math.log(t),),
    "gamma": lambda t: (math.log(t),),
    "tweedie": lambda t: (math.log(t),),
    "gaussian_nll": lambda t: (t - 0.5, 0.25),
    "crps_gaussian": lambda t: (t, 1.0),
    "negative_binomial_nll": lambda t: (t, 2.0),
    "student_t_nll": lambda t: (t, 1.0),
    "laplace_nll": lambda t: (t - 0.5, 0.5),
    "evidential_regression": lambda t: (t, 1.0, 2.0, 1.0),
}


@each_dtype
@pytest.mark.parametrize("name", [n for n, loss in LOSSES.items() if loss.record.minimum_at_target])
def test_no_gradient_and_no_loss_at_the_target(name, dtype):
    loss = LOSSES[name]
    for variant in variants(loss.record):
        t = draw(name, 5 if FEW else 200, dtype, seed=13, **variant)[1]
        values, grads = loss.bind(**variant).value_and_grad(t.copy(), t, reduction="none")
        assert not values.any()
        assert not grads.any()


@each_dtype
@pytest.mark.parametrize("name", OPTIMUM)
def test_no_gradient_at_the_optimum(name, dtype):
    """In the first prediction (in laplace_nll and gaussian_nll: in the scale) to a few rounding errors."""
    loss = LOSSES[name]
    t = np.array([0.9, 0.5, 0.2, 0.01], dtype)
    points = zip(*(OPTIMUM[name](float(x)) for x in t), strict=True)
    predictions = tuple(np.array(p, dtype) for p in points)
    single = len(predictions) == 1
    grads = flat(loss.value_and_grad(predictions[0] if single else predictions, t, reduction="none")[1])
    k = 1 if name in ("gaussian_nll", "laplace_nll") else 0
    assert np.abs(grads[k]).max() <= 8 * np.finfo(dtype).eps
    if name in ("crps_gaussian", "negative_binomial_nll", "student_t_nll", "evidential_regression"):
        assert not grads[0].any()


@pytest.mark.parametrize("name", ["hinge", "squared_hinge", "smooth_hinge", "modified_huber", "perceptron"])
def test_no_gradient_beyond_the_margin(name):
    z = np.array([5.0, -5.0, 1e4])
    value, grad = LOSSES[name].value_and_grad(z, np.sign(z))
    assert value == 0.0
    assert not grad.any()
