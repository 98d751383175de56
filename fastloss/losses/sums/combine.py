"""Sums of losses: `0.7 * fl.mse + 0.3 * fl.mae`, or `combine` with names; one formula and one pass for all parts."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ...call import check
from ...call.errors import CallTypeError, CallValueError
from ..base import Loss
from .build import is_fusible
from .fused import SumLoss
from .mixed import MixedSum
from .records import refuse_reductions
from .routes import with_activations
from .terms import Sum, Term, apart, finite, joined

__all__ = ["added", "combine", "made", "scaled", "subtracted"]


def combine(parts: Mapping[str, Any], /, *, name: str = "") -> Sum:
    """Return the weighted sum of losses, with parts that have names.

    value(z, t) = sum over parts of weight * part(z, t). Elementwise losses of one prediction become one formula, so
    that all parts, the gradient and the curvature take one pass. Weights are parameters at run time: other weights
    need no compilation. `0.7 * fl.mse + 0.3 * fl.mae` is a sum too, whose parts have the names of their losses.

    Parameters
    ----------
    parts : mapping of str to Loss or (float, Loss)
        Parts by name, with weights that may be negative; 1 where none is given.
    name : str, optional
        Name of the sum; by default the names of its parts joined.

    Returns
    -------
    Loss
        Loss with all that its parts have. Its parameters are `NAME_weight` for each part, and those of the parts:
        by their own names where one part has such a parameter, else as `NAME_parameter`. Calls take
        ``weights={"tail": 0.2}``, and ``parts=True`` to return the value of each part too.

    Raises
    ------
    TypeError
        Parts that are no losses, or not elementwise losses of one prediction, or whose targets have no value in common.
    ValueError
        Weights that are not finite, and names that are not Python names.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> both = fl.combine({"fit": fl.huber, "tail": (0.1, fl.quantile.bind(q=0.9))})
    >>> value, grad, parts = both.value_and_grad(np.array([2.0, 0.0]), np.array([0.0, 1.0]), parts=True)
    >>> round(value, 6), parts
    (1.055, {'fit': 1.0, 'tail': 0.55})
    >>> both(np.array([2.0, 0.0]), np.array([0.0, 1.0]), weights={"tail": 0.0})
    1.0
    """
    if not isinstance(parts, Mapping) or not parts:
        problem = f'takes a dictionary of parts, such as {{"fit": fl.mse}}; given {check.shown(parts)}'
        raise CallTypeError(problem, loss="combine")
    found: list[Term] = []
    for key, part in parts.items():
        if not (isinstance(key, str) and key.isidentifier()):
            raise CallValueError(f"names a part {check.shown(key)}; expected a Python name", loss="combine")
        weight, loss = part if isinstance(part, tuple) and len(part) == 2 else (1.0, part)
        if not isinstance(loss, Loss):
            problem = f"{key} is {check.shown(part)}; expected a loss or (weight, loss)"
            raise CallTypeError(problem, loss="combine")
        weight = finite(weight, f"combine: the weight of {key}")
        inner = _terms_of(loss)
        for term in inner:
            called = key if len(inner) == 1 else f"{key}_{term.name}"
            found.append(Term(called, weight * term.weight, term.loss))
    return made(found, name)


def added(a: Loss, b: Any) -> Loss:
    """Return the sum of a loss and another one; 0 changes nothing, as in `sum([...])`."""
    if not isinstance(b, Loss):
        if isinstance(b, Real) and b == 0:
            return a
        problem = f"cannot be added to {check.shown(b)}, as a constant changes no gradient; expected a loss"
        raise CallTypeError(problem, loss=a.name)
    return made([*_terms_of(a), *_terms_of(b)])


def subtracted(a: Loss, b: Any) -> Loss:
    """Return the difference of two losses."""
    if not isinstance(b, Loss):
        problem = f"minus {check.shown(b)} is no loss, as a constant changes no gradient; expected a loss"
        raise CallTypeError(problem, loss=a.name)
    return added(a, scaled(b, -1.0))


def scaled(loss: Loss, factor: Any) -> Loss:
    """Return a number times a loss."""
    if isinstance(factor, Loss):
        problem = f"cannot be multiplied by {factor.name}; multiply a loss by a number, or write the product by fl.loss"
        raise CallTypeError(problem, loss=loss.name)
    weight = finite(factor, f"{loss.name}: the weight")
    terms = [t._replace(weight=weight * t.weight) for t in _terms_of(loss)]
    return made(terms, loss.name if isinstance(loss, Sum) else "")


def _terms_of(loss: Loss) -> tuple[Term, ...]:
    """Return the parts of a sum, or a loss as the only part."""
    return loss._current() if isinstance(loss, Sum) else (Term(loss.name, 1.0, loss),)


def made(terms: Sequence[Term], name: str = "") -> Sum:
    """Return the sum of terms as a loss: one fused formula where all parts have one, else one part after another."""
    found = apart(terms)
    name = name or joined(found)
    if not isinstance(name, str) or not name.isidentifier():
        raise CallValueError(f"name is {check.shown(name)}; expected a Python name", loss="combine")
    backends = {t.loss._backend for t in found if t.loss._backend}
    if len(backends) > 1:
        problem = f"has parts bound to the backends {' and '.join(sorted(backends))}; expected one"
        raise CallValueError(problem, loss=name)
    refuse_reductions(found, name)
    kind = SumLoss if all(map(is_fusible, found)) else MixedSum
    return kind.of(found if kind is SumLoss else with_activations(found, name), name, "".join(backends))
