"""Points of a user's formula: samples of its domain, and its results there in NumPy."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ...spec import vocabulary
from ...spec.record import Formula, Integers, OneOf, Signs
from ...spec.render import tuples
from ...spec.spelling import FormulaError
from ...spec.worlds import World, carry

__all__ = ["columns", "evaluated", "examined", "words"]


def _one_by_one(word: Callable[..., float]) -> Callable[..., Any]:
    """Return a word of Python floats for arrays; NaN where it has no value."""

    def one(x: float) -> float:
        # Python's version counts up from x.
        return word(x) if -1e3 < x < math.inf and not (x <= 0.0 and word is not vocabulary.ndtr) else math.nan

    return np.vectorize(one, otypes=[np.float64])


def words() -> dict[str, Any]:
    """Return NumPy's version of each word, for arrays of float64; elementary ones keep the dtype of their arrays."""
    same = ("exp", "expm1", "log", "log1p", "maximum", "minimum", "sign", "sqrt", "tanh", "where")
    found: dict[str, Any] = {w: getattr(np, w) for w in same}
    found |= {"pow": np.power, "atan": np.arctan, "log1p_unit": np.log1p}
    found |= {w: _one_by_one(getattr(vocabulary, w)) for w in ("digamma", "trigamma", "lgamma", "mills", "ndtr")}
    found["softplus"] = lambda x: np.logaddexp(0.0, x)
    found["sigmoid"] = lambda x: np.exp(-np.logaddexp(0.0, -x))
    found["epsilon"] = lambda x: 2.0**-52
    found["largest"] = lambda x: np.finfo(np.float64).max
    return found


@cache
def _world() -> World:
    return World(np.float64, words())


def evaluated(function: Any, data: list[Any], parameters: list[float]) -> list[tuple[Any, ...]]:
    """Return each result of a formula for columns of float64, as tuples of columns."""
    with np.errstate(all="ignore"):
        results = carry(function, _world())(*data, *map(np.float64, parameters))
    return [tuple(np.broadcast_to(x, data[0].shape) for x in tuples(part)) for part in results]


def draw(domain: Any, count: int, random: Any) -> Any:
    """Return samples of a domain: half of ordinary size, half over many magnitudes."""
    if isinstance(domain, Signs):
        return random.choice([-1.0, 1.0], count)
    if isinstance(domain, OneOf):
        return random.choice(domain.values, count)
    if isinstance(domain, Integers):
        return random.integers(max(domain.low, -100), min(domain.high, 100), count, endpoint=True).astype(np.float64)
    low, high = domain.low, domain.high
    size = np.where(np.arange(count) % 2 == 0, random.lognormal(0.0, 1.0, count), np.exp(random.uniform(-9, 4, count)))
    if math.isfinite(low) and math.isfinite(high):
        # Near the ends too.
        near = low + (high - low) * np.exp(random.uniform(-16, 0, count)) / 2
        part = np.arange(count) % 4
        return np.where(part < 2, random.uniform(low, high, count), np.where(part == 2, near, low + high - near))
    if math.isfinite(low):
        return low + size
    if math.isfinite(high):
        return high - size
    return size * random.choice([-1.0, 1.0], count)


def columns(record: Formula, count: int, seed: int = 0) -> list[Any]:
    """Return samples of each prediction and the target."""
    random = np.random.default_rng(seed)
    domains = [*record.prediction_domains, *([record.target_domain] if record.target else [])]
    return [draw(d, count, random) for d in domains]


def examined(record: Formula, derived: Any) -> None:
    """Raise for a formula without a value on its domain, or derivatives by hand that are not those of the value."""
    data, parameters = columns(record, 400), list(record.defaults.values())
    by_hand = evaluated(record.function, data, parameters)
    defined = np.isfinite(by_hand[0][0])
    if not defined.any():
        raise FormulaError(
            f"{record.name}: the formula has no finite value at any of 400 points of its domain "
            f"({', '.join(map(str, record.prediction_domains))}); declare its domain by prediction=(low, high)"
        )
    if derived is None:
        return
    by_rule = evaluated(derived, data, parameters)
    for order, word in ((1, "first"), (2, "second")):
        for i, prediction in enumerate(record.predictions):
            given, expected = by_hand[order][i], by_rule[order][i]
            _compare(record, data, f"{word} derivative by {prediction}", given, expected)


def _compare(record: Formula, data: list[Any], what: str, given: Any, expected: Any) -> None:
    with np.errstate(all="ignore"):
        scale = np.nanmedian(np.abs(expected[np.isfinite(expected)])) if np.isfinite(expected).any() else 0.0
        off = np.abs(given - expected) / (np.maximum(np.abs(given), np.abs(expected)) + 1e-3 * scale + 1e-300)
    wrong = np.isfinite(expected) & np.isfinite(given) & (off > 1e-4)
    # Single points may be kinks, where derivatives differ.
    if wrong.sum() <= 2:
        return
    i = int(np.argmax(np.where(wrong, off, -1.0)))
    names = [*record.predictions, *([record.target] if record.target else [])]
    where = ", ".join(f"{n}={c[i]:.6g}" for n, c in zip(names, data, strict=True))
    hint = "the sign is wrong" if np.allclose(given[wrong], -expected[wrong], rtol=1e-6) else "leave it out"
    raise FormulaError(
        f"{record.name}: the {what} is {given[i]:.6g} at {where}; that of the value is {expected[i]:.6g} ({hint})"
    )
