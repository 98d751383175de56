"""What a loss is, as data: its formula, domains, parameters and properties, gathered by a registering decorator."""

import math
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

__all__ = [
    "LOOPS",
    "NONNEGATIVE",
    "POSITIVE",
    "REAL",
    "SIGNS",
    "UNIT",
    "Domain",
    "Formula",
    "Input",
    "Integers",
    "Interval",
    "Loop",
    "OneOf",
    "Parameter",
    "Signs",
    "arrays",
    "elementwise",
    "registered",
    "rows",
]


class Interval(NamedTuple):
    """An interval of the real line; NaN is never outside, so that it comes through."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def outside(self, x: Any) -> Any:
        """True where x (scalar or array) lies outside."""
        below = x <= self.low if self.low_open else x < self.low
        above = x >= self.high if self.high_open else x > self.high
        return below | above

    def __str__(self) -> str:
        left = "(" if self.low_open or math.isinf(self.low) else "["
        right = ")" if self.high_open or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


class Signs(NamedTuple):
    """The two labels -1 and +1."""

    def outside(self, x: Any) -> Any:
        """True where x (scalar or array) is neither -1 nor +1."""
        return (abs(x) != 1.0) & (x == x)

    def __str__(self) -> str:
        return "{-1, +1}"


class OneOf(NamedTuple):
    """A few numbers."""

    values: tuple[float, ...]

    def outside(self, x: Any) -> Any:
        """True where x (scalar or array) is none of them."""
        outside: Any = x == x
        for value in self.values:
            outside = outside & (x != value)
        return outside

    def __str__(self) -> str:
        return "{" + ", ".join(f"{v:g}" for v in self.values) + "}"


class Integers(NamedTuple):
    """Whole numbers of a range."""

    low: float = -math.inf
    high: float = math.inf

    def outside(self, x: Any) -> Any:
        """True where x is no whole number or lies outside."""
        return (x < self.low) | (x > self.high) | (x % 1.0 != 0.0)

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "whole numbers"
        low = f" from {self.low:g}" if math.isfinite(self.low) else ""
        return f"whole numbers{low}" + (f" to {self.high:g}" if math.isfinite(self.high) else "")


REAL = Interval()
SIGNS = Signs()
POSITIVE = Interval(0.0, low_open=True)
NONNEGATIVE = Interval(0.0)
UNIT = Interval(0.0, 1.0)
Domain = Interval | Signs | OneOf


class Parameter(NamedTuple):
    """One run-time number of a formula: what it means, what it may be."""

    doc: str
    allowed: Interval | OneOf | Integers = REAL
    none: float | None = None
    """The number that stands for None, where None is allowed."""
    flag: bool = False
    """True for a switch: shown and given as a bool."""
    vector: bool = False
    """True where a vector gives one level per column of the prediction."""
    choices: tuple[str, ...] = ()
    """The words that may be chosen; a kernel gets the index of one."""
    constant: bool = False
    """True where each value has a kernel of its own, which computes nothing for the others; of losses of points."""

    def show(self, value: Any, number: Callable[[Any], str] = "{:g}".format) -> str:
        """Return a value as a caller would write it."""
        if self.none is not None and value == self.none:
            return "None"
        if self.choices:
            return repr(self.choices[int(value)])
        return repr(bool(value)) if self.flag else number(value)

    def meant(self, value: float) -> Any:
        """What a caller means by a number: a bool, a word, None, a whole number or itself."""
        if self.none is not None and value == self.none:
            return None
        if self.choices:
            return self.choices[int(value)]
        if self.flag:
            return bool(value)
        return int(value) if isinstance(self.allowed, Integers) else value


class Loop(NamedTuple):
    """What a loop over rows reads: its prediction, and the targets it takes."""

    prediction: str
    labels: bool
    """Whether a target may be the index of a class."""
    dense: str = ""
    """What a target of floats is: "probabilities", one per class, or "logits" of a teacher, or "number", one per row;
    empty if it is none."""

    @property
    def target(self) -> str:
        """The targets, in words."""
        words = {"probabilities": "probabilities of the classes", "logits": "the teacher's logits"}
        dense = {**words, "number": "one number a row", "": ""}[self.dense]
        return ", or ".join(x for x in ("labels" if self.labels else "", dense) if x)


LOOPS = {
    "softmax": Loop("logits of a row", True, "probabilities"),
    "log_probs": Loop("log-probabilities of a row", True, "probabilities"),
    "divergence": Loop("log-probabilities of a row", False, "probabilities"),
    "margin": Loop("scores of a row", True),
    "top_margin": Loop("scores of a row", True),
    "ensemble": Loop("members of a row", False, "number"),
    "sparsemax": Loop("scores of a row", True, "probabilities"),
    "ordinal": Loop("logits of a row's thresholds", True),
    "evidence": Loop("logits of a row", True, "probabilities"),
    "distillation": Loop("the student's logits of a row", False, "logits"),
    "angular": Loop("cosines of a row", True),
}
"""The loops over rows that a formula can name."""


class Input(NamedTuple):
    """One array that a loss of several arrays takes."""

    dims: str
    """Its shape as names: "n d", "* 4", "n c +". Equal names are equal lengths; a leading * stands for any leading
    axes, a trailing + for any trailing ones, and a kernel gets each as one axis. "g+1" is one more than g."""
    doc: str
    kind: str = "float"
    """"float", or "double" where every digit decides; or, of whole numbers, "labels", "lengths", "offsets" of groups
    (left out: one group); or a "mask", or "binary", 0 or 1; or "regions", which are floats or, without the axis c, the
    label of each pixel."""
    grad: bool = False
    """Whether the loss is differentiated with respect to it."""
    optional: bool = False
    domain: Domain = REAL
    classes: str = ""
    """For labels, the axis whose length they lie below; any whole numbers if empty."""


class Formula(NamedTuple):
    """One loss, as written: everything else is derived from this record."""

    name: str
    family: str
    function: Callable[..., Any]
    predictions: tuple[str, ...]
    target: str | None
    defaults: dict[str, float]
    parameters: dict[str, Parameter]
    prediction_domains: tuple[Domain, ...]
    target_domain: Domain
    link: str
    surrogate: str | None
    second: bool
    convex: bool
    differentiable: bool
    bounded: bool
    robust: bool
    lipschitz: float | None
    minimum_at_target: bool
    reduction: str
    paper: str
    math: str
    from_logits: str
    """The sibling that takes raw scores, where this loss takes probabilities."""
    switched: dict[str, tuple[tuple[Domain, ...], tuple[Domain, ...]]]
    """By a switch's name, the domains of the predictions while it is off and while it is on."""
    loop: str
    """The loop that feeds the scalar formula."""
    loop_parameters: tuple[str, ...]
    """Parameters that the loop uses itself; the others go to the formula."""
    inputs: dict[str, Input]
    """For a loss of several arrays, the arrays in order."""
    units: str
    """For a loss of several arrays, the axes along which it has values of its own; empty: one for the whole batch."""
    units_by: dict[str, dict[str, str]]
    """The same by the words of a parameter, where they depend on one."""
    ordered: tuple[tuple[str, str], ...]
    """Pairs of inputs of which the first nowhere exceeds the second."""
    example: str
    """Arguments of a call to show."""
    together: tuple[str, ...]
    """Inputs of which all are empty or none."""
    checked_by_kernel: tuple[str, ...]
    """Inputs whose domains the kernel checks in the pass that reads them; those of others are checked before."""
    mean_of: str
    """The loss of single rows whose mean this one is a function of: f(sum, count) is its formula."""

    @property
    def transcendental(self) -> bool:
        """Whether the formula takes an exponential, a logarithm or the like of each element."""
        return bool(_words(self.function) & TRANSCENDENTAL)

    def axes(self, parameters: dict[str, Any]) -> str:
        """The units under some parameters, as a caller means them."""
        for name, units in self.units_by.items():
            return units[parameters[name]]
        return self.units

    @property
    def summary(self) -> str:
        """The first line of the formula's docstring."""
        return (self.function.__doc__ or "").strip().split("\n", 1)[0]


