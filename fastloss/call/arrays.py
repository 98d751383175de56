"""Conversion of array-like inputs to NumPy arrays for kernels, and of results to the caller's array type."""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import check, memory
from .errors import CallTypeError, CallValueError
from .frames import refuse_missing

__all__ = [
    "BITS",
    "F32",
    "F64",
    "I64",
    "LEAST",
    "NAMES",
    "common_half",
    "compute_dtype",
    "constants",
    "contiguous",
    "direct",
    "filled",
    "finish",
    "flat",
    "incoming",
    "keep_finite",
    "kernel_view",
    "not_floating",
    "on_host",
    "outgoing",
    "outputs",
    "predicted",
    "rounded",
    "tensor",
    "unlocked",
    "unwrapped",
    "weights",
]

F32, F64, I64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)

I64_MAX = int(np.iinfo(np.int64).max)

LEAST = int(np.iinfo(np.int64).min)
"""Label of an ignored row where ignore_index is also a class."""

NAMES = {F32: "float32", F64: "float64"}
"""Names of the two computing dtypes; a look-up here saves the microsecond that dtype.name takes."""


@lru_cache(maxsize=256)
def constants(dtype: Any, *numbers: float) -> Any:
    """Return a few numbers as an array, which is kept for later calls and which kernels only read."""
    return np.array(numbers, dtype)


def incoming(x: Any, what: str) -> Any:
    """Return x as a plain NumPy array of numbers, sharing its memory where possible."""
    if type(x) is np.ndarray:
        a = x
    elif isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise CallTypeError("is a masked array; pass .filled(...) values, or the mask as weight", what)
        a = np.asarray(x)
    elif getattr(x, "requires_grad", False):
        raise CallTypeError(
            f"is a tensor that requires grad; pass {what}.detach(), or take the loss from fl.torch", what
        )
    elif hasattr(x, "__cuda_array_interface__"):
        raise CallTypeError("lies on a GPU; expected an array in host memory", what)
    elif hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        a = np.from_dlpack(x)
    elif _brain_tensor(x):
        a = x.float().numpy()
    else:
        refuse_missing(x, what)
        try:
            a = np.asarray(x)
        except ValueError as error:
            raise CallTypeError(f"is no array of numbers: {error}", what) from None
        except TypeError as error:
            if type(error).__name__ != "TracerArrayConversionError":
                raise
            raise CallTypeError("is traced by JAX; take the loss from fl.jax", what) from None
    if a.dtype.kind not in "fiub" and a.dtype.name != "bfloat16":
        raise CallTypeError(f"has dtype {a.dtype}; expected real numbers", what)
    return a


def on_host(x: Any, what: str) -> Any:
    """Return an array of parameters as a NumPy array, copied where it lies on a GPU or requires grad."""
    x = x.detach() if getattr(x, "requires_grad", False) else x
    if hasattr(x, "__cuda_array_interface__"):
        x = x.cpu() if hasattr(x, "cpu") else x.get() if hasattr(x, "get") else x.copy_to_host()
    return incoming(x, what)


def predicted(x: Any, what: str) -> Any:
    """Return a prediction as a plain NumPy array; integers become float64, in which the loss is computed."""
    a = incoming(x, what)
    return a.astype(F64) if a.dtype.kind in "iu" else a


def tensor(x: Any) -> bool:
    """Whether x is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _brain_tensor(x: Any) -> bool:
    """Whether x is a bfloat16 tensor; NumPy has no such dtype."""
    return tensor(x) and x.dtype is sys.modules["torch"].bfloat16


def compute_dtype(a: Any, what: str) -> Any:
    """Return the dtype in which kernels compute: the prediction's own, float32 for the 16-bit formats."""
    dtype = a.dtype
    if dtype is F32 or dtype is F64:
        return dtype
    # Compares names, which do not depend on the byte order.
    if dtype.name == "float64":
        return F64
    if dtype.name in ("float32", "float16", "bfloat16"):
        return F32
    raise not_floating(dtype, what)


def not_floating(dtype: Any, what: str) -> CallTypeError:
    """Return the error for a prediction that is neither floating nor integer."""
    hint = f"; to take True as 1 pass {what}.astype(float)" if str(dtype) == "bool" else ""
    return CallTypeError(f"has dtype {dtype}; expected float64, float32, float16, bfloat16 or integers{hint}", what)


def common_half(arrays: tuple[Any, ...]) -> Any:
    """Return the 16-bit dtype shared by all arrays, in native byte order; None if they share none."""
    dtype = arrays[0].dtype
    if dtype.itemsize != 2 or dtype.name not in ("float16", "bfloat16") or any(a.dtype != dtype for a in arrays):
        return None
    return dtype if dtype.isnative else dtype.newbyteorder("=")


BITS = {"float16": np.dtype(np.int16), "bfloat16": np.dtype(np.uint16)}
"""Integer dtypes under which kernels read and write 16-bit floats."""


class _Unlocked:
    """Read-only memory that claims to be writable."""

    __slots__ = ("__array_interface__", "owner")

    __array_interface__: Any
    owner: Any


def unlocked(a: Any) -> Any:
    """Return a writable view of read-only memory, for kernels that accept one array type and never write inputs."""
    interface, lender = a.__array_interface__, _Unlocked()
    interface["data"] = (interface["data"][0], False)
    lender.__array_interface__, lender.owner = interface, a
    return np.asarray(lender)


