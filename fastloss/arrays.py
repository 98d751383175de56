"""What comes in and what goes out: anything array-like in, the kind of the prediction out."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import check

__all__ = [
    "BITS",
    "F32",
    "F64",
    "NAMES",
    "apart",
    "common_half",
    "compute_dtype",
    "contiguous",
    "direct",
    "finish",
    "flat",
    "incoming",
    "kernel_view",
    "outgoing",
    "outputs",
    "plain",
    "rounded",
    "tensor",
    "weights",
]

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)

NAMES = {F32: "float32", F64: "float64"}
"""What dtype.name says, without the microsecond that it takes."""


def incoming(x: Any, what: str) -> Any:
    """View or convert x as a plain NumPy array of numbers; memory is shared where it can be."""
    if type(x) is np.ndarray:
        a = x
    elif isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{what} is a masked array; pass .filled(...) values, or the mask as weight")
        a = np.asarray(x)
    elif getattr(x, "requires_grad", False):
        raise TypeError(f"{what} is a tensor that requires grad; pass {what}.detach()")
    elif hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"{what} lies on a GPU; expected an array in host memory")
    elif hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        a = np.from_dlpack(x)
    elif _brain_tensor(x):
        a = x.float().numpy()
    else:
        try:
            a = np.asarray(x)
        except ValueError as error:
            raise TypeError(f"{what} is no array of numbers: {error}") from None
    if a.dtype.kind not in "fiub" and a.dtype.name != "bfloat16":
        raise TypeError(f"{what} has dtype {a.dtype}; expected real numbers")
    return a


def tensor(x: Any) -> bool:
    """Whether x is a tensor of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _brain_tensor(x: Any) -> bool:
    """Whether x is a tensor of bfloat16, which NumPy has no name for."""
    return tensor(x) and x.dtype is sys.modules["torch"].bfloat16


def compute_dtype(a: Any, what: str) -> Any:
    """The precision that kernels use for a prediction: its own, float32 for the half formats."""
    dtype = a.dtype
    if dtype is F32 or dtype is F64:
        return dtype
    # By name, which is the same for either byte order.
    if dtype.name == "float64":
        return F64
    if dtype.name in ("float32", "float16", "bfloat16"):
        return F32
    raise TypeError(f"{what} has dtype {dtype}; expected float64, float32, float16 or bfloat16")


def common_half(arrays: tuple[Any, ...]) -> Any:
    """The format of 16 bits that all of some arrays have, in native byte order; None if they have none."""
    dtype = arrays[0].dtype
    if dtype.itemsize != 2 or dtype.name not in ("float16", "bfloat16") or any(a.dtype != dtype for a in arrays):
        return None
    return dtype if dtype.isnative else dtype.newbyteorder("=")


BITS = {"float16": np.dtype(np.int16), "bfloat16": np.dtype(np.uint16)}
"""The integers as which kernels take numbers of 16 bits."""


class _Unlocked:
    """Shows read-only memory as writable, for kernels of one array type that never write their inputs."""

    def __init__(self, a: Any) -> None:
        self.__array_interface__ = {**a.__array_interface__, "data": (a.__array_interface__["data"][0], False)}
        self.owner = a


def contiguous(a: Any, dtype: Any) -> Any:
    """The array as kernels take it: native, aligned, C-contiguous, of a writable type; a copy only if it must be."""
    if a.dtype is dtype and a.flags.carray:
        return a
    a = np.require(a, dtype, ["C", "A"])
    # The view names the format again: an interface knows no bfloat16.
    return a if a.flags.writeable else np.asarray(_Unlocked(a)).view(a.dtype)


def flat(a: Any, dtype: Any) -> Any:
    """The same, in one dimension."""
    a = contiguous(a, dtype)
    return a if a.ndim == 1 else a.reshape(-1)


def _to_torch(a: Any) -> Any:
    return sys.modules["torch"].from_numpy(a)


def _to_brain_tensor(a: Any) -> Any:
    return _to_torch(a).bfloat16()


def outgoing(prediction: Any) -> Callable[[Any], Any] | None:
    """How a result array becomes the prediction's kind; None where it stays a NumPy array."""
    if type(prediction) is np.ndarray:
        return None
    if tensor(prediction):
        return _to_brain_tensor if _brain_tensor(prediction) else _to_torch
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


def outputs(out: Any, sets: int, raw: tuple[Any, ...], others: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The arrays that the results go to: one tuple per derivative order, one array per prediction.

    ``others`` are the inputs beside the predictions, as the caller gave them: nothing may be written over them.
    """
    if out is None:
        return [tuple(np.empty(x.shape, x.dtype) for x in raw) for _ in range(sets)]
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
    """The memory of an output, as a plain NumPy array."""
    if type(a) is np.ndarray:
        return a
    if isinstance(a, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array; expected a plain NumPy array")
    if isinstance(a, np.ndarray):
        return np.asarray(a)
    if _brain_tensor(a):
        raise TypeError(f"{what} is a bfloat16 tensor, which NumPy cannot write; pass a float32 one")
    if tensor(a) or hasattr(a, "__cuda_array_interface__"):
        return incoming(a, what)
    raise TypeError(f"{what} is a {type(a).__name__}; expected a NumPy array")


def kernel_view(o: Any, dtype: Any) -> Any:
    """Where the kernel writes: the output itself, or a buffer to be copied into it."""
    if direct(o, dtype):
        return o if o.ndim == 1 else o.reshape(-1)
    return np.empty(o.size, dtype)


def direct(o: Any, dtype: Any) -> bool:
    """Whether a kernel can write into the array as it stands."""
    return o.dtype is dtype and o.flags.carray


def plain(out: Any, like: Any, target: Any) -> bool:
    """Whether out can be written without further question: an array like the prediction that shares no memory."""
    return (
        type(out) is np.ndarray
        and out.dtype is like.dtype
        and out.shape == like.shape
        and out.flags.carray
        and not np.may_share_memory(out, like)
        and not np.may_share_memory(out, target)
    )


def rounded(a: Any, dtype: Any) -> Any:
    """An array in another precision: what is too large becomes infinite without a warning, as in the kernels."""
    with np.errstate(over="ignore", invalid="ignore"):
        return a.astype(dtype, copy=False)


def apart(outs: tuple[Any, ...], inputs: tuple[Any, ...], count: int) -> bool:
    """Whether some outputs can be written without further question, as `plain` says of one."""
    if len(outs) != count or not all(plain(o, inputs[0], inputs[-1]) for o in outs):
        return False
    others = inputs[1:-1]
    shared = (np.may_share_memory(o, x) for k, o in enumerate(outs) for x in (*others, *outs[k + 1 :]))
    return not any(shared)


def finish(groups: list[tuple[Any, ...]], out: Any, back: Any) -> list[Any]:
    """Results as the caller sees them, one per derivative order: what was given as out, or arrays of its kind."""
    if out is not None:
        return [out] if len(groups) == 1 else list(out)
    if back is not None:
        groups = [tuple(back(a) for a in group) for group in groups]
    return [group[0] if len(group) == 1 else group for group in groups]
