"""Rules for targets that are real numbers: amounts, shares, censored values, and the shape of their noise."""

import math
from typing import Any

import numpy as np

from .describe import recommended
from .evidence import Evidence
from .noise import Fit, fits
from .result import Advice, Recommendation

__all__ = [
    "advise_on_amounts",
    "advise_on_censored",
    "advise_on_numbers",
    "advise_on_shares",
    "censored_at",
    "is_skewed",
]

LEAST = 50
"""Rows below which the shape of noise cannot be told."""
DECISIVE, NOTICED = 14.0, 4.0
"""Differences of Schwarz's criterion that decide, and that point to a model.

Kass and Raftery (1995) call 10 very strong; at 200 rows Student's t is then taken for Laplacian in 2 sets of 100.
"""
BINS = 10


def advise_on_shares(found: Evidence) -> Advice:
    """Advise on real numbers in [0, 1]."""
    facts = {"rows": found.rows, "least": found.low, "largest": found.high}
    first = recommended(
        "bce_with_logits",
        [
            "Shares in [0, 1]: cross-entropy takes them as soft targets, and its minimum is their mean.",
            "No prediction leaves [0, 1].",
        ],
    )
    second = recommended(
        "mse", ["The mean too, if the output is kept in [0, 1]."], code="value, grad = fl.mse.value_and_grad(pred, y)"
    )
    return Advice("shares in [0, 1]", "clear" if found.rows >= LEAST else "likely", facts, [first, second])


def censored_at(found: Evidence) -> tuple[str, float] | None:
    """Return the end, "low" or "high", at which many targets have one value though the others differ; or None."""
    y = found.target
    n = len(y)
    if n < LEAST or found.distinct < min(0.5 * n, 200):
        return None
    for end, value in (("high", found.high), ("low", found.low)):
        share = float(np.mean(y == value))
        others = y[y != value]
        if share > 0.02 and len(np.unique(others)) > 0.9 * len(others):
            return end, value
    return None


def advise_on_censored(found: Evidence, end: str, value: float) -> Advice:
    """Advise on targets that were cut off at one end."""
    share = float(np.mean(found.target == value))
    facts = {"rows": found.rows, "cut off at": value, "cut off": share}
    side = "at least" if end == "high" else "at most"
    reasons = [
        f"{share:.1%} of the targets are exactly {value:g}, while the others differ: they are cut off there.",
        f"Such a target says '{side} that much'.",
    ]
    warnings = (
        [] if found.low > 0.0 else ["Its times are positive: exponentiate targets that are no times, or logarithms."]
    )
    limits = (
        f"lower, upper = y, np.where(y == {value!r}, np.inf, y)"
        if end == "high"
        else f"lower, upper = np.where(y == {value!r}, 0.0, y), y"
    )
    if found.low <= 0.0:
        limits = limits.replace("= y,", "= np.exp(y),").replace(", y)", ", np.exp(y))").replace("), y", "), np.exp(y)")
    code = f"{limits}\nvalue, grad = fl.aft.value_and_grad(pred, lower, upper)"
    first = recommended("aft", reasons, warnings, code)
    second = recommended("mse", ["Only if the limit belongs to what is predicted, such as a capacity."])
    return Advice("numbers cut off at one end", "clear", facts, [first, second])


def is_skewed(found: Evidence) -> bool:
    """Whether positive targets have a spread that grows with their mean, as amounts do."""
    y = found.target
    if found.low <= 0.0 or len(y) < LEAST:
        return False
    if found.pred is not None and found.pred.ndim == 1:
        slope = _power(y, _means(found)[0])
        return slope is not None and slope > 1.3
    # Of the targets themselves: is their logarithm nearer to a normal distribution, by its likelihood?
    logs = np.log(y)
    normal = math.log(float(np.std(y)) or 1e-300)
    lognormal = math.log(float(np.std(logs)) or 1e-300) + float(np.mean(logs))
    return 2.0 * len(y) * (normal - lognormal) > DECISIVE and float(np.std(y)) > 0.25 * float(np.mean(y))


