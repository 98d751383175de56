"""Libraries whose arrays may lie on a GPU: what is asked of each, in one set of words."""

import sys
from functools import cache
from typing import Any

import numpy as np

from .arrays import incoming, tensor

__all__ = ["DLPACK_CUDA", "LIBRARIES", "CuPy", "Host", "Numba", "Torch", "borrowed", "library_of", "on_device", "owner"]


class Torch:
    """Tensors on a GPU."""

    @staticmethod
    def owns(x: Any) -> bool:
        """Whether x is such an array."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(x, torch.Tensor) and x.is_cuda

    def __init__(self) -> None:
        self.torch = sys.modules["torch"]

    def device(self, x: Any) -> int:
        """The number of the device."""
        return int(x.device.index)

    def stream(self, x: Any) -> int:
        """The stream on which the caller works, as the driver's handle."""
        return int(self.torch.cuda.current_stream(x.device).cuda_stream)

    def described(self, x: Any, what: str) -> tuple[str, bool]:
        """Name of the dtype, and whether the elements follow each other."""
        if x.requires_grad:
            raise TypeError(f"{what} is a tensor that requires grad; pass {what}.detach()")
        return str(x.dtype).removeprefix("torch."), x.is_contiguous()

    def converted(self, x: Any, dtype: str) -> Any:
        """A contiguous array of another dtype."""
        return x.to(getattr(self.torch, dtype)).contiguous()

    def broadcast(self, x: Any, shape: tuple[int, ...]) -> Any:
        """A contiguous array of another shape."""
        return self.torch.broadcast_to(x, shape).contiguous()

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """The array with an axis in another place."""
        return self.torch.movedim(x, source, target)

    def address(self, x: Any) -> int:
        """Where the first element lies."""
        return int(x.data_ptr())

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Room on the device of an array."""
        return self.torch.empty(shape, dtype=getattr(self.torch, dtype), device=like.device)

    def full(self, shape: tuple[int, ...], value: float, dtype: str, like: Any) -> Any:
        """Equal numbers on the device of an array."""
        return self.torch.full(shape, value, dtype=getattr(self.torch, dtype), device=like.device)

    def to_host(self, x: Any) -> Any:
        """The array in host memory."""
        return x.detach().cpu()

    def from_host(self, a: Any, like: Any) -> Any:
        """An array in host memory, on the device of another."""
        return self.torch.as_tensor(a).to(like.device)


class CuPy:
    """Arrays of CuPy."""

    @staticmethod
    def owns(x: Any) -> bool:
        """Whether x is such an array."""
        cupy = sys.modules.get("cupy")
        return cupy is not None and isinstance(x, cupy.ndarray)

    def __init__(self) -> None:
        self.cupy = sys.modules["cupy"]

    def device(self, x: Any) -> int:
        """The number of the device."""
        return int(x.device.id)

    def stream(self, x: Any) -> int:
        """The stream on which the caller works, as the driver's handle."""
        return int(self.cupy.cuda.get_current_stream(x.device.id).ptr)

    def described(self, x: Any, what: str) -> tuple[str, bool]:
        """Name of the dtype, and whether the elements follow each other."""
        return x.dtype.name, bool(x.flags.c_contiguous)

    def converted(self, x: Any, dtype: str) -> Any:
        """A contiguous array of another dtype."""
        return self.cupy.ascontiguousarray(x, dtype=dtype)

    def broadcast(self, x: Any, shape: tuple[int, ...]) -> Any:
        """A contiguous array of another shape."""
        return self.cupy.ascontiguousarray(self.cupy.broadcast_to(x, shape))

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """The array with an axis in another place."""
        return self.cupy.moveaxis(x, source, target)

    def address(self, x: Any) -> int:
        """Where the first element lies."""
        return int(x.data.ptr)

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Room on the device of an array."""
        return self.cupy.empty(shape, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: str, like: Any) -> Any:
        """Equal numbers on the device of an array."""
        return self.cupy.full(shape, value, dtype)

    def to_host(self, x: Any) -> Any:
        """The array in host memory."""
        return x.get()

    def from_host(self, a: Any, like: Any) -> Any:
        """An array in host memory, on the device of another."""
        return self.cupy.asarray(a)


class Numba:
    """Device arrays of Numba; those of its simulator too, whose address is the NumPy array behind them."""

    @staticmethod
    def owns(x: Any) -> bool:
        """Whether x is such an array."""
        return bool(getattr(type(x), "__cuda_ndarray__", False))

    def __init__(self) -> None:
        from numba import cuda

        from .kernels.cuda.memory import SIMULATED

        self.cuda, self.simulated = cuda, SIMULATED

    def device(self, x: Any) -> int:
        """The number of the device."""
        return 0 if self.simulated else int(x.gpu_data.context.device.id)

    def stream(self, x: Any) -> int:
        """The stream on which the caller works, as the driver's handle."""
        return int(getattr(x, "stream", 0) or 0)

    def described(self, x: Any, what: str) -> tuple[str, bool]:
        """Name of the dtype, and whether the elements follow each other."""
        return x.dtype.name, bool(x.is_c_contiguous())

    def converted(self, x: Any, dtype: str) -> Any:
        """Raise: Numba converts nothing on a device."""
        raise TypeError(
            f"a Numba device array has dtype {x.dtype} and strides {x.strides}; expected {dtype} and contiguous, "
            "as Numba converts nothing on a device"
        )

    def broadcast(self, x: Any, shape: tuple[int, ...]) -> Any:
        """Raise: Numba broadcasts nothing on a device."""
        raise TypeError(f"a Numba device array has shape {x.shape}; expected {shape}")

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """Raise: Numba moves no axes on a device."""
        raise NotImplementedError(f"Numba moves no axes on a device; {what} needs its classes along the last axis")

    def address(self, x: Any) -> Any:
        """Where the first element lies."""
        return x._ary.reshape(-1) if self.simulated else int(x.__cuda_array_interface__["data"][0])

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Room on the device of an array."""
        return self.cuda.device_array(shape, dtype, stream=getattr(like, "stream", 0))

    def full(self, shape: tuple[int, ...], value: float, dtype: str, like: Any) -> Any:
        """Equal numbers on the device of an array; Numba fills none there, they are copied."""
        return self.cuda.to_device(np.full(shape, value, dtype), stream=getattr(like, "stream", 0))

    def to_host(self, x: Any) -> Any:
        """The array in host memory."""
        a = x.copy_to_host()
        # On a stream of its own the copy need not have ended.
        if not self.simulated and x.stream:
            x.stream.synchronize()
        return a

    def from_host(self, a: Any, like: Any) -> Any:
        """An array in host memory, on the device of another."""
        return self.cuda.to_device(np.require(a, requirements="C"))


class Host(Numba):
    """Arrays in host memory that are to be computed on a GPU: copied there, and the results back."""

    def stream(self, x: Any) -> int:
        """The default stream."""
        return 0

    def moved(self, x: Any, what: str, source: int, target: int) -> Any:
        """The array with an axis in another place."""
        return np.moveaxis(incoming(x, what), source, target)


LIBRARIES = (Torch, CuPy, Numba)


@cache
def library_of(kind: Any) -> Any:
    """The one object of a library's class."""
    return kind()


def owner(x: Any) -> Any:
    """The library of a device array; None for what lies in host memory."""
    for kind in LIBRARIES:
        if kind.owns(x):
            return kind
    return None


def borrowed(x: Any) -> Any:
    """An array of another library that lends its memory by DLPack, as one of CuPy or torch; x itself otherwise."""
    if owner(x) is not None or not on_device(x):
        return x
    for name in ("cupy", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            return module.from_dlpack(x)
    raise TypeError(f"a {type(x).__module__} array on a GPU needs CuPy or torch to lend its memory; import one of them")


DLPACK_CUDA = 2


def on_device(x: Any) -> bool:
    """Whether an array lies on a GPU, whoever owns it."""
    if owner(x) is not None:
        return True
    # A tensor has said where it lies, and DLPack has no word for some places.
    device = None if isinstance(x, np.ndarray) or tensor(x) else getattr(type(x), "__dlpack_device__", None)
    return device is not None and int(device(x)[0]) == DLPACK_CUDA
