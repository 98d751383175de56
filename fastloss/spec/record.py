"""Records of losses: formula, domains, parameters and properties, collected by registering decorators."""

import math
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

__all__ = [
    "BITS",
    "CAPPED",
    "FINITE",
    "FINITE_NONNEGATIVE",
    "FISHER",
    "LOOPS",
    "NONNEGATIVE",
    "POSITIVE",
    "REAL",
    "SIGNS",
    "SOFTMAX",
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
    "described",
    "elementwise",
    "registered",
    "rows",
]


class Interval(NamedTuple):
    """Interval of the real line; NaN is never outside, so that it propagates."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def outside(self, x: Any) -> Any:
        """Return True where x (scalar or array) lies outside the interval."""
        below = x <= self.low if self.low_open else x < self.low
        above = x >= self.high if self.high_open else x > self.high
        return below | above

    def __str__(self) -> str:
        left = "(" if self.low_open or math.isinf(self.low) else "["
        right = ")" if self.high_open or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


class Signs(NamedTuple):
    """Domain of the two labels -1 and +1."""

    def outside(self, x: Any) -> Any:
        """Return True where x (scalar or array) is neither -1 nor +1."""
        return (abs(x) != 1.0) & (x == x)

    def __str__(self) -> str:
        return "{-1, +1}"


class OneOf(NamedTuple):
    """Domain of a few numbers."""

    values: tuple[float, ...]

    def outside(self, x: Any) -> Any:
        """Return True where x (scalar or array) is none of them."""
        outside: Any = x == x
        for value in self.values:
            outside = outside & (x != value)
        return outside

    def __str__(self) -> str:
        return "{" + ", ".join(f"{v:g}" for v in self.values) + "}"


EXACT = 2.0**53
"""Largest value up to which float64 represents all integers."""


class Integers(NamedTuple):
    """Domain of the integers in a range."""

    low: float = -EXACT
    high: float = EXACT

    def outside(self, x: Any) -> Any:
        """Return True where x is not an integer or lies outside the range."""
        return (x < self.low) | (x > self.high) | (x % 1.0 != 0.0)

    def __str__(self) -> str:
        ends = ("-2**53" if x == -EXACT else "2**53" if x == EXACT else f"{x:.0f}" for x in self)
        return "whole numbers from {} to {}".format(*ends)


REAL = Interval()
SIGNS = Signs()
BITS = OneOf((0.0, 1.0))
"""Domain of two labels of `labels="01"`, which stand for -1 and +1."""
POSITIVE = Interval(0.0, low_open=True)
NONNEGATIVE = Interval(0.0)
FINITE = Interval(low_open=True, high_open=True)
FINITE_NONNEGATIVE = Interval(0.0, high_open=True)
UNIT = Interval(0.0, 1.0)
Domain = Interval | Signs | OneOf

FISHER = "Fisher information"
"""Surrogate curvature: the mean of the second derivative, and of the squared slope, over what the prediction says."""
CAPPED = "the second derivative, at most the largest finite number"
"""Surrogate curvature of a convex loss whose second derivative may overflow."""
SOFTMAX = "the softmax's alone: the slope in log p is held constant"
"""Surrogate curvature of a loss of log-probabilities that falls as they rise; exact for cross-entropy."""


class Parameter(NamedTuple):
    """Run-time parameter of a formula: its meaning and allowed values."""

    doc: str
    allowed: Interval | OneOf | Integers = REAL
    none: float | None = None
    """Value passed to kernels for None, where None is allowed."""
    flag: bool = False
    """Whether the parameter is a bool."""
    vector: bool = False
    """Whether the parameter may be a vector with one level per column of the prediction."""
    spread: bool = False
    """Whether the parameter may be an array that broadcasts to the prediction: it then becomes weights of the call."""
    choices: tuple[str, ...] = ()
    """Allowed strings of a choice; a kernel gets the index of one."""
    constant: bool = False
    """Whether each value has a separate kernel, without the code of the other values; pointwise losses only."""

    def show(self, value: Any, number: Callable[[Any], str] = "{:g}".format) -> str:
        """Return a value in the form in which a caller would type it."""
        if self.none is not None and value == self.none:
            return "None"
        if self.choices:
            return repr(self.choices[int(value)])
        return repr(bool(value)) if self.flag else number(value)

    def meant(self, value: float) -> Any:
        """Return the caller's value for a kernel's number: a bool, a string, None, an integer or the number."""
        if self.none is not None and value == self.none:
            return None
        if self.choices:
            return self.choices[int(value)]
        if self.flag:
            return bool(value)
        return int(value) if isinstance(self.allowed, Integers) else value


class Loop(NamedTuple):
    """One loop over rows of K scores: all that checks, docs, data and both backends ask of it.

    What a backend runs for a loop stands in one table of that backend; no other code compares a loop's name.
    """

    scores: str
    """Content of a row of the prediction: "logits", "log-probabilities", "cosines", "members" of a forecast ..."""
    labels: bool = False
    """Whether a target may be a class index."""
    dense: str = ""
    """Content of a float target: "probabilities" (one per class), "logits" of a teacher, or "number" (one per row);
    empty if float targets are not allowed."""
    thresholds: bool = False
    """Whether the K scores belong to thresholds between K + 1 ordered classes."""
    divides: bool = True
    """Whether the mean over labels divides by their class weights: torch does for likelihoods, not for margins."""
    weighs_rows: bool = False
    """Whether a class weight is a factor of the whole row, by its label or its probabilities, not of single terms."""
    describes: bool = False
    """Whether by-products (log-sum-exp, argmax, rank) are available."""
    tiles: tuple[str, ...] = ()
    """Kinds of target, "labels" or "dense", for which CPU kernels process rows of few classes in transposed tiles."""
    top_only: bool = False
    """Whether only the largest of the other scores counts."""
    turns: bool = False
    """Whether the formula changes the label's score before the cross-entropy."""

    @property
    def prediction(self) -> str:
        """Description of the prediction."""
        return f"{self.scores} of a row" + "'s thresholds" * self.thresholds

    @property
    def has_classes(self) -> bool:
        """Whether each score belongs to a class."""
        return self.dense != "number"

    @property
    def each(self) -> str:
        """Noun for the unit of a class weight, used in messages."""
        return "threshold" if self.thresholds else "class"

    def classes(self, k: int) -> int:
        """Return the number of classes for K scores."""
        return k + self.thresholds

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of target by which kernels are named: "labels", "dense"."""
        return ("labels",) * self.labels + ("dense",) * bool(self.dense)

    @property
    def target(self) -> str:
        """Description of the targets."""
        words = {"probabilities": "probabilities of the classes", "logits": "the teacher's logits"}
        dense = {**words, "number": "one number a row", "": ""}[self.dense]
        return ", or ".join(x for x in ("labels" if self.labels else "", dense) if x)


LOOPS = {
    "softmax": Loop("logits", True, "probabilities", describes=True, tiles=("labels", "dense")),
    "log_probs": Loop("log-probabilities", True, "probabilities"),
    "divergence": Loop("log-probabilities", dense="probabilities"),
    "margin": Loop("scores", True, divides=False),
    "top_margin": Loop("scores", True, divides=False, top_only=True),
    "ensemble": Loop("members", dense="number"),
    "sparsemax": Loop("scores", True, "probabilities", weighs_rows=True),
    "ordinal": Loop("logits", True, thresholds=True, divides=False),
    "evidence": Loop("logits", True, "probabilities", weighs_rows=True),
    "distillation": Loop("the student's logits", dense="logits", tiles=("dense",)),
    "angular": Loop("cosines", True, tiles=("labels",), turns=True),
}
"""Row loops that a formula can name."""


class Input(NamedTuple):
    """Input array of a loss over several arrays."""

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
    """Axis whose length bounds the labels; any integers are allowed if empty."""
    filled: bool = False
    """Whether a given input needs at least one element."""
    shared: bool = False
    """Whether units read each other's elements, which therefore count even where a unit's weight is 0."""


class Formula(NamedTuple):
    """Record of one loss, from which everything else is derived."""

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
    """Name of the related loss that takes raw scores, where this loss takes probabilities."""
    switched: dict[str, tuple[tuple[Domain, ...], tuple[Domain, ...]]]
    """Domains of the predictions with a bool parameter off and on, by the parameter's name."""
    loop: str
    """Name of the loop that calls the scalar formula."""
    loop_parameters: tuple[str, ...]
    """Parameters used by the loop; the others are passed to the formula."""
    inputs: dict[str, Input]
    """Inputs of a loss over several arrays, in order."""
    units: str
    """Axes along which a loss over several arrays has separate values; empty for one value per batch."""
    units_by: dict[str, dict[str, str]]
    """Axes of `units` by the strings of a parameter, where they depend on one."""
    ordered: tuple[tuple[str, str], ...]
    """Pairs of inputs whose first must not exceed the second anywhere."""
    example: str
    """Arguments of the example call in the docstring."""
    together: tuple[str, ...]
    """Inputs that must be all empty or all non-empty."""
    checked_by_kernel: tuple[str, ...]
    """Inputs whose domains or classes the kernel checks where they count; others are checked before the call."""
    takes_empty: bool
    """Whether kernels also run on empty inputs, whose values need not be 0 or may be errors."""
    mean_of: str
    """Name of the row-wise loss whose mean determines this one; its formula is f(sum, count)."""

    @property
    def row_loop(self) -> Loop:
        """Row loop of a row-wise loss."""
        return LOOPS[self.loop]

    @property
    def transcendental(self) -> bool:
        """Whether the formula evaluates a transcendental function of each element."""
        return bool(_words(self.function) & TRANSCENDENTAL)

    def axes(self, parameters: dict[str, Any]) -> str:
        """Return the axes of the units for parameters in the caller's form."""
        for name, units in self.units_by.items():
            return units[parameters[name]]
        return self.units

    @property
    def summary(self) -> str:
        """First line of the formula's docstring."""
        return (self.function.__doc__ or "").strip().split("\n", 1)[0]


