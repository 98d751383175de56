"""Derived derivatives: of every built-in formula reduced to its value, against the hand-written ones in 50 digits."""

import inspect
import math
import subprocess
import sys
from pathlib import Path

import mpmath as mp
import pytest
from formula_cases import CASES, FORMULAS
from oracles import in_mpmath, mp_number
from sampling import flat, numbers
from test_formulas import close, smooth_points

from fastloss.spec.derive import NotDerivableError, derivative, derivatives, sharing
from fastloss.spec.graph import EXACT, Graph, evaluate, symbols
from fastloss.spec.record import registered
from fastloss.spec.render import formula as written
from fastloss.spec.render import restored, source


def arguments(record):
    return [*record.predictions, *([record.target] if record.target else [])]


def derived(record):
    """The formula with its derivatives derived from its value."""
    data, parameters = arguments(record), list(record.parameters)
    operands = symbols(Graph(EXACT), data, parameters)
    value = evaluate(record.function, *operands)[0]
    slopes = derivatives(value, operands[: len(record.predictions)])
    return written(record.name, [*data, *parameters], (value, *slopes), record.defaults)


DERIVED = {name: derived(record) for name, record in FORMULAS.items()}


SERIES = {"student_t_nll", "evidential_regression", "crps_gaussian"}
"""Formulas whose series and irrational constants the graph holds in 17 digits."""


@pytest.mark.parametrize(("formula", "variant"), CASES)
def test_derived_derivatives_of_the_registry(formula, variant):
    # beta-NLL holds its weight constant in the derivatives.
    if formula.name == "gaussian_nll" and variant.get("beta"):
        variant = {**variant, "beta": 0.0}
    by_hand, by_rule = in_mpmath(formula.function), in_mpmath(DERIVED[formula.name])
    parameters = [mp_number(x) for x in numbers(formula, variant)]
    tolerance = mp.mpf(10) ** (-13 if formula.name in SERIES else -20)
    for row in smooth_points(formula, variant, 6):
        data = [mp_number(x) for x in row]
        results = zip(by_hand(*data, *parameters), by_rule(*data, *parameters), strict=False)
        for name, (e, g) in zip(("value", "first", "second"), results, strict=False):
            for expected, got in zip(flat(e), flat(g), strict=True):
                assert close(got, expected, tolerance), (name, row, float(got), float(expected))


def graph_of(*names):
    return symbols(Graph(EXACT), names)


POINTS = [-2.5, -0.75, 0.25, 0.5, 1.5, 6.0]
RULES = {
    "atan": lambda u: u.graph.make("atan", u),
    "tanh": lambda u: u.graph.make("tanh", u),
    "ndtr": lambda u: u.graph.make("ndtr", u),
    "mills": lambda u: u.graph.make("mills", 1.0 + u * u),
    "lgamma": lambda u: u.graph.make("lgamma", 1.0 + u * u),
    "softplus": lambda u: u.graph.make("softplus", u),
    "sigmoid": lambda u: u.graph.make("sigmoid", u),
    "expm1": lambda u: u.graph.make("expm1", u),
    "sqrt": lambda u: u.graph.make("sqrt", 1.0 + u * u),
    "log1p": lambda u: u.graph.make("log1p", u * u),
    "power": lambda u: u**5 + u**-3 + u**0 + (1.0 + u * u) ** 1.5 + abs(u) ** 21 + u**21,
    "exponent": lambda u: 2.0**u + (1.0 + u * u) ** u,
    "quotient": lambda u: (u - 3.0) / (1.0 + u * u) + 1.0 / (2.0 + abs(u)) + u / 3.0,
    "extremes": lambda u: u.graph.make("maximum", u, u * u) + u.graph.make("minimum", 0.3, u) * u,
    "choice": lambda u: u.graph.make("where", ~(u > 0.0) | (u > 1.0), u * u, 3.0 * u),
    "condition": lambda u: u * u * (1.0 + (u > 0.0)) - (u > 0.26) / 4.0,
}


@pytest.mark.parametrize("name", RULES)
def test_rules_against_differences_in_fifty_digits(name):
    (z,) = graph_of("z")
    value = RULES[name](z)
    f = in_mpmath(written("rule", ["z"], (value, *derivatives(value, [z]))))
    for point in POINTS:
        x = mp.mpf(point)
        for order in (0, 1):
            expected = mp.diff(lambda x, order=order: f(x)[order], x)
            assert close(f(x)[order + 1], expected, mp.mpf(10) ** -14), (point, order)


