"""Elementwise loops for a CPU, and the driver that runs chunks in parallel.

A chunk is a serial kernel compiled per loss, precision and mode, and called by address; a driver is compiled once
per family and precision. Block and chunk boundaries depend on the size alone, and partial sums are combined in one
fixed order: the result has the same bits on any number of threads.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types

from ..spec.record import NONNEGATIVE
from ..spec.worlds import carry
from .runtime import access, staging
from .runtime.access import get, put_lane
from .runtime.intrinsics import array, call, combine, widest_vectors
from .runtime.slots import ABSENT, unbound
from .runtime.specialize import (
    INLINED,
    INNER,
    SCALAR,
    Chunk,
    Linked,
    compile_chunk,
    compile_driver,
    inner,
)
from .runtime.staging import (
    accumulate,
    clear,
    drain,
    fill,
    flush,
    lanes,
    place,
    stage,
    streamable,
    sum_lanes,
)
from .runtime.worlds import cpu

__all__ = ["elementwise_chunk", "elementwise_driver", "evaluation"]

BLOCK = 1024
"""Elements summed in lanes of the array's own precision, 16 to a lane, before the sums move to float64."""


class Evaluation(NamedTuple):
    """Constants and functions that the evaluation of one element reads."""

    formula: Callable[..., Any]
    """Formula of the loss."""
    usual: bool
    """Whether the parameters are constants, the defaults."""
    DEFAULTS: tuple[Any, ...]
    """The constants."""
    COUNT: int
    """Number of parameters."""
    SURROGATE: int
    """Index of the surrogate curvature among the formula's results, or of the curvature where there is none."""
    INPUTS: int
    """Number of inputs."""
    PARTS: int
    """Index of the first part among the formula's results, of a sum whose parts are wanted."""
    check0: Callable[..., Any]
    """Function that counts input 0 where it is outside its domain; so for the others, up to their number."""
    check1: Callable[..., Any]
    check2: Callable[..., Any]
    check3: Callable[..., Any]
    check4: Callable[..., Any]


