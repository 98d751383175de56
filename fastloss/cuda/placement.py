"""Device arrays: their library, device and stream, and the transfer of inputs and results."""

import sys
import weakref
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ..call import check
from ..call.arrays import incoming, outgoing
from ..call.backend_choice import chosen, missing
from ..call.errors import BackendError, CallTypeError, CallValueError, warn
from ..call.request import Request
from ..spec.record import LOOPS, Formula
from .libraries import Host, borrowed, library_of, on_device, owner

__all__ = ["Place", "Placed", "elsewhere", "has_kernel", "involved", "note", "synchronize", "waits_for_all"]


class Placed(NamedTuple):
    """Contiguous device array, passed to kernels by address."""

    array: Any
    address: Any
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


def _flat(given: tuple[Any, ...]) -> list[Any]:
    """Return all arguments but None, with tuples and lists unpacked."""
    return [x for item in given for x in (item if type(item) in (tuple, list) else (item,)) if x is not None]


def number_alone(x: Any) -> bool:
    """Whether x is a scalar in host memory, which is broadcast."""
    return isinstance(x, (bool, int, float, np.number)) or (type(x) is np.ndarray and x.ndim == 0)


def involved(bound: str, *given: Any) -> bool:
    """Whether a call involves a GPU: it has device arrays, or requests "cuda" by name.

    `bound` is the backend that the loss is bound to; empty where it is not.
    """
    name = bound or chosen()
    if name == "cuda":
        return True
    for x in given:
        for a in x if type(x) is tuple else (x,):
            if type(a) is not np.ndarray and a is not None and on_device(a):
                if name == "cpu":
                    problem = "is 'cpu', and an array lies on a GPU; move it to host memory, or take 'auto'"
                    raise BackendError(problem, "backend")
                return True
    return False


class Place:
    """Library, device and stream of a call."""

    def __init__(self, library: Any, like: Any, back: Callable[[Any], Any] | None) -> None:
        self.library, self.like, self.back = library, like, back
        self.number = 0 if library.__class__ is Host else library.device(like)
        self.handle = library.stream(like)

    @property
    def on_host(self) -> bool:
        """Whether the caller's arrays are in host memory."""
        return isinstance(self.library, Host)

    def current(self) -> Any:
        """Return a context in which the device is the current one."""
        from numba import cuda

        return cuda.gpus[self.number]

    @property
    def stream(self) -> Any:
        """Return the caller's stream as a Numba stream."""
        return _stream(self.handle)

    def take(self, x: Any, what: str, dtype: str = "", shape: tuple[int, ...] | None = None) -> Placed:
        """Return an input as a device array, converted to `dtype` and broadcast to `shape` where these are given."""
        if number_alone(x) and shape is not None and not self.on_host:
            x = self.library.full(shape, float(x), dtype, self.like)
        if self.on_host:
            a = incoming(x, what)
            if shape is not None and a.shape != shape:
                a = np.broadcast_to(a, shape)
            x = self.library.cuda.to_device(np.ascontiguousarray(a, dtype or a.dtype))
        else:
            x = borrowed(x)
            if owner(x) is None:
                raise CallTypeError(f"is a {type(x).__name__} in host memory; expected an array on the GPU", what)
        name, contiguous = self.library.described(x, what)
        if shape is not None and tuple(x.shape) != shape:
            x, contiguous = self.library.broadcast(x, shape), True
        # Kernels take addresses alone: what they cannot read as it lies is copied on the device.
        if not contiguous or (dtype and name != dtype):
            name = dtype or name
            x = self.library.converted(x, name)
        return Placed(x, self.library.address(x), tuple(x.shape), name)

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """Return the caller's array with one axis moved."""
        if source == target:
            return x
        found = self.library.moved(x if self.on_host else borrowed(x), what, source, target)
        return found if self.back is None else self.back(found)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Placed:
        """Return an uninitialised device array for a result."""
        x = self.library.empty(shape, dtype, self.like)
        return Placed(x, self.library.address(x), shape, dtype)

    def give(self, placed: Placed) -> Any:
        """Return a result as an array of the caller's library."""
        if not self.on_host:
            return placed.array if self.back is None else self.back(placed.array)
        a = placed.array.copy_to_host()
        if a.ndim == 0:
            return float(a)
        return a if self.back is None else self.back(a)


