"""Entropic optimal transport: Sinkhorn's iteration on potentials in the log domain.

With u = f / epsilon and v = g / epsilon + log b, the plan is P_ij = a_i exp(u_i + v_j - C_ij / epsilon). One pass over
the cost makes the rows of P right and sums its columns, so that each exponential is taken once an iteration.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ...call.errors import CallValueError, warn
from .. import dispatch
from ..math.scalar_math import exp64, log64
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import Number, unbound
from ..runtime.units import kernel
from .clouds import drawn, squared_distances

__all__ = ["run"]

ROWS = 32
"""Rows whose plan is summed into one row of sums of columns."""

TINY, HUGE = 1e-30, 1e30
"""Sums of exponentials that are taken as they come; others are formed anew relative to their largest."""

STAGE, NEAR = 20, 0.05
"""Iterations for an epsilon on the way to a smaller one: so many at most, until the marginals are right to that."""

use = unbound(Number)


def exponentials(c, u, v, rate, e):
    """e = exp(u + v - rate c), and its sum."""
    widest_vectors()
    total = 0.0
    for j in range(c.size):
        # The potentials first: they nearly cancel the cost once iterations settle.
        e[j] = exp64((u + v[j]) - rate * np.float64(c[j]))
    for j in range(c.size):
        # A loop of its own: a sum beside exponentials would be unrolled less.
        total += np.float64(e[j])
    return total


def highest(c, v, rate):
    """The largest of v - rate c."""
    top = -np.inf
    for j in range(c.size):
        x = v[j] - rate * np.float64(c[j])
        # A second read of the row, only where the first sum left its range.
        top = x if x > top else top
    return top


def right_row(c, u, v, rate, e):
    """The potential for which the exponentials of a row sum to 1, and what those in e sum to instead."""
    # Saves the pass for the maximum: the last potential keeps the exponentials in range once iterations settle.
    total = exponentials(c, u, v, rate, e)
    if not TINY < total < HUGE:
        top = highest(c, v, rate)
        # Nothing is relative to minus infinity.
        u = -top if top > -np.inf else 0.0
        total = exponentials(c, u, v, rate, e)
    return u - log64(total), total


def sweep(lo, hi, cost, a, rate, v, u, columns):
    """Make the rows of the plan right, by blocks of rows; sum its columns."""
    widest_vectors()
    n, m = cost.shape
    e = np.empty(m)
    for block in range(lo, hi):
        # Gives the same bits on any number of threads: each block has its own sums, which are added in order.
        sums = columns[block if columns.shape[0] > 1 else 0]
        if sums.size > 0:
            for j in range(m):
                sums[j] = 0.0
        for i in range(block * ROWS, min(n, (block + 1) * ROWS)):
            u[i], total = right_row(cost[i], u[i], v, rate[0], e)
            if sums.size > 0:
                # Avoids 0 / 0 in a row without mass, and lets a mass of NaN through.
                share = a[i] / total if a[i] > 0.0 else 0.0 * a[i]
                for j in range(sums.size):
                    sums[j] += share * np.float64(e[j])


def right_columns(columns, b, shift, v):
    """Make the sums of the columns right; the error that they had, and whether a column was out of reach."""
    error = 0.0
    lost = False
    for j in range(b.size):
        total = 0.0
        for block in range(columns.shape[0]):
            total += columns[block, j]
        # The error of the marginals before they are made right: no further pass measures it.
        error += abs(total - b[j])
        if b[j] > 0.0:
            lost |= total == 0.0
            v[j] += shift[j] - log64(total)
    return error, lost


def iterate(lo, hi, cost, a, b, shift, rate, limits, v, u, columns, state):
    """Iterate until the error is within limits[0], limits[1] times, or a column is out of reach."""
    for _ in range(int(limits[1])):
        sweep(0, columns.shape[0], cost, a, rate, v, u, columns)
        state[0] += 1.0
        state[1], lost = right_columns(columns, b, shift, v)
        state[2] = 1.0 if lost else 0.0
        # So written that an error of NaN ends the iteration too.
        if lost or not state[1] > limits[0]:
            return


def columns_of_all(lo, hi, columns, b, shift, v, state):
    """The second half of an iteration."""
    state[0] += 1.0
    state[1], lost = right_columns(columns, b, shift, v)
    state[2] = 1.0 if lost else 0.0


def plan(lo, hi, cost, a, rate, v, u, factor, out):
    """The plan times a factor."""
    T = use.T
    widest_vectors()
    m = cost.shape[1]
    for i in range(lo, hi):
        row = out[i]
        if a[i] == 0.0:
            for j in range(m):
                row[j] = T(0.0)
            continue
        exponentials(cost[i], u[i], v, rate[0], row)
        # Keeps the loop in one precision: the factor is rounded once, before it.
        share = T(a[i] * factor[0])
        for j in range(m):
            row[j] *= share


HELPERS = (exponentials, highest, right_row)


class Problem(NamedTuple):
    """Two histograms of mass 1, the matrix of costs between them, and how far to go."""

    precision: str
    cost: Any
    a: Any
    b: Any
    epsilon: float
    tolerance: float
    most: int


class Solution(NamedTuple):
    """Potentials over epsilon; `v` has log b added, and is -inf where b is 0."""

    u: Any
    v: Any
    shift: Any
    """log b."""
    error: float
    """Remaining error of the marginals."""


def _sweep(problem: Problem, cost: Any, a: Any, v: Any, u: Any, columns: Any) -> None:
    blocks = -(-len(cost) // ROWS)
    sweep_of = kernel(sweep, "sinkhorn_rows", problem.precision, None, HELPERS, flushes=True)
    sweep_of(blocks, 2 * cost.size, cost, a, np.array([1.0 / problem.epsilon]), v, u, columns)


def _other_side(problem: Problem, u: Any, v: Any) -> Any:
    """The potential of the columns for given u, from a transposed copy: right however small the plan is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shifted = np.where(problem.a > 0.0, u + np.log(problem.a), -np.inf)
    result = v.copy()
    _sweep(problem, np.ascontiguousarray(problem.cost.T), problem.b, shifted, result, np.empty((1, 0)))
    return result


