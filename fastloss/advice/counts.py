"""Rules for targets that are whole numbers: two classes, several, ordered ones, counts."""

import math
from typing import Any

import numpy as np

from .describe import recommended
from .evidence import Evidence
from .result import Advice, Recommendation

__all__ = ["advise_on_classes", "advise_on_counts", "advise_on_two_classes", "missing_above"]

RARE = 0.05
"""Share of the rarer class below which imbalance decides."""
FEW = 10
"""Most ordered grades; ratings rarely have more."""


def advise_on_two_classes(found: Evidence, probability: bool) -> Advice:
    """Advise on targets of two values: the larger value, or the later in sorted order, is the positive class."""
    assert found.counts is not None
    low, high = sorted(found.counts)
    share = found.counts[high] / found.rows
    facts: dict[str, Any] = {"rows": found.rows, "positive share": share}
    names = found.names
    if names is not None:
        facts["positive class"] = str(names[int(high)])
    if (low, high) == (-1.0, 1.0) and not probability:
        reasons = ["The targets are -1 and +1, which this loss takes as they are."]
        first = recommended("logistic", reasons)
        rest = [recommended("modified_huber", ["It is linear for bad mistakes, so mislabelled samples count less."])]
        return Advice(
            "two classes, -1 and +1", "likely", facts, [first, *rest, *_two(found, share, low, high, probability)]
        )
    confidence = "likely" if min(share, 1.0 - share) * found.rows < 10 else "clear"
    return Advice("two classes", confidence, facts, _two(found, share, low, high, probability))


def _two(found: Evidence, share: float, low: float, high: float, probability: bool) -> list[Recommendation]:
    rare = min(share, 1.0 - share)
    encoding = (
        ""
        if (low, high) == (0.0, 1.0) and found.names is None
        else f"y = (y == {_value(found, high)!r}).astype(float)\n"
    )

    def code(name: str, options: str = "") -> str:
        return f"{encoding}value, grad = fl.{name}.value_and_grad(pred, y{options})"

    plain = recommended(
        "bce_with_logits",
        ["A proper score: its minimum is the true probability, whatever the shares of the classes."],
        code=code("bce_with_logits"),
    )
    if rare >= RARE or probability:
        if rare < RARE:
            plain.reasons.append(f"Only {rare:.2%} are of the rarer class; probabilities need no correction for that.")
        second = recommended(
            "focal",
            ["It lowers the weight of samples that are classified well already."],
            ["Its minimum is not the true probability."],
            code("focal"),
        )
        third = recommended(
            "brier",
            ["The squared error of a probability: bounded, so single wrong labels count less."],
            code=code("brier").replace("(pred,", "(1 / (1 + np.exp(-pred)),"),
        )
        return [plain, *([third, second] if probability else [second, third])]
    ratio = float(f"{(1.0 - share) / share:.4g}")
    weighted = recommended(
        "bce_with_logits",
        [
            f"Only {rare:.2%} are of the rarer class, 1 in {1.0 / rare:.0f}.",
            "pos_weight gives both classes the same total weight.",
        ],
        [f"Outputs are no probabilities then: subtract log({ratio:g}) = {math.log(ratio):.3f} from logits for those."],
        code("bce_with_logits", f", pos_weight={ratio!r}"),
        pos_weight=ratio,
    )
    focal = recommended(
        "focal",
        ["It lowers the weight of the many samples that are classified well already."],
        ["Its minimum is not the true probability."],
        code("focal"),
    )
    asymmetric = recommended(
        "asymmetric",
        ["It also drops easy negatives altogether, for many labels of which few apply."],
        code=code("asymmetric"),
    )
    plain.reasons.append("For probabilities take it without pos_weight, and choose the threshold instead.")
    return [weighted, focal, asymmetric, plain]


def _value(found: Evidence, code: float) -> Any:
    if found.names is not None:
        return found.names[int(code)]
    return int(code) if code == int(code) else code


def advise_on_classes(found: Evidence, probability: bool, ordered: bool, known: bool) -> Advice:
    """Advise on several classes, ordered or not; `known` where more than the targets tells which."""
    assert found.counts is not None
    k = len(found.counts)
    rarest = min(found.counts.values()) / found.rows
    facts: dict[str, Any] = {"rows": found.rows, "classes": k, "rarest class": rarest}
    base = min(found.counts)
    encoding = ""
    if found.names is not None:
        encoding = "y = np.unique(y, return_inverse=True)[1]\n"
    elif base != 0.0:
        encoding = f"y = y - {int(base)}\n"
    names = ["cross_entropy", "softmax_focal", "ordinal"]
    reasons = {
        "cross_entropy": "A proper score: its minimum is the true probability of each class.",
        "softmax_focal": "It lowers the weight of samples that are classified well already.",
        "ordinal": "The grades have an order, which it uses: a near miss costs less than a far one.",
    }
    if rarest < 0.2 / k:
        weights = "n / (K * count) for each class"
        reasons["cross_entropy"] += f" The rarest class has {rarest:.2%}: class_weight={weights} evens that out."
    made = {
        n: recommended(n, [reasons[n]], code=f"{encoding}value, grad = fl.{n}.value_and_grad(pred, y)") for n in names
    }
    if ordered:
        kind, first = "ordered classes", ["ordinal", "cross_entropy"]
        if not probability:
            made["mse"] = recommended("mse", ["Grades as numbers: simple, and right where their steps mean the same."])
            first.append("mse")
    else:
        kind, first = "classes", ["cross_entropy", "softmax_focal"]
        if found.names is None:
            first.append("ordinal")
            made["ordinal"].reasons[:] = [
                "If the classes have an order, it uses that: a near miss costs less than a far one."
            ]
    return Advice(kind, "clear" if known else "open", facts, [made[n] for n in first])


