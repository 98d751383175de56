"""Public class of elementwise losses."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..call import check
from ..call.arrays import (
    BITS,
    F32,
    F64,
    NAMES,
    common_half,
    compute_dtype,
    direct,
    filled,
    finish,
    flat,
    incoming,
    keep_finite,
    kernel_view,
    outgoing,
    outputs,
    predicted,
    rounded,
    weights,
)
from ..call.backend_choice import chosen, cuda_was_selected
from ..call.errors import CallTypeError, CallValueError, named
from ..call.frames import refuse_other_index
from ..call.memory import empty
from ..call.reduction import BATCH_MEAN, by_batch, denominator, reduction_of, second_of
from ..call.request import Request
from ..cpu.dispatch import (
    CHUNK,
    EMPTY,
    PARALLEL_FROM,
    chunk_of,
    elementwise,
    in_parallel,
    launch,
    pair_driver,
    streams,
    weighed,
)
from ..cuda import placement
from ..spec.record import NONNEGATIVE, Formula
from .base import ComposedDoc, Loss, remember
from .fast_path import PLANS, Elements, elements, known_divisor
from .rewrite import rewritten
from .risks.base import Risk, under_risk

__all__ = ["ElementwiseLoss"]


class _Call(NamedTuple):
    """Inputs of one call in the form kernels read, with its settings."""

    raw: tuple[Any, ...]
    """Predictions as plain NumPy arrays."""
    target: Any
    weight: Any
    weighted: bool
    dtype: Any
    """Computing dtype."""
    stored: Any
    """16-bit dtype of all predictions; None where they share none."""
    reduction: str
    divided: float
    """Divisor of the sum of losses; 0 where there is nothing to average."""
    by_row: bool
    """Whether the call returns the loss of each element."""


class ElementwiseLoss(Loss):  # noqa: D101
    # Elementwise loss.
    __doc__ = ComposedDoc()

    __slots__ = ()

    def __call__(
        self,
        prediction: Any = None,
        target: Any = None,
        *more: Any,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        **parameters: Any,
    ) -> Any:
        """Return the reduced loss, or one value per element with ``reduction="none"``."""
        if more:
            prediction, target = self._in_order(prediction, target, *more)
        loss, prediction = self._resolve(prediction, parameters)
        return loss._run("value", prediction, target, weight, reduction, divisor, None)[0]

    def value_and_grad(
        self,
        prediction: Any = None,
        target: Any = None,
        *more: Any,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        out: Any = None,
        **parameters: Any,
    ) -> tuple[Any, Any]:
        """Return the loss and its gradient with respect to the prediction, in one pass over the data."""
        if more:
            prediction, target = self._in_order(prediction, target, *more)
        loss = self
        if parameters:
            loss, prediction = self._resolve(prediction, parameters)
        return loss._run("grad", prediction, target, weight, reduction, divisor, out)

    def grad_and_hess(
        self,
        prediction: Any = None,
        target: Any = None,
        *more: Any,
        weight: Any = None,
        curvature: str = "exact",
        out: Any = None,
        **parameters: Any,
    ) -> tuple[Any, Any]:
        """Return first and second derivatives per element, times the weight, as boosting takes them."""
        mode = second_of(self.record, curvature)
        if more:
            prediction, target = self._in_order(prediction, target, *more)
        loss, prediction = self._resolve(prediction, parameters)
        return loss._run(mode, prediction, target, weight, "none", None, out)

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        modes = ["value", "grad", "rows"] + (["hess"] if self.record.second else [])
        for dtype in dtypes:
            for mode in modes:
                for usual in {self._usual, not self.record.parameters}:
                    in_parallel(elementwise(self._compiled, dtype, mode, False, usual=usual)[1])
            if len(self.record.predictions) == 1 and self.record.target:
                pair_driver(dtype)

    @property
    def _compiled(self) -> Formula:
        """Record whose formula the CPU's kernels compile."""
        return self.record

    def _in_order(self, *arrays: Any) -> tuple[Any, Any]:
        """Return predictions and target from arrays in the order of the formula; raise where that order is ambiguous.

        Other libraries take likelihoods as (mean, target, scale), so the caller has to name or group the predictions.
        """
        record = self.record
        names, targets = record.predictions, 0 if record.target is None else 1
        if record.link == "difference" and len(arrays) == len(names) + targets:
            return arrays[: len(names)], arrays[len(names)] if targets else None
        goal = ", target" if targets else ""
        if len(names) == 1:
            problem = f"takes (prediction{goal}); {len(arrays)} arrays given, pass weights as weight="
            raise CallTypeError(problem, loss=self.name)
        expected = f"(({', '.join(names)}){goal}), the predictions as a tuple"
        raise CallTypeError(f"takes {expected} or by name; {len(arrays)} arrays given", loss=self.name)

    def _resolve(self, prediction: Any, parameters: dict[str, Any]) -> tuple["ElementwiseLoss", Any]:
        """Sort keywords into parameters and further predictions, which may come by name."""
        if not parameters:
            return self, prediction
        others = self.record.predictions[1:]
        given = [n for n in others if n in parameters] if others else ()
        if given:
            missing = [n for n in others if n not in parameters]
            if missing or type(prediction) is tuple:
                problem = f"takes its predictions {self.record.predictions} as a tuple or by name"
                raise CallTypeError(problem, loss=self.name)
            prediction = (prediction, *(parameters.pop(n) for n in others))
        return (self._with(parameters) if parameters else self), prediction

    def _run(
        self, mode: str, prediction: Any, target: Any, weight: Any, reduction: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any]:
        first = prediction[0] if type(prediction) is tuple and prediction else prediction
        is_plain = type(first) is np.ndarray and (reduction is None or type(reduction) is str)
        if is_plain and not (cuda_was_selected and chosen() == "cuda"):
            if weight is None and divisor is None:
                plan = self._plans.get((mode, reduction, first.dtype))
            else:
                plan = self._plans.get((mode, reduction, first.dtype, weight is None, known_divisor(divisor)))
            if plan is not None:
                found: tuple[Any, Any] | None = plan(prediction, target, weight, divisor, out)
                if found is not None:
                    return found
        return self._run_any(Request(mode, prediction, target, weight, reduction, divisor, out))

    @named
    def _run_any(self, request: Request) -> tuple[Any, Any]:
        """Serve any call, and leave a plan for small ones of its kind."""
        if request.prediction is None:
            needed = check.inputs_of(self.record)
            raise self._needs(list(needed if request.target is None else needed[:-1]), request.target is None)
        if request.reduction is None:
            request = request._replace(reduction=self.record.reduction)
        if request.reduction == BATCH_MEAN:
            request = request._replace(**by_batch(request.prediction, request.divisor))
        if self._rewritten:
            return rewritten(self, request)
        if placement.involved(self._backend, request.prediction, request.target, request.weight):
            found: tuple[Any, Any] = placement.elsewhere(self, self._run_any, request)
            return found
        refuse_other_index(self.record.predictions, request.prediction, request.target, request.weight)
        if isinstance(request.reduction, Risk):
            return self._under_risk(request)
        if self._levels:
            return self._run_columns(request)
        request = self._paired(request)
        call = self._laid(request)
        raw, dtype, shape, kept = call.raw, call.dtype, call.raw[0].shape, call.stored or call.dtype
        outs = outputs(request.out, request.orders, raw, (request.target, request.weight))
        written = [tuple(kernel_view(o, kept) for o in group) for group in outs]
        values = empty((raw[0].size,), dtype) if call.by_row else EMPTY[dtype]
        total, bad = self._compute(request, call, values, written)
        if bad:
            self._explain(raw, request.target, request.weight, dtype)
        if not math.isfinite(total) and dtype is F32 and not call.by_row and request.orders < 2:
            total = self._wide_sum(call._replace(target=self._target(request.target, shape, dtype)))
        for group, views in zip(outs, written, strict=True):
            for o, view in zip(group, views, strict=True):
                if not direct(o, kept):
                    o[...] = rounded(view.reshape(shape), o.dtype)
        if request.mode == "surrogate":
            keep_finite(outs[1])
        first = request.prediction[0] if type(request.prediction) is tuple else request.prediction
        back = outgoing(first)
        results = finish(outs, request.out, back)
        if request.orders == 2:
            return results[0], results[1]
        loss: Any = total / call.divided if call.divided != 0.0 else 0.0
        if call.by_row:
            rows = rounded(values.reshape(shape), raw[0].dtype)
            loss = rows if back is None else back(rows)
        return loss, results[0] if results else None

    def _under_risk(self, request: Request) -> tuple[Any, Any]:
        """Serve a call whose reduction is a risk."""
        request = self._paired(request)
        given, weight = request.prediction, request.weight
        shape = incoming(given[0] if isinstance(given, (tuple, list)) else given, "prediction").shape
        if self._levels and weight is not None and not self._rewritten:
            w = incoming(weight, "weight")
            request = request._replace(weight=w[..., None] if w.shape == shape[:-1] else w)
        return under_risk(self.record, lambda r: self._run(*r[:7]), request, shape)

    def _paired(self, request: Request) -> Request:
        """Return the call of a loss without a target whose two predictions came one after the other."""
        names, given = self.record.predictions, request.prediction
        paired = isinstance(given, (tuple, list)) and len(given) == len(names)
        if self.record.target is not None or request.target is None or len(names) == 1 or paired:
            return request
        prediction, target = self._in_order(given, request.target)
        return request._replace(prediction=prediction, target=target)

    def _laid(self, request: Request) -> _Call:
        """Check the inputs of a call, and lay them out."""
        reduction = reduction_of(self.record, request.reduction)
        raw = self._predictions(request.prediction)
        dtype = compute_dtype(raw[0], "prediction") if len(raw) == 1 else self._common_dtype(raw)
        stored = common_half(raw)
        t = self._target(request.target, raw[0].shape, dtype, stored)
        w = None if request.weight is None else weights(request.weight, raw[0].shape, dtype)
        divided = denominator(reduction, request.divisor, raw[0].size, weighed(w))
        by_row = reduction == "none" and request.orders < 2
        return _Call(raw, t, EMPTY[dtype] if w is None else w, w is not None, dtype, stored, reduction, divided, by_row)

    def _compute(
        self, request: Request, call: _Call, values: Any, written: list[tuple[Any, ...]]
    ) -> tuple[float, float]:
        """Run the kernel of a call; return the sum of the losses and the number of violations."""
        record, dtype, stored, size = self._compiled, call.dtype, call.stored, call.raw[0].size
        bits = BITS[stored.name] if stored else dtype
        half_target = call.target.dtype is bits is not dtype
        formats = (bits.name, bits.name if half_target else "") if stored else ("", "")
        kernel = request.mode if not call.by_row else "rows_grad" if request.orders else "rows"
        address, driver = self._code(record, NAMES[dtype], kernel, call.weighted, formats)
        if 0 < size < PARALLEL_FROM and not (stored and request.mode == "surrogate"):
            self._remember(request, call, address, driver, stored if half_target else dtype)
        nothing = (EMPTY[bits],) * len(call.raw)
        preds = tuple(flat(x, stored or dtype).view(bits) for x in call.raw)
        bare = [tuple(a.view(bits) for a in group) for group in written]
        grads, hesses = (*bare, nothing, nothing)[:2]
        inputs = (call.target, call.weight, values)
        streamed = streams(record, preds, inputs, *bare) if size >= PARALLEL_FROM else False
        scale = 1.0 / call.divided if call.divided != 0.0 else 0.0
        fixed = (scale, self._packed, streamed, chunk_of(size))
        return self._launched(call, driver, size, address, preds, *inputs, grads, hesses, *fixed)

    def _code(
        self, record: Formula, dtype: str, mode: str, weighted: bool, formats: tuple[str, str]
    ) -> tuple[int, Any]:
        """Return the address of a kernel and its driver."""
        return elementwise(record, dtype, mode, weighted, *formats, self._usual)[:2]

    def _launched(self, call: _Call, driver: Any, size: int, *arguments: Any) -> tuple[float, float]:
        """Run a kernel; return the sum of the losses and the number of violations."""
        found: tuple[float, float] = launch(driver, size, *arguments)
        return found

    def _remember(self, request: Request, call: _Call, address: int, driver: Any, read_as: Any) -> None:
        """Leave a plan for small calls of this kind."""
        dtype, kept, reduction, divided = (
            call.dtype,
            call.stored or call.dtype,
            call.reduction,
            request.divisor is not None,
        )
        kind = Elements(
            *(address, driver, self._packed, dtype, kept, len(call.raw)),
            target=None if self.record.target is None else read_as,
            orders=request.orders,
            by_row=call.by_row,
            averaged=reduction == "mean" and not divided,
            weighted=call.weighted,
        )
        key = (not call.weighted, divided) if call.weighted or divided else ()
        plan = elements(kind)
        remember(self._plans, (request.mode, reduction, kept, *key), plan, PLANS)
        if reduction == self.record.reduction:
            remember(self._plans, (request.mode, None, kept, *key), plan, PLANS)

    def _predictions(self, prediction: Any) -> tuple[Any, ...]:
        names = self.record.predictions
        if len(names) == 1:
            return (predicted(prediction, "prediction"),)
        given = check.several(self.record, prediction)
        arrays = tuple(predicted(x, n) for x, n in zip(given, names, strict=True))
        for a, n in zip(arrays[1:], names[1:], strict=True):
            check.same_shape(n, a.shape, arrays[0].shape)
        return arrays

    def _common_dtype(self, raw: tuple[Any, ...]) -> Any:
        dtypes = [compute_dtype(x, name) for x, name in zip(raw, self.record.predictions, strict=True)]
        return F64 if F64 in dtypes else F32

    def _target(self, target: Any, shape: tuple[int, ...], dtype: Any, stored: Any = None) -> Any:
        """Return the target in the form kernels read, in 16 bits if the prediction has the same 16-bit dtype."""
        if not check.target_given(self.record, target):
            return EMPTY[dtype]
        t = incoming(target, "target")
        if t.ndim == 0:
            return filled((math.prod(shape),), t, dtype)
        check.same_shape("target", t.shape, shape)
        if stored and t.dtype == stored:
            return flat(t, stored).view(BITS[stored.name])
        return flat(t, dtype)

    def _explain(self, raw: tuple[Any, ...], target: Any, weight: Any, dtype: Any) -> None:
        """Raise for the first violation that a kernel counted, before or after conversion to the kernel's dtype."""
        record = self.record
        names = record.predictions if len(raw) > 1 else ("prediction",)
        checked = list(zip(names, raw, record.prediction_domains, strict=True))
        if record.target is not None:
            checked.append(("target", incoming(target, "target"), record.target_domain))
        if weight is not None:
            checked.append(("weight", np.broadcast_to(incoming(weight, "weight"), raw[0].shape), NONNEGATIVE))
        counts = None if weight is None else incoming(weight, "weight") != 0
        for name, a, domain in checked:
            check.violation(name, a, domain, record.from_logits, counts=counts)
        note = f" in {NAMES[dtype]}"
        for name, a, domain in checked:
            check.violation(name, rounded(a, dtype), domain, record.from_logits, note, counts)
        raise CallValueError("found an input that changed while it was read")

    def _wide_sum(self, call: _Call) -> float:
        """Return the sum of losses in float64, where it overflows float32 although no loss does."""
        preds, t, w = tuple(flat(x, F32) for x in call.raw), call.target, call.weight
        address, driver, _ = elementwise(self._compiled, "float32", "rows", w.size > 0, usual=self._usual)
        e, size, step = EMPTY[F32], preds[0].size, 1 << 20
        nothing = (e,) * len(preds)
        total = 0.0
        for lo in range(0, size, step):
            part = tuple(p[lo : lo + step] for p in preds)
            values = np.empty(part[0].size, np.float32)
            rest = (t[lo : lo + step], w[lo : lo + step], values, nothing, nothing, 1.0, self._packed, False, CHUNK)
            launch(driver, values.size, address, part, *rest)
            with np.errstate(invalid="ignore"):
                total += float(values.sum(dtype=np.float64))
        return total

    def _run_columns(self, request: Request) -> tuple[Any, Any]:
        """Evaluate one parameter level per column; the mean is over the elements of all columns."""
        mode, prediction, target, weight, reduction, divisor, out = request[:7]
        name, levels = next((k, v) for k, v in self.defaults.items() if type(v) is tuple)
        p = predicted(prediction, "prediction")
        if p.ndim < 1 or p.shape[-1] != len(levels):
            problem = f"has shape {p.shape}; {len(levels)} levels of {name} need as many columns"
            raise CallValueError(problem, "prediction")
        reduction = reduction_of(self.record, reduction)
        check.target_given(self.record, target)
        t = incoming(target, "target")
        t = np.broadcast_to(t[..., None], p.shape) if t.shape in ((), p.shape[:-1]) else t
        check.same_shape("target", t.shape, p.shape)
        dtype = compute_dtype(p, "prediction")
        w = None if weight is None else incoming(weight, "weight")
        if w is not None:
            w = weights(w[..., None] if w.shape == p.shape[:-1] else w, p.shape, dtype).reshape(p.shape)
        divided = denominator(reduction, divisor, p.size, weighed(None if w is None else flat(w, dtype)))
        outs = outputs(out, request.orders, (p,), (target, weight))
        values = empty(p.shape, p.dtype) if reduction == "none" else None
        total = 0.0
        for j, level in enumerate(levels):
            loss = self.bind(**{name: level})
            part = None if w is None else w[..., j]
            how = ("none", None) if reduction == "none" else ("sum", divided if 0.0 < divided < math.inf else None)
            value, result = loss._run(mode, p[..., j], t[..., j], part, *how, None)
            if mode in ("hess", "surrogate"):
                outs[0][0][..., j], outs[1][0][..., j] = value, result
                continue
            if outs:
                outs[0][0][..., j] = result if divided != 0.0 else 0.0
            if values is None:
                total += value if divided != 0.0 else 0.0
            else:
                values[..., j] = value
        back = outgoing(prediction)
        results = finish(outs, out, back)
        if len(results) == 2:
            return results[0], results[1]
        loss_value: Any = total if values is None else (values if back is None else back(values))
        return loss_value, results[0] if results else None
