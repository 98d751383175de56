"""Which kernels write to an array that overlaps another of their arguments; run with NUMBA_DISABLE_JIT=1."""

import functools

import numpy as np

from fastloss.cpu.runtime import specialize

_plain = specialize.bind
_found = set()


def _arrays(arguments, names):
    """Arrays among arguments and in tuples of them, with the names of the arguments."""
    for name, a in zip(names, arguments, strict=False):
        if isinstance(a, tuple):
            yield from _arrays(a, [name] * len(a))
        elif isinstance(a, np.ndarray) and a.size:
            yield name, a


def _watched(function):
    @functools.wraps(function)
    def call(*arguments):
        given = list(_arrays(arguments, function.__code__.co_varnames))
        pairs = [(x, y) for i, x in enumerate(given) for y in given[:i] if np.may_share_memory(x[1], y[1])]
        before = [(x[1].tobytes(), y[1].tobytes()) for x, y in pairs]
        result = function(*arguments)
        for (x, y), was in zip(pairs, before, strict=True):
            if (x[1].tobytes(), y[1].tobytes()) != was:
                _found.add((function.__name__, y[0], x[0]))
        return result

    return call


def _bind(template, use=None, **functions):
    return _watched(_plain(getattr(template, "__wrapped__", template), use, **functions))


# Before any kernel is imported: they take the function by name.
specialize.bind = _bind


def planted(x, y):
    """A function that breaks the promise, to see that it is found."""
    x[0] += y[0]


def found():
    """Function, and two of its arguments that overlap though one is written, for every loss."""
    import array_cases
    import test_addresses

    import fastloss as fl

    dtype = np.dtype(np.float64)
    a = np.ones(2)
    specialize.bind(planted)(a, a)
    with np.errstate(all="ignore"):
        for name, loss in fl.LOSSES.items():
            for given, predictions in test_addresses.calls(name, dtype):
                test_addresses.bits(name, given, predictions, dtype, 0, 0)
                if loss.record.family == "arrays":
                    for variant in array_cases.SAMPLES[name].variants:
                        loss.value_and_grad(**given, **variant)
    return sorted(_found)
