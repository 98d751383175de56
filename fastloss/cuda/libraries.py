"""Adapters with one interface for libraries whose arrays may lie on a GPU."""

import sys
from functools import cache
from typing import Any

import numpy as np

from ..call.arrays import incoming, tensor
from ..call.errors import CallTypeError

__all__ = ["DLPACK_CUDA", "LIBRARIES", "CuPy", "Host", "Numba", "Torch", "borrowed", "library_of", "on_device", "owner"]


class Torch:
    """Adapter for torch tensors on a GPU."""

    @staticmethod
    def owns(x: Any) -> bool:
        """Whether x is an array of this library on a GPU."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(x, torch.Tensor) and x.is_cuda

    def __init__(self) -> None:
        self.torch = sys.modules["torch"]

    def device(self, x: Any) -> int:
        """Return the device number."""
        return int(x.device.index)

    def stream(self, x: Any) -> int:
        """Return the driver handle of the caller's stream."""
        return int(self.torch.cuda.current_stream(x.device).cuda_stream)

    def described(self, x: Any, what: str) -> tuple[str, bool]:
        """Return the dtype's name, and whether the array is C-contiguous."""
        if x.requires_grad:
            raise CallTypeError(
                f"is a tensor that requires grad; pass {what}.detach(), or take the loss from fl.torch", what
            )
        return str(x.dtype).removeprefix("torch."), x.is_contiguous()

    def converted(self, x: Any, dtype: str) -> Any:
        """Return a contiguous array converted to another dtype."""
        return x.to(getattr(self.torch, dtype)).contiguous()

    def broadcast(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Return a contiguous array broadcast to another shape."""
        return self.torch.broadcast_to(x, shape).contiguous()

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """Return the array with one axis moved."""
        return self.torch.movedim(x, source, target)

    def address(self, x: Any) -> int:
        """Return the address of the first element."""
        return int(x.data_ptr())

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return an uninitialised array on the device of `like`."""
        return self.torch.empty(shape, dtype=getattr(self.torch, dtype), device=like.device)

    def full(self, shape: tuple[int, ...], value: float, dtype: str, like: Any) -> Any:
        """Return a constant array on the device of `like`."""
        return self.torch.full(shape, value, dtype=getattr(self.torch, dtype), device=like.device)

    def to_host(self, x: Any) -> Any:
        """Return a copy of the array in host memory."""
        return x.detach().cpu()

    def from_host(self, a: Any, like: Any) -> Any:
        """Return a copy of a host array on the device of `like`."""
        return self.torch.as_tensor(a).to(like.device)


class CuPy:
    """Adapter for CuPy arrays."""

    @staticmethod
    def owns(x: Any) -> bool:
        """Whether x is an array of this library on a GPU."""
        cupy = sys.modules.get("cupy")
        return cupy is not None and isinstance(x, cupy.ndarray)

    def __init__(self) -> None:
        self.cupy = sys.modules["cupy"]

    def device(self, x: Any) -> int:
        """Return the device number."""
        return int(x.device.id)

    def stream(self, x: Any) -> int:
        """Return the driver handle of the caller's stream."""
        return int(self.cupy.cuda.get_current_stream(x.device.id).ptr)

    def described(self, x: Any, what: str) -> tuple[str, bool]:
        """Return the dtype's name, and whether the array is C-contiguous."""
        return x.dtype.name, bool(x.flags.c_contiguous)

    def converted(self, x: Any, dtype: str) -> Any:
        """Return a contiguous array converted to another dtype."""
        return self.cupy.ascontiguousarray(x, dtype=dtype)

    def broadcast(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Return a contiguous array broadcast to another shape."""
        return self.cupy.ascontiguousarray(self.cupy.broadcast_to(x, shape))

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """Return the array with one axis moved."""
        return self.cupy.moveaxis(x, source, target)

    def address(self, x: Any) -> int:
        """Return the address of the first element."""
        return int(x.data.ptr)

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return an uninitialised array on the device of `like`."""
        return self.cupy.empty(shape, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: str, like: Any) -> Any:
        """Return a constant array on the device of `like`."""
        return self.cupy.full(shape, value, dtype)

    def to_host(self, x: Any) -> Any:
        """Return a copy of the array in host memory."""
        return x.get()

    def from_host(self, a: Any, like: Any) -> Any:
        """Return a copy of a host array on the device of `like`."""
        return self.cupy.asarray(a)


class Numba:
    """Adapter for Numba device arrays, and for the simulator's, whose address is the NumPy array behind them."""

    @staticmethod
    def owns(x: Any) -> bool:
        """Whether x is an array of this library on a GPU."""
        return bool(getattr(type(x), "__cuda_ndarray__", False))

    def __init__(self) -> None:
        from numba import cuda

        from .runtime.memory import SIMULATED

        self.cuda, self.simulated = cuda, SIMULATED

    def device(self, x: Any) -> int:
        """Return the device number."""
        return 0 if self.simulated else int(x.gpu_data.context.device.id)

    def stream(self, x: Any) -> int:
        """Return the driver handle of the caller's stream."""
        return int(getattr(x, "stream", 0) or 0)

    def described(self, x: Any, what: str) -> tuple[str, bool]:
        """Return the dtype's name, and whether the array is C-contiguous."""
        return x.dtype.name, bool(x.is_c_contiguous())

    def converted(self, x: Any, dtype: str) -> Any:
        """Raise an error: Numba cannot convert dtypes on a device."""
        raise CallTypeError(
            f"cannot convert a Numba device array of dtype {x.dtype} and strides {x.strides}, as Numba "
            f"converts nothing on a device; expected {dtype} and contiguous"
        )

    def broadcast(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Raise an error: Numba cannot broadcast on a device."""
        raise CallTypeError(f"cannot broadcast a Numba device array of shape {x.shape}; expected {shape}")

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """Raise an error: Numba cannot move axes on a device."""
        raise NotImplementedError(f"Numba moves no axes on a device; {what} needs its classes along the last axis")

    def address(self, x: Any) -> Any:
        """Return the address of the first element."""
        return x._ary.reshape(-1) if self.simulated else int(x.__cuda_array_interface__["data"][0])

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Return an uninitialised array on the device of `like`."""
        return self.cuda.device_array(shape, dtype, stream=getattr(like, "stream", 0))

    def full(self, shape: tuple[int, ...], value: float, dtype: str, like: Any) -> Any:
        """Return a constant array on the device of `like`, copied from the host, as Numba cannot fill one there."""
        return self.cuda.to_device(np.full(shape, value, dtype), stream=getattr(like, "stream", 0))

    def to_host(self, x: Any) -> Any:
        """Return a copy of the array in host memory."""
        a = x.copy_to_host()
        # On a stream of its own the copy need not have ended.
        if not self.simulated and x.stream:
            x.stream.synchronize()
        return a

    def from_host(self, a: Any, like: Any) -> Any:
        """Return a copy of a host array on the device of `like`."""
        return self.cuda.to_device(np.require(a, requirements="C"))


class Host(Numba):
    """Adapter for arrays in host memory, copied to the GPU for a call, whose results are copied back."""

    def stream(self, x: Any) -> int:
        """Return the default stream."""
        return 0

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """Return the array with one axis moved."""
        return np.moveaxis(incoming(x, what), source, target)


LIBRARIES = (Torch, CuPy, Numba)


@cache
def library_of(kind: Any) -> Any:
    """Return the single adapter of a class."""
    return kind()


def owner(x: Any) -> Any:
    """Return the adapter of a device array; None for an array in host memory."""
    for kind in LIBRARIES:
        if kind.owns(x):
            return kind
    return None


def borrowed(x: Any) -> Any:
    """Return a CuPy or torch view of a DLPack array from another library; x itself otherwise."""
    if owner(x) is not None or not on_device(x):
        return x
    for name in ("cupy", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            return module.from_dlpack(x)
    raise CallTypeError(f"needs CuPy or torch to read an array of {type(x).__module__} on a GPU; import one of them")


DLPACK_CUDA = 2


def on_device(x: Any) -> bool:
    """Whether an array of any library lies on a GPU."""
    if owner(x) is not None:
        return True
    # Spares tensors the DLPack query, which fails for devices that DLPack does not know.
    device = None if isinstance(x, np.ndarray) or tensor(x) else getattr(type(x), "__dlpack_device__", None)
    return device is not None and int(device(x)[0]) == DLPACK_CUDA
