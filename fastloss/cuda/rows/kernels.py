"""Losses of rows for a GPU: a team of threads works on one row after another; what it does there is bound."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...cpu.runtime import access
from ...cpu.runtime.slots import ABSENT, unbound
from ...cpu.runtime.specialize import bind
from ...formulas.softmax import cross_entropy
from ...spec.record import NONNEGATIVE, Formula
from ...spec.special import convex_factor, softplus_parts
from ...spec.worlds import carry
from ..runtime.launch import ADDRESS, Kernel
from ..runtime.memory import (
    chained,
    cuda,
    device,
    present,
    reader,
    real,
    spelled,
    writer,
)
from ..runtime.sums import BLOCK, NONE, block_end, earlier, over, plus
from ..runtime.teams import Row, passing
from ..runtime.world import gpu
from .families import FAMILIES, Pass
from .slots import RowSlots
from .softmax import changed

__all__ = ["Inputs", "Labels", "Outputs", "Shape", "balancing_kernel", "counting_kernel", "row_kernel"]


class Inputs(NamedTuple):
    """Addresses of what a call reads; none for arrays that it has not got."""

    scores: Any
    target: Any
    weight: Any
    class_weight: Any


class Outputs(NamedTuple):
    """Addresses of what a call writes; none for what is not wanted."""

    values: Any
    gradients: Any
    curvatures: Any


class Shape(NamedTuple):
    """Sizes of a call."""

    n: Any
    """Rows."""
    k: Any
    """Scores of a row."""
    whole: Any
    """Groups of 128 bits of a row, 0 where they are not aligned."""
    shift: Any
    """Logarithm of the number of threads of a team, to base 2."""


class Labels(NamedTuple):
    """Settings by which kernels read a target that is a label."""

    classes: Any
    ignored: Any
    """Label of rows that do not count."""
    long: Any
    """Whether labels have 64 bits rather than 32."""


class Slots(NamedTuple):
    """Constants and functions that the loop over rows reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    INFINITE: Any
    """Infinity in that type."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of a tuple."""
    loop_numbers: Callable[..., Any]
    """Function that takes the loop's own parameters from the tuple."""
    labelled: bool
    """Whether the target is a label."""
    judged: bool
    """Whether negative targets are outside their domain."""
    spared: bool
    """Whether a class of weight 0 may have any target."""
    picks: bool
    """Whether a row counts as its label's class."""
    work: Callable[..., Any]
    """Function of (row, outputs, factor, parameters, loop parameters): the value of a row and its faults."""
    blank: Callable[..., Any]
    """Pass that writes zeros, or NaN."""
    read_number: Callable[..., Any]
    """Reader of a weight."""
    read_target: Callable[..., Any]
    """Reader of a target."""
    write_value: Callable[..., Any]
    """Writer of a value."""
    scale_over: Callable[..., Any]
    """Scale over the sum of the weights."""
    end_block: Callable[..., Any]
    """Function that leaves the sum over a block."""


class Count(NamedTuple):
    """Constants and functions that the sum of row weights reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    read_number: Callable[..., Any]
    """Reader of a weight."""
    end_block: Callable[..., Any]
    """Function that leaves the sum over a block."""


class Balance(NamedTuple):
    """Constants and functions that the scaling of class weights reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    INFINITE: Any
    """Infinity in that type."""
    LARGEST: Any
    """Largest finite number of that type."""
    read_number: Callable[..., Any]
    """Reader of a weight."""
    write_number: Callable[..., Any]
    """Writer of a weight."""


use: Any = unbound(Slots, Count, Balance)


def _label(a, i, long):
    return read_long(a, i)[0] if long else np.int64(read_short(a, i)[0])


read_long, read_short = reader("int64"), reader("int32")

label_at = device(_label)
"""The label of a row, from 64 bits or 32."""


def class_fault(class_weight, k, first):
    """The earliest class weight out of its domain; tested once a call rather than once a row: threads share them."""
    T = use.T
    j = np.uint64(cuda.grid(1))
    while j < k:
        c = use.read_number(class_weight, j)[0]
        if (c < T(0.0)) | (c == use.INFINITE):
            first = earlier(first, np.int64(j) * 8 + 4)
        j += np.uint64(cuda.gridsize(1))
    return first


