"""Losses of several arrays that are no elements beside each other: embeddings, boxes, masks, sequences, groups."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from . import check, devices, layout
from .arrays import (
    F32,
    F64,
    NAMES,
    compute_dtype,
    contiguous,
    direct,
    finish,
    incoming,
    outgoing,
    outputs,
    rounded,
    weights,
)
from .dispatch import sum_in_order, weight_sum
from .formulas.record import NONNEGATIVE, Formula, Input
from .loss import ComposedDoc, Loss, denominator, reduction_of

__all__ = ["ArrayLoss", "Call"]


class Call:
    """One call, as the module of kernels of a loss gets it: arrays laid out, room for what it computes."""

    def __init__(self, record: Formula, parameters: dict[str, Any], arrays: dict[str, Any], dims: layout.Dims) -> None:
        self.record = record
        self.parameters = parameters
        """Parameters as the caller means them: bools, words, None, whole numbers, floats."""
        self.arrays = arrays
        """Inputs by name, contiguous: floats in `dtype`, labels and offsets in int64; None where one is not given."""
        self.dims = dims
        self.shape = layout.shape_of(record.axes(parameters), dims)
        """The shape of the values of the loss."""
        self.values = np.zeros(math.prod(self.shape), F64)
        """To be filled: the loss of each unit, without weights; 0 where a unit does not count."""
        self.grads: dict[str, Any] = {}
        """To be filled, every element of it: the derivatives by input, each unit's times its factor; empty where
        only values are wanted."""
        self.counted: Any = None
        """To be set before `factors` is asked for where not every unit counts as one: float64, one a unit."""
        self.dtype: Any = F64
        self.weight: Any = None
        self.reduction = "mean"
        self.divisor: Any = None

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    @property
    def name(self) -> str:
        """The precision, as kernels are named."""
        return NAMES[self.dtype]

    @property
    def units(self) -> int:
        """How many values the loss has."""
        return self.values.size

    def numbers(self) -> Any:
        """The parameters of the formula itself, as a kernel takes them."""
        return self.packed[: len(self.record.function.__defaults__ or ())]

    packed: Any

    def divided(self) -> float:
        """What the sum of the losses is divided by; 0 where nothing counts."""
        if self.counted is None:
            return denominator(self.reduction, self.divisor, self.units, self.weight)
        mass = sum_in_order(self.counted, self.weight)[0] if self.reduction == "mean" and self.divisor is None else 0.0
        return denominator(self.reduction, self.divisor, mass, None)

    def factors(self) -> Any:
        """What the derivatives of each unit are to be multiplied by: one number a unit, or a single one for all."""
        divided = self.divided()
        scale = 1.0 / divided if divided != 0.0 else 0.0
        return np.full(1, scale) if self.weight is None else self.weight * scale


class ArrayLoss(Loss):  # noqa: D101
    # A loss of several arrays.
    __doc__ = ComposedDoc()

    __slots__ = ("_layouts", "_meant")

    _layouts: dict[Any, tuple[layout.Dims, dict[str, tuple[int, ...]]]]
    _meant: dict[str, Any]

    def __init__(self, record: Formula, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        meant = {k: record.parameters[k].meant(v) for k, v in self.defaults.items()}
        object.__setattr__(self, "_meant", meant)
        object.__setattr__(self, "_layouts", {})

    def __call__(
        self,
        *arrays: Any,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        **options: Any,
    ) -> Any:
        """Return the reduced loss, or its values one by one with ``reduction="none"``."""
        loss, inputs = self._sorted(arrays, options)
        return loss._run(inputs, weight, reduction, divisor, None, False)[0]

    def value_and_grad(
        self,
        *arrays: Any,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        out: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Return the loss and its gradient with respect to each input that it is differentiated by."""
        loss, inputs = self._sorted(arrays, options)
        return loss._run(inputs, weight, reduction, divisor, out, True)

    def grad_and_hess(self, *arrays: Any, **options: Any) -> tuple[Any, Any]:
        """Raise: such a loss has no second derivative."""
        raise ValueError(f"{self.name} has no second derivative; use value_and_grad")

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        given = eval(f"({self.record.example},)", {"np": np})
        for dtype in dtypes:
            arrays = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in given]
            self(*arrays)
            self.value_and_grad(*arrays)

    def _sorted(self, arrays: tuple[Any, ...], options: dict[str, Any]) -> tuple["ArrayLoss", dict[str, Any]]:
        """Sort what was given into inputs, which may come by name, and parameters."""
        inputs = self.record.inputs
        if arrays and type(arrays[0]) is tuple:
            arrays = (*arrays[0], *arrays[1:])
        names = list(inputs)
        if len(arrays) > len(names):
            raise TypeError(f"{self.name} takes {len(names)} arrays ({', '.join(names)}); {len(arrays)} given")
        given = dict(zip(names, arrays, strict=False))
        for name in [n for n in options if n in inputs] if options else ():
            if name in given:
                raise TypeError(f"{self.name}: {name} is given twice, by position and by name")
            given[name] = options.pop(name)
        missing = [n for n, spec in inputs.items() if not spec.optional and given.get(n) is None]
        if missing:
            raise TypeError(f"{self.name} needs {' and '.join(missing)}; it takes ({', '.join(names)})")
        return (self.bind(**options) if options else self), given

    def _run(
        self, inputs: dict[str, Any], weight: Any, reduction: Any, divisor: Any, out: Any, derivatives: bool
    ) -> tuple[Any, Any]:
        if devices.involved(self._backend, *inputs.values(), weight):
            arrays = (tuple(inputs.values()), weight, out)
            options = (tuple(inputs), reduction, divisor, derivatives)
            found: tuple[Any, Any] = devices.elsewhere(self, self._run_placed, arrays, *options)
            return found
        record = self.record
        reduction = reduction_of(record, reduction)
        raw = {k: incoming(v, k) for k, v in inputs.items() if v is not None}
        differentiable = [k for k in record.predictions if k in raw]
        dtypes = [compute_dtype(raw[k], k) for k in differentiable]
        dtype = F64 if F64 in dtypes else F32
        laid, dims = self._all_laid(raw, dtype)
        call = Call(record, self._meant, laid, dims)
        call.packed = self._packed
        call.dtype, call.reduction, call.divisor = dtype, reduction, divisor
        if weight is not None:
            call.weight = weights(weight, call.shape, F64)
            if weight_sum(call.weight)[1]:
                check.violation(self.name, "weight", call.weight.reshape(call.shape), NONNEGATIVE)
        outs: list[tuple[Any, ...]] = []
        if derivatives:
            others = [v for k, v in raw.items() if k not in differentiable]
            outs = outputs(out, 1, tuple(raw[k] for k in differentiable), (*others, weight))
            for k, o in zip(differentiable, outs[0], strict=True):
                shape = laid[k].shape
                call.grads[k] = o.reshape(shape) if direct(o, dtype) else np.empty(shape, dtype)
        # Nothing to compute: the values are 0, and so are the derivatives.
        nothing = call.units == 0 or any(laid[k].size == 0 for k in differentiable if not record.inputs[k].optional)
        if nothing:
            check.all_or_none(self.name, {k: raw[k].shape for k in record.together})
            for g in call.grads.values():
                g[...] = 0.0
        else:
            _kernels(record.loop)(call)
        if derivatives:
            for k, o in zip(differentiable, outs[0], strict=True):
                if not direct(o, dtype):
                    o[...] = rounded(call.grads[k].reshape(o.shape), o.dtype)
        back = outgoing(inputs[differentiable[0]])
        results = finish(outs, out, back)
        return self._reduced(call, raw[differentiable[0]].dtype, back), results[0] if results else None

    def _run_placed(
        self, inputs: tuple[Any, ...], weight: Any, out: Any, names: tuple[str, ...], *options: Any
    ) -> tuple[Any, Any]:
        """Compute on the CPU what `devices` brought there."""
        reduction, divisor, derivatives = options
        return self._run(dict(zip(names, inputs, strict=True)), weight, reduction, divisor, out, derivatives)

    def _reduced(self, call: Call, dtype: Any, back: Any) -> Any:
        if call.reduction == "none":
            call.divided()
            values = call.values if call.weight is None else np.where(call.weight, call.values * call.weight, 0.0)
            result = rounded(values.reshape(call.shape), dtype)
            return result if back is None else back(result)
        divided = call.divided()
        return sum_in_order(call.values, call.weight)[0] / divided if divided != 0.0 else 0.0

    def _all_laid(self, raw: dict[str, Any], dtype: Any) -> tuple[dict[str, Any], layout.Dims]:
        """Every input as kernels take it, None where it is not given; what shapes mean is remembered."""
        inputs = self.record.inputs
        key = tuple((k, a.shape) for k, a in raw.items())
        dims, shapes = self._layouts.get(key, ({}, {}))
        laid: dict[str, Any] = {}
        for k, spec in inputs.items():
            if k not in raw:
                laid[k] = layout.one_group(spec, dims) if spec.kind == "offsets" else None
            elif k in shapes:
                laid[k] = contiguous(raw[k], dtype).reshape(shapes[k])
            else:
                laid[k] = self._laid(k, raw[k], dtype, dims)
        if not shapes and len(self._layouts) < 256 and all(a.ndim for a in raw.values()):
            plain = [k for k in raw if inputs[k].kind == "float" and not layout.bounded(inputs[k].domain)]
            self._layouts[key] = dims, {k: laid[k].shape for k in plain}
        return laid, dims

    def _laid(self, name: str, a: Any, dtype: Any, dims: layout.Dims) -> Any:
        spec: Input = self.record.inputs[name]
        if spec.kind in ("float", "double"):
            dtype = F64 if spec.kind == "double" else dtype
            if a.ndim == 0 and spec.dims == "*" and not spec.grad and "*" in dims:
                a = np.full(dims["*"], a)
            laid = layout.laid(self.name, name, spec, a, dtype, dims)
            checked = layout.bounded(spec.domain) and name not in self.record.checked_by_kernel
            if checked and sum_in_order(laid.reshape(-1), domain=spec.domain)[1]:
                check.violation(self.name, name, a, spec.domain)
                check.violation(self.name, name, a.astype(dtype), spec.domain, note=f" in {NAMES[dtype]}")
            return laid
        ignore = self._meant.get("ignore_index")
        if spec.kind == "regions":
            return layout.laid_regions(self.name, name, spec, a, dtype, dims, ignore)
        return layout.laid_integers(self.name, name, spec, a, dims, ignore)


@cache
def _kernels(loop: str) -> Callable[[Call], None]:
    run: Callable[[Call], None] = import_module(f".kernels.{loop}", __package__).run
    return run
