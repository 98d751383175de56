"""Losses as custom calls of XLA on the CPU: no copy, and no Python in the call."""

import ctypes
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numba

from ..call.arrays import BITS
from ..call.check import labels_allowed
from ..call.reduction import denominator
from ..losses.elementwise import ElementwiseLoss
from ..losses.rows import RowLoss
from ..spec.record import NONNEGATIVE
from .calls import Call
from .jax_arrays import computed_in

__all__ = ["served"]

_handlers: dict[str, Any] = {}
"""Handlers by the names of their custom calls, which keep them alive."""

_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


@cache
def _minor() -> int | None:
    """Return the minor version of XLA's interface; None where the runtime has another interface than handlers read."""
    from ..cpu.xla.frames import MAJOR

    try:
        text = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_text()
        major, minor = (int(re.search(rf"define XLA_FFI_API_{k} (\d+)", text)[1]) for k in ("MAJOR", "MINOR"))  # type: ignore[index]
    except (AttributeError, OSError, TypeError):
        return None
    return minor if major == MAJOR and not numba.config.DISABLE_JIT else None


def _is_served(call: Call) -> bool:
    """Whether handlers may serve a kind of call: of one set of parameters, on the CPU."""
    loss = call.loss
    plain = (
        not (loss._levels or loss._rewritten)
        and loss._backend in ("", "cpu")
        and call.reduction in ("mean", "sum", "none")
    )
    return plain and jax.default_backend() == "cpu" and _minor() is not None


@lru_cache(maxsize=1024)
def _target(call: Call, mode: str, dtype: str, target: str) -> str:
    """Register the handler of a kind of call in one precision; return the name of the custom call."""
    from ..cpu.xla.elementwise import Kind, handler_of

    loss = call.loss
    assert isinstance(loss, ElementwiseLoss)
    bits = {k: v.name for k, v in BITS.items()}
    formats = (str(computed_in(jnp.dtype(dtype))), bits.get(dtype, ""), bits.get(target, ""))
    divisor = denominator(call.reduction, call.options.get("divisor"), 0.0)
    by_row = call.reduction == "none" and mode != "hess"
    kernel = {"value": "rows", "grad": "rows_grad"}[mode] if by_row else mode
    kind = Kind(
        mode=kernel,
        weighted="weight" in call.names,
        averaged=divisor == 0.0,
        divisor=divisor,
        usual=loss._usual,
        message=_outside(call),
    )
    return registered(handler_of(loss._compiled, loss._packed, formats, kind, _minor() or 0))


def registered(handler: Any) -> str:
    """Register a handler, unless kinds of calls that differ in the names of their options alone share one."""
    name: str = handler.name
    if name not in _handlers:
        jax.ffi.register_ffi_target(name, _capsule(handler.address, None, None), platform="cpu", api_version=1)
        _handlers[name] = handler
    return name


def _outside(call: Call) -> str:
    """Return the error for an input outside its domain, which a handler cannot name."""
    record = call.loss.record
    names = record.predictions if len(record.predictions) > 1 else ("prediction",)
    allowed = dict(zip(names, map(str, record.prediction_domains), strict=True))
    allowed |= {"target": str(record.target_domain)} if record.target else {}
    allowed |= {"weight": str(NONNEGATIVE)} if "weight" in call.names else {}
    said = ", ".join(f"{k} {v}" for k, v in allowed.items())
    return f"{record.name}: an input is outside its domain; allowed: {said} (fastloss.{record.name} names the element)"


def served(call: Call, mode: str, arrays: tuple[Any, ...]) -> Any:
    """Return the results of a custom call; None for a kind of call that has none."""
    # No `input_output_aliases`: kernels of rows read logits after they wrote the gradient, and XLA would copy every
    # prediction that is not donated. A donated one gets the gradient by a copy, which XLA adds after the call.
    if not _is_served(call):
        return None
    if type(call.loss) is RowLoss:
        return _rows(call, mode, arrays)
    return _elements(call, mode, arrays) if isinstance(call.loss, ElementwiseLoss) else None