def test_a_value_of_nan_has_derivatives_of_nan():
    (z,) = graph_of("z")
    value = z.graph.make("maximum", 1.0 - z, 0.0)
    f = written("hinge", ["z"], (value, *derivatives(value, [z])))
    assert f(0.5)[:2] == (0.5, -1.0)
    assert f(1.5)[:2] == (0.0, 0.0)
    assert all(x != x for x in f(float("nan"))[:2])


def test_the_root_of_a_square_has_a_slope_at_its_kink():
    (z,) = graph_of("z")
    value = z.graph.make("sqrt", z * z)
    f = written("root", ["z"], (value, *derivatives(value, [z])))
    assert f(0.0)[:2] == (0.0, 0.0)
    assert f(-2.0)[:2] == (2.0, -1.0)


def test_words_without_a_derivative_are_named():
    (z,) = graph_of("z")
    with pytest.raises(NotDerivableError, match="trigamma"):
        derivative(z.graph.make("trigamma", z), z)


def test_texts_share_subexpressions_and_keep_names_apart():
    z, epsilon, v0 = graph_of("z", "epsilon", "v0")
    shared = z.graph.make("exp", z)
    value = shared * shared + epsilon * v0 + z.graph.make("epsilon", z)
    f = written("apart", ["z", "epsilon", "v0"], (value, derivative(value, z)), {"v0": 2.0})
    assert source(f).count("exp(") == 1
    assert f(0.0, 3.0)[0] == 7.0 + 2.0**-52


def test_a_long_chain_of_operations_compiles():
    (z,) = graph_of("z")
    value = z
    for _ in range(400):
        value = value * 0.75 + 0.25 * z * z
    f = written("chain", ["z"], (value, *derivatives(value, [z])))
    assert f(1.0)[0] == pytest.approx(1.0)


def test_literals_of_infinity_and_nan():
    (z,) = graph_of("z")
    value = z.graph.make("where", z > 0.0, math.inf, z.graph.make("where", z < -1.0, -math.inf, math.nan))
    f = written("edges", ["z"], (value,))
    assert f(1.0) == (math.inf,)
    assert f(-2.0) == (-math.inf,)
    assert math.isnan(f(0.0)[0])


def test_the_function_of_a_text_is_one_and_shows_its_source():
    f = DERIVED["huber"]
    assert restored("huber", source(f)) is f
    assert inspect.getsource(f) == source(f)
    assert f.__defaults__ == (1.0,)


def test_texts_and_names_are_equal_in_other_processes():
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_derive import DERIVED\nprint(*(f.__name__ for f in DERIVED.values()))"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", program, str(here), str(here.parent)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [f.__name__ for f in DERIVED.values()]


# Rows of a scalar formula of a log-probability and a target, or of a margin.
ROW_LOOPS = {"softmax": ("lp", "t"), "log_probs": ("lp", "t"), "divergence": ("lp", "t"), "margin": ("u",)}
ROWS = [r for r in registered.values() if r.loop in ROW_LOOPS]


@pytest.mark.parametrize("record", ROWS, ids=lambda r: r.name)
def test_derived_derivatives_of_rows(record):
    data = list(ROW_LOOPS[record.loop])
    parameters = [p for p in record.parameters if p not in record.loop_parameters]
    operands = symbols(Graph(EXACT), data, parameters)
    value = evaluate(record.function, *operands)[0]
    rule = written("rows", [*data, *parameters], (value, *derivatives(value, operands[:1])))
    by_hand, by_rule = in_mpmath(record.function), in_mpmath(rule)
    numbers_of = [mp_number(record.defaults[p]) for p in parameters]
    for x in (-6.25, -1.75, -0.4375, -0.03125):
        for t in (0.25, 0.75, 1.0):
            point = [mp.mpf(x), mp.mpf(t)][: len(data)]
            expected, got = by_hand(*point, *numbers_of), by_rule(*point, *numbers_of)
            for name, e, g in zip(("value", "first", "second"), expected, got, strict=False):
                assert close(g, e, mp.mpf(10) ** -13), (name, x, t)


def test_exponentials_of_both_signs_are_computed_once():
    z, t = graph_of("z", "t")
    make = z.graph.make
    u, minus = z - t, t - z
    results = [make("softplus", u) + make("softplus", minus), make("sigmoid", u) * make("sigmoid", minus), u * t]
    before, after = written("parts", ["z", "t"], results), written("parts", ["z", "t"], sharing(results))
    assert source(after).count("exp(") == 1
    assert source(written("one", ["z", "t"], sharing([make("sigmoid", u)]))).count("sigmoid") == 1
    for point in POINTS:
        assert after(point, 0.25) == pytest.approx(before(point, 0.25), rel=1e-15)
