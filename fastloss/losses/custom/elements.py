"""Losses of a user's own: a formula becomes a loss with derivatives, kernels and all that a built-in loss has."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ...call import check
from ...spec.render import restored
from ...spec.spelling import FormulaError, reason, run
from ...spec.text import compute, names_in, parsed
from ..base import ComposedDoc, Loss
from ..elementwise import ElementwiseLoss
from . import build as building
from .points import examined

if TYPE_CHECKING:
    from typing_extensions import Self

    from .check import Check

__all__ = ["CustomLoss", "Own", "formula", "loss", "losses_from", "made"]


DOC = ComposedDoc("A loss of a user's own, made by `fastloss.loss` or `fastloss.formula`.")


class Own(Loss):  # noqa: D101
    # Base class of losses of a user's own: pickles by text, names, a docstring.
    __doc__ = DOC

    __slots__ = ()

    origin: building.Origin

    def __reduce__(self) -> Any:
        # By its text: a pickle needs no module of the user's.
        plain = self.record._replace(function=None)  # type: ignore[arg-type]
        return _restore, (type(self), plain, self.origin, dict(self.defaults), self._backend)

    def __repr__(self) -> str:
        record = self.record
        arguments = list(record.inputs) or [*record.predictions, *([record.target] if record.target else [])]
        arguments += [f"{k}={record.parameters[k].show(v, repr)}" for k, v in self.defaults.items()]
        arguments += [f"reduction={record.reduction!r}"] if record.reduction != "mean" else []
        backend = f", backend={self._backend!r}" if self._backend else ""
        return f"<loss {self.name}({', '.join(arguments)}){backend}>"

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and getattr(other, "record", None) == self.record

    def __hash__(self) -> int:
        return hash((self.name, self.record.function, tuple(self.defaults.items())))

    def _bind(self, parameters: dict[str, Any]) -> "Self":
        found: Self = made(super()._bind(parameters), self.origin)
        return found

    def _docstring(self) -> str:
        """Return the user's docstring, the parameters, and the formula that is compiled."""
        lines = [self.origin.doc.strip() or f"Loss {self.name}, of a formula of the user's own."]
        for key, spec in self.record.parameters.items():
            default = spec.show(self.record.defaults[key])
            lines.append(f"{key} : default {default}, allowed {spec.allowed}\n    {spec.doc}")
        return "\n\n".join([*lines, "Compiled formula::", _indented(self.origin.text)]) + "\n"


class CustomLoss(Own, ElementwiseLoss):  # noqa: D101
    __doc__ = DOC

    __slots__ = ("origin",)

    def check(self, points: int = 200, seed: int = 0) -> "Check":
        """Return a report on the loss: accuracy beside 50 digits, kinks, domain, convexity, slopes, formula.

        Parameters
        ----------
        points : int, default 200
            Samples of the domain in each precision.
        seed : int, default 0
            Seed of the samples.

        Returns
        -------
        Check
            Report, which prints as text.

        Raises
        ------
        ImportError
            mpmath is not installed; the extra `check` brings it.

        Examples
        --------
        >>> import fastloss as fl
        >>> fl.formula("abs(z - t)").check().kinks
        ('where z - t = 0 the slope jumps',)
        """
        from .check import check

        return check(self, points, seed)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def made(found: Any, origin: building.Origin) -> Any:
    """Return a loss, which is immutable, with its origin."""
    object.__setattr__(found, "origin", origin)
    return found


def _restore(kind: type[Own], record: Any, origin: building.Origin, defaults: dict[str, Any], backend: str) -> Own:
    whole = record._replace(function=restored("formula", origin.compiled or origin.text))
    return made(kind(whole, defaults, backend), origin)  # type: ignore[no-any-return]


@overload
def loss(function: Callable[..., Any], /) -> CustomLoss: ...


@overload
def loss(*, name: str = ..., target: Any = ..., stable: bool = ..., **properties: Any) -> Callable[..., CustomLoss]: ...


