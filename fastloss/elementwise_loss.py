"""Losses of each element by itself."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import check, devices
from .arrays import (
    BITS,
    F32,
    F64,
    NAMES,
    apart,
    common_half,
    compute_dtype,
    direct,
    finish,
    flat,
    incoming,
    kernel_view,
    outgoing,
    outputs,
    plain,
    rounded,
    weights,
)
from .backends import forced
from .dispatch import CHUNK, EMPTY, PARALLEL_FROM, chunk_of, elementwise, launch, pair_driver, streams
from .formulas.record import NONNEGATIVE
from .loss import ComposedDoc, Loss, denominator, reduction_of, second_of

__all__ = ["ElementwiseLoss"]


class _Small(NamedTuple):
    """What the short way needs to know of a kind of call that has been made before."""

    address: int
    driver: Callable[..., Any]
    empty: Any
    sets: int
    rows: bool
    mean: bool


class ElementwiseLoss(Loss):  # noqa: D101
    # A loss of each element by itself.
    __doc__ = ComposedDoc()

    __slots__ = ()

    def __call__(
        self,
        prediction: Any,
        target: Any = None,
        *,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        **parameters: Any,
    ) -> Any:
        """Return the reduced loss, or one value per element with ``reduction="none"``."""
        loss, prediction = self._resolve(prediction, parameters)
        return loss._run("value", prediction, target, weight, reduction, divisor, None)[0]

    def value_and_grad(
        self,
        prediction: Any,
        target: Any = None,
        *,
        weight: Any = None,
        reduction: str | None = None,
        divisor: float | None = None,
        out: Any = None,
        **parameters: Any,
    ) -> tuple[Any, Any]:
        """Return the loss and its gradient with respect to the prediction, in one pass over the data."""
        loss = self
        if parameters:
            loss, prediction = self._resolve(prediction, parameters)
        return loss._run("grad", prediction, target, weight, reduction, divisor, out)

    def grad_and_hess(
        self,
        prediction: Any,
        target: Any = None,
        *,
        weight: Any = None,
        curvature: str = "exact",
        out: Any = None,
        **parameters: Any,
    ) -> tuple[Any, Any]:
        """Return first and second derivatives per element, times the weight, as boosting takes them."""
        mode = second_of(self.record, curvature)
        loss, prediction = self._resolve(prediction, parameters)
        return loss._run(mode, prediction, target, weight, "none", None, out)

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        modes = ["value", "grad", "rows"] + (["hess"] if self.record.second else [])
        for dtype in dtypes:
            for mode in modes:
                for usual in {self._usual, not self.record.parameters}:
                    elementwise(self.record, dtype, mode, False, usual=usual)
            if len(self.record.predictions) == 1 and self.record.target:
                pair_driver(dtype)

    def _resolve(self, prediction: Any, parameters: dict[str, Any]) -> tuple["ElementwiseLoss", Any]:
        """Sort keywords into parameters and further predictions, which may come by name."""
        if not parameters:
            return self, prediction
        others = self.record.predictions[1:]
        given = [n for n in others if n in parameters]
        if given:
            missing = [n for n in others if n not in parameters]
            if missing or type(prediction) is tuple:
                raise TypeError(f"{self.name} takes its predictions {self.record.predictions} as a tuple or by name")
            prediction = (prediction, *(parameters.pop(n) for n in others))
        return (self.bind(**parameters) if parameters else self), prediction

    def _run(
        self, mode: str, prediction: Any, target: Any, weight: Any, reduction: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any]:
        # The short way for plain arrays: the general way below costs several times a small kernel.
        if (
            type(prediction) is np.ndarray
            and type(target) is np.ndarray
            and (dtype := prediction.dtype) is target.dtype
            and (shape := prediction.shape) == target.shape
            and prediction.flags.carray
            and target.flags.carray
            and 0 < (n := prediction.size) < PARALLEL_FROM
            and weight is None
            and divisor is None
            and not forced
            and (reduction is None or type(reduction) is str)
            and (found := self._small.get((mode, dtype, reduction))) is not None
            and (out is None or (found.sets and plain(out, prediction, target)))
        ):
            address, driver, e, sets, _, mean = found
            g = e if not sets else np.empty(shape, dtype) if out is None else out
            flats = (prediction, target, g)
            if len(shape) != 1:
                flats = (prediction.reshape(-1), target.reshape(-1), g.reshape(-1))
            divided = n if mean else 1
            total, bad = driver(address, *flats, 1.0 / divided, self._packed, CHUNK)
            if bad == 0.0 and -math.inf < total < math.inf:
                return total / divided, g if sets else None
        if weight is None and divisor is None and not forced:
            few = self._run_few(mode, prediction, target, reduction, out)
            if few is not None:
                return few
        return self._run_any(mode, prediction, target, weight, reduction, divisor, out)

    def _run_few(self, mode: str, prediction: Any, target: Any, reduction: Any, out: Any) -> tuple[Any, Any] | None:
        """The short way for several predictions, no target, or a result per element; None if it is not."""
        preds = prediction if type(prediction) is tuple else (prediction,)
        first = preds[0] if preds else None
        if type(first) is not np.ndarray or (reduction is not None and type(reduction) is not str):
            return None
        dtype, shape, n = first.dtype, first.shape, first.size
        found = self._small.get((mode, dtype, reduction, len(preds)))
        given = preds if self.record.target is None else (*preds, target)
        if found is None or not 0 < n < PARALLEL_FROM or (target is not None) is (self.record.target is None):
            return None
        for a in given:
            if type(a) is not np.ndarray or a.dtype is not dtype or a.shape != shape or not a.flags.carray:
                return None
        address, driver, e, sets, rows, mean = found
        outs = (out,) if len(preds) == 1 else out
        if out is not None and not (sets == 1 and type(outs) is tuple and apart(outs, given, len(preds))):
            return None
        nothing = (e,) * len(preds)
        v = np.empty(shape, dtype) if rows else e
        g = nothing if not sets else tuple(np.empty(shape, dtype) for _ in preds) if out is None else outs
        h = tuple(np.empty(shape, dtype) for _ in preds) if sets == 2 else nothing
        t = e if target is None else target
        arrays: tuple[Any, ...] = (preds, t, e, v, g, h)
        if len(shape) != 1:
            groups = (preds, g, h)
            flats = [tuple(a.reshape(-1) for a in group) for group in groups]
            arrays = (flats[0], t.reshape(-1), e, v.reshape(-1), flats[1], flats[2])
        divided = n if mean else 1
        total, bad = driver(address, *arrays, 1.0 / divided, self._packed, False, CHUNK, False)
        if bad != 0.0 or not (rows or sets == 2 or -math.inf < total < math.inf):
            return None
        one = len(preds) == 1
        if sets == 2:
            return (g[0], h[0]) if one else (g, h)
        return v if rows else total / divided, (g[0] if one else g) if sets else None

    def _run_any(
        self, mode: str, prediction: Any, target: Any, weight: Any, reduction: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any]:
        if devices.involved(self._backend, prediction, target, weight):
            arrays = (prediction, target, weight, out)
            found: tuple[Any, Any] = devices.elsewhere(self, self._run_placed, arrays, mode, reduction, divisor)
            return found
        if self._levels:
            return self._run_columns(mode, prediction, target, weight, reduction, divisor, out)
        record = self.record
        reduction = reduction_of(record, reduction)
        raw = self._predictions(prediction)
        shape, size = raw[0].shape, raw[0].size
        dtype = compute_dtype(raw[0], "prediction") if len(raw) == 1 else self._common_dtype(raw)
        back = outgoing(prediction[0] if type(prediction) is tuple else prediction)
        stored = common_half(raw)
        t = self._target(target, shape, dtype, stored)
        w = None if weight is None else weights(weight, shape, dtype)
        divided = denominator(reduction, divisor, size, w)
        scale = 1.0 / divided if divided != 0.0 else 0.0

        e = EMPTY[dtype]
        wants_rows = reduction == "none" and mode in ("value", "grad")
        kernel = {"value": "rows", "grad": "rows_grad"}[mode] if wants_rows else mode
        values = np.empty(size, dtype) if wants_rows else e
        sets = {"value": 0, "grad": 1, "hess": 2, "surrogate": 2}[mode]
        outs = outputs(out, sets, raw, (target, weight))
        written = [tuple(kernel_view(o, stored or dtype) for o in group) for group in outs]

        bits = BITS[stored.name] if stored else dtype
        formats = (bits.name, t.dtype.name if t.dtype is bits else "") if stored else ("", "")
        address, driver, _ = elementwise(record, NAMES[dtype], kernel, w is not None, *formats, self._usual)
        if w is None and not stored and size < PARALLEL_FROM:
            pair = len(raw) == 1 and record.target and sets < 2 and not wants_rows
            few, key = (pair_driver(NAMES[dtype]), ()) if pair else (driver, (len(raw),))
            small = _Small(address, few, e, sets, wants_rows, reduction == "mean")
            self._small[(mode, dtype, reduction, *key)] = small
            if reduction == record.reduction:
                self._small[(mode, dtype, None, *key)] = small
        wts = e if w is None else w
        nothing = (EMPTY[bits],) * len(raw)
        preds = tuple(flat(x, stored or dtype).view(bits) for x in raw)
        bare = [tuple(a.view(bits) for a in group) for group in written]
        grads, hesses = (*bare, nothing, nothing)[:2]
        streamed = streams(record, preds, (t, wts, values), *bare) if size >= PARALLEL_FROM else False
        fixed = (scale, self._packed, streamed, chunk_of(size))
        arguments = (address, preds, t, wts, values, grads, hesses, *fixed)
        total, bad = launch(driver, size, *arguments)
        if bad:
            self._explain(raw, target, weight, dtype)
        if not math.isfinite(total) and dtype is F32 and not wants_rows and sets < 2:
            total = self._wide_sum(tuple(flat(x, dtype) for x in raw), self._target(target, shape, dtype), wts)
        for group, views in zip(outs, written, strict=True):
            for o, view in zip(group, views, strict=True):
                if not direct(o, stored or dtype):
                    o[...] = rounded(view.reshape(shape), o.dtype)
        results = finish(outs, out, back)
        if sets == 2:
            return results[0], results[1]
        if wants_rows:
            rows = rounded(values.reshape(shape), raw[0].dtype)
            loss: Any = rows if back is None else back(rows)
        else:
            loss = total / divided if divided != 0.0 else 0.0
        return loss, results[0] if results else None

    def _run_placed(
        self, prediction: Any, target: Any, weight: Any, out: Any, mode: str, reduction: Any, divisor: Any
    ) -> tuple[Any, Any]:
        """Compute on the CPU what `devices` brought there."""
        return self._run_any(mode, prediction, target, weight, reduction, divisor, out)

    def _predictions(self, prediction: Any) -> tuple[Any, ...]:
        names = self.record.predictions
        if len(names) == 1:
            return (incoming(prediction, "prediction"),)
        given = check.several(self.record, prediction)
        arrays = tuple(incoming(x, n) for x, n in zip(given, names, strict=True))
        for a, n in zip(arrays[1:], names[1:], strict=True):
            check.same_shape(n, a.shape, arrays[0].shape)
        return arrays

    def _common_dtype(self, raw: tuple[Any, ...]) -> Any:
        dtypes = [compute_dtype(x, name) for x, name in zip(raw, self.record.predictions, strict=True)]
        return F64 if F64 in dtypes else F32

    def _target(self, target: Any, shape: tuple[int, ...], dtype: Any, stored: Any = None) -> Any:
        """The target as kernels take it, in 16 bits if the prediction is stored in the same ones."""
        if not check.target_given(self.record, target):
            return EMPTY[dtype]
        t = incoming(target, "target")
        if t.ndim == 0:
            return np.full(math.prod(shape), t, dtype)
        check.same_shape("target", t.shape, shape)
        if stored and t.dtype == stored:
            return flat(t, stored).view(BITS[stored.name])
        return flat(t, dtype)

    def _explain(self, raw: tuple[Any, ...], target: Any, weight: Any, dtype: Any) -> None:
        """Raise for the first violation that a kernel counted, in the data as given or as the kernel's dtype."""
        record = self.record
        names = record.predictions if len(raw) > 1 else ("prediction",)
        checked = list(zip(names, raw, record.prediction_domains, strict=True))
        if record.target is not None:
            checked.append(("target", incoming(target, "target"), record.target_domain))
        if weight is not None:
            checked.append(("weight", np.broadcast_to(incoming(weight, "weight"), raw[0].shape), NONNEGATIVE))
        for name, a, domain in checked:
            check.violation(self.name, name, a, domain, record.from_logits)
        for name, a, domain in checked:
            check.violation(self.name, name, a.astype(dtype), domain, record.from_logits, f" in {NAMES[dtype]}")
        raise ValueError(f"{self.name}: an input changed while it was read")

    def _wide_sum(self, preds: tuple[Any, ...], t: Any, w: Any) -> float:
        """The sum in float64, for values whose sum leaves float32 where none of them does."""
        address, driver, _ = elementwise(self.record, "float32", "rows", w.size > 0, usual=self._usual)
        e, size, step = EMPTY[F32], preds[0].size, 1 << 20
        nothing = (e,) * len(preds)
        total = 0.0
        for lo in range(0, size, step):
            part = tuple(p[lo : lo + step] for p in preds)
            values = np.empty(part[0].size, np.float32)
            rest = (t[lo : lo + step], w[lo : lo + step], values, nothing, nothing, 1.0, self._packed, False, CHUNK)
            launch(driver, values.size, address, part, *rest)
            total += float(values.sum(dtype=np.float64))
        return total

    def _run_columns(
        self, mode: str, prediction: Any, target: Any, weight: Any, reduction: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any]:
        """One level per column: each column is a loss of its own, averaged over all elements."""
        name, levels = next((k, v) for k, v in self.defaults.items() if type(v) is tuple)
        p = incoming(prediction, "prediction")
        if p.ndim < 1 or p.shape[-1] != len(levels):
            raise ValueError(
                f"{self.name}: {len(levels)} levels of {name} need a prediction with as many columns; "
                f"its shape is {p.shape}"
            )
        reduction = reduction_of(self.record, reduction)
        check.target_given(self.record, target)
        t = incoming(target, "target")
        t = np.broadcast_to(t[..., None], p.shape) if t.shape in ((), p.shape[:-1]) else t
        check.same_shape("target", t.shape, p.shape)
        dtype = compute_dtype(p, "prediction")
        w = None if weight is None else incoming(weight, "weight")
        if w is not None:
            w = weights(w[..., None] if w.shape == p.shape[:-1] else w, p.shape, dtype).reshape(p.shape)
        divided = denominator(reduction, divisor, p.size, None if w is None else flat(w, dtype))
        outs = outputs(out, {"value": 0, "grad": 1}.get(mode, 2), (p,), (target, weight))
        values = np.empty(p.shape, p.dtype) if reduction == "none" else None
        total = 0.0
        for j, level in enumerate(levels):
            loss = self.bind(**{name: level})
            part = None if w is None else w[..., j]
            how = ("none", None) if reduction == "none" else ("sum", divided if 0.0 < divided < math.inf else None)
            value, result = loss._run_any(mode, p[..., j], t[..., j], part, *how, None)
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