@lru_cache(maxsize=64)
def _stream(handle: int) -> Any:
    from numba import cuda

    return cuda.external_stream(handle) if handle else 0


def _arrays(given: tuple[Any, ...]) -> list[Any]:
    return [x for x in _flat(given) if (hasattr(x, "shape") or type(x) is list) and not number_alone(x)]


def _not_mixed(*given: Any) -> None:
    """Raise where some arrays lie on a GPU and others do not."""
    if len(set(map(on_device, _arrays(given)))) > 1:
        raise CallValueError("takes arrays that are all on a GPU or all in host memory; some lie on either")


def place_of(*given: Any) -> Place:
    """Return the library, device and stream of a GPU call; raise ValueError for arrays on several devices."""
    arrays = _arrays(given)
    if not any(map(on_device, arrays)):
        return Place(library_of(Host), None, outgoing(arrays[0]) if arrays else None)
    first = borrowed(arrays[0])
    kind = owner(first)
    library = library_of(kind)
    numbers = {library.device(y) if owner(y) is kind else -1 for y in map(borrowed, arrays)}
    if len(numbers) > 1:
        raise CallValueError("takes arrays of one device and one library; these lie on several, or belong to several")
    back = None if first is arrays[0] else _lender(arrays[0])
    return Place(library, first, back)


def _lender(x: Any) -> Callable[[Any], Any]:
    """Return the function that converts a CuPy or torch array to the library that owns x."""
    name = type(x).__module__.split(".")[0]
    library = sys.modules["jax.dlpack"] if name.startswith("jax") else sys.modules[name]
    return library.from_dlpack  # type: ignore[no-any-return]


def on_host(run: Callable[[Request], Any], request: Request) -> Any:
    """Copy device arrays to the host, compute there, and copy the results back to the device."""
    first = next(borrowed(x) for x in _flat(request.arrays) if on_device(x))
    library = library_of(owner(first))
    loss = "float32" if library.described(first, "input")[0] in ("float32", "float16", "bfloat16") else "float64"

    def down(x: Any) -> Any:
        if type(x) in (tuple, list):
            return tuple(map(down, x))
        return library.to_host(borrowed(x)) if on_device(x) else x

    def up(x: Any) -> Any:
        if isinstance(x, tuple):
            return getattr(x, "_make", tuple)(map(up, x))
        return x if x is None else library.from_host(np.asarray(x, loss) if type(x) is float else x, first)

    return up(run(request.with_arrays(*map(down, request.arrays))))


class ArrayKernels(NamedTuple):
    """CUDA kernels of one loop over several arrays."""

    module: str
    """Module whose function `launch` launches them."""
    waits_for_all: bool = False
    """Whether derivatives need sums over whole inputs, which are then read a second time."""


ARRAYS = {
    "points": ArrayKernels("points"),
    "embeddings.pairs": ArrayKernels("pairs"),
    "regions.sums": ArrayKernels("regions.run", waits_for_all=True),
}
"""CUDA kernels of losses over several arrays, by loop."""

RUNNERS = {"elementwise": "run_elementwise", **dict.fromkeys(LOOPS, "rows.run"), **dict.fromkeys(ARRAYS, "run_arrays")}
"""Modules that run losses on a GPU, by loop."""


def has_kernel(record: Formula) -> bool:
    """Whether a loss runs on a GPU."""
    return record.loop in RUNNERS