TRANSCENDENTAL = {
    *("atan", "exp", "expm1", "log", "log1p", "log1p_unit", "pow", "sigmoid", "softplus", "tanh"),
    *("digamma", "lgamma", "mills", "ndtr", "trigamma"),
}


@cache
def _words(function: Callable[..., Any]) -> frozenset[str]:
    """The global names in a formula and in the functions that it calls."""
    names = function.__code__.co_names
    called = [function.__globals__.get(n) for n in names]
    helpers = [f for f in called if isinstance(f, FunctionType) and not f.__module__.endswith(".vocabulary")]
    return frozenset(names).union(*map(_words, helpers))


registered: dict[str, Formula] = {}


def _register(function: Callable[..., Any], family: str, loop: str, fields: dict[str, Any]) -> Callable[..., Any]:
    name = function.__name__
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    data, optional = names[: len(names) - len(values)], names[len(names) - len(values) :]
    given = {**FIELDS, **fields}
    unknown = set(given) - set(FIELDS)
    if unknown:
        raise TypeError(f"{name}: unknown fields {sorted(unknown)}")
    if set(given["parameters"]) != set(optional):
        raise TypeError(f"{name}: parameters {sorted(given['parameters'])} do not match {sorted(optional)}")
    inputs = given["inputs"]
    predictions = tuple(n for n in data if n != "t") if family == "elementwise" else ("z",)
    target = "t" if "t" in data or family == "rows" else None
    if family == "arrays":
        predictions = tuple(n for n, x in inputs.items() if x.grad)
        target = next((n for n, x in inputs.items() if not x.grad), None)
    domain = given.pop("prediction")
    own = given.pop("loop_parameters")
    extra: dict[str, tuple[float, Parameter]] = {k: LOOP_PARAMETERS[k] for k in own}
    if type(own) is dict:
        extra = {k: (own[k], parameter) for k, (_, parameter) in extra.items()}
    extra |= given.pop("options")
    if family == "arrays":
        domain = tuple(inputs[n].domain for n in predictions)
        given["second"] = False
    registered[name] = Formula(
        name=name,
        family=family,
        function=function,
        predictions=predictions,
        target=target,
        defaults={**dict(zip(optional, values, strict=True)), **{k: v for k, (v, _) in extra.items()}},
        parameters={**{k: given["parameters"][k] for k in optional}, **{k: p for k, (_, p) in extra.items()}},
        prediction_domains=domain if type(domain) is tuple else (domain,) * len(predictions),
        target_domain=given.pop("target"),
        loop=loop,
        loop_parameters=tuple(extra),
        **{k: v for k, v in given.items() if k != "parameters"},
    )
    return function