TRANSCENDENTAL = {
    *("atan", "exp", "expm1", "log", "log1p", "log1p_unit", "pow", "sigmoid", "softplus", "tanh"),
    *("digamma", "lgamma", "mills", "ndtr", "trigamma"),
}


@cache
def _words(function: Callable[..., Any]) -> frozenset[str]:
    """Return the global names in a formula and in the functions that it calls."""
    names = function.__code__.co_names
    called = [function.__globals__.get(n) for n in names]
    helpers = [f for f in called if isinstance(f, FunctionType) and not f.__module__.endswith(".vocabulary")]
    return frozenset(names).union(*map(_words, helpers))


registered: dict[str, Formula] = {}


def _register(function: Callable[..., Any], family: str, loop: str, fields: dict[str, Any]) -> Callable[..., Any]:
    registered[function.__name__] = described(function, family, loop, fields)
    return function


def described(function: Callable[..., Any], family: str, loop: str, fields: dict[str, Any], name: str = "") -> Formula:
    """Return the record of a formula from the keywords of its decorator; the catalogue does not get it."""
    name = name or function.__name__
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    data, optional = names[: len(names) - len(values)], names[len(names) - len(values) :]
    given = {**FIELDS, **fields}
    unknown = set(given) - set(FIELDS)
    if unknown:
        raise TypeError(f"{name}: unknown fields {sorted(unknown)}")
    # A written formula calls a parameter `epsilon_` where the vocabulary has a word `epsilon`.
    optional = tuple(k if k in given["parameters"] else k.removesuffix("_") for k in optional)
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
    return Formula(
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
    "takes_empty": False,
    "mean_of": "",
}
"""Keywords of the registering decorators, with their defaults."""

