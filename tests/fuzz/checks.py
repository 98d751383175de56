"""What must hold for every call: bits, layouts, threads, outputs, inputs, warnings, the reference, polite refusals."""

import inspect
import warnings
from contextlib import contextmanager

import numpy as np
from array_cases import SAMPLES, truth
from calls import Call, draw, pick
from layout_cases import read_only, swapped, unaligned

import fastloss as fl
from fastloss import reference

SPECIAL_NUMBERS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 5e-324, -1e-40, 3e38, -3e38, 1e308, -1e308, 1e-300)
ROUGH = {np.dtype(np.float32): 2e-3, np.dtype(np.float64): 1e-8}
"""Tolerances that no rounding of an ordinary call reaches: other tests count the digits."""
DENSE = {
    *("cross_entropy", "kl_div", "js_div", "tv_distance", "reverse_kl", "label_relaxation", "sparsemax_loss"),
    *("dirichlet_evidential", "distillation", "crps_ensemble"),
}
"""Losses of rows whose reference takes a target of floats."""


class Finding(AssertionError):
    """A property that does not hold for a call."""


def require(held, what):
    if not held:
        raise Finding(what)


@contextmanager
def quiet():
    """Turn every warning into an error, but for one that a loss gives on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"sinkhorn\w*: after \d+ iterations")
        yield


def parts(result):
    """The arrays and numbers of a result, flattened."""
    if isinstance(result, (tuple, list)):
        return [p for r in result for p in parts(r)]
    return [np.asarray(result)]


def same(a, b):
    """Whether two results have the same values, NaN where NaN is, and zeros of one sign."""
    pairs = zip(parts(a), parts(b), strict=True)
    return all(
        x.dtype.name == y.dtype.name
        and np.array_equal(x, y, equal_nan=True)
        and np.array_equal(np.signbit(x) & ~np.isnan(x), np.signbit(y) & ~np.isnan(y))
        for x, y in pairs
    )


# Other arrays of the same numbers ------------------------------------------------------------------------------------


def fortran(a):
    return a.copy(order="F")


def spread(a):
    wide = np.zeros((*a.shape, 2), a.dtype)
    wide[..., 0] = a
    return wide[..., 0]


def backwards(a):
    return a[::-1].copy()[::-1] if a.ndim else a


def shifted(a):
    room = np.zeros(a.size + 1, a.dtype)
    room[1:] = a.reshape(-1)
    return room[1:].reshape(a.shape)


LAYOUTS = (fortran, swapped, spread, backwards, shifted, unaligned, read_only)


# Valid calls ---------------------------------------------------------------------------------------------------------


def fenced_outputs(call):
    """Outputs between canaries: the arrays to write, and a function that says whether the canaries are alive."""
    rooms, outs = [], []
    for k in call.differentiable:
        a = call.arrays[k]
        room = np.full(a.size + 64, 123.0, a.dtype)
        rooms.append(room)
        outs.append(room[32 : 32 + a.size].reshape(a.shape))

    def alive():
        return all((r[:32] == 123.0).all() and (r[r.size - 32 :] == 123.0).all() for r in rooms)

    return (tuple(outs) if len(outs) > 1 else outs[0]), alive


def check_bits(rng, call, result):
    """The same bits again, on other threads, from arrays that lie otherwise, and in outputs of the caller."""
    before = fl.get_num_threads()
    try:
        fl.set_num_threads(1)
        require(same(call(), result), f"other bits on one thread than on {before}")
    finally:
        fl.set_num_threads(before)
    layout = pick(rng, LAYOUTS)
    require(same(call.moved(layout)(), result), f"other bits from arrays that are {layout.__name__}")
    out, alive = fenced_outputs(call)
    got = call(out=out)
    require(all(a is b for a, b in zip(tuples(got[1]), tuples(out), strict=True)), "out is not what is returned")
    require(same(got, result), "other bits in out")
    require(alive(), "something was written beside out")


def tuples(x):
    return x if isinstance(x, tuple) else (x,)


def check_value(call, result):
    """The value without a gradient is that with one, and the rows are those of the sum."""
    close(call("value"), result[0], call, "the value without a gradient")
    if "divisor" in call.options or call.options.get("reduction") == "none":
        return
    rows = call("value", reduction="none")
    total = call("value", reduction="sum")
    if np.isfinite(rows).all():
        size = float(np.abs(rows).sum(dtype=np.float64))
        close(total, rows.sum(dtype=np.float64), call, "the sum of the rows", size)


def close(got, expected, call, what, size=0.0):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    tolerance = ROUGH[call.arrays[call.differentiable[0]].dtype] * condition(call)
    finite = np.isfinite(expected)
    size = max(size, float(np.abs(expected[finite]).max(initial=0.0)), 1.0)
    require(got.shape == expected.shape, f"{what} has shape {got.shape}, not {expected.shape}")
    with np.errstate(invalid="ignore"):  # both may be infinite
        wrong = finite & ~(np.abs(got - expected) <= tolerance * size)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise Finding(f"{what} is {got[at]!r}, not {expected[at]!r}, at {at}")


def condition(call):
    return SAMPLES[call.name].condition if call.name in SAMPLES else 1.0


SILENT = {"log_loss": "it clips at the epsilon of the type"}
"""Losses of which the reference does not speak in every call, with the reason."""


def oracle(call):
    """What the reference says of each value, and where it has a say; None where it is silent."""
    record, name = call.loss.record, call.name
    if name in SILENT:
        return None, None
    settings = ("reduction", "weight", "divisor", "class_weight")
    options = {k: v for k, v in call.options.items() if k not in settings}
    wide = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in call.arrays.items()}
    if record.family == "arrays":
        for k, spec in record.inputs.items():
            if spec.kind == "offsets" and k not in wide:
                wide[k] = np.array([0, wide[record.predictions[0]].shape[0]])
        return truth(name, wide, options), None
    function = getattr(reference, name)
    given = [wide[k] for k in record.predictions] + ([wide["target"]] if "target" in wide else [])
    if record.family == "elementwise":
        return np.asarray(function(*given, **options)), None
    z, t = given
    kept = t != -100 if t.dtype.kind == "i" else np.full(len(z), True)
    if (t.dtype.kind == "f" and name not in DENSE) or not kept.any():
        return None, None
    taken = inspect.signature(function).parameters
    if "class_weight" in call.options:
        if "class_weight" not in taken:
            return None, None
        options["class_weight"] = call.options["class_weight"]
    if "logit_scale" not in taken:
        z = z * options.pop("logit_scale", 1.0)
        z = z / (1.0 if "temperature" in taken else options.pop("temperature", 1.0))
    z, t = z[kept], t[kept]
    if name in ("kl_div", "js_div"):
        t = np.eye(z.shape[1])[t] if t.dtype.kind == "i" else t
    return np.asarray(function(z, t, **options)), kept


def check_reference(rng, call):
    """Rows are those of the textbook; now and then the gradient is its slope in some direction."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, kept = oracle(call)
    if expected is None:
        return
    bare = Call(call.name, call.arrays, {k: v for k, v in call.options.items() if k not in ("divisor", "weight")})
    rows = bare("value", reduction="none")
    if kept is not None:
        require(not np.any(rows[~kept]), "an ignored row costs something")
        rows = rows[kept]
    close(rows, expected, call, "a value of the reference")
    if rng.random() < 0.3 and rows.dtype == np.float64:
        check_slope(rng, bare)