FIELDS: dict[str, Any] = {
    "prediction": REAL,
    "target": REAL,
    "parameters": {},
    "loop_parameters": (),
    "link": "identity",
    "surrogate": None,
    "second": True,
    "convex": False,
    "differentiable": True,
    "bounded": False,
    "robust": False,
    "lipschitz": None,
    "minimum_at_target": False,
    "reduction": "mean",
    "paper": "",
    "math": "",
    "from_logits": "",
    "switched": {},
    "inputs": {},
    "units": "",
    "units_by": {},
    "options": {},
    "ordered": (),
    "example": "",
    "together": (),
    "checked_by_kernel": (),
    "mean_of": "",
}
"""What a decorator may say of a loss, and what holds where it says nothing."""

LOOP_PARAMETERS = {
    "label_smoothing": (0.0, Parameter("share of the target spread evenly over the classes", UNIT)),
    "temperature": (1.0, Parameter("divides the logits", POSITIVE)),
    "logit_scale": (1.0, Parameter("multiplies the logits", POSITIVE)),
    "scale": (64.0, Parameter("multiplies the cosines", POSITIVE)),
    "z_loss": (0.0, Parameter("factor of the squared log-sum-exp, added to the loss", NONNEGATIVE)),
}
"""Defaults and meaning of what row loops do around the formula."""


def elementwise(**fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register f(prediction..., t, parameter=default...) -> (value, first, second[, surrogate]) per element.

    With several predictions the derivatives are tuples, one entry a prediction, in the order of the signature.
    """
    return lambda function: _register(function, "elementwise", "elementwise", fields)


def rows(loop: str, **fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a loss of whole rows of K scores; `loop` names what feeds its scalar formula.

    ``softmax``: f(lp, t) of each class's log-probability and target, lp = log softmax(z); an integer label means
    t = 1 at the label. ``log_probs``: the same with z itself as lp. ``divergence``: the same where classes of target 0
    count too, so that it takes no labels. ``margin``, ``top_margin``: f(u) of u = z_j - z_label, for every other class
    or for the largest. ``ensemble``: f(x, t, rank, m) of each member. ``sparsemax``: f(v, t) of each score less the
    row's threshold. ``ordinal``: f(z, t), t = 1 in the columns below the label. ``evidence``: f(e, t, total, excess, k)
    of each class's evidence, its sum, that for wrong classes. ``distillation``: f(lp, lq) of both log-probabilities.
    ``angular``: f(x) of the label's cosine, and what takes its place. `loop_parameters` are names, or defaults by name.
    """
    return lambda function: _register(function, "rows", loop, fields)


def arrays(loop: str, **fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a loss of several arrays; the module `loop` of the kernels feeds its scalar formula, if it has one.

    `inputs` names the arrays in the order of the call, `units` the axes along which the loss has values of its own.
    `options` are parameters that the loop itself uses: name -> (default, Parameter). A loss that is no formula of a
    few scalars is registered by a function without a body, for its name, parameters and text.
    """
    return lambda function: _register(function, "arrays", loop, fields)