def missing_above(found: Evidence) -> float:
    """Return how many more targets counts would have above the largest, which is high for grades and classes.

    That is the number expected under the negative binomial distribution of their mean and variance (Poisson's where
    that is no larger); 0 where there are more than ten different targets, infinite where 0 or less is impossible.
    """
    if found.counts is None or not found.whole:
        return 0.0
    values = np.array(sorted(found.counts))
    share = np.array([found.counts[v] for v in values]) / found.rows
    if len(values) > FEW:
        return 0.0
    if values[0] < 0.0 or values[0] >= 1.0:
        return math.inf
    mean = float(np.sum(share * values))
    variance = float(np.sum(share * (values - mean) ** 2))
    below = sum(_mass(int(v), mean, variance) for v in range(int(values[-1]) + 1))
    return found.rows * (1.0 - below)


def _mass(count: int, mean: float, variance: float) -> float:
    """Return the probability of a count: negative binomial, or Poisson where the variance is at most the mean."""
    if variance <= mean * (1.0 + 1e-9):
        return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1.0))
    r = mean * mean / (variance - mean)
    log = math.lgamma(count + r) - math.lgamma(r) - math.lgamma(count + 1.0)
    return math.exp(log + r * math.log(r / (r + mean)) + count * math.log(mean / (r + mean)))


def advise_on_counts(found: Evidence) -> Advice:
    """Advise on counts: Poisson, more spread, or more zeros."""
    y = found.target
    n = len(y)
    means, scale = _means(found)
    total = float(means.mean())
    dispersion = float(np.mean((y - means) ** 2 / means))
    # Standard error of the dispersion of Poisson counts: each term has the variance 2 + 1 / mean.
    error = math.sqrt(float(np.mean(2.0 + 1.0 / means)) / n)
    excess = max(0.0, float(np.mean((y - means) ** 2 - means)) / float(np.mean(means**2)))
    zeros = float(np.mean(y == 0.0))
    facts: dict[str, Any] = {"rows": found.rows, "mean": total, "dispersion": dispersion, "zeros": zeros}
    given = found.pred is not None
    whose = "around the predictions" if given else "of the targets themselves (predictions tell more)"
    log = ["The predictions look like means: this loss takes their logarithms."] if scale == "mean" else []
    code = "value, grad = fl.{}.value_and_grad(np.log(pred), y)" if scale == "mean" else ""
    poisson = recommended(
        "poisson",
        [f"Counts whose variance is {dispersion:.2f} of their mean, {whose}; Poisson counts have 1."],
        log,
        code.format("poisson"),
    )
    negative = recommended(
        "negative_binomial_nll",
        [f"The variance is {dispersion:.2f} of the mean, {whose}: more than Poisson counts have."],
        ["It takes the mean itself, which is positive, not its logarithm."] if scale == "log" else [],
        code="r = np.full(len(y), {:.3g})\nvalue, grads = fl.negative_binomial_nll.value_and_grad({}, y, r=r)".format(
            1.0 / excess if excess > 0 else 100.0, "np.exp(pred)" if scale == "log" else "pred"
        ),
    )
    tweedie = recommended(
        "tweedie",
        ["A variance that grows with a power of the mean between 1 and 2, with a mass at 0."],
        log,
        code.format("tweedie"),
    )
    expected, spread = _zeros(means, excess)
    if (zeros - expected) > 5.0 * spread / math.sqrt(n) and zeros > 1.2 * expected and n >= 50:
        facts["zeros expected"] = expected
        negative.reasons.append(
            f"{zeros:.1%} are 0, where {expected:.1%} would be expected: more zeros than one process explains. Two"
            " models, of whether a count is 0 (bce_with_logits) and of the others, fit better than any single loss."
        )
        return Advice("counts with many zeros", "clear" if given else "likely", facts, [negative, tweedie, poisson])
    over = dispersion > 1.0 + 4.0 * error and dispersion > 1.15
    clear = given and missing_above(found) < 1.0
    confidence = "open" if n < 50 else "clear" if clear else "likely"
    order = [negative, poisson, tweedie] if over and n >= 50 else [poisson, negative, tweedie]
    return Advice("counts", confidence, facts, order)


def _means(found: Evidence) -> tuple[Any, str]:
    """Return the predicted mean of each sampled row, and whether predictions are means or their logarithms."""
    y, pred = found.target, found.pred
    if pred is None or pred.ndim > 1:
        return np.full(len(y), max(float(y.mean()), 1e-12)), ""
    total = float(y.sum())
    with np.errstate(over="ignore"):
        logs = np.exp(pred)
    if pred.min() > 0.0 and abs(float(pred.sum()) - total) <= abs(float(logs.sum()) - total):
        return pred, "mean"
    return np.clip(logs, 1e-12, 1e300), "log"


def _zeros(means: Any, excess: float) -> tuple[float, float]:
    """Return the expected share of zeros under the fitted distribution, and the deviation of one row's."""
    each = np.exp(-means) if excess < 1e-6 else (1.0 + excess * means) ** (-1.0 / excess)
    share = float(each.mean())
    return share, math.sqrt(max(share * (1.0 - share), 1e-12))