class Slots(NamedTuple):
    """Constants and functions that a chunk of an elementwise loss reads."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    ZERO: Any
    """Zero in that type."""
    STEP: int
    """Elements of a step, each of which has a lane."""
    SECOND: int
    """Index of the first curvature among the outputs."""
    evaluate: Any
    """Formula and domains, linked: a function of the inputs and the parameters of one element."""
    at: Callable[..., Any]
    """Function that reads one element of each input."""
    unpack: Callable[..., Any]
    """Function that makes the parameters of an array."""
    times: Callable[..., Any]
    """Product with a weight; 0 where a weight is 0."""
    put_value: Callable[..., Any]
    """Function that writes the value of an element."""
    store_grad: Callable[..., Any]
    """Function that writes the first derivatives of an element."""
    store_hess: Callable[..., Any]
    """Function that writes the second derivatives of an element."""
    check_weight: Callable[..., Any]
    """Function that counts a weight below 0."""
    weighted: bool
    """Whether elements have weights."""
    checked: bool
    """Whether anything can be outside its domain."""
    begin: Callable[..., Any]
    """Function that clears lanes."""
    settle: Callable[..., Any]
    """Function that moves the lanes of values and violations to lanes of float64."""
    LANES: int
    """Number of lanes for the parts of a sum, where these are wanted; 1 where they are not."""
    tally: Callable[..., Any]
    """Function that adds the parts of an element to their lanes; does nothing where they are not wanted."""
    gather: Callable[..., Any]
    """Function that moves the lanes of all parts to lanes of float64; likewise."""
    spare: Callable[..., Any]
    """Function that clears the lanes of all parts from one element on; likewise."""
    close: Callable[..., Any]
    """Function that writes the sum of each part; likewise."""
    by_row: bool
    """Whether the value of each element is wanted."""
    derivatives: bool
    """Whether the first derivatives are wanted."""
    curvature: bool
    """Whether the second derivatives are wanted."""
    order: int
    """Index of those among the results: 2 for the curvature, 3 for the surrogate."""


class Share(NamedTuple):
    """Constants and functions of the lanes of parts."""

    STEP: int
    """Elements of a step."""
    FIRST: int
    """Lane of the part of this function."""
    product: Callable[..., Any]
    """Product with a weight."""
    rest: Callable[..., Any]
    """Function for the parts after this one."""
    checked: bool
    """Whether violations are counted."""


class Drive(NamedTuple):
    """Functions that a driver of elementwise chunks calls."""

    window: Callable[..., Any]
    """Function that takes the same part of each prediction, or of each derivative."""


use: Any = unbound(Slots, Evaluation, Share, Drive)


def evaluate_element(x, p):
    """Return the results of the formula that a loop reads, and the number of inputs outside their domains."""
    # Lets LLVM drop what the defaults switch off: poisson took 1.42 ns an element while lgamma(t + 1) was computed and
    # not used, and takes 0.46.
    if use.usual:
        out = use.formula(*x, *use.DEFAULTS)
    else:
        out = use.formula(*x, *p[: use.COUNT])
    # Spelled out, as the readers in runtime/access.py are: a computed index into a tuple keeps the loop scalar.
    wrong = use.check0(x[0])
    if use.INPUTS > 1:
        wrong += use.check1(x[1])
    if use.INPUTS > 2:
        wrong += use.check2(x[2])
    if use.INPUTS > 3:
        wrong += use.check3(x[3])
    if use.INPUTS > 4:
        wrong += use.check4(x[4])
    if use.PARTS:
        return out[0], out[1], out[2], out[use.SURROGATE], wrong, out[use.PARTS :]
    return out[0], out[1], out[2], out[use.SURROGATE], wrong


def begin_lanes(part, total):
    """Clear lanes, and those of float64 that they are added to."""
    clear(part, 0)
    clear(total, 0)


def settle_lanes(part, count, total, bad):
    """Add the lanes of values and violations to lanes of float64, and set them to zero."""
    accumulate(part, total, use.STEP)
    if use.checked:
        accumulate(count, bad, use.STEP)


def tally_parts(shares, i, out, w):
    """Add the values of all parts, the last of the results, to their lanes."""
    use.rest(shares, i, out[5], w)


def tally_part(shares, i, values, w):
    """Add the value of a part to its lane, then those of the parts after it."""
    # Adds while the value is in a register: with a pass for each part, mse + mae + huber took 0.55 ns an element
    # instead of 0.32.
    put_lane(shares, use.FIRST + i, use.product(values[0], w))
    use.rest(shares, i, values[1:], w)


def gather_parts(shares, sums):
    """Add the lanes of all parts to lanes of float64, and set them to zero."""
    for j in range(shares.size):
        sums[j] += float(shares[j])
    clear(shares, 0)


def spare_parts(shares, start):
    """Clear the lanes of each part from one element on."""
    for j in range(shares.size):
        # Drops what the zeros gave that fill the last step up: a formula need not be 0 there.
        if j % use.STEP >= start:
            shares[j] = 0.0


def close_parts(sums, stats):
    """Write the sum of each part, halves to halves: the same order on every machine."""
    for k in range(sums.size // use.STEP):
        half = use.STEP // 2
        while half > 0:
            for i in range(half):
                sums[k * use.STEP + i] += sums[k * use.STEP + half + i]
            half //= 2
        stats[2 + k] = sums[k * use.STEP]


def elementwise(preds, target, weight, values, grads, hesses, scale, params, streamed, stats):
    """One chunk: evaluate, sum, store derivatives, count domain violations.

    Element j of each step is added to lane j: the sum has one order, whatever the width of the vectors. Steps have one
    length, the last one too, which is copied: a loop for a remainder would be scalar, and sum in another order.
    """
    T = use.T
    widest_vectors()
    inputs, outputs = (*preds, target, weight), (values, *grads, *hesses)
    held_in, held_out = stage(inputs, use.STEP), stage(outputs, use.STEP)
    part, count = lanes(use.ZERO, use.STEP), lanes(use.ZERO, use.STEP)
    total, bad = lanes(0.0, use.STEP), lanes(0.0, use.STEP)
    shares, sums = lanes(use.ZERO, use.LANES), lanes(0.0, use.LANES)
    use.begin(part, total)
    use.begin(count, bad)
    use.begin(shares, sums)
    p, s, n = use.unpack(params), T(scale), preds[0].size
    past = streamed & streamable(outputs)
    for lo in range(0, n, use.STEP):
        last = lo + use.STEP > n
        # Before the last step too: its lanes past the end are cleared below, and must hold nothing of earlier steps.
        if last | (lo % BLOCK == 0):
            use.settle(part, count, total, bad)
            use.gather(shares, sums)
        if last:
            fill(inputs, held_in, lo, n)
        staged = last | past
        x = place(last, inputs, held_in, lo)
        y = place(staged, outputs, held_out, lo)
        w, v, g, h = x[-1], y[0], y[1 : use.SECOND], y[use.SECOND :]
        for i in range(use.STEP):
            # One evaluation for all results: LLVM removes what no branch reads, such as the division of a derivative.
            out = use.evaluate(use.at(x, i), p)
            wi = get(w, i) if use.weighted else T(1.0)
            value = use.times(out[0], wi) if use.weighted else out[0]
            put_lane(part, i, value)
            use.tally(shares, i, out, wi)
            if use.by_row:
                use.put_value(v, i, value)
            if use.derivatives:
                use.store_grad(g, i, out[1], wi * s)
            if use.curvature:
                use.store_hess(h, i, out[use.order], wi * s)
            if use.checked:
                # Spares elements of weight 0, which may be outside their domain.
                put_lane(count, i, (out[4] if wi else use.ZERO) + use.check_weight(wi) if use.weighted else out[4])
        if staged:
            flush(outputs, held_out, lo, min(lo + use.STEP, n), past)
        if last:
            clear(part, n - lo)
            clear(count, n - lo)
            use.spare(shares, n - lo)
    use.settle(part, count, total, bad)
    use.gather(shares, sums)
    use.close(sums, stats)
    if past:
        drain()
    stats[0] = sum_lanes(total, use.STEP)
    stats[1] = sum_lanes(bad, use.STEP) if use.checked else 0.0
    return stats[0]


def drive_elementwise(address, preds, target, weight, values, grads, hesses, scale, params, streamed, chunk, parallel):
    """All chunks, in parallel or one after another; the bits are the same."""
    n = preds[0].size
    chunks = (n + chunk - 1) // chunk
    # Gives the same bits on any number of threads: each chunk has its own sums, which are added in order.
    stats = np.empty((chunks, 2), np.float64)
    for c in prange(chunks):
        lo = c * chunk
        hi = min(n, lo + chunk)
        parts = (target[lo:hi], weight[lo:hi], values[lo:hi], use.window(grads, lo, hi), use.window(hesses, lo, hi))
        call(address, (use.window(preds, lo, hi), *parts, scale, params, streamed, stats[c]))
    return combine(stats)


def drive_parts(address, preds, target, weight, grads, hesses, scale, params, streamed, chunk, sums, parallel):
    """All chunks of a sum whose parts are wanted, which go to an array."""
    values = weight[:0]
    n = preds[0].size
    chunks = (n + chunk - 1) // chunk
    stats = np.empty((chunks, 2 + sums.size), np.float64)
    for c in prange(chunks):
        lo = c * chunk
        hi = min(n, lo + chunk)
        parts = (target[lo:hi], weight[lo:hi], values, use.window(grads, lo, hi), use.window(hesses, lo, hi))
        call(address, (use.window(preds, lo, hi), *parts, scale, params, streamed, stats[c]))
    for k in range(sums.size):
        total = 0.0
        lost = 0.0
        for c in range(chunks):
            x = stats[c, 2 + k]
            s = total + x
            # Recovers what the addition rounded off, as combine does: a part is as exact as the sum.
            lost += (total - s) + x if abs(total) >= abs(x) else (x - s) + total
            total = s
        sums[k] = total + lost if lost == lost else total
    return combine(stats)


def drive_pair(address, prediction, target, out, scale, params, chunk):
    """A small sum over one prediction and its target: each array that is not passed saves 60 ns."""
    e = target[:0]
    return drive_elementwise(address, (prediction,), target, e, e, (out,), (e,), scale, params, False, chunk, False)


def _arguments(dtype: str, count: int, stored: str, target: str) -> tuple[Any, ...]:
    one, doubles = array(dtype), array("float64")
    many = types.UniTuple(array(stored), count)
    return (many, array(target), one, one, many, many, types.float64, doubles, types.boolean)


MODES: dict[str, dict[str, Any]] = {
    "value": {"by_row": False, "derivatives": False, "curvature": False, "order": 2},
    "rows": {"by_row": True, "derivatives": False, "curvature": False, "order": 2},
    "grad": {"by_row": False, "derivatives": True, "curvature": False, "order": 2},
    "rows_grad": {"by_row": True, "derivatives": True, "curvature": False, "order": 2},
    "hess": {"by_row": False, "derivatives": True, "curvature": True, "order": 2},
    "surrogate": {"by_row": False, "derivatives": True, "curvature": True, "order": 3},
}
"""Results stored in each mode; dead code elimination removes the rest of the formula."""


@cache
def evaluation(
    function: Any,
    domains: tuple[Any, ...],
    count: int,
    dtype: str,
    surrogate: bool,
    defaults: tuple[float, ...] | None,
    parts: int,
) -> Linked:
    """A formula with the tests of its domains, compiled once for all modes; its parameters may be constants."""
    kind, number = getattr(np, dtype), getattr(types, dtype)
    # A test that all numbers pass where a domain is the whole line: the template calls one per input, and LLVM drops
    # it.
    checks = [access.check(d, dtype) or access.unchecked(dtype) for d in domains]
    use = Evaluation(
        formula=carry(function, cpu(dtype)),
        usual=defaults is not None,
        DEFAULTS=tuple(kind(d) for d in defaults or ()),
        COUNT=len(function.__defaults__ or ()),
        SURROGATE=3 if surrogate else 2,
        INPUTS=len(domains),
        PARTS=3 + surrogate if parts else 0,
        **{f"check{i}": check for i, check in enumerate([*checks, *[ABSENT] * 5][:5])},
    )
    slope = number if count == 1 else types.UniTuple(number, count)
    # Rounds the number of parameters up: losses with none to five share one translated template, 0.08 s a kernel, not
    # 0.45.
    arguments = types.UniTuple(number, len(domains)), types.UniTuple(number, access.room(use.COUNT))
    shares = (types.UniTuple(number, parts),) if parts else ()
    signature = types.Tuple((number, slope, slope, slope, number, *shares))(*arguments)
    return Linked(inner(evaluate_element, SCALAR, use), signature)


@cache
def _sums(parts: int, weighted: bool, checked: bool, step: int) -> dict[str, Any]:
    """Return the functions of the lanes of sums, as fields of Slots."""
    common = Share(step, 0, ABSENT, ABSENT, checked)
    found: dict[str, Any] = {
        "begin": inner(begin_lanes, INLINED, common),
        "settle": inner(settle_lanes, INLINED, common),
        "LANES": max(1, parts) * (step if parts else 1),
        "tally": access.nothing[4],
        "gather": access.nothing[2],
        "spare": access.nothing[2],
        "close": access.nothing[2],
    }
    if not parts:
        return found
    tally: Any = access.nothing[4]
    for k in reversed(range(parts)):
        tally = inner(tally_part, SCALAR, Share(step, k * step, access.times[weighted], tally, checked))
    own = {"gather": gather_parts, "spare": spare_parts, "close": close_parts}
    found |= {k: inner(f, INLINED, common) for k, f in own.items()}
    return found | {"tally": inner(tally_parts, SCALAR, Share(step, 0, ABSENT, tally, checked))}


def elementwise_chunk(
    record: Any,
    dtype: str,
    mode: str,
    weighted: bool,
    stored: str = "",
    target: str = "",
    usual: bool = False,
    parts: int = 0,
) -> Chunk:
    """Compile, or load from the disk cache, one loss in one precision and mode.

    Predictions and results, or the target too, may be stored in a format of 16 bits, read and rounded on the way.
    With the usual parameters, the defaults, what they switch off is not computed: poisson takes a third of the time.
    """
    count = len(record.predictions)
    signature = types.float64(*_arguments(dtype, count, stored or dtype, target or dtype), array("float64"))
    domains = record.prediction_domains + ((record.target_domain,) if record.target else ())
    defaults = tuple(record.defaults.values()) if usual else None
    checked = weighted or any(access.check(d, dtype) for d in domains)
    use = Slots(
        T=getattr(np, dtype),
        evaluate=evaluation(record.function, domains, count, dtype, record.surrogate is not None, defaults, parts),
        at=access.at[len(domains)],
        times=access.times[weighted],
        put_value=access.put["values"],
        store_grad=access.storing("grad", count, weighted),
        store_hess=access.storing("hess", count, weighted),
        unpack=access.padded(dtype, access.room(len(record.function.__defaults__ or ()))),
        ZERO=getattr(np, dtype)(0.0),
        STEP=staging.STEP[dtype],
        SECOND=count + 1,
        weighted=weighted,
        checked=checked,
        check_weight=access.check(NONNEGATIVE, dtype),
        **_sums(parts, weighted, checked, staging.STEP[dtype]),
        **MODES[mode],
    )
    words = ("parts" * bool(parts), "weighted" * weighted, "usual" * usual, stored, target, dtype)
    name = "_".join(filter(None, (record.name, mode, *words)))
    return compile_chunk(elementwise, name, signature, use)


@cache
def elementwise_driver(dtype: str, count: int, stored: str = "", target: str = "", parted: bool = False) -> Any:
    """The driver of all elementwise losses with this many predictions, or of sums whose parts are wanted."""
    returns = types.Tuple((types.float64, types.float64))
    arguments = _arguments(dtype, count, stored or dtype, target or dtype)
    name = "_".join(filter(None, (f"elementwise{count}", "parts" * parted, stored, target, dtype)))
    drive: Any = drive_elementwise
    rest: tuple[Any, ...] = (types.intp,)
    if parted:
        # No value of each element, but an array for the sums.
        drive, arguments, rest = drive_parts, (*arguments[:3], *arguments[4:]), (types.intp, array("float64"))
    signature = returns(types.intp, *arguments, *rest, types.boolean)
    return compile_driver(drive, name, signature, Drive(access.window[count]))


@cache
def pair_driver(dtype: str) -> Any:
    """The driver of small sums over one prediction and its target."""
    one, returns = array(dtype), types.Tuple((types.float64, types.float64))
    signature = returns(types.intp, one, one, one, types.float64, array("float64"), types.intp)
    drive = inner(drive_elementwise, INNER, Drive(access.window[1]))
    return compile_driver(drive_pair, f"pair_{dtype}", signature, drive_elementwise=drive)