def check_slope(rng, call):
    """The gradient in a direction is the slope of the reference, where that is smooth and nothing is held constant."""
    sample = SAMPLES.get(call.name)
    held = (sample is not None and sample.held) or (call.name == "gaussian_nll" and call.options.get("beta"))
    if held or sum(call.arrays[k].size for k in call.differentiable) > 3000:
        return
    step = {k: rng.normal(size=call.arrays[k].shape) for k in call.differentiable}

    def total(h):
        moved = {k: a + h * step[k] if k in step else a for k, a in call.arrays.items()}
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(oracle(Call(call.name, moved, call.options))[0].sum())

    wide, narrow = ((total(h) - total(-h)) / (2 * h) for h in (2e-5, 1e-5))
    bend = (total(1e-5) - 2 * total(0.0) + total(-1e-5)) / 1e-5
    grads = tuples(call(reduction="sum")[1])
    each = [float((g * step[k]).sum()) for k, g in zip(call.differentiable, grads, strict=True)]
    size = sum(float(np.abs(g * step[k]).sum()) for k, g in zip(call.differentiable, grads, strict=True)) + 1.0
    # A kink gives two steps other slopes, and a kink at the very point another slope on either side.
    smooth = np.isfinite(wide) and abs(wide - narrow) <= 1e-6 * size and abs(bend) < 1e-3 * size
    if smooth and abs(total(0.0)) < 1e6 * size:
        require(abs(sum(each) - wide) <= 1e-4 * size, f"the slope is {sum(each)!r}, not {wide!r}")