def counted(inputs, row, k, labels, q):
    """The weight of a row, NaN beside a violation; its label, the weight of that class, and the violation."""
    T = use.T
    w = T(1.0)
    if present(inputs.weight):
        w = use.read_number(inputs.weight, row)[0]
    fault = 3 if w < T(0.0) else 0
    y, c = np.int64(0), T(1.0)
    if use.labelled:
        y = label_at(inputs.target, row, labels.long)
        inside = (y >= 0) & (y < labels.classes)
        if y == labels.ignored:
            w = T(0.0)
        elif not inside:
            # A row of weight 0 may have any label.
            fault = 2 if w != T(0.0) else fault
        elif use.picks and present(inputs.class_weight):
            c = use.read_number(inputs.class_weight, np.uint64(y))[0]
            # A row whose loss is that of its label alone counts as the label's class does.
            w = T(0.0) if (c == T(0.0)) & (q[1] == T(0.0)) & (q[2] == T(0.0)) else w
    elif k == np.uint64(0):
        w = T(0.0)
    if (fault != 0) | (c < T(0.0)) | (c == use.INFINITE):
        w = T(np.nan)
    return w, y, c, fault


def target_fault(inputs, row, k, rank, team, first):
    """The earliest negative target; looked for only in a row with a fault: the loop over elements counts faults."""
    T, one = use.T, np.uint64(1)
    # The row is read again, by its whole team: this happens once a violation.
    j, end = row * k + rank, (row + one) * k
    while j < end:
        counts = True
        if use.spared and present(inputs.class_weight):
            counts = use.read_number(inputs.class_weight, j - row * k)[0] != T(0.0)
        if counts and use.read_target(inputs.target, j)[0] < T(0.0):
            first = earlier(first, np.int64(j) * 8 + 2)
        j += team
    return first


def _rows(inputs, outputs, partials, firsts, shape, labels, scale, mass, surrogate, params):
    """A violation's place is eight times its index in its input, and the number of the input."""
    T = use.T
    p, q, s = use.unpack(params), use.loop_numbers(params), use.scale_over(scale, mass)
    high, low, first = T(0.0), T(0.0), NONE
    one, thread, k = np.uint64(1), np.uint64(cuda.grid(1)), shape.k
    team = one << shape.shift
    # By masks: teams are powers of two, and a division of 64 bits is a call.
    rank = thread & (team - one)
    lanes = team if team < np.uint64(32) else np.uint64(32)
    # Shuffles of a team smaller than a warp name its lanes alone: other teams may be in another iteration.
    mask = ((one << lanes) - one) << (thread & np.uint64(31) & ~(lanes - one))
    arrays = (inputs.scores, inputs.target, inputs.class_weight)
    derivatives = (outputs.gradients, outputs.curvatures)
    if present(inputs.class_weight):
        first = class_fault(inputs.class_weight, k, first)
    row = thread >> shape.shift
    while row < shape.n:
        w, y, c, fault = counted(inputs, row, k, labels, q)
        r = Row(arrays, row, k, shape.whole, y, c, rank, team, mask, surrogate)
        v = w
        # The scores of a row that does not count are not read: they may hold anything.
        if (w == T(0.0)) | (w != w):
            use.blank(r, derivatives, (T(0.0),), w, p)
        else:
            # The factor goes in, so that derivatives are written once and scaled in the same pass.
            v, bad = use.work(r, derivatives, w * s, p, q)
            v *= w
            if use.judged and bad != T(0.0):
                first = target_fault(inputs, row, k, rank, team, first)
        # One thread of the team counts the row; all of them hold its value.
        if rank == np.uint64(0):
            if present(outputs.values):
                use.write_value(outputs.values, row, (v,))
            high, low = plus(high, low, v)
            if fault != 0:
                first = earlier(first, np.int64(row) * 8 + fault)
        # All threads of a team stay in the loop equally long: shuffles within it would wait for one that left.
        row += np.uint64(cuda.gridsize(1)) >> shape.shift
    use.end_block(partials, firsts, high, low, first)


