"""Losses of rows for a GPU: a team of threads works on one row after another; what it does there is bound."""

from functools import cache
from typing import Any

import numpy as np
from numba import types

from ...formulas.record import NONNEGATIVE, Formula
from ...formulas.softmax import cross_entropy
from ...formulas.special import softplus_parts
from .. import access
from ..specialize import bind
from ..worlds import carry
from .families import FAMILIES, Pass
from .launch import ADDRESS, Kernel, addresses
from .memory import cuda, device, present, reader, real, spelled, writer
from .softmax import changed
from .sums import BLOCK, NONE, block_end, earlier, over, plus
from .teams import Row, passing
from .world import gpu

__all__ = ["counting_kernel", "row_kernel"]

# Names that the templates below find bound when they are specialized; branches on flags are pruned.
T: Any = None
unpack: Any = None
loop_numbers: Any = None
labelled: Any = None
judged: Any = None
picks: Any = None
work: Any = None
blank: Any = None
read_number: Any = None
read_target: Any = None
read_label: Any = None
write_value: Any = None
scale_over: Any = None
end_block: Any = None


def _label(a, i, long):
    return read_long(a, i)[0] if long else np.int64(read_short(a, i)[0])


read_long, read_short = reader("int64"), reader("int32")

label_at = device(_label)
"""The label of a row, from 64 bits or 32."""


def _rows(
    inputs,
    outputs,
    partials,
    firsts,
    n,
    k,
    whole,
    classes,
    ignored,
    long,
    shift,
    scale,
    mass,
    surrogate,
    params,
):
    """Inputs are scores, target, weight, class weights; outputs values, gradients, curvatures: addresses, or 0.

    A team has 2^shift threads. `whole` is the number of groups of 128 bits of a row, 0 where they are not aligned.
    A violation's place is eight times its index in its input, and the number of the input.
    """
    p, q, s = unpack(params), loop_numbers(params), scale_over(scale, mass)
    high, low, first = T(0.0), T(0.0), NONE
    one, thread = np.uint64(1), np.uint64(cuda.grid(1))
    team = one << shift
    rank = thread & (team - one)
    lanes = team if team < np.uint64(32) else np.uint64(32)
    mask = ((one << lanes) - one) << (thread & np.uint64(31) & ~(lanes - one))
    arrays, derivatives = (inputs[0], inputs[1], inputs[3]), (outputs[1], outputs[2])
    if present(inputs[3]):
        j = thread
        while j < k:
            if read_number(inputs[3], j)[0] < T(0.0):
                first = earlier(first, np.int64(j) * 8 + 4)
            j += np.uint64(cuda.gridsize(1))
    row = thread >> shift
    while row < n:
        w = T(1.0)
        if present(inputs[2]):
            w = read_number(inputs[2], row)[0]
        fault = 3 if w < T(0.0) else 0
        y, c = np.int64(0), T(1.0)
        if labelled:
            y = label_at(inputs[1], row, long)
            inside = (y >= 0) & (y < classes)
            if y == ignored:
                w = T(0.0)
            elif not inside:
                fault = 2
            elif picks and present(inputs[3]):
                c = read_number(inputs[3], np.uint64(y))[0]
        elif k == np.uint64(0):
            w = T(0.0)
        if (fault != 0) | (c < T(0.0)):
            w = T(np.nan)
        r = Row(arrays, row, k, whole, y, c, rank, team, mask, surrogate)
        v = w
        if (w == T(0.0)) | (w != w):
            blank(r, derivatives, (T(0.0),), w, p)
        else:
            v, bad = work(r, derivatives, w * s, p, q)
            v *= w
            if judged and bad != T(0.0):
                j, end = row * k + rank, (row + one) * k
                while j < end:
                    if read_target(inputs[1], j)[0] < T(0.0):
                        first = earlier(first, np.int64(j) * 8 + 2)
                    j += team
        if rank == np.uint64(0):
            if present(outputs[0]):
                write_value(outputs[0], row, (v,))
            high, low = plus(high, low, v)
            if fault != 0:
                first = earlier(first, np.int64(row) * 8 + fault)
        row += np.uint64(cuda.gridsize(1)) >> shift
    end_block(partials, firsts, high, low, first)


def _count(labels, weight, class_weight, partials, firsts, n, classes, ignored, long):
    """The sum of the weights of the rows that count."""
    high, low = T(0.0), T(0.0)
    i = np.uint64(cuda.grid(1))
    while i < n:
        y = label_at(labels, i, long)
        if (y >= 0) & (y < classes) & (y != ignored):
            w = T(1.0)
            if present(weight):
                w = read_number(weight, i)[0]
            if present(class_weight):
                w *= read_number(class_weight, np.uint64(y))[0]
            high, low = plus(high, low, w)
        i += np.uint64(cuda.gridsize(1))
    end_block(partials, firsts, high, low, NONE)


