"""Report on a loss of a user's own: accuracy, domain, kinks and shape, measured at samples of its domain."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...spec.exact import Exact
from ...spec.graph import EXACT, Graph, Node, Operand, evaluate, reachable, symbols
from ...spec.render import DIALECT, expression, formula, restored, tuples
from ...spec.worlds import World, carry
from .points import columns, evaluated, words

__all__ = ["Accuracy", "Check", "Subject", "check", "report"]

ORDERS = ("value", "first derivative", "second derivative")
LISTED = 3
"""Worst points that a report shows per precision."""
POOR = 16.0
"""Error (units in the last place) from which a report calls a formula inaccurate."""


class Worst(NamedTuple):
    """Point at which a result is farthest from the exact one."""

    order: str
    """"value", "first derivative" or "second derivative"."""
    ulp: float
    """Error in units in the last place; infinite where the result is not finite but the exact one is."""
    point: dict[str, float]
    got: float
    exact: float

    def __str__(self) -> str:
        where = ", ".join(f"{k}={v:.9g}" for k, v in self.point.items())
        return f"{self.order} at {where}: {self.got:.9g} for {self.exact:.9g} ({_ulps(self.ulp)})"


class Accuracy(NamedTuple):
    """Errors of one precision over all points."""

    dtype: str
    errors: tuple[float, ...]
    """Largest error (units in the last place) of the value, the first and, where kernels have it, second derivative."""
    as_written: float
    """Largest error of the value without stabilising rules."""
    worst: tuple[Worst, ...]


class Check(NamedTuple):
    """Report on a loss, which prints as text."""

    name: str
    points: int
    formula: str
    """Text of the formula with its derivatives, as it is compiled."""
    rewrites: tuple[str, ...]
    """Stabilising rules that were applied."""
    accuracy: tuple[Accuracy, ...]
    outside: float
    """Share of the points at which the formula has no finite value."""
    undefined: dict[str, float] | None
    """First of these points; None if there is none."""
    domain: str
    """Domain to declare, where the formula is finite on a part of the line only; empty otherwise."""
    kinks: tuple[str, ...]
    """Places at which a derivative jumps, and jumps of the value."""
    convex: bool
    """Whether no second derivative is negative, and no slope falls at a kink."""
    concave_at: dict[str, float] | None
    """Point at which it is not convex."""
    lipschitz: float
    """Largest slope; infinite where slopes grow with the prediction."""

    @property
    def differentiable(self) -> bool:
        """Whether no kink was found."""
        return not self.kinks

    def __str__(self) -> str:
        return "\n".join(_report(self))

    def __repr__(self) -> str:
        return str(self)


def _ulps(x: float) -> str:
    return "not finite" if math.isinf(x) else f"{x:.1f} ulp" if x < 1e4 else f"{x:.1e} ulp"


def _at(point: dict[str, float]) -> str:
    return ", ".join(f"{k}={v:.6g}" for k, v in point.items())


def _report(check: Check) -> Iterator[str]:
    yield f"{check.name}: {check.points} points of its domain, in float32 and float64, beside 50 digits"
    yield ""
    computed = ", ".join(w.removesuffix(" derivative") for w in ORDERS[: len(check.accuracy[0].errors)]) + " derivative"
    yield f"Compiled formula ({computed}):"
    yield from (f"    {line}" for line in check.formula.splitlines())
    yield "Rewritten:" if check.rewrites else "Rewritten: nothing; no stabilising rule applies"
    yield from (f"    {rule}" for rule in check.rewrites)
    yield f"Largest errors ({computed}; value as written):"
    for a in check.accuracy:
        yield f"    {a.dtype}: {', '.join(map(_ulps, a.errors))}; {_ulps(a.as_written)}"
        poor = [w for w in a.worst if w.ulp > POOR]
        yield from (f"        {w}" for w in poor)
    if any(a.errors[0] > POOR for a in check.accuracy):
        yield "    Digits are lost here that no rule of fastloss saves; another form of the formula may."
    if check.undefined is None:
        yield "Finite: at all points"
    else:
        hint = f"; declare its domain: {check.domain}" if check.domain else ""
        yield f"Finite: not at {check.outside:.0%} of the points, such as {_at(check.undefined)}{hint}"
    yield f"Differentiable: {'yes' if check.differentiable else 'no'}"
    yield from (f"    {kink}" for kink in check.kinks)
    yield "Convex: " + ("yes, at all points" if check.convex else f"no, at {_at(check.concave_at or {})}")
    steep = (
        "slopes grow with the prediction" if math.isinf(check.lipschitz) else f"slopes of at most {check.lipschitz:.6g}"
    )
    yield f"Lipschitz: {'no' if math.isinf(check.lipschitz) else 'yes'}, {steep}"


class Subject(NamedTuple):
    """Scalar formula that a report is about, and how its kernels compute it."""

    record: Any
    """Record of an elementwise loss, whose predictions and target are the numbers of the formula."""
    origin: Any
    parameters: list[float]
    measured: Callable[[list[Any]], list[list[Any]]]
    """Function of columns of numbers that returns the kernels' values, derivatives and, if they have them, curvatures,
    each as a list by prediction."""
    moving: list[int]
    """Numbers by which the loss is differentiated."""

    @property
    def names(self) -> list[str]:
        """Names of the numbers."""
        return [*self.record.predictions, *([self.record.target] if self.record.target else [])]


def check(loss: Any, points: int, seed: int) -> Check:
    """Return the report on an elementwise loss at samples of its domain."""
    count = len(loss.record.predictions)

    def measured(data: list[Any]) -> list[list[Any]]:
        z = data[0] if count == 1 else tuple(data[:count])
        t = data[count] if loss.record.target else None
        return [[np.asarray(loss(z, t, reduction="none"))], *(list(tuples(x)) for x in loss.grad_and_hess(z, t))]

    parameters = [float(v) for v in loss.defaults.values()]
    return report(Subject(loss.record, loss.origin, parameters, measured, list(range(count))), points, seed)


def report(subject: Subject, points: int, seed: int) -> Check:
    """Return the report on a formula at samples of its domain."""
    record, origin, parameters, names = subject.record, subject.origin, subject.parameters, subject.names
    written = restored("formula", origin.written)
    exact = Exact(written, names, subject.moving, list(record.parameters))
    accuracy, truth = [], []
    for dtype in ("float32", "float64"):
        data = [c.astype(dtype) for c in columns(record, points, seed)]
        rows = [[float(c[i]) for c in data] for i in range(points)]
        truth = [exact.at([*row, *parameters]) for row in rows]
        accuracy.append(_accuracy(subject, dtype, data, truth, written))
    finite = [all(math.isfinite(float(x)) for x in t[0]) for t in truth]
    undefined = None if all(finite) else dict(zip(names, rows[finite.index(False)], strict=True))
    kinks, falling = _kinks(subject, written)
    bends = [
        (min(map(float, t[2])), dict(zip(names, row, strict=True)))
        for t, row, f in zip(truth, rows, finite, strict=True)
        if f
    ]
    lowest = min((b for b in bends if b[0] == b[0]), key=lambda b: b[0], default=(0.0, {}))
    falls = lowest[1] if lowest[0] < 0.0 else falling
    return Check(
        record.name,
        points,
        origin.text.rstrip(),
        origin.rewrites,
        tuple(accuracy),
        1.0 - sum(finite) / points,
        undefined,
        _found_domain(names, rows, finite) if record.family == "elementwise" else "",
        tuple(kinks),
        falls is None,
        falls,
        _steepest(subject, data),
    )


def _accuracy(subject: Subject, dtype: str, data: list[Any], truth: Any, written: Any) -> Accuracy:
    names, got = subject.names, subject.measured(data)
    found: list[Worst] = []
    for order, word in enumerate(ORDERS[: len(got)]):
        for i, exact_of in enumerate(zip(*(t[order] for t in truth), strict=True)):
            found += _errors(word, dtype, got[order][i], exact_of, names, data)
    errors = tuple(max((w.ulp for w in found if w.order == word), default=0.0) for word in ORDERS[: len(got)])
    with np.errstate(all="ignore"):
        world = World(getattr(np, dtype), words())
        plain = carry(written, world)(*data, *(getattr(np, dtype)(v) for v in subject.parameters))[0]
    before = _errors("value", dtype, np.broadcast_to(plain, data[0].shape), [t[0][0] for t in truth], names, data)
    worst = sorted(found, key=lambda w: -w.ulp)[:LISTED]
    return Accuracy(dtype, errors, max((w.ulp for w in before), default=0.0), tuple(worst))


def _errors(word: str, dtype: str, got: Any, exact: Any, names: list[str], data: list[Any]) -> Iterator[Worst]:
    """Yield the error at each point at which the exact result is finite in the precision."""
    info = np.finfo(dtype)
    tiny, eps, huge = float(info.tiny), float(info.eps), float(info.max)
    for i, e in enumerate(exact):
        size = abs(e)
        if not size < huge / 2:
            continue
        x = float(got[i])
        off = math.inf if not math.isfinite(x) else float(abs(x - e) / (max(size, tiny) * eps))
        yield Worst(word, off, {n: float(c[i]) for n, c in zip(names, data, strict=True)}, x, float(e))


def _found_domain(names: list[str], rows: list[list[float]], finite: list[bool]) -> str:
    """Return bounds outside which alone the formula is not finite, where one input explains it."""
    if all(finite):
        return ""
    for i, name in enumerate(names):
        word = "target" if i == len(names) - 1 and len(names) > 1 else "prediction"
        for low, high in ((0.0, math.inf), (0.0, 1.0), (-1.0, 1.0), (-1.0, math.inf)):
            inside = [f for row, f in zip(rows, finite, strict=True) if low < row[i] < high]
            if inside and all(inside):
                return f"{word}=({low:g}, {'np.inf' if high == math.inf else f'{high:g}'})" + f" for {name}" * (
                    len(names) > 2
                )
    return ""


def _steepest(subject: Subject, data: list[Any]) -> float:
    """Return the largest slope by any prediction; infinity where it grows for large ones or near ends of the domain."""
    record = subject.record

    def largest(inputs: list[Any]) -> float:
        slopes = evaluated(record.function, inputs, subject.parameters)[1]
        return max(float(np.max(np.abs(s[~np.isnan(s)]), initial=0.0)) for s in slopes)

    most = largest(data)
    ends = [(getattr(d, "low", -1.0), getattr(d, "high", 1.0)) for d in _domains(record)]
    far = [c * 1e3 if math.isinf(high - low) else c for c, (low, high) in zip(data, ends, strict=True)]
    near = [c * 1e-3 if math.isinf(low) else low + (c - low) * 1e-3 for c, (low, high) in zip(data, ends, strict=True)]
    top = [c if math.isinf(high) else high - (high - c) * 1e-3 for c, (low, high) in zip(data, ends, strict=True)]
    # The target stays: a slope that grows with the target is bounded for each.
    beyond = max(
        largest([moved[i] if i in subject.moving else c for i, c in enumerate(data)]) for moved in (far, near, top)
    )
    return max(most, beyond) if beyond <= 1.01 * most + 1e-9 else math.inf


def _domains(record: Any) -> list[Any]:
    return [*record.prediction_domains, *([record.target_domain] if record.target else [])]


def _switches(value: Operand) -> Iterator[Operand]:
    """Yield the operands whose sign decides what a value is."""
    for node in reachable([value]):
        if node.op in ("abs", "sign"):
            yield node.args[0]
        elif node.op in ("<", "<=", ">", ">=", "maximum", "minimum"):
            yield node.args[0] - node.args[1]


def _kinks(subject: Subject, written: Any) -> tuple[list[str], dict[str, float] | None]:
    """Return where derivatives jump along each prediction, and a point at which a slope falls there."""
    record, names = subject.record, subject.names
    graph = Graph(EXACT)
    operands = symbols(graph, names, list(record.parameters))
    value = evaluate(written, *operands)[0]
    found: dict[str, None] = {}
    falling = None
    arguments = [*names, *record.parameters]
    for switch in dict.fromkeys(s for s in _switches(value) if isinstance(s, Node)):
        function = formula("switch", arguments, (switch,))
        for i, row in _roots(subject, function):
            jump, slope = _jumps(subject, row, i)
            if not jump and not slope:
                continue
            text = expression(DIALECT, switch).text
            text = text[1:-1] if text.startswith("(") and text.endswith(")") else text
            found[f"where {text} = 0 the {'value' if jump else 'slope'} jumps"] = None
            if jump or slope < 0.0:
                falling = falling or dict(zip(names, map(float, row), strict=True))
            break
    return list(found), falling


def _roots(subject: Subject, function: Any) -> Iterator[tuple[int, list[float]]]:
    """Yield points at which a switch turns along a prediction, by bisection."""
    parameters, base = subject.parameters, columns(subject.record, 40, 1)
    for i in subject.moving:
        domain = subject.record.prediction_domains[i]
        low, high = max(getattr(domain, "low", -1.0), -50.0), min(getattr(domain, "high", 1.0), 50.0)
        grid = np.linspace(low, high, 401) + 1e-3 * (high - low) / 401
        for j in range(40):
            row = [np.full(grid.size, c[j]) for c in base]
            row[i] = grid
            sign = np.sign(evaluated(function, row, parameters)[0][0])
            for k in np.flatnonzero(sign[:-1] * sign[1:] < 0)[:2]:
                a, b = grid[k], grid[k + 1]
                for _ in range(80):
                    middle = 0.5 * (a + b)
                    point = [np.array([c[j]]) for c in base]
                    point[i] = np.array([middle])
                    same = np.sign(evaluated(function, point, parameters)[0][0][0]) == sign[k]
                    a, b = (middle, b) if same else (a, middle)
                yield i, [float(c[j]) if n != i else float(b) for n, c in enumerate(base)]


def _jumps(subject: Subject, row: list[float], i: int) -> tuple[bool, float]:
    """Return whether the value jumps at a point, and by how much its slope does (0 for none)."""
    step = 1e-6 * max(1.0, abs(row[i]))
    sides = [np.full(4, x) for x in row]
    sides[i] = row[i] + step * np.array([-2.0, -1.0, 1.0, 2.0])
    (value,), slopes = evaluated(subject.record.function, sides, subject.parameters)[:2]
    first = slopes[subject.moving.index(i)]
    near, rest = abs(value[2] - value[1]), abs(value[1] - value[0]) + abs(value[3] - value[2])
    scale = 1e-3 * (1.0 + float(np.abs(first).max()))
    turn = float(first[2] - first[1])
    smooth = abs(first[1] - first[0]) + abs(first[3] - first[2])
    return bool(near > 4.0 * rest + step * 10.0 * scale * 1e3), turn if abs(turn) > scale + 4.0 * smooth else 0.0