def _means(found: Evidence) -> tuple[Any, str]:
    """Return the predicted means of positive targets, and whether predictions are these or their logarithms."""
    y, pred = found.target, found.pred
    with np.errstate(over="ignore"):
        logs = np.exp(np.clip(pred, -700.0, 700.0))
    if pred.min() > 0.0 and np.mean(np.abs(pred - y)) <= np.mean(np.abs(logs - y)):
        return pred, "mean"
    return logs, "log"


def _power(y: Any, means: Any) -> float | None:
    """Return the power of the mean with which the variance grows, by bins of the mean; None where means hardly vary."""
    order = np.argsort(means, kind="stable")
    parts = [order[i] for i in np.array_split(np.arange(len(y)), min(BINS, max(2, len(y) // 20)))]
    at = np.array([np.mean(means[i]) for i in parts])
    spread = np.array([np.mean((y[i] - means[i]) ** 2) for i in parts])
    if at[-1] < 2.0 * at[0] or spread.min() <= 0.0:
        cv = float(np.mean((y - means) ** 2) / np.mean(means**2))
        skew = float(np.mean((y - means) ** 3) / np.mean((y - means) ** 2) ** 1.5)
        # Amounts of one mean: the third moment of a gamma distribution is twice its coefficient of variation.
        return 2.0 if cv > 0.06 and 0.5 < skew / (2.0 * math.sqrt(cv)) < 2.0 else None
    return float(np.polyfit(np.log(at), np.log(spread), 1)[0])


def advise_on_amounts(found: Evidence, zeros: float) -> Advice:
    """Advise on positive amounts, or on amounts many of which are 0."""
    y = found.target
    facts: dict[str, Any] = {"rows": found.rows, "mean": float(y.mean()), "zeros": zeros}
    given = found.pred is not None and found.pred.ndim == 1
    means, scale = _means(found) if given else (None, "")
    power = _power(y, means) if given else None
    if power is not None:
        facts["variance grows with the mean to the power"] = power
    take = ["The predictions look like means: this loss takes their logarithms."] if scale == "mean" else []

    def code(name: str, options: str = "") -> str:
        return f"value, grad = fl.{name}.value_and_grad({'np.log(pred)' if scale == 'mean' else 'pred'}, y{options})"

    p = float(f"{min(max(power if power is not None else 1.5, 1.1), 1.9):.2g}")
    tweedie = recommended(
        "tweedie",
        [f"{zeros:.1%} of the amounts are 0, the others positive: sums of a random number of amounts, as in insurance."]
        if zeros
        else ["Between poisson and gamma, for variances that grow with a power of the mean."],
        take,
        code("tweedie", f", power={p!r}"),
        power=p,
    )
    mse = recommended(
        "mse",
        ["The mean too, but large amounts dominate it."],
        code=f"value, grad = fl.mse.value_and_grad({'np.exp(pred)' if scale == 'log' else 'pred'}, y)",
    )
    confidence = "open" if len(y) < LEAST else "clear" if given else "likely"
    if zeros:
        return Advice("amounts with zeros", confidence, facts, [tweedie, mse])
    why = (
        f"Positive, and the variance grows with the mean to the power {power:.2f}: errors are relative."
        if power is not None
        else "Positive and skewed: errors are relative to the mean."
    )
    gamma = recommended("gamma", [why], take, code("gamma"))
    return Advice("positive amounts", confidence, facts, [gamma, tweedie, mse])


def advise_on_numbers(found: Evidence, mean_wanted: bool) -> Advice:
    """Advise on real numbers by the shape of their noise."""
    y = found.target
    given = found.pred is not None and found.pred.ndim == 1
    residuals = y - (found.pred if given else np.median(y))
    spread, ratio, power = _spreads(residuals, found.pred) if given else (residuals, 1.0, 0.0)
    uneven = ratio > 1.6 and power > 6.0
    ranked = fits(spread if uneven else residuals) if len(y) >= LEAST and np.ptp(residuals) > 0.0 else []
    facts: dict[str, Any] = {"rows": found.rows, **_shape(residuals)}
    if uneven:
        facts["largest spread to smallest"] = ratio
    if ranked:
        facts["noise most like"] = _title(ranked[0])
    if not ranked:
        reasons = [f"{len(y)} rows cannot tell the shape of the noise; the mean is what one usually wants."]
        second = recommended(
            "huber", ["Nearly the same without outliers, and safe with some."], delta=_delta(residuals)
        )
        return Advice("real numbers", "open", facts, [recommended("mse", reasons), second])
    whose = "residuals" if given else "targets themselves (with predictions, residuals tell more)"
    confidence = _confidence(ranked, len(y), given)
    order = _by_noise(ranked[0], residuals, whose, mean_wanted)
    if uneven:
        reason = (
            f"The spread of residuals is {ratio:.1f} times as large where predictions are of one size as of another."
        )
        heavy = ranked[0].name == "laplace" or (ranked[0].name == "student" and ranked[0].shape < 7.0)
        nll = "student_t_nll" if heavy else "gaussian_nll"
        order = [recommended(nll, [reason, "It learns the spread too, and weighs samples by it."]), *order]
        confidence = "clear" if power > 12.0 else "likely"
        return Advice("real numbers of uneven noise", confidence, facts, order[:3])
    return Advice("real numbers", confidence, facts, order)


def _confidence(ranked: list[Fit], count: int, given: bool) -> str:
    """Return how far the best model of noise leads over the best that leads to another loss."""
    best = ranked[0]
    other = next(f for f in ranked if _family(f) != _family(best))
    lead = other.criterion(count) - best.criterion(count)
    if lead > DECISIVE and given:
        return "clear"
    return "likely" if lead > NOTICED else "open"


def _family(fit: Fit) -> str:
    return {"student": "robust", "outliers": "robust"}.get(fit.name, fit.name)


def _by_noise(best: Fit, residuals: Any, whose: str, mean_wanted: bool) -> list[Recommendation]:
    """Return the recommendations for a model of noise."""
    delta = _delta(residuals)
    mse = recommended("mse", ["Its minimum is the mean."])
    huber = recommended(
        "huber", [f"Quadratic for the middle 82% of normal noise, linear beyond {delta:g}."], delta=delta
    )
    skew = _shape(residuals)["skewness"]
    lopsided = (
        [f"The noise is skewed ({skew:.2f}): the minimum is no mean then; for means take mse."]
        if abs(skew) > 0.3
        else []
    )
    if best.name == "normal":
        mse.reasons.insert(
            0,
            f"The {whose} are normally distributed, as far as {len(residuals):,} of them tell: it is best then.",
        )
        return [mse, huber]
    tails = f"The {whose} are {_words(best)}: {{}}"
    if best.name == "laplace":
        first = recommended(
            "mae", [tails.format("it is the likelihood of that noise, and its minimum is the median.")], list(lopsided)
        )
        order = [first, huber, mse]
    elif best.name == "outliers":
        huber.reasons.insert(0, tails.format("they would pull a squared error."))
        huber.warnings.extend(lopsided)
        far = recommended("tukey", ["Residuals beyond c do not count at all."], c=float(f"{4.685 * best.scale:.3g}"))
        order = [huber, far, mse]
    else:
        c = float(f"{best.scale * math.sqrt(best.shape / 2.0):.3g}")
        first = recommended(
            "cauchy", [tails.format("it is the likelihood of that noise for a fixed scale.")], list(lopsided), c=c
        )
        huber.warnings.extend(lopsided)
        order = [huber, first, mse] if best.shape >= 3.0 else [first, huber, mse]
        if best.shape >= 3.0:
            huber.reasons.insert(0, tails.format("far residuals would pull a squared error."))
    if mean_wanted and best.name != "normal":
        mse.reasons.append(
            "You want the mean, and of the losses here only this one has it as its minimum for any noise."
        )
        mse.warnings.append(
            f"The {whose} are {_words(best)}: it learns slowly from them. Trim or cap far targets if you may."
        )
        order = [mse, *(r for r in order if r is not mse)]
    return order


def _words(fit: Fit) -> str:
    return {
        "normal": "normal",
        "laplace": "Laplacian, with a sharp peak and heavier tails than normal ones",
        "student": f"heavy-tailed, like Student's t of {fit.shape:g} degrees of freedom",
        "outliers": f"normal but for {fit.shape:.1%} outliers",
    }[fit.name]


def _title(fit: Fit) -> str:
    student = f"Student's t of {fit.shape:g} degrees of freedom"
    return {"student": student, "outliers": f"normal with {fit.shape:.1%} outliers"}.get(fit.name, fit.name)


def _delta(residuals: Any) -> float:
    """Return Huber's width: 1.345 deviations of the middle, which keeps 95% of the accuracy on normal noise."""
    middle = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    return float(f"{1.345 * (middle or float(np.std(residuals)) or 1.0):.3g}")


def _shape(residuals: Any) -> dict[str, float]:
    """Return skewness, excess kurtosis and the share beyond four robust deviations."""
    centred = residuals - residuals.mean()
    variance = float(np.mean(centred**2)) or 1.0
    middle = residuals - np.median(residuals)
    robust = 1.4826 * float(np.median(np.abs(middle))) or math.sqrt(variance)
    return {
        "skewness": float(np.mean(centred**3)) / variance**1.5,
        "excess kurtosis": float(np.mean(centred**4)) / variance**2 - 3.0,
        "beyond 4 robust deviations": float(np.mean(np.abs(middle) > 4.0 * robust)),
    }


def _spreads(residuals: Any, pred: Any) -> tuple[Any, float, float]:
    """Return residuals over their bin's spread, the ratio of the largest spread to the smallest, and its significance.

    The significance is minus the decimal logarithm of the p value of a one-way analysis of variance of the logarithms
    of |residuals| in ten bins of the prediction, by Wilson and Hilferty's approximation of F's tail.
    """
    n = len(residuals)
    bins = min(BINS, n // 20)
    if bins < 2 or np.ptp(pred) == 0.0:
        return residuals, 1.0, 0.0
    order = np.argsort(pred, kind="stable")
    parts = np.array_split(order, bins)
    size = np.median(np.abs(residuals)) or 1.0
    logs = np.log(np.abs(residuals) + 1e-3 * size)
    spread = np.array([np.median(np.abs(residuals[i])) for i in parts])
    if spread.min() <= 0.0:
        return residuals, 1.0, 0.0
    within = sum(float(np.sum((logs[i] - logs[i].mean()) ** 2)) for i in parts) / (n - bins)
    between = sum(len(i) * float(logs[i].mean() - logs.mean()) ** 2 for i in parts) / (bins - 1)
    # F of many degrees below is chi-square over its degrees; Wilson and Hilferty's cube root makes that normal.
    degrees, f = bins - 1, between / within
    z = (f ** (1.0 / 3.0) - (1.0 - 2.0 / (9.0 * degrees))) / math.sqrt(2.0 / (9.0 * degrees))
    p = 0.5 * math.erfc(z / math.sqrt(2.0)) if z < 37.0 else 0.0
    # Between the bins' middles the spread changes steadily; steps would give normal noise heavy tails.
    even = residuals / np.exp(np.interp(pred, [float(np.mean(pred[i])) for i in parts], np.log(spread)))
    return even, float(spread.max() / spread.min()), -math.log10(max(p, 1e-300))
