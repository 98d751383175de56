"""Test data for any elementwise formula: points that cover its domains, and parameters that cover its variants."""

import math

import numpy as np

from fastloss.spec.record import SIGNS, Formula

SMALLEST, LARGEST = 1e-6, 1e3
# exp() of a prediction beyond this overflows float32 once it is squared.
EXPONENT = 30.0

VARIANTS = {
    "huber": [{"delta": 0.1}, {"delta": 30.0}],
    "smooth_l1": [{"beta": 0.0}, {"beta": 0.1}, {"beta": 30.0}],
    "quantile": [{"q": 0.9}, {"q": 0.05}, {"q": 0.0}, {"q": 1.0}],
    "expectile": [{"q": 0.9}, {"q": 0.05}],
    "mape": [{"eps": 1.0}],
    "smape": [{"eps": 1.0}],
    "elastic_net": [{"l1_ratio": 0.0}, {"l1_ratio": 0.15}, {"l1_ratio": 1.0}],
    "pseudo_huber": [{"delta": 0.1}, {"delta": 30.0}],
    "charbonnier": [{"c": 0.1}, {"c": 30.0}],
    "cauchy": [{"c": 0.1}, {"c": 30.0}],
    "welsch": [{"c": 0.1}, {"c": 30.0}],
    "geman_mcclure": [{"c": 0.1}, {"c": 30.0}],
    "tukey": [{"c": 0.1}, {"c": 30.0}],
    "fair": [{"c": 0.1}, {"c": 30.0}],
    "wing": [{"w": 0.5}, {"w": 5.0, "epsilon": 0.5}],
    "barron": [
        *({"alpha": a} for a in (2.0, 2.0 - 2.0**-20, 2.0 + 2.0**-20, 1.9, 1.5, 0.5, 2.0**-20, 0.0, -1.0, -2.0, -50.0)),
        {"alpha": -math.inf},
        {"alpha": 3.0, "c": 30.0},
        {"alpha": -2.0, "c": 0.1},
    ],
    "poisson": [{"full": True}],
    "gamma": [{"full": True}],
    "tweedie": [
        *({"power": p} for p in (0.0, 0.5, 1.0, 1.0 + 2.0**-20, 1.1, 1.9, 2.0 - 2.0**-20, 2.0, 3.0)),
        {"full": True},
        {"power": 1.0, "full": True},
    ],
    "gaussian_nll": [
        {"full": True},
        {"beta": 0.5},
        {"eps": 1e-3},
        {"log_var": True},
        {"log_var": True, "beta": 1.0, "full": True},
    ],
    "student_t_nll": [{"df": 0.5}, {"df": 1.0}, {"df": 30.0}, {"df": 1e6}],
    "interval_score": [{"alpha": 0.5}],
    "evidential_regression": [{"lam": 0.0}, {"lam": 1.0}],
    "bce": [{"pos_weight": 3.0}, {"label_smoothing": 0.1}, {"pos_weight": 0.5, "label_smoothing": 1.0}],
    "bce_with_logits": [{"pos_weight": 3.0}, {"label_smoothing": 0.1}, {"pos_weight": 0.5, "label_smoothing": 1.0}],
    "focal": [
        {"alpha": None},
        {"alpha": 0.9, "gamma": 0.0},
        {"gamma": 0.5},
        {"gamma": 1.0},
        {"alpha": None, "gamma": 5.0},
    ],
    "poly1_bce": [{"epsilon": 0.0}, {"epsilon": 2.5}],
    "asymmetric": [
        {"gamma_neg": 0.0, "clip": 0.0},
        {"gamma_pos": 1.0, "gamma_neg": 2.0, "clip": 0.0},
        {"gamma_pos": 0.5, "gamma_neg": 0.5, "clip": 0.0},
        {"gamma_pos": 2.0, "clip": 0.2},
    ],
    "hinge": [{"margin": 0.25}],
    "squared_hinge": [{"margin": 0.25}],
    "smooth_hinge": [{"margin": 0.25}],
    "margin_ranking": [{"margin": 0.5}],
    "hinge_embedding": [{"margin": 0.25}],
    "contrastive_distance": [{"margin": 0.25}, {"margin": 30.0, "pos_margin": 0.5}],
    "triplet_distance": [{"margin": 0.0}, {"margin": 0.25}],
    "gradient_norm_penalty": [{"center": 0.0}, {"one_sided": True, "center": 5.0, "lam": 0.5}, {"lam": 0.0}],
    "gan_bce": [{"label_smoothing": 0.1}, {"label_smoothing": 1.0}],
    "gan_hinge": [{"generator": True}],
}


def flat(x):
    """A tuple of one array or of several, as losses of several predictions take and return them."""
    return x if isinstance(x, tuple) else (x,)


def variants(formula: Formula) -> list[dict]:
    """The parameter settings to test, as a user gives them; the defaults first."""
    return [{}, *VARIANTS.get(formula.name, [])]