def check_valid(rng, call):
    """All that holds for a call that must be accepted, or for one of special numbers that was."""
    copies = {k: a.tobytes() for k, a in call.arrays.items()}
    with quiet():
        try:
            result = call()
        except (TypeError, ValueError) as error:
            require(not call.valid, f"a valid call is refused: {error}")
            check_refusal(call, error)
            return
        check_bits(rng, call, result)
        if call.plain:
            check_value(call, result)
        if call.loss.record.second and rng.random() < 0.3:
            call("grad_and_hess")
    require(all(a.tobytes() == copies[k] for k, a in call.arrays.items()), "an input was written")
    if call.plain:
        check_reference(rng, call)


# Calls to be refused -------------------------------------------------------------------------------------------------


def check_refusal(call, error):
    """A refusal is one sentence that names the loss or the argument."""
    text = str(error)
    require(type(error).__module__ in ("builtins", "fastloss"), f"{type(error).__name__}: {text}")
    require("\n" not in text and 8 < len(text) < 600, f"the message is no sentence: {text!r}")
    record = call.loss.record
    words = {call.name, *call.arrays, *record.parameters, *WORDS}
    require(any(w in text for w in words), f"the message names neither the loss nor an argument: {text!r}")


WORDS = (
    *("target", "prediction", "weight", "class_weight", "out"),
    *("reduction", "divisor", "ignore_index", "axis", "backend", "details"),
)


def spoiled(rng, call):
    """The call with a few numbers that are not ordinary."""
    arrays = {k: a.copy() for k, a in call.arrays.items()}
    floats = [k for k, a in arrays.items() if a.dtype.kind == "f" and a.size]
    with np.errstate(all="ignore"):
        for k in rng.permutation(floats)[: rng.integers(1, 3)]:
            for _ in range(rng.integers(1, 4)):
                arrays[k].reshape(-1)[rng.integers(arrays[k].size)] = pick(rng, SPECIAL_NUMBERS)
    return Call(call.name, arrays, call.options, valid=False, plain=False)


def halved(call):
    """The call in float16: rounding may leave a domain, so that it may be refused."""
    with np.errstate(over="ignore"):
        arrays = {k: a.astype(np.float16) if a.dtype.kind == "f" else a for k, a in call.arrays.items()}
    return call_of(call, arrays)


def replaced(call, key, value):
    return Call(call.name, {**call.arrays, key: value}, call.options, valid=False, plain=False)


def with_options(call, **options):
    return Call(call.name, call.arrays, {**call.options, **options}, valid=False, plain=False)


WRONG = (
    *(np.nan, np.inf, -1, -1e30, 10**400, 2**63, 1e-320, 1j, True),
    *(None, "2", b"2", [], {}, (1, 2), object(), np.ones(3)),
)
"""What a parameter, a weight or a switch may be given by mistake."""