def _epsilons(cost: Any, epsilon: float) -> Any:
    """From an eighth of the range of the costs down to epsilon by halves, where that is far; then epsilon."""
    finite = cost if np.isfinite(cost.min()) and np.isfinite(cost.max()) else cost[np.isfinite(cost)]
    start = float(finite.max()) / 8.0 - float(finite.min()) / 8.0 if finite.size else 0.0
    if start > 8.0 * epsilon:
        # Of logarithms, since the ratio may overflow.
        yield from start * 0.5 ** np.arange(math.ceil(math.log2(start) - math.log2(epsilon)))
    yield epsilon


def _solve(problem: Problem) -> Solution:
    """Iterate until the marginals are right to the tolerance.

    A small epsilon is approached from larger ones: potentials that are nearly right for twice it are a better start
    than none, from which there are some range / epsilon iterations to go.
    """
    with np.errstate(divide="ignore"):
        shift = np.log(problem.b)
    some = problem.b > 0.0
    f, g = np.zeros(len(problem.a)), np.zeros(len(problem.b))
    state = np.zeros(3)
    for epsilon in _epsilons(problem.cost, problem.epsilon):
        part = problem
        if epsilon != problem.epsilon:
            # On the way, near enough is good enough.
            most = min(problem.most - 1, state[0] + STAGE)
            part = problem._replace(epsilon=epsilon, tolerance=NEAR, most=most)
        u, v = f / epsilon, g / epsilon + shift
        v = _iterate(part, shift, u, v, state)
        f, g = epsilon * u, epsilon * (np.where(some, v, 0.0) - np.where(some, shift, 0.0))
    return Solution(u, v, shift, float(state[1]))