def waits_for_all(record: Formula) -> bool:
    """Whether the derivatives of a loss need sums over whole inputs on a GPU."""
    return record.loop in ARRAYS and ARRAYS[record.loop].waits_for_all


def elsewhere(loss: Any, on_cpu: Callable[[Request], Any], request: Request) -> Any:
    """Run a GPU call; fall back to the CPU where CUDA cannot serve it and was not requested by name."""
    arrays = request.arrays
    _not_mixed(*arrays)
    reason = missing() if has_kernel(loss.record) else f"{loss.name} has no CUDA kernel"
    if not (request.reduction is None or isinstance(request.reduction, str)):
        reason = f"{type(request.reduction).__name__} has no CUDA kernel"
    if not reason:
        place = place_of(*arrays)
        try:
            # Overflow in float32 gives infinity without a warning, as on the CPU.
            with place.current(), np.errstate(all="ignore"):
                return import_module(f".{RUNNERS[loss.record.loop]}", __package__).run(place, loss, request)
        except NotImplementedError as error:
            reason = str(error)
    if (loss._backend or chosen()) == "cuda":
        raise BackendError(f"is 'cuda', but {reason}", "backend")
    if request.out is not None:
        raise BackendError(f"cannot be written by a call that runs on the CPU, as {reason}; leave it away", "out")
    # A fallback that copies each batch is worth knowing of.
    warn(f"{loss.name} runs on the CPU, with copies: {reason}")
    return on_host(on_cpu, request)


class _Pending(NamedTuple):
    """Inputs of an unfinished GPU call, with the device cell that records the first domain violation."""

    loss: str
    device: int
    cell: Any
    library: Any
    names: tuple[str, ...]
    domains: tuple[Any, ...]
    inputs: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]


_pending: deque[_Pending] = deque(maxlen=256)


def _reference(x: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(x)
    except TypeError:
        return lambda: None


def note(
    loss: str,
    place: Place,
    cell: Placed,
    names: tuple[str, ...],
    domains: tuple[Any, ...],
    inputs: tuple[Placed | None, ...],
) -> None:
    """Register the cell in which a call records domain violations; calls on host arrays raise at once."""
    # Weak, so that an unread violation keeps no batch in the memory of the device.
    references = tuple(_reference(None if x is None else x.array) for x in inputs)
    shapes = tuple(() if x is None else x.shape for x in inputs)
    _pending.append(_Pending(loss, place.number, cell.array, place.library, names, domains, references, shapes))
    if place.on_host:
        # The results are on their way to the host: waiting costs nothing more.
        _explain(_pending.pop())


NOTHING = 2**63 - 1
"""Index stored in a cell while no violation was found: the largest int64."""


def _explain(call: _Pending) -> None:
    place = int(np.asarray(call.library.to_host(call.cell)).reshape(-1)[-1])
    if place == NOTHING:
        return
    index, which = place >> 3, (place & 7) - 1
    shape = call.shapes[which]
    array = call.inputs[which]()
    value = ""
    if array is not None:
        found = incoming(call.library.to_host(array), call.names[which]).reshape(-1)[index]
        value = f"{found}".removesuffix(".0")
    problem = f"is {value or 'out of its domain'}; allowed: {call.domains[which]}"
    raise CallValueError(problem, call.names[which], check.index_of(index, shape), call.loss)


def synchronize() -> None:
    """Wait for the GPU and raise the first domain error found by calls since the last wait.

    A call on device arrays does not wait. A label out of range, or a value outside its domain, makes its loss NaN, and
    the error names it.

    Raises
    ------
    ValueError
        Naming the loss, the input, the index of the first violation, and the allowed values.
    """
    calls = list(_pending)
    _pending.clear()
    if "numba.cuda" in sys.modules and not missing():
        from numba import cuda

        cuda.synchronize()
        for number in {call.device for call in calls}:
            with cuda.gpus[number]:
                cuda.synchronize()
    for call in calls:
        _explain(call)