def _elements(call: Call, mode: str, arrays: tuple[Any, ...]) -> Any:
    """Return the results of an elementwise loss."""
    first, target = arrays[0], arrays[call.names.index("target")] if "target" in call.names else arrays[0]
    name = _target(call, mode, first.dtype.name, target.dtype.name if target.dtype == first.dtype else "")
    wide, n = computed_in(first.dtype), len(call.differentiable)
    shape = first.shape if call.reduction == "none" and mode != "hess" else ()
    like = [jax.ShapeDtypeStruct(first.shape, first.dtype)] * (n * {"value": 0, "grad": 1, "hess": 2}[mode])
    expected = [jax.ShapeDtypeStruct(shape, wide), *like]
    value, *found = jax.ffi.ffi_call(name, expected, vmap_method="broadcast_all")(*arrays)
    value = value.astype(first.dtype)
    return value if mode == "value" else (value, tuple(found)) if mode == "grad" else tuple(found[n:])


@lru_cache(maxsize=1024)
def _row_target(call: Call, mode: str, dtype: str, label: str, k: int) -> str:
    """Register the handler of a kind of row-wise call in one precision; return the name of the custom call."""
    from ..cpu.xla.rows import RowKind, row_handler_of

    loss, record = call.loss, call.loss.record
    divisor = denominator(call.reduction, call.options.get("divisor"), 0.0)
    smooth = bool(label) and loss.defaults.get("label_smoothing", 0.0) > 0.0
    ignored = call.options.get("ignore_index", -100)
    wanted = f"labels {labels_allowed(record.row_loop.classes(k), ignored)}" if label else str(record.target_domain)
    also = ", weights nonnegative" if len(call.names) > 2 else ""
    kind = RowKind(
        writes=mode == "grad",
        by_row=call.reduction == "none",
        weighted="weight" in call.names,
        classed="class_weight" in call.names,
        averaged=divisor == 0.0,
        divisor=divisor,
        ignored=ignored,
        smooth=smooth,
        k=k,
        message=f"{record.name}: a target or weight is not allowed; allowed: {wanted}{also} "
        f"(fastloss.{record.name} names the element)",
    )
    return registered(row_handler_of(record, loss._packed, (dtype, label), kind, _minor() or 0))


def _rows(call: Call, mode: str, arrays: tuple[Any, ...]) -> Any:
    """Return the results of a row-wise loss; None for the calls that its handler leaves to the NumPy loss."""
    z, loop, loss = arrays[0], call.loss.record.row_loop, call.loss
    ignored = call.options.get("ignore_index", -100)
    is_unusual = "class_weight" in call.names and (loop.thresholds or loss.defaults.get("z_loss", 0.0) > 0.0)
    if not (loop.has_classes and z.size and call.axis(z.ndim) == z.ndim - 1) or is_unusual:
        return None
    if not (ignored is None or (type(ignored) is int and abs(ignored) < 1 << 63)):
        return None
    place = call.names.index("target")
    target, label = arrays[place], ""
    if target.dtype.kind in "iub":
        label = "int64" if target.dtype.name in ("int64", "uint64", "uint32") and jax.config.jax_enable_x64 else "int32"
        arrays = (*arrays[:place], target.astype(label), *arrays[place + 1 :])
    name = _row_target(call, mode, z.dtype.name, label, z.shape[-1])
    shape = z.shape[:-1] if call.reduction == "none" else ()
    expected = [jax.ShapeDtypeStruct(shape, z.dtype), *[jax.ShapeDtypeStruct(z.shape, z.dtype)] * (mode == "grad")]
    value, *found = jax.ffi.ffi_call(name, expected, vmap_method="broadcast_all")(*arrays)
    return value if mode == "value" else (value, tuple(found))