def numbers(formula: Formula, variant: dict) -> list[float]:
    """The parameters of a variant as the formula takes them, in the order of its signature."""
    given = {**formula.defaults, **variant}
    return [float(formula.parameters[k].none if given[k] is None else given[k]) for k in formula.defaults]


def magnitudes(n: int, rng: np.random.Generator, largest: float = LARGEST) -> np.ndarray:
    """Positive numbers, uniform in the logarithm."""
    return 10.0 ** rng.uniform(math.log10(SMALLEST), math.log10(largest), n)


def inside(domain, x: np.ndarray) -> np.ndarray:
    """The nearest points of an interval, in the type of x, its open ends avoided."""
    low, high = x.dtype.type(domain.low), x.dtype.type(domain.high)
    low = np.nextafter(low, high) if domain.low_open and np.isfinite(low) else low
    high = np.nextafter(high, low) if domain.high_open and np.isfinite(high) else high
    return np.clip(x, low, high)


def draw(domain, n: int, rng: np.random.Generator, dtype, largest: float = LARGEST) -> np.ndarray:
    """Points of a domain: every magnitude on either side of an end or of 0, and the ends themselves."""
    if domain == SIGNS:
        return rng.choice([-1.0, 1.0], n).astype(dtype)
    m = magnitudes(n, rng, largest)
    bounded = np.isfinite([domain.low, domain.high])
    if bounded.all():
        width = domain.high - domain.low
        near = np.minimum(m, 1.0) * width / 2
        kind = rng.integers(0, 3, n)
        x = np.select(
            [kind == 0, kind == 1], [domain.low + near, domain.high - near], domain.low + width * rng.random(n)
        )
        specials = [domain.low, domain.high, (domain.low + domain.high) / 2]
    elif bounded[0]:
        x = domain.low + m
        specials = [domain.low + (SMALLEST if domain.low_open else 0.0), domain.low + 1.0]
    else:
        x = np.where(rng.random(n) < 0.5, m, -m)
        specials = [0.0, 1.0, -1.0]
    replaced = rng.random(n) < 0.15
    replaced[: len(specials)] = True
    at = np.flatnonzero(replaced)
    x[at] = np.resize(specials, at.size)
    return rng.permutation(inside(domain, x.astype(dtype)))


def largest_prediction(formula: Formula) -> float:
    """How far predictions go: less where the loss takes their exponential."""
    return EXPONENT if formula.link in ("log", "half-logit") else LARGEST


OF_ITSELF = ("distance", "score")
"""Links of losses whose kinks lie at values of the prediction, wherever the target is."""


def residual(formula: Formula, z: float, rest) -> float:
    """What a formula's kinks are values of: the prediction, its margin, or its distance to what follows it."""
    if formula.link == "difference":
        return z - rest[0] if formula.target is None else (z - rest[0]) * rest[-1]
    if formula.target is None or formula.link in ("logit", *OF_ITSELF):
        return z
    return z * rest[-1] if formula.target_domain == SIGNS else z - rest[-1]


def kinks(formula: Formula, variant: dict) -> list[float]:
    """Residuals or margins at which a formula may change its branch."""
    found = {0.0, 1.0, *(abs(v) for v in numbers(formula, variant) if math.isfinite(v))}
    return sorted(found | {-k for k in found})


def domains(formula: Formula, variant):
    """The domains of the predictions in a variant: a switch may change them."""
    for switch, (off, on) in formula.switched.items():
        return on if variant.get(switch, formula.defaults[switch]) else off
    return formula.prediction_domains


def sample(formula: Formula, n: int, rng: np.random.Generator, dtype=np.float64, **variant):
    """(predictions, target): n points that cover the domains, a third of them near the kinks of the variant.

    predictions is a tuple of arrays; target is None for a penalty.
    """
    dtype = np.dtype(dtype)
    largest = largest_prediction(formula)
    predictions = []
    for domain in domains(formula, variant):
        # The logarithm of a variance stays where its exponential is finite.
        end = EXPONENT if variant.get("log_var") and predictions else largest
        predictions.append(draw(domain, n, rng, dtype, end))
    target = None if formula.target is None else draw(formula.target_domain, n, rng, dtype)
    k = n // 3
    shift = rng.choice(kinks(formula, variant), k) + rng.choice([-1.0, 0.0, 1.0], k) * magnitudes(k, rng, 1e-2)
    domain = formula.prediction_domains[0]
    if formula.link == "difference":
        origin = predictions[1][:k].astype(np.float64)
        shift = shift if target is None else shift * target[:k]
    elif target is None or formula.link in OF_ITSELF:
        origin = np.zeros(k)
    elif formula.target_domain == SIGNS:
        origin, shift = np.zeros(k), shift * target[:k]
    elif formula.link == "identity":
        origin = target[:k].astype(np.float64)
    else:
        return tuple(predictions), target
    moved = (origin + shift).astype(dtype)
    kept = (np.abs(moved) <= largest) & ~domain.outside(moved)
    predictions[0][:k] = np.where(kept, moved, predictions[0][:k])
    order = rng.permutation(n)
    return tuple(p[order] for p in predictions), None if target is None else target[order]