def loss(function: Any = None, /, *, name: str = "", stable: bool = True, **properties: Any) -> Any:
    """Return the elementwise loss of a function that gives the value of one element.

    The function takes predictions, then the target, then parameters with defaults. Derivatives are derived from the
    value, after expressions that lose digits became stable ones (`log(1 + exp(x))`, `1 / (1 + exp(-x))` ...).

    Parameters
    ----------
    function : function
        Formula, in NumPy's spelling: arithmetic, comparisons, np.exp, np.log1p, np.where, np.abs, np.maximum,
        np.clip, np.sign, math functions, scipy.special.expit, sigmoid, softplus. Helpers that it calls come along.
        It may return (value, first) or (value, first, second), which are checked against the derived derivatives.
    name : str, optional
        Name of the loss; by default that of the function.
    stable : bool, default True
        Whether expressions that lose digits are replaced.
    **properties
        Domains `prediction` and `target`, as bounds `(0, 1)` or `{-1, 1}`, or None for a loss without a target;
        `parameters`, a mapping of names to bounds or descriptions; and what `Loss.record` says of a built-in loss:
        link, convex, differentiable, bounded, robust, lipschitz, minimum_at_target, reduction, paper, math.

    Returns
    -------
    CustomLoss
        Loss with value, gradient, curvature, weights, reductions, threads, disk cache and pickles.

    Raises
    ------
    TypeError
        Functions that are no formula; the message names the line and what to write instead.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> @fl.loss
    ... def skewed(z, t, ratio=3.0):
    ...     r = z - t
    ...     return np.where(r > 0, r * r, ratio * r * r)
    >>> value, grad = skewed.value_and_grad(np.array([1.0, -1.0]), np.array([0.0, 0.0]))
    >>> value, grad.tolist()
    (2.0, [1.0, -3.0])
    """
    if function is None:
        return partial(_decorated, name=name, stable=stable, properties=properties)
    return _decorated(function, name, stable, properties)


def _decorated(function: Any, name: str, stable: bool, properties: dict[str, Any]) -> CustomLoss:
    called = name or getattr(function, "__name__", "loss").replace("<lambda>", "loss")
    has_target = not ("target" in properties and properties["target"] is None)
    if not has_target:
        properties = {k: v for k, v in properties.items() if k != "target"}
    arguments = building.arguments_of(function, called, has_target)
    own = properties | {"name": called, "stable": stable}
    return _loss(arguments, lambda operands: run(function, called, operands), own, building.text_of(function), function)


def _loss(
    arguments: building.Arguments, run_on: building.Run, properties: dict[str, Any], shown: str, function: Any = None
) -> CustomLoss:
    """Return the loss of a formula that is computed on operands."""
    fields = dict(properties)
    name, stable = fields.pop("name"), fields.pop("stable")
    doc = getattr(function, "__doc__", None) or ""
    building.not_options(name, CustomLoss, arguments.defaults, "parameter")
    record, origin = building.build(name, arguments, run_on, fields, shown, doc, stable)
    derived = None
    if origin.by_hand:
        derived = building.build(name, arguments, lambda x: _value(run_on(x)), fields, shown, doc, stable)[0].function
    examined(record, derived)
    return made(CustomLoss(record), origin)  # type: ignore[no-any-return]


def _value(results: Any) -> Any:
    return results[0] if isinstance(results, tuple) else results


TARGET, PREDICTIONS = "t", ("z", "p")
"""Names of the target and of the prediction in texts."""


def _data_of(name: str, free: list[str], helpers: Mapping[str, Any]) -> list[str]:
    """Return which names are the prediction and, where there is one, the target."""
    data = [n for n in PREDICTIONS if n in free and n not in helpers]
    if len(data) != 1:
        found = "both z and p" if data else "neither z nor p"
        raise FormulaError(f"{name}: the formula has {found}; expected one of them, the prediction, and t, the target")
    return [*data, TARGET] if TARGET in free else data