@cache
def counting_kernel(number: str) -> Kernel:
    """The kernel that sums the weights of the rows that count."""
    flags = (types.uint64, types.int64, types.int64, types.boolean)
    signature = types.void(*[ADDRESS] * 5, *flags)
    bound = {"T": getattr(np, number), "read_number": reader(number), "end_block": block_end(number)}
    return Kernel(_count, f"count_{number}", signature, bound)


_built: dict[tuple[Any, ...], Kernel] = {}


def row_kernel(record: Formula, kind: str, stored: str, target: str) -> Kernel:
    """The kernel of one loss against "labels" or "dense" targets, by the formats in which its arrays are stored."""
    key = (record.function, kind, stored, target)
    found = _built.get(key)
    if found is None:
        found = _built[key] = _row_kernel(record, kind, stored, target)
    return found


SECOND = {(True, True): "o[3] if c else o[2]", (True, False): "o[2]", (False, True): "o[3]", (False, False): "zero"}
"""The curvature among a formula's results, by whether there is a second derivative, and a surrogate."""


def _row_kernel(record: Formula, kind: str, stored: str, target: str) -> Kernel:
    number, labelled = real(stored), kind == "labels"
    kind_of, world = getattr(np, number), gpu(number)
    zero, one = kind_of(0.0), kind_of(1.0)
    own = len(record.parameters) - len(record.loop_parameters)
    family = FAMILIES[record.loop, kind]
    smooth = labelled and "label_smoothing" in record.loop_parameters
    angular, ordinal = record.loop == "angular", record.loop == "ordinal"
    judged = not labelled and record.target_domain == NONNEGATIVE
    classed = family.classed or smooth
    formula = carry(record.function, world)
    env = {
        "T": kind_of,
        "INFINITE": kind_of(np.inf),
        "exp": world.words["exp"],
        "log1p": world.words["log1p"],
        "formula": formula,
        "turn": spelled("x, p, c", "x", "one", "zero", one=one, zero=zero),
        "second": spelled("o, c", SECOND[record.second, record.surrogate is not None], single=True, zero=zero),
        "fault_of": spelled(
            "t, c", f"one if {'(t < zero) | ' * judged}(c < zero) else zero", single=True, one=one, zero=zero
        ),
        "read": reader(stored),
        "read_target": reader(target),
        "present": present,
        "shifted": spelled("x, m", "zero if x == m else x - m", single=True, zero=zero),
        "evidence": carry(softplus_parts, world),
        "smooth": smooth,
        "taught": record.loop == "distillation",
        "turned": angular,
        "dense": not labelled,
    }
    if angular:
        env["turn"] = device(bind(changed, turning=formula, second=env["second"]))
        env["formula"] = spelled("lp, t, m", "f(lp, t)", single=True, f=carry(cross_entropy, world))
    reads = frozenset(["target"] * (not labelled and record.loop != "ensemble") + ["class_weight"] * classed)
    goal = spelled(
        "j, r",
        f"one if j {'<' if ordinal else '=='} whole(r.y) else zero",
        single=True,
        one=one,
        zero=zero,
        whole=np.uint64,
    )

    def build(x: Pass) -> Any:
        count = x.numbers
        if type(x.each) is str:
            count = 4 if smooth else 2
            places = {"score": "s[1] if j == whole(r.y) else x" if angular else "x", "target": "t"}
            parts = (places[x.each], "zero", "zero", "c")[:count]
            each = spelled("x, t, c, j, r, s, p", *parts, zero=zero, whole=np.uint64)
        else:
            each = device(bind(x.each, **env))
        return passing(each, x.merge, count, x.emits, (stored, target, number), reads, goal, family.wide, flags)

    flags = {name: env[name] for name in ("T", "INFINITE", "exp", "smooth")}
    passes = {name: build(x) for name, x in family.passes.items()}
    nothing = spelled("x, t, c, j, r, s, p", "zero", "zero", zero=zero)
    bound = {
        "T": kind_of,
        "read_number": reader(number),
        "scale_over": over(number),
        "end_block": block_end(number),
        "unpack": access.unpack(own, number),
        "loop_numbers": spelled("p", *(f"p[{own + i}]" for i in range(3))),
        "labelled": labelled,
        "judged": judged,
        "picks": labelled and not ordinal,
        "read_target": reader(target),
        "write_value": writer(stored),
        "work": device(bind(family.work, **env, **passes)),
        "blank": passing(nothing, None, 0, True, (stored, target, number), frozenset(), goal, family.wide, flags),
    }
    N, F = types.uint64, getattr(types, number)
    sizes = (N, N, N, types.int64, types.int64, types.boolean, N)
    signature = types.void(
        addresses(4), addresses(3), ADDRESS, ADDRESS, *sizes, F, ADDRESS, types.boolean, types.UniTuple(F, own + 3)
    )
    wide = family.wide and family.work.__name__ != "picked"
    bounds = (BLOCK, family.blocks) if number == "float64" else None
    return Kernel(_rows, f"{record.name}_{kind}_{stored}_{target}", signature, bound, bounds, wide)