def broken(rng, call):
    """The call with one thing wrong: a shape, a dtype, a label, a parameter, an option or an output."""
    key = pick(rng, list(call.arrays))
    a = call.arrays[key]
    ways = {
        "shape": lambda: replaced(call, key, a[:-1] if a.ndim and len(a) else np.ones((2, 3))),
        "more axes": lambda: replaced(call, key, a[None]),
        "number": lambda: replaced(call, key, pick(rng, (3, 0.5, -2))),
        "no array": lambda: replaced(call, key, pick(rng, WRONG)),
        "dtype": lambda: replaced(
            call, key, a.astype(pick(rng, (object, complex, str, np.float16, np.int8, np.uint64, np.longdouble, bool)))
        ),
        "empty": lambda: replaced(call, key, a[:0] if a.ndim else a),
        "nothing at all": lambda: call_of(call, {k: b[:0] if b.ndim else b for k, b in call.arrays.items()}),
        "labels": lambda: replaced(call, key, wrong_labels(rng, a)),
        "parameter": lambda: with_options(call, **{pick(rng, names_of(call)): pick(rng, WRONG)}),
        "two parameters": lambda: with_options(
            call, **{pick(rng, names_of(call)): pick(rng, WRONG), pick(rng, names_of(call)): 0.5}
        ),
        "out": lambda: with_options(call, out=pick(rng, (a, a.copy(), a[..., None], np.ones(3), (a, a), [], "out", 3))),
    }
    return ways[pick(rng, list(ways))]()


def call_of(call, arrays):
    return Call(call.name, arrays, call.options, valid=False, plain=False)


def names_of(call):
    record = call.loss.record
    common = ("weight", "reduction", "divisor", "reductoin", "curvature", "backend")
    return [*record.parameters, *common, "class_weight", "ignore_index", "axis", "details"]


def wrong_labels(rng, a):
    """Whole numbers out of any range, where labels or floats were."""
    if a.size == 0:
        return a
    values = np.array(pick(rng, (-1, -101, 2**31, 2**63 - 1, -(2**63))), np.int64)
    b = a.astype(np.int64) if a.dtype.kind in "iub" or np.isfinite(a).all() else np.zeros(a.shape, np.int64)
    b.reshape(-1)[rng.integers(b.size)] = values
    return np.where(b < 0, np.uint64(2**64 - 1), b.astype(np.uint64)) if rng.random() < 0.2 else b


def check_broken(rng, call):
    """A wrong call is refused in a sentence, or accepted; inputs stay as they were, and nothing warns."""
    arrays = {k: a for k, a in call.arrays.items() if isinstance(a, np.ndarray)}
    copies = {k: a.copy() for k, a in arrays.items()}
    with quiet():
        for method in ("value_and_grad", "value"):
            if method == "value" and "out" in call.options:
                continue
            try:
                call(method)
            except (TypeError, ValueError) as error:
                if not unexpected_keyword(error):
                    check_refusal(call, error)
    written = call.options.get("out")
    for k, a in arrays.items():
        if not any(a is o or np.may_share_memory(a, o) for o in tuples(written) if isinstance(o, np.ndarray)):
            require(a.tobytes() == copies[k].tobytes() or a.dtype == object, f"{k} was written")


def unexpected_keyword(error):
    """Python's own message for an argument that no function has."""
    return "unexpected keyword argument" in str(error) or "multiple values for" in str(error)


ROUND = 8
"""Calls one after another of one loss in one precision, which share its compiled kernels."""


def one(seed, index, names, small=False):
    """Draw call number `index` of a seed and check it: the call, and what does not hold for it, or None."""
    common, rng = np.random.default_rng([seed, index // ROUND, 1]), np.random.default_rng([seed, index])
    name, dtype = pick(common, names), pick(common, (np.float32, np.float64))
    call, way, check = draw(rng, name, dtype, small=small), rng.random(), check_valid
    if dtype is np.float32 and common.random() < 0.2:
        call = halved(call)
    elif way > 0.75:
        call, check = broken(rng, call), check_broken
    elif way > 0.55:
        call = spoiled(rng, call)
    try:
        check(rng, call)
    except Finding as finding:
        return call, str(finding)
    except Exception as error:
        return call, f"{type(error).__name__}: {error}"
    return call, None