def _count(labels, weight, class_weight, partials, firsts, n, classes, ignored, long):
    """The sum of the weights of the rows that count."""
    T = use.T
    high, low = T(0.0), T(0.0)
    i = np.uint64(cuda.grid(1))
    while i < n:
        y = label_at(labels, i, long)
        if (y >= 0) & (y < classes) & (y != ignored):
            w = T(1.0)
            if present(weight):
                w = use.read_number(weight, i)[0]
            if present(class_weight):
                # A product here, where the CPU multiplies too: a mean divides by what its rows were multiplied with.
                w *= use.read_number(class_weight, np.uint64(y))[0]
            high, low = plus(high, low, w)
        i += np.uint64(cuda.gridsize(1))
    use.end_block(partials, firsts, high, low, NONE)


def _balance(class_weight, rows, mass, result, k):
    """Class weights times the weight of the rows over their own: a mean over the rows then counts a z_loss as it is."""
    T = use.T
    j = np.uint64(cuda.grid(1))
    while j < k:
        c, total = use.read_number(class_weight, j)[0], use.read_number(mass, np.uint64(0))[0]
        # What is out of its domain stays so, and what is not may leave the range of numbers.
        if (c >= T(0.0)) & (c < use.INFINITE) & (total != T(0.0)):
            # Read from the device: the host does not wait for a sum that only this kernel needs.
            scaled = c / total * use.read_number(rows, np.uint64(0))[0]
            c = use.LARGEST if scaled > use.LARGEST else scaled
        use.write_number(result, j, (c,))
        j += np.uint64(cuda.gridsize(1))


@cache
def balancing_kernel(number: str) -> Kernel:
    """The kernel that scales class weights beside a z_loss."""
    kind = getattr(np, number)
    use = Balance(kind, kind(np.inf), np.finfo(kind).max, read_number=reader(number), write_number=writer(number))
    return Kernel(_balance, f"balance_{number}", types.void(*[ADDRESS] * 4, types.uint64), use)


@cache
def counting_kernel(number: str) -> Kernel:
    """The kernel that sums the weights of the rows that count."""
    flags = (types.uint64, types.int64, types.int64, types.boolean)
    signature = types.void(*[ADDRESS] * 5, *flags)
    use = Count(getattr(np, number), read_number=reader(number), end_block=block_end(number))
    return Kernel(_count, f"count_{number}", signature, use)


STEPS = (class_fault, counted, target_fault)
"""Functions that the loop over rows calls."""

_built: dict[tuple[Any, ...], Kernel] = {}


def row_kernel(record: Formula, kind: str, stored: str, target: str) -> Kernel:
    """The kernel of one loss against "labels" or "dense" targets, by the formats in which its arrays are stored."""
    key = (record.function, kind, stored, target)
    found = _built.get(key)
    if found is None:
        found = _built[key] = _row_kernel(record, kind, stored, target)
    return found


PASSES = ("scan", "learn", "top", "above", "gather", "total", "emit")
"""Passes over a row of all families."""

SECOND = {(True, True): "o[3] if c else o[2]", (True, False): "o[2]", (False, True): "o[3]", (False, False): "zero"}
"""The curvature among a formula's results, by whether there is a second derivative, and a surrogate."""


CURVED = {True: "convex(x) if c else x", False: "x"}
"""The factor of a softmax's curvature, which only a z_loss can make negative, by whether there is one."""


def _row_slots(record: Formula, kind: str, stored: str, target: str, smooth: bool) -> RowSlots:
    """The record that the passes over a row read, without the passes themselves."""
    number, labelled = real(stored), kind == "labels"
    kind_of, world = getattr(np, number), gpu(number)
    zero, one = kind_of(0.0), kind_of(1.0)
    loop = record.row_loop
    judged = not labelled and record.target_domain == NONNEGATIVE
    formula, convex = carry(record.function, world), carry(convex_factor, world)
    env = RowSlots(
        T=kind_of,
        INFINITE=kind_of(np.inf),
        exp=world.words["exp"],
        log1p=world.words["log1p"],
        formula=formula,
        turn=spelled("x, p, c", "x", "one", "zero", one=one, zero=zero),
        second=spelled("o, c", SECOND[record.second, record.surrogate is not None], single=True, zero=zero),
        curved_by=spelled("x, c", CURVED["z_loss" in record.loop_parameters], single=True, convex=convex),
        # Infinite class weights are found before the loop over rows, and leave no row finite: a comparison per element
        # would take 16 more registers in float16.
        fault_of=spelled(
            "t, c", f"one if {'(t < zero) | ' * judged}(c < zero) else zero", single=True, one=one, zero=zero
        ),
        read=reader(stored),
        read_target=reader(target),
        shifted=spelled("x, m", "zero if x == m else x - m", single=True, zero=zero),
        evidence=carry(softplus_parts, world),
        smooth=smooth,
        taught=loop.dense == "logits",
        turned=loop.turns,
        dense=not labelled,
        turning=formula,
        **dict.fromkeys(PASSES, ABSENT),
    )
    if not loop.turns:
        return env
    return env._replace(
        turn=device(bind(changed, env)),
        formula=spelled("lp, t, m", "f(lp, t)", single=True, f=carry(cross_entropy, world)),
        second=spelled("o, c", SECOND[True, False], single=True),
    )


