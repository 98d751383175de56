"""What comes in and what goes out: anything array-like in, the kind of the prediction out."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import check

__all__ = [
    "F32",
    "F64",
    "NAMES",
    "compute_dtype",
    "contiguous",
    "direct",
    "finish",
    "flat",
    "incoming",
    "kernel_view",
    "outgoing",
    "outputs",
    "weights",
]

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)

NAMES = {F32: "float32", F64: "float64"}
"""What dtype.name says, without the microsecond that it takes."""



def incoming(x: Any, what: str) -> Any:
    """View or convert x as a plain NumPy array of numbers; memory is shared where it can be."""
    if type(x) is np.ndarray:
        a = x
    elif isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array; pass .filled(...) values, or the mask as weight")
    elif getattr(x, "requires_grad", False):
        raise TypeError(f"{what} is a tensor that requires grad; pass {what}.detach()")
    elif hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"{what} lies on a GPU; expected an array in host memory")
    elif hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        a = np.from_dlpack(x)
    elif _torch_half(x):
        a = x.float().numpy()
    else:
        a = np.asarray(x)
    if a.dtype.kind not in "fiub" and a.dtype.name != "bfloat16":
        raise TypeError(f"{what} has dtype {a.dtype}; expected real numbers")
    return a


def _torch_half(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16


def compute_dtype(a: Any, what: str) -> Any:
    """The precision that kernels use for a prediction: its own, float32 for the half formats."""
    dtype = a.dtype
    if dtype is F32 or dtype is F64:
        return dtype
    if dtype == F64:
        return F64
    if dtype in (F32, np.float16) or dtype.name == "bfloat16":
        return F32
    raise TypeError(f"{what} has dtype {dtype}; expected float64, float32, float16 or bfloat16")


class _Unlocked:
    """Shows read-only memory as writable, for kernels of one array type that never write their inputs."""

    def __init__(self, a: Any) -> None:
        self.__array_interface__ = {**a.__array_interface__, "data": (a.__array_interface__["data"][0], False)}
        self.owner = a


def contiguous(a: Any, dtype: Any) -> Any:
    """The array as kernels take it: native, aligned, C-contiguous, of a writable type; a copy only if it must be."""
    if a.dtype is dtype and a.flags.carray:
        return a
    a = np.require(a, dtype, "CA")
    return a if a.flags.writeable else np.asarray(_Unlocked(a))


def flat(a: Any, dtype: Any) -> Any:
    """The same, in one dimension."""
    a = contiguous(a, dtype)
    return a if a.ndim == 1 else a.reshape(-1)


def _to_torch(a: Any) -> Any:
    return sys.modules["torch"].from_numpy(a)


def outgoing(prediction: Any) -> Callable[[Any], Any] | None:
    """How a result array becomes the prediction's kind; None where it stays a NumPy array."""
    if type(prediction) is np.ndarray:
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(prediction, torch.Tensor):
        return _to_torch
    return None


def weights(weight: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Weights as kernels take them: of the shape given, or broadcast to it."""
    w = incoming(weight, "weight")
    if w.shape != shape:
        try:
            w = np.broadcast_to(w, shape)
        except ValueError:
            raise ValueError(f"weight has shape {w.shape}; expected {shape}, or one that broadcasts to it") from None
    return flat(w, dtype)


def outputs(out: Any, sets: int, raw: tuple[Any, ...], inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The arrays that the results go to: one tuple per derivative order, one array per prediction."""
    if out is None:
        return [tuple(np.empty(x.shape, x.dtype) for x in raw) for _ in range(sets)]
    single = len(raw) == 1
    groups = (out,) if sets == 1 else out
    if sets == 2 and not (isinstance(out, tuple) and len(out) == 2):
        raise TypeError("out is one array; expected a pair (gradient, curvature)")
    names = ("out",) if sets == 1 else ("out[0]", "out[1]")
    result = []
    taken = list(inputs)
    for name, group in zip(names, groups, strict=True):
        arrays = (group,) if single else tuple(group)
        if len(arrays) != len(raw):
            raise TypeError(f"{name} has {len(arrays)} arrays; expected {len(raw)}, one per prediction")
        for a, x in zip(arrays, raw, strict=True):
            a = incoming(a, name) if not isinstance(a, np.ndarray) else a
            check.output(name, a, x.shape, x.dtype, taken)
            taken.append(a)
        result.append(arrays)
    return result


def kernel_view(o: Any, dtype: Any) -> Any:
    """Where the kernel writes: the output itself, or a buffer to be copied into it."""
    if direct(o, dtype):
        return o if o.ndim == 1 else o.reshape(-1)
    return np.empty(o.size, dtype)


def direct(o: Any, dtype: Any) -> bool:
    """Whether a kernel can write into the array as it stands."""
    return o.dtype is dtype and o.flags.carray


def finish(group: tuple[Any, ...], back: Any) -> Any:
    """Results as the caller sees them: one array, or a tuple of one per prediction."""
    arrays = group if back is None else tuple(back(a) for a in group)
    return arrays[0] if len(arrays) == 1 else arrays
