"""Public class of losses over several differently shaped arrays: embeddings, boxes, masks, sequences, groups."""

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from ..call import check, layout, memory
from ..call.arrays import (
    F32,
    F64,
    NAMES,
    compute_dtype,
    constants,
    contiguous,
    direct,
    filled,
    finish,
    incoming,
    outgoing,
    outputs,
    predicted,
    rounded,
    weights,
)
from ..call.backend_choice import chosen, cuda_was_selected
from ..call.errors import CallTypeError, CallValueError, named
from ..call.frames import refuse_other_index
from ..call.reduction import BATCH_MEAN, REDUCTIONS, by_batch, denominator, reduction_of
from ..call.request import Request
from ..cpu.dispatch import PARALLEL_FROM, small_sum, sum_in_order, weighed, weight_sum
from ..cuda import placement
from ..spec.record import NONNEGATIVE, Formula, Input
from .base import ComposedDoc, Loss, remember
from .fast_path import PLANS
from .forms import FORMS, How, reformed
from .plans import Plan, kernels, planned
from .risks.base import UNITS, Risk, single, units_under_risk

__all__ = ["ArrayLoss", "Call"]


def _sum_of(values: Any, weight: Any) -> float:
    """Return the sum of values, each times its weight."""
    if weight is None and values.size < PARALLEL_FROM:
        return small_sum(F64)(values)[0]
    return sum_in_order(values, weight)[0]


class Call:
    """One call as passed to a module of kernels: inputs in the form kernels read, and buffers for the results."""

    def __init__(
        self,
        record: Formula,
        parameters: dict[str, Any],
        arrays: dict[str, Any],
        dims: layout.Dims,
        shape: tuple[int, ...],
        values: Any = None,
    ) -> None:
        self.record = record
        self.parameters = parameters
        """Parameter values in the types of the public interface: bools, strings, None, integers, floats."""
        self.arrays = arrays
        """Contiguous inputs by name: floats in `dtype`, labels and offsets in int64; None for omitted inputs."""
        self.dims = dims
        self.shape = shape
        """Shape of the per-unit losses."""
        self.values = memory.zeros((math.prod(shape),), F64) if values is None else values
        """Buffer for the unweighted loss of each unit; kernels write 0 where a unit does not count."""
        self.grads: dict[str, Any] = {}
        """Buffers for the derivatives by input, of which kernels write every element, times the factor of its unit;
        empty where the call returns values alone."""

    given: dict[str, Any]
    """Inputs by name as the caller passed them, for messages."""
    packed: Any
    # Saves 1 us a call: defaults of the class, which the constructor does not set.
    counted: Any = None
    """Contribution of each unit to the mean's divisor (float64), which kernels set before they call `factors`; None
    where every unit counts as 1."""
    dtype: Any = F64
    weight: Any = None
    reduction = "mean"
    divisor: Any = None
    _divided: float | None = None

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    @property
    def name(self) -> str:
        """Name of the computing dtype, as in the names of kernels."""
        return NAMES[self.dtype]

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.values)

    def kept(self, *shape: int) -> Any:
        """Return the mask of units whose weight is not 0, in a shape; None where there are no weights."""
        return None if self.weight is None else (self.weight != 0.0).reshape(shape)

    def numbers(self) -> Any:
        """Return the parameters of the formula in the form passed to kernels."""
        return self.packed[: len(self.record.function.__defaults__ or ())]

    @property
    def averaged(self) -> bool:
        """Whether the sum of losses is divided by the number, or the weights, of the units that count."""
        return self.reduction == "mean" and self.divisor is None

    def divided(self) -> float:
        """Return the divisor of the sum of losses; 0 where no unit counts."""
        if self._divided is None:
            weight, counted = self.weight, self.counted
            if counted is None:
                mass = float(len(self.values))
                weighs = None if weight is None else weighed(weight)
            else:
                mass, weighs = _sum_of(counted, weight) if self.averaged else 0.0, None
            self._divided = denominator(self.reduction, self.divisor, mass, weighs)
        return self._divided

    def settle(self, divisor: float) -> None:
        """Set the divisor of a mean that a kernel has summed."""
        self._divided = divisor

    def factors(self) -> Any:
        """Return the factors of the derivatives: one per unit, or a single one for all."""
        divided = self.divided()
        scale = 1.0 / divided if divided != 0.0 else 0.0
        return constants(F64, scale) if self.weight is None else self.weight * scale


