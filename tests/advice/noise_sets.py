"""Synthetic data sets of known noise, with the losses that are right for each."""

import numpy as np

ROBUST = {"huber", "cauchy", "student_t_nll", "barron", "tukey", "pseudo_huber"}


def _line(rng, n):
    x = rng.normal(size=n)
    return 1.0 + 2.0 * x, x


def gaussian(rng, n):
    m, _ = _line(rng, n)
    return m + rng.normal(size=n), m, None, {"mse"}


def gaussian_targets_alone(rng, n):
    m, _ = _line(rng, n)
    return m + rng.normal(size=n), None, None, {"mse"}


def laplace(rng, n):
    m, _ = _line(rng, n)
    return m + rng.laplace(size=n), m, None, {"mae", "laplace_nll"}


def student(rng, n):
    m, _ = _line(rng, n)
    return m + rng.standard_t(3, size=n), m, None, ROBUST


def outliers(rng, n):
    m, _ = _line(rng, n)
    noise = rng.normal(size=n)
    hit = rng.random(n) < 0.03
    return m + np.where(hit, rng.normal(0.0, 15.0, n), noise), m, None, ROBUST


def poisson(rng, n):
    m = np.exp(0.5 + 0.5 * rng.normal(size=n))
    return rng.poisson(m), m, None, {"poisson"}


def overdispersed(rng, n):
    m = np.exp(1.0 + 0.5 * rng.normal(size=n))
    return rng.negative_binomial(2.0, 2.0 / (2.0 + m)), m, None, {"negative_binomial_nll"}


def zero_inflated(rng, n):
    m = np.exp(1.0 + 0.3 * rng.normal(size=n))
    return np.where(rng.random(n) < 0.4, 0, rng.poisson(m)), 0.6 * m, None, {"negative_binomial_nll", "tweedie"}


def gamma(rng, n):
    m = np.exp(1.0 + 0.7 * rng.normal(size=n))
    return rng.gamma(2.0, m / 2.0), m, None, {"gamma"}


def beta(rng, n):
    m = 1.0 / (1.0 + np.exp(-rng.normal(size=n)))
    return rng.beta(5.0 * m, 5.0 * (1.0 - m)), m, None, {"bce_with_logits", "bce"}


def ordinal(rng, n):
    m, _ = _line(rng, n)
    return np.digitize(m + rng.logistic(size=n), [-1.0, 0.5, 1.5, 3.0]), m, None, {"ordinal"}


def one_in_200(rng, n):
    x = rng.normal(size=n)
    return (
        (rng.random(n) < 0.005 * np.exp(0.5 * x - 0.125)).astype(int),
        x,
        None,
        {"bce_with_logits:pos_weight", "focal"},
    )


def heteroscedastic(rng, n):
    m, x = _line(rng, n)
    return m + rng.normal(size=n) * np.exp(0.6 * x), m, None, {"gaussian_nll"}


def censored(rng, n):
    m = 1.0 + 0.5 * rng.normal(size=n)
    time = np.exp(m + 0.6 * rng.normal(size=n))
    return np.minimum(time, 6.0), np.exp(m), None, {"aft"}


def grouped(rng, n):
    m, _ = _line(rng, n)
    g = rng.integers(0, 3, n)
    return m + rng.normal(size=n) * np.array([1.0, 1.0, 2.0])[g], m, np.array(["a", "b", "c"])[g], {"GroupDRO"}


KINDS = (
    gaussian,
    gaussian_targets_alone,
    laplace,
    student,
    outliers,
    poisson,
    overdispersed,
    zero_inflated,
    gamma,
    beta,
    ordinal,
    one_in_200,
    heteroscedastic,
    censored,
    grouped,
)


def right(first, names):
    """Whether a recommendation is among those that are right."""
    found = {
        first.name,
        f"{first.name}:{','.join(first.parameters)}",
        *(["GroupDRO"] if "GroupDRO" in first.code else []),
    }
    if "bce_with_logits:pos_weight" in names:
        found.discard("bce_with_logits")
    return bool(found & names)