def _passes(record: Formula, kind: str, formats: tuple[str, str, str], env: RowSlots) -> tuple[dict[str, Any], Any]:
    """The passes of a family by their names, and the one that blanks a row, by the formats of its arrays."""
    loop, family, zero, one = record.row_loop, FAMILIES[record.loop, kind], env.T(0.0), env.T(1.0)
    classed = family.classed or env.smooth
    reads = frozenset(["target"] * (env.dense and loop.has_classes) + ["class_weight"] * classed)
    goal = spelled(
        "j, r",
        f"one if j {'<' if loop.thresholds else '=='} whole(r.y) else zero",
        single=True,
        one=one,
        zero=zero,
        whole=np.uint64,
    )

    def build(x: Pass) -> Any:
        count = x.numbers
        if type(x.each) is str:
            count = 4 if env.smooth else 2
            places = {"score": "s[1] if j == whole(r.y) else x" if loop.turns else "x", "target": "t"}
            parts = (places[x.each], "zero", "zero", "c")[:count]
            each = spelled("x, t, c, j, r, s, p", *parts, zero=zero, whole=np.uint64)
        else:
            each = device(bind(x.each, env))
        return passing(each, x.merge, count, x.emits, formats, reads, goal, family.wide, env)

    nothing = spelled("x, t, c, j, r, s, p", "zero", "zero", zero=zero)
    blank = passing(nothing, None, 0, True, formats, frozenset(), goal, family.wide, env)
    return {name: build(x) for name, x in family.passes.items()}, blank


def _row_kernel(record: Formula, kind: str, stored: str, target: str) -> Kernel:
    number, labelled, loop = real(stored), kind == "labels", record.row_loop
    own = len(record.parameters) - len(record.loop_parameters)
    family = FAMILIES[record.loop, kind]
    env = _row_slots(
        record, kind, stored, target, labelled and loop.describes and "label_smoothing" in record.loop_parameters
    )
    passes, blank = _passes(record, kind, (stored, target, number), env)
    use = Slots(
        T=env.T,
        INFINITE=env.INFINITE,
        read_number=reader(number),
        scale_over=over(number),
        end_block=block_end(number),
        unpack=access.unpack(own, number),
        loop_numbers=spelled("p", *(f"p[{own + i}]" for i in range(3))),
        labelled=labelled,
        judged=not labelled and record.target_domain == NONNEGATIVE,
        spared=not loop.weighs_rows,
        picks=labelled and not loop.thresholds,
        read_target=reader(target),
        write_value=writer(stored),
        work=device(bind(family.work, env._replace(**passes))),
        blank=blank,
    )
    N, F = types.uint64, getattr(types, number)
    labels = types.NamedTuple((types.int64, types.int64, types.boolean), Labels)
    arrays = types.NamedUniTuple(ADDRESS, 4, Inputs), types.NamedUniTuple(ADDRESS, 3, Outputs), ADDRESS, ADDRESS
    sizes = types.NamedUniTuple(N, 4, Shape), labels
    signature = types.void(*arrays, *sizes, F, ADDRESS, types.boolean, types.UniTuple(F, own + 3))
    wide = family.wide and family.work.__name__ != "picked"
    bounds = (BLOCK, family.blocks) if number == "float64" else None
    name = f"{record.name}_{kind}_{stored}_{target}"
    return Kernel(_rows, name, signature, use, bounds, wide, **chained(STEPS, use))