LOOP_PARAMETERS = {
    "label_smoothing": (0.0, Parameter("share of the target spread evenly over the classes", UNIT)),
    "temperature": (1.0, Parameter("divides the logits", POSITIVE)),
    "logit_scale": (1.0, Parameter("multiplies the logits", POSITIVE)),
    "scale": (64.0, Parameter("multiplies the cosines", POSITIVE)),
    "softcap": (0.0, Parameter("logits z become softcap tanh(z / softcap) before all else", POSITIVE, none=0.0)),
    "z_loss": (0.0, Parameter("factor of the squared log-sum-exp, added to the loss", NONNEGATIVE)),
}
"""Default and meaning of the parameters that row loops use."""


def elementwise(**fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register f(prediction..., t, parameter=default...) -> (value, first, second[, surrogate]) per element.

    With several predictions the derivatives are tuples, one entry a prediction, in the order of the signature.
    """
    return lambda function: _register(function, "elementwise", "elementwise", fields)


def rows(loop: str, **fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a row-wise loss of K scores; `loop` names the row loop that calls its scalar formula.

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
    """Register a loss over several arrays; the kernel module `loop` calls its scalar formula, if it has one.

    `inputs` names the arrays in the order of the call, `units` the axes along which the loss has values of its own.
    `options` are parameters that the loop itself uses: name -> (default, Parameter). A loss that is no formula of a
    few scalars is registered by a function without a body, for its name, parameters and text.
    """
    return lambda function: _register(function, "arrays", loop, fields)