class ArrayLoss(Loss):  # noqa: D101
    # Loss over several arrays.
    __doc__ = ComposedDoc()

    __slots__ = ("_layouts", "_meant", "_names", "_recent")

    _layouts: dict[Any, tuple[layout.Dims, dict[str, tuple[int, ...]]]]
    _meant: dict[str, Any]
    _names: tuple[str, ...]
    _recent: dict[Any, Plan]
    """Plan that last served calls with these inputs, before the others are looked up by dtypes and shapes."""

    def __init__(self, record: Formula, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        super().__init__(record, defaults, backend)
        meant = {k: record.parameters[k].meant(v) for k, v in self.defaults.items()}
        object.__setattr__(self, "_meant", meant)
        object.__setattr__(self, "_names", tuple(record.inputs))
        object.__setattr__(self, "_layouts", {})
        object.__setattr__(self, "_recent", {})

    def __call__(
        self,
        *arrays: Any,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        **options: Any,
    ) -> Any:
        """Return the reduced loss, or one value per unit with ``reduction="none"``."""
        is_plain = not options and weight is None and divisor is None
        if is_plain and len(arrays) <= len(self._names):
            small = self._run_planned(arrays, reduction, False)
            if small is not None:
                return small[0]
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
        """Return the loss and its gradient with respect to each differentiable input."""
        is_plain = not options and weight is None and divisor is None and out is None
        if is_plain and len(arrays) <= len(self._names):
            # Skips the check of input names: only valid calls leave plans.
            small = self._run_planned(arrays, reduction, True)
            if small is not None:
                return small
        loss, inputs = self._sorted(arrays, options)
        return loss._run(inputs, weight, reduction, divisor, out, True)

    def grad_and_hess(self, *arrays: Any, **options: Any) -> tuple[Any, Any]:
        """Raise ValueError: losses over several arrays have no second derivative."""
        raise CallValueError("has no second derivative; use value_and_grad", loss=self.name)

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        given = eval(f"({self.record.example},)", {"np": np})
        for dtype in dtypes:
            arrays = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in given]
            self(*arrays)
            self.value_and_grad(*arrays)
        from ..cpu.runtime.units import warm_drivers

        warm_drivers()

    def _sorted(self, arrays: tuple[Any, ...], options: dict[str, Any]) -> tuple["ArrayLoss", dict[str, Any]]:
        """Sort arguments into inputs, which may come by name, and parameters."""
        inputs = self.record.inputs
        if arrays and type(arrays[0]) is tuple:
            arrays = (*arrays[0], *arrays[1:])
        names = list(inputs)
        if len(arrays) > len(names):
            problem = f"takes {len(names)} arrays ({', '.join(names)}); {len(arrays)} given"
            raise CallTypeError(problem, loss=self.name)
        given = dict(zip(names, arrays, strict=False))
        for name in [n for n in options if n in inputs] if options else ():
            if name in given:
                raise CallTypeError("is given twice, by position and by name", name, loss=self.name)
            given[name] = options.pop(name)
        missing = [n for n, spec in inputs.items() if not spec.optional and given.get(n) is None]
        loss = self._with(options) if options else self
        if missing:
            error = loss._needs(missing, not given)
            error.loss = self.name
            raise error
        return loss, given

    @named
    def _run(
        self, inputs: dict[str, Any], weight: Any, reduction: Any, divisor: Any, out: Any, derivatives: bool
    ) -> tuple[Any, Any]:
        reduction = self.record.reduction if reduction is None else reduction
        if weight is None and divisor is None and out is None:
            small = self._run_planned(tuple(inputs.values()), reduction, derivatives, tuple(inputs))
            if small is not None:
                return small
        if reduction == BATCH_MEAN:
            reduction, divisor = by_batch(inputs[self.record.predictions[0]], divisor).values()
        if self.record.loop in FORMS or self.record.name in FORMS:
            other = reformed(self, inputs, How(weight, reduction, divisor, out, derivatives))
            if other is not None:
                return other
        if placement.involved(self._backend, *inputs.values(), weight):
            mode, arrays = "grad" if derivatives else "value", tuple(inputs.values())
            request = Request(mode, arrays, None, weight, reduction, divisor, out, names=tuple(inputs))
            found: tuple[Any, Any] = placement.elsewhere(self, self._run_placed, request)
            return found
        refuse_other_index(tuple(inputs), tuple(inputs.values()), None, weight)
        if isinstance(reduction, Risk):
            return self._under_risk(inputs, weight, reduction, divisor, out, derivatives)
        record = self.record
        reduction = reduction if reduction is UNITS else reduction_of(record, reduction)
        own = record.predictions
        raw = {k: predicted(v, k) if k in own else incoming(v, k) for k, v in inputs.items() if v is not None}
        differentiable = [k for k in record.predictions if k in raw]
        dtypes = [compute_dtype(raw[k], k) for k in differentiable]
        dtype = F64 if F64 in dtypes else F32
        laid, dims = self._all_laid(raw, dtype, weight)
        call = Call(record, self._meant, laid, dims, layout.shape_of(record.axes(self._meant), dims))
        call.packed, call.given = self._packed, raw
        call.dtype, call.reduction, call.divisor = dtype, reduction, divisor
        none = False
        if weight is not None:
            call.weight = weights(weight, call.shape, F64)
            mass, negative = weight_sum(call.weight)
            none = mass == 0.0 and not negative
            if negative:
                check.violation("weight", call.weight.reshape(call.shape), NONNEGATIVE)
        outs: list[tuple[Any, ...]] = []
        if derivatives:
            others = [v for k, v in raw.items() if k not in differentiable]
            outs = outputs(out, 1, tuple(raw[k] for k in differentiable), (*others, weight))
            for k, o in zip(differentiable, outs[0], strict=True):
                shape = laid[k].shape
                call.grads[k] = o.reshape(shape) if direct(o, dtype) else memory.empty(shape, dtype)
        # Nothing to compute: the values are 0, and so are the derivatives.
        empty = any(laid[k].size == 0 for k in differentiable if not record.inputs[k].optional)
        if none or call.units == 0 or (empty and not record.takes_empty):
            check.all_or_none({k: raw[k].shape for k in record.together})
            for g in call.grads.values():
                g[...] = 0.0
        else:
            # Lets no warning through: overflow gives infinity, as in compiled code.
            with np.errstate(all="ignore"):
                kernels(record.loop)(call)
            if weight is None:
                self._remember(call, raw, derivatives)
        if derivatives:
            for k, o in zip(differentiable, outs[0], strict=True):
                if not direct(o, dtype):
                    o[...] = rounded(call.grads[k].reshape(o.shape), o.dtype)
        back = outgoing(inputs[differentiable[0]])
        results = finish(outs, out, back)
        return self._reduced(call, raw[differentiable[0]].dtype, back), results[0] if results else None

    def _run_planned(
        self, arrays: tuple[Any, ...], reduction: Any, derivatives: bool, names: tuple[str, ...] | None = None
    ) -> tuple[Any, Any] | None:
        """Run a small call by the plan of its kind; return None where the general path has to serve it.

        The arrays are in the order of the record's inputs, unless names tell another.
        """
        if cuda_was_selected and chosen() == "cuda":
            return None
        if reduction is None:
            reduction = self.record.reduction
        if type(reduction) is not str or reduction not in REDUCTIONS:
            return None
        # Saves 1 us: a plan tells whether the arrays are of its kind in a tenth of the time that its key takes.
        last = (derivatives, len(arrays) if names is None else names)
        recent = self._recent.get(last)
        if recent is not None:
            found: tuple[Any, Any] | None = recent(arrays, reduction)
            if found is not None:
                return found
        if names is None:
            names = self._names[: len(arrays)]
        try:
            plan = self._plans.get((derivatives, *names, *[(a.dtype, a.shape) for a in arrays]))
        except (AttributeError, TypeError):
            return None
        if plan is None or plan is recent:
            return None
        self._recent[last] = plan
        found = plan(arrays, reduction)
        return found

    def _remember(self, call: Call, raw: dict[str, Any], derivatives: bool) -> None:
        """Leave a plan for small calls of this kind; where plans are many, only once a kind comes back.

        A plan takes as long to make as a call: shapes that never come back would take twice the time.
        """
        key = (derivatives, *raw, *[(a.dtype, a.shape) for a in raw.values()])
        is_new = len(self._plans) >= PLANS and key not in self._plans
        plan = None if is_new else planned(call, raw)
        if is_new or plan is not None:
            remember(self._plans, key, plan, PLANS)

    def _run_placed(self, request: Request) -> tuple[Any, Any]:
        """Run a call on the CPU, on arrays that were copied to host memory."""
        inputs = dict(zip(request.names, request.prediction, strict=True))
        options = (request.weight, request.reduction, request.divisor, request.out)
        return self._run(inputs, *options, request.orders > 0)

    def _under_risk(
        self, inputs: dict[str, Any], weight: Any, risk: Risk, divisor: Any, out: Any, derivatives: bool
    ) -> tuple[Any, Any]:
        """Serve a call whose reduction is a risk."""
        wide = {k: single(v) if k in self.record.predictions else v for k, v in inputs.items() if v is not None}
        raw = {k: incoming(v, k) for k, v in wide.items()}
        dims = self._all_laid(raw, F64, weight)[1]
        units = self.record.axes(self._meant)
        shape = layout.shape_of(units, dims)
        if not units:
            raise CallValueError("has one value for all its inputs, and a risk needs one per sample")

        def run(weights: Any, reduction: str, writes: bool) -> Any:
            return self._run(inputs if writes else wide, weights, reduction, None, out if writes else None, writes)

        request = Request("grad" if derivatives else "value", (), None, weight, risk, divisor)
        found: tuple[Any, Any] = units_under_risk(self.record, run, request, shape)
        return found

    def _reduced(self, call: Call, dtype: Any, back: Any) -> Any:
        if call.reduction == UNITS:
            return call.values, call.counted
        if call.reduction == "none":
            call.divided()
            values = call.values
            if call.weight is not None:
                with np.errstate(all="ignore"):
                    values = np.where(call.weight, values * call.weight, 0.0)
            result = rounded(values.reshape(call.shape), dtype)
            return result if back is None else back(result)
        divided = call.divided()
        return _sum_of(call.values, call.weight) / divided if divided != 0.0 else 0.0

    def _all_laid(self, raw: dict[str, Any], dtype: Any, weight: Any) -> tuple[dict[str, Any], layout.Dims]:
        """Return all inputs in the form kernels read, None for omitted ones, and the dimensions; cached by shapes."""
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
                laid[k] = self._laid(k, raw[k], dtype, dims, partial(self._counts, k, raw, weight))
        if not shapes and all(a.ndim for a in raw.values()):
            plain = [k for k in raw if inputs[k].kind == "float" and not layout.bounded(inputs[k].domain)]
            remember(self._layouts, key, (dims, {k: laid[k].shape for k in plain}), PLANS)
        return laid, dims

    def _counts(self, name: str, raw: dict[str, Any], weight: Any, shape: tuple[int, ...]) -> Any:
        """Return the mask of elements of an input that neither a weight of 0 nor a pixel mask takes out."""
        spec, found = self.record.inputs[name], np.ones((1,) * len(shape), bool)
        units = self.record.axes(self._meant)
        if weight is not None and not spec.shared:
            w = incoming(weight, "weight") != 0
            if units == "g" and "offsets" in raw:
                w = np.repeat(np.broadcast_to(w, len(raw["offsets"]) - 1), np.diff(raw["offsets"]))
            axes = layout.axes_of(units.replace("g", "n"), spec.dims, len(shape))
            if axes is not None:
                first, last = axes
                with suppress(ValueError):
                    found = np.broadcast_to(w, shape[first:last]).reshape(
                        (*shape[first:last], *(1,) * (len(shape) - last))
                    )
        if spec.kind == "regions" and raw.get("mask") is not None and raw["mask"].size == math.prod(shape):
            found = found & (raw["mask"] != 0).reshape(shape)
        return found

    def _laid(self, name: str, a: Any, dtype: Any, dims: layout.Dims, counts: layout.Counts) -> Any:
        spec: Input = self.record.inputs[name]
        if spec.kind in ("float", "double"):
            dtype = F64 if spec.kind == "double" else dtype
            if a.ndim == 0 and spec.dims == "*" and not spec.grad and "*" in dims:
                a = filled(dims["*"], a, a.dtype)
            laid = layout.laid(name, spec, a, dtype, dims)
            checked = layout.bounded(spec.domain) and name not in self.record.checked_by_kernel
            if checked and sum_in_order(laid.reshape(-1), domain=spec.domain)[1]:
                check.violations(name, a, laid, spec.domain, counts(a.shape))
            return laid
        ignore = self._meant.get("ignore_index")
        if spec.kind == "regions":
            return layout.laid_regions(name, spec, a, dtype, dims, ignore, counts)
        checked = name not in self.record.checked_by_kernel
        return layout.laid_integers(name, spec, a, dims, ignore, checked, counts)