def _iterate(problem: Problem, shift: Any, u: Any, v: Any, state: Any) -> Any:
    """Iterate for one epsilon; u is written, v returned. The state counts iterations and keeps the error."""
    a, b, cost, precision = problem.a, problem.b, problem.cost, problem.precision
    columns = np.empty((-(-len(a) // ROWS), len(b)))
    rate = np.array([1.0 / problem.epsilon])
    while state[0] < problem.most:
        if 2 * cost.size < dispatch.PARALLEL_FROM:
            # Small: all iterations in one call.
            limits = np.array([problem.tolerance, problem.most - state[0]])
            all_of = kernel(iterate, "sinkhorn_small", precision, None, (*HELPERS, sweep, right_columns), flushes=True)
            all_of(1, 1.0, cost, a, b, shift, rate, limits, v, u, columns, state)
        else:
            _sweep(problem, cost, a, v, u, columns)
            columns_of = kernel(columns_of_all, "sinkhorn_columns", "float64", None, (right_columns,))
            columns_of(1, 1.0, columns, b, shift, v, state)
        _, error, lost = state
        if lost:
            v = _other_side(problem, u, np.zeros(len(b))) + shift
        elif not error > problem.tolerance:
            break
    return v


def _solve_own(problem: Problem) -> Solution:
    """Solve the transport of a cloud to itself.

    Both potentials are equal, and the mean of one and its update converges in a few iterations.
    """
    a = problem.a
    with np.errstate(divide="ignore"):
        shift = np.log(a)
    f, u = np.zeros(len(a)), np.zeros(len(a))
    error = np.inf
    for _ in range(problem.most):
        _sweep(problem, problem.cost, a, f + shift, u, np.empty((1, 0)))
        error = (a * np.abs(np.expm1(np.minimum(f - u, 700.0)))).sum()
        if not error > problem.tolerance:
            break
        f = (f + u) / 2
    return Solution(u, f + shift, shift, float(error))


def _mean(potential: Any, mass: Any) -> Any:
    """The mean of a potential under a histogram; where that is 0, an infinite one counts for nothing."""
    some = mass > 0.0
    return potential[some] @ mass[some]


def _value(problem: Problem, found: Solution) -> Any:
    """<f, a> + <g, b>, the dual objective."""
    some = problem.b > 0.0
    return problem.epsilon * (_mean(found.u, problem.a) + (found.v[some] - found.shift[some]) @ problem.b[some])


def _masses(call: Any, key: str, n: int) -> tuple[Any, float]:
    """A histogram divided by its sum, and that."""
    given = call[key]
    if given is None:
        return np.full(n, 1.0 / n), float(n)
    wide = given.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(wide.sum())
        if total == 0.0:
            raise CallValueError("sums to 0; expected a positive sum", key)
        if total == np.inf:
            # A sum of masses near the largest number overflows, though they are divided by it.
            wide *= 2.0**-64
        return wide / wide.sum(), total


def _problem(call: Any, cost: Any, a: Any, b: Any) -> Problem:
    limits = (call.parameters[k] for k in ("epsilon", "tolerance", "max_iterations"))
    return Problem(call.name, cost, a, b, *limits)


def _with_costs(call: Any) -> float:
    """Histograms and a matrix of costs; return the error that is left."""
    (a, mass_a), (b, mass_b) = (_masses(call, k, call[k].size) for k in ("a", "b"))
    problem = _problem(call, call["cost"], a, b)
    found = _solve(problem)
    call.values[0] = _value(problem, found)
    factor = call.factors()[0] if call.grads else 0.0
    if factor == 0.0:
        for slope in call.grads.values():
            slope[...] = 0.0
        return found.error
    f = problem.epsilon * found.u
    g = found.v - found.shift if (b > 0.0).all() else _other_side(problem, found.u, np.zeros(b.size))
    g = problem.epsilon * g
    call.grads["a"][...] = (f - _mean(f, a)) * (factor / mass_a)
    call.grads["b"][...] = (g - _mean(g, b)) * (factor / mass_b)
    rate, out = np.array([1.0 / problem.epsilon]), call.grads["cost"]
    plan_of = kernel(plan, "sinkhorn_plan", call.name, None, (exponentials,), flushes=True)
    plan_of(len(a), 2 * out.size, problem.cost, a, rate, found.v, found.u, np.array([factor]), out)
    return found.error


def _pull(problem: Problem, found: Solution, x: Any, columns: Any, weight: float) -> Any:
    """The derivatives by x of the loss to the points y: sum over j of P_ij 2 (x_i - y_j), times a weight."""
    out = np.zeros(x.shape)
    rate = np.array([1.0 / problem.epsilon])
    drawn(problem.precision, x, columns, found.u, found.v, rate, out)
    return out * (-2.0 * problem.epsilon * weight * problem.a)[:, None]


def _turned(problem: Problem, found: Solution) -> tuple[Problem, Solution]:
    """Return the problem and its solution with the sides exchanged."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.log(problem.a)
        # Nothing draws a point without mass.
        u = np.where(problem.b > 0.0, found.v - found.shift, -np.inf)
    mirror = problem._replace(a=problem.b, b=problem.a)
    return mirror, Solution(u, found.u + shift, shift, found.error)


def _of_points(call: Any) -> float:
    """Clouds under squared distances; return the error that is left."""
    x, y = call["x"], call["y"]
    a, b = _masses(call, "x_weight", len(x))[0], _masses(call, "y_weight", len(y))[0]
    of_x, of_y = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    factor = call.factors()[0] if call.grads else 0.0
    slopes = {k: np.zeros(g.shape) for k, g in call.grads.items()}

    def add(one: Any, other: Any, first: Any, second: Any, weight: float) -> float:
        """A term of the loss, between two of the clouds."""
        (p, across, k), (q, along, to) = one, other
        problem = _problem(call, squared_distances(call.name, p, along), first, second)
        found = _solve_own(problem) if k == to else _solve(problem)
        call.values[0] += weight * _value(problem, found)
        if factor != 0.0:
            slopes[k] += _pull(problem, found, p, along, weight)
            slopes[to] += _pull(*_turned(problem, found), q, across, weight)
        return found.error

    one, other = (x, of_x, "x"), (y, of_y, "y")
    errors = [add(one, other, a, b, 1.0)]
    if call.parameters["debias"]:
        errors += [add(one, one, a, a, -0.5), add(other, other, b, b, -0.5)]
    for k, slope in slopes.items():
        call.grads[k][...] = slope * factor if factor != 0.0 else 0.0
    return max(errors)


def run(call: Any) -> None:
    """Evaluate one problem."""
    error = _with_costs(call) if call.record.name == "sinkhorn" else _of_points(call)
    most, tolerance = (call.parameters[k] for k in ("max_iterations", "tolerance"))
    if error > tolerance:
        warn(
            f"{call.record.name}: after {most} iterations the marginals are wrong by {error:.2g}, more than the "
            f"tolerance {tolerance:g}; raise max_iterations, tolerance or epsilon"
        )