def formula(text: str, /, *, name: str = "formula", stable: bool = True, **names: Any) -> CustomLoss:
    """Return the elementwise loss of a text; `z` or `p` is the prediction and `t` the target.

    The text is parsed, never executed: it holds numbers, names, arithmetic, comparisons, `and`, `or`, `not`,
    `a if condition else b` and the functions of formulas, such as `exp`, `np.log1p`, `where`, `sigmoid`.

    Parameters
    ----------
    text : str
        Value of one element.
    name : str, default "formula"
        Name of the loss.
    stable : bool, default True
        Whether expressions that lose digits are replaced, as `loss` does.
    **names
        Texts that define further names, and numbers, which are parameters with these defaults; also the properties that
        `loss` takes, such as the domain `prediction=(0, 1)`.

    Returns
    -------
    CustomLoss
        Loss as `loss` returns it.

    Raises
    ------
    TypeError
        Texts that are no formula; the message names the piece.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> smooth = fl.formula("delta**2 * (sqrt(1 + (r / delta)**2) - 1)", r="z - t", delta=1.0)
    >>> smooth(np.array([0.0, 1.0]), np.array([0.0, 1.0]), delta=2.0)
    0.0
    """
    properties = {k: v for k, v in names.items() if k in building.PROPERTIES}
    helpers = {k: parsed(name, v) for k, v in names.items() if isinstance(v, str) and k not in properties}
    defaults = {k: v for k, v in names.items() if k not in helpers and k not in properties}
    for key, value in defaults.items():
        if not isinstance(value, (int, float)):
            raise FormulaError(f"{name}: {key} is {check.shown(value)}; expected a number or the text of a formula")
    tree = parsed(name, text)
    free = list(dict.fromkeys(n for t in (*helpers.values(), tree) for n in names_in(t)))
    data = _data_of(name, free, helpers)
    flags = frozenset(k for k, v in defaults.items() if isinstance(v, bool))
    floats = {k: float(v) for k, v in defaults.items()}
    arguments = building.sorted_arguments(name, data, floats, len(data) > 1, flags)

    def run_on(operands: Mapping[str, Any]) -> Any:
        known = dict(operands)
        try:
            for key in _in_order(name, helpers):
                known[key] = compute(helpers[key], known)
            return compute(tree, known)
        except FormulaError as error:
            raise FormulaError(f"{name}: {error}") from None

    shown = "\n".join([*(f"{k} = {names[k].strip()}" for k in helpers), text.strip()])
    return _loss(arguments, run_on, {**properties, "name": name, "stable": stable}, shown)


def _in_order(name: str, helpers: Mapping[str, Any]) -> list[str]:
    """Return the names of helper texts, each after those that it uses."""
    done: list[str] = []
    waiting = list(helpers)
    while waiting:
        ready = [k for k in waiting if not set(names_in(helpers[k])) & set(waiting)]
        if not ready:
            raise FormulaError(f"{name}: {' and '.join(waiting)} are defined by each other")
        done += ready
        waiting = [k for k in waiting if k not in ready]
    return done


def losses_from(path: str | Path) -> dict[str, Loss]:
    r"""Return the losses that a Python file defines, by their names in it; the file is run.

    Parameters
    ----------
    path : str or Path
        File of Python code, in which `fastloss.loss` or `fastloss.formula` makes losses.

    Returns
    -------
    dict
        Losses by the names that they have in the file, in its order.

    Raises
    ------
    OSError
        Files that cannot be read.
    TypeError
        Files without a loss, and files whose code raises.

    Examples
    --------
    >>> import fastloss as fl, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "mine.py"
    >>> _ = path.write_text("import fastloss as fl\nhalf = fl.formula('(z - t)**2 / 2')\n")
    >>> list(fl.losses_from(path))
    ['half']
    """
    file = Path(path)
    code = file.read_bytes()
    space: dict[str, Any] = {"__name__": f"losses_from_{file.stem}", "__file__": str(file)}
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        exec(compile(code, str(file), "exec"), space)
    except Exception as error:
        raise FormulaError(f"{file}: {reason(error)}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    found = {k: v for k, v in space.items() if isinstance(v, Loss) and not k.startswith("_")}
    if not found:
        raise FormulaError(f"{file}: no loss in it; define one with @fl.loss")
    return found