def contiguous(a: Any, dtype: Any) -> Any:
    """Return a native, aligned, C-contiguous array of a writable type, copying only if necessary."""
    if a.dtype is dtype and a.flags.carray:
        return a
    # As in `rounded`: 1e300 is infinite in float32, and no warning says so.
    with np.errstate(over="ignore", invalid="ignore"):
        a = np.require(a, dtype, ["C", "A"])
    if not a.flags.writeable:
        a = unlocked(a)
    # The view names the format: an interface knows no bfloat16, and equal dtypes may be several objects.
    return a if a.dtype is dtype else a.view(dtype)


def flat(a: Any, dtype: Any) -> Any:
    """Return a one-dimensional contiguous array, copying only if necessary."""
    a = contiguous(a, dtype)
    return a if a.ndim == 1 else a.reshape(-1)


def _to_torch(a: Any) -> Any:
    return sys.modules["torch"].from_numpy(a)


def _to_brain_tensor(a: Any) -> Any:
    return _to_torch(a).bfloat16()


def outgoing(prediction: Any) -> Callable[[Any], Any] | None:
    """Return the function that converts results to the prediction's array type; None for NumPy arrays."""
    if type(prediction) is np.ndarray:
        return None
    if tensor(prediction):
        return _to_brain_tensor if _brain_tensor(prediction) else _to_torch
    return None


def weights(weight: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return weights as a contiguous array, broadcast to the given shape."""
    w = incoming(weight, "weight")
    if w.shape != shape:
        try:
            w = np.broadcast_to(w, shape)
        except ValueError:
            raise CallValueError(
                f"has shape {w.shape}; expected {shape}, or one that broadcasts to it", "weight"
            ) from None
    return flat(w, dtype)


def outputs(out: Any, sets: int, raw: tuple[Any, ...], others: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the output arrays: one tuple per derivative order, one array per prediction.

    ``others`` are the inputs beside the predictions, as the caller gave them: nothing may be written over them.
    """
    if out is None:
        return [tuple(memory.empty(x.shape, x.dtype) for x in raw) for _ in range(sets)]
    names, groups = ["out"], (out,)
    if sets == 2:
        names, groups = ["out[0]", "out[1]"], check.entries("out", out, 2, "a pair (gradient, curvature)")
    inputs = (*raw, *(incoming(x, "input") for x in others if x is not None))
    taken: list[Any] = []
    result = []
    for name, group in zip(names, groups, strict=True):
        if len(raw) == 1:
            arrays: tuple[Any, ...] = (_writable(group, name),)
        else:
            group = check.entries(name, group, len(raw), f"{len(raw)} arrays, one per prediction")
            arrays = tuple(_writable(a, f"{name}[{i}]") for i, a in enumerate(group))
        for i, (a, x) in enumerate(zip(arrays, raw, strict=True)):
            what = name if len(raw) == 1 else f"{name}[{i}]"
            check.output(what, a, x.shape, x.dtype, inputs, taken)
            taken.append(a)
        result.append(arrays)
    return result


def _writable(a: Any, what: str) -> Any:
    """Return a plain NumPy view of an output's memory."""
    if type(a) is np.ndarray:
        return a
    if isinstance(a, np.ma.MaskedArray):
        raise CallTypeError("is a masked array; expected a plain NumPy array", what)
    if isinstance(a, np.ndarray):
        return np.asarray(a)
    if _brain_tensor(a):
        raise CallTypeError("is a bfloat16 tensor, which NumPy cannot write; pass a float32 one", what)
    if tensor(a) or hasattr(a, "__cuda_array_interface__"):
        return incoming(a, what)
    raise CallTypeError(f"is a {type(a).__name__}; expected a NumPy array", what)


def kernel_view(o: Any, dtype: Any) -> Any:
    """Return the array that the kernel writes: the output itself, or a buffer to be copied into it."""
    if direct(o, dtype):
        return o if o.ndim == 1 else o.reshape(-1)
    return memory.empty((o.size,), dtype)


def direct(o: Any, dtype: Any) -> bool:
    """Whether a kernel can write into the array directly."""
    return o.dtype is dtype and o.flags.carray


def unwrapped(a: Any, ignored: int | None) -> Any:
    """Return integers as int64; larger ones become the largest int64, or one less where that is ignore_index."""
    if a.dtype != np.uint64:
        return a.astype(I64, copy=False)
    largest = I64_MAX - (ignored == I64_MAX)
    return np.minimum(a, np.uint64(largest)).astype(I64)


def filled(shape: tuple[int, ...], number: Any, dtype: Any) -> Any:
    """Return a constant array; a value too large for the dtype becomes infinite without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.full(shape, number, dtype)


def rounded(a: Any, dtype: Any) -> Any:
    """Return an array converted to a dtype; overflow gives infinity without a warning, as in the kernels."""
    with np.errstate(over="ignore", invalid="ignore"):
        if a.dtype == dtype or a.nbytes < memory.SMALLEST:
            return a.astype(dtype, copy=False)
        result = memory.empty(a.shape, dtype)
        result[...] = a
        return result


LARGEST = {"float16": 0x7BFF, "bfloat16": 0x7F7F}
"""Bit pattern of the largest finite value of each 16-bit format."""


def keep_finite(curvatures: tuple[Any, ...]) -> None:
    """Replace surrogate curvatures that overflowed in 16 bits by the largest finite value, in place."""
    for a in curvatures:
        if a.dtype.name in LARGEST:
            np.minimum(a, np.array(LARGEST[a.dtype.name], np.uint16).view(a.dtype), out=a)


def finish(groups: list[tuple[Any, ...]], out: Any, back: Any) -> list[Any]:
    """Return the results per derivative order: the caller's out arrays, or arrays of the caller's type."""
    if out is not None:
        return [out] if len(groups) == 1 else list(out)
    if back is not None:
        groups = [tuple(back(a) for a in group) for group in groups]
    return [group[0] if len(group) == 1 else group for group in groups]
