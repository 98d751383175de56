"""Public class of row-wise losses: K scores against an integer label, class probabilities, or one observation."""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ..call import check
from ..call.arrays import (
    BITS,
    F64,
    I64,
    LEAST,
    NAMES,
    common_half,
    compute_dtype,
    contiguous,
    direct,
    finish,
    flat,
    incoming,
    keep_finite,
    kernel_view,
    outgoing,
    outputs,
    predicted,
    rounded,
    unwrapped,
    weights,
)
from ..call.backend_choice import chosen, cuda_was_selected
from ..call.errors import CallValueError, named
from ..call.frames import refuse_other_index
from ..call.memory import empty
from ..call.reduction import BATCH_MEAN, balanced, by_batch, denominator, reduction_of, row_mass, second_of
from ..call.request import Request
from ..cpu.dispatch import (
    CHUNK,
    EMPTY,
    HALF_CHUNK,
    PARALLEL_FROM,
    TILED_TO,
    few_row_driver,
    half_row_driver,
    helpers,
    in_parallel,
    launch,
    overflows,
    room,
    rows,
    rows_per_chunk,
)
from ..cuda import placement
from ..spec.record import FINITE_NONNEGATIVE, NONNEGATIVE, Loop
from .base import ComposedDoc, Loss, remember
from .fast_path import PLANS, Plan, Rows, known_divisor, unplanned
from .fast_path import rows as plan_of_rows
from .risks.base import Risk, under_risk
from .softcap import capped

__all__ = ["Details", "RowLoss"]

ndarray = np.ndarray


class Details(NamedTuple):
    """By-products of a softmax loss, per row, from the same pass."""

    loss: Any
    """Loss of each row, times its weights."""
    logsumexp: Any
    """Log-sum-exp of the scaled logits, in float64."""
    argmax: Any
    """Class of the largest logit; -1 where there are no classes."""
    rank: Any
    """Number of classes ahead of the label: 0 where the prediction is right, K where the row is ignored.

    The label of a row of probabilities is its most probable class; a row of none above 0 has rank K.
    """

    def top_k(self, k: int = 1) -> Any:
        """Whether the label is among the k largest logits."""
        return self.rank < k


class _Call(NamedTuple):
    """Inputs of one call in the form kernels read: rows of K scores."""

    kind: str
    z: Any
    labels: Any
    target: Any
    weight: Any
    class_weight: Any
    counted: Any
    """Class weights that are part of the mean's divisor."""
    ignored: int
    total: float
    shape: tuple[int, ...]
    dtype: Any

    def counts(self, loop: Loop) -> Any:
        """Return the mask of elements without a weight of 0, broadcastable to the shape of the rows."""
        weight = self.weight if self.weight.size else np.ones(math.prod(self.shape))
        weighted = weight.reshape(*self.shape, 1) != 0.0
        if not self.class_weight.size or loop.weighs_rows:
            return weighted
        return weighted & (self.class_weight != 0.0)


class _Code(NamedTuple):
    """Compiled code of a call, with settings that its driver takes."""

    address: int
    driver: Any
    ones: Any
    """Class weights of 1 for kernels that read them although the caller gave none; empty for other kernels."""
    tail: tuple[Any, ...]
    """Kernel helpers, number of classes, scratch elements per chunk and rows per chunk."""


def _turned() -> Any:
    """Return the module of copies between classes along another axis and rows, which few calls need."""
    return import_module("fastloss.cpu.turned")


class RowLoss(Loss):  # noqa: D101
    # Row-wise loss.
    __doc__ = ComposedDoc()

    __slots__ = ()

    def __call__(
        self,
        prediction: Any = None,
        target: Any = None,
        *,
        weight: Any = None,
        class_weight: Any = None,
        ignore_index: int | None = -100,
        axis: int = -1,
        reduction: str | None = None,
        divisor: float | None = None,
        **parameters: Any,
    ) -> Any:
        """Return the reduced loss, or one value per row with ``reduction="none"``."""
        loss = self._with(parameters) if parameters else self
        if type(axis) is int and axis == -1:
            plan = loss._plan("value", prediction, target, weight, class_weight, reduction, divisor)
            found = plan(prediction, target, weight, class_weight, ignore_index, divisor, None)
            if found is not None:
                return found[0]
        given = (prediction, target, weight, reduction, divisor, None, class_weight, ignore_index, axis)
        return loss._run(Request("value", *given))[0]

    def value_and_grad(
        self,
        prediction: Any = None,
        target: Any = None,
        *,
        weight: Any = None,
        class_weight: Any = None,
        ignore_index: int | None = -100,
        axis: int = -1,
        reduction: str | None = None,
        divisor: float | None = None,
        out: Any = None,
        details: bool = False,
        **parameters: Any,
    ) -> tuple[Any, ...]:
        """Return the loss and its gradient with respect to the prediction, in one pass over the data.

        With ``details=True``, return :class:`Details` of every row as a third result.
        """
        loss = self._with(parameters) if parameters else self
        if type(axis) is int and axis == -1 and details is False:
            plan = loss._plan("grad", prediction, target, weight, class_weight, reduction, divisor)
            found = plan(prediction, target, weight, class_weight, ignore_index, divisor, out)
            if found is not None:
                return found
        given = (prediction, target, weight, reduction, divisor, out, class_weight, ignore_index, axis, details)
        value, grad, extra = loss._run(Request("grad", *given))
        return (value, grad, extra) if details else (value, grad)

    def grad_and_hess(
        self,
        prediction: Any = None,
        target: Any = None,
        *,
        weight: Any = None,
        class_weight: Any = None,
        ignore_index: int | None = -100,
        axis: int = -1,
        curvature: str = "exact",
        out: Any = None,
        **parameters: Any,
    ) -> tuple[Any, Any]:
        """Return the gradient and the diagonal of the second derivative per row, times the weights."""
        mode = second_of(self.record, curvature)
        loss = self._with(parameters) if parameters else self
        if type(axis) is int and axis == -1:
            plan = loss._plan(mode, prediction, target, weight, class_weight, "none", None)
            found = plan(prediction, target, weight, class_weight, ignore_index, None, out)
            if found is not None:
                return found
        given = (prediction, target, weight, "none", None, out, class_weight, ignore_index, axis)
        grad, hess, _ = loss._run(Request(mode, *given))
        return grad, hess

    def details(
        self,
        prediction: Any = None,
        target: Any = None,
        *,
        weight: Any = None,
        class_weight: Any = None,
        ignore_index: int | None = -100,
        axis: int = -1,
        **parameters: Any,
    ) -> Details:
        """Return per-row loss, log-sum-exp, argmax and rank of the label, from one pass."""
        loss = self._with(parameters) if parameters else self
        given = (prediction, target, weight, "none", None, None, class_weight, ignore_index, axis, True)
        extra: Details = loss._run(Request("value", *given))[2]
        return extra

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        for dtype in dtypes:
            loop = self.record.row_loop
            if loop.labels:
                few_row_driver(dtype)
            for kind in loop.kinds():
                for mode in ("value", "grad", "hess")[: 2 + self.record.second]:
                    for tiled in {False, kind in loop.tiles}:
                        in_parallel(rows(self.record, dtype, mode, kind, False, tiled)[1])

    def _plan(self, mode: str, p: Any, t: Any, weight: Any, class_weight: Any, reduction: Any, divisor: Any) -> Plan:
        """Return the plan of this kind of call, or `unplanned` where there is none."""
        if type(p) is not ndarray or type(t) is not ndarray or not p.ndim:
            return unplanned
        if cuda_was_selected and chosen() == "cuda":
            return unplanned
        if reduction is divisor is weight is class_weight is None:
            plan: Plan = self._plans.get((mode, p.dtype, t.dtype, p.shape[-1]), unplanned)
            return plan
        if reduction is None or type(reduction) is str:
            options = (reduction, known_divisor(divisor), weight is None, class_weight is None)
            plan = self._plans.get((mode, p.dtype, t.dtype, p.shape[-1], *options), unplanned)
            return plan
        return unplanned

    @named
    def _run(self, request: Request) -> tuple[Any, Any, Any]:
        """Serve any call, and leave a plan for small ones of its kind: loss or gradient, next derivative, details."""
        if request.prediction is None:
            raise self._needs(["prediction", *["target"] * (request.target is None)], request.target is None)
        if request.reduction is None:
            request = request._replace(reduction=self.record.reduction)
        if request.reduction == BATCH_MEAN:
            request = request._replace(**by_batch(request.prediction, request.divisor))
        if self.defaults.get("softcap"):
            return capped(self, request)
        if placement.involved(self._backend, request.prediction, request.target, request.weight, request.class_weight):
            found: tuple[Any, Any, Any] = placement.elsewhere(self, self._run, request)
            return found
        refuse_other_index(self.record.predictions, request.prediction, request.target, request.weight)
        if isinstance(request.reduction, Risk):
            return (*self._under_risk(request), None)
        request, p = self._checked(request)
        axis = request.axis
        last = axis in (-1, p.ndim - 1)
        call = given = self._prepare(p if last else _turned().as_rows(p, axis), request)
        # The mean over labelled rows is known once the labels have been looked at, in the driver.
        counts = call.kind == "labels" and request.reduction == "mean" and request.divisor is None
        if counts and call.class_weight.size and self.defaults.get("z_loss", 0.0) > 0.0:
            call = self._balanced(call)
        if self.record.name == "nll" and call.kind == "dense" and self.defaults.get("label_smoothing", 0.0) > 0.0:
            e, k = self.defaults["label_smoothing"], call.target.shape[1]
            call = call._replace(target=rounded(call.target * (1.0 - e) + e / max(k, 1), call.dtype))
        divided = 0.0 if counts else denominator(request.reduction, request.divisor, call.total)
        groups = outputs(request.out, request.orders, (p,), (request.target, request.weight, request.class_weight))
        n, k = call.z.shape
        results = self._room(request, call, tuple(group[0] for group in groups), last)
        total = 0.0
        if n and k:
            code = self._code(request.mode, call, request.details)
            scale = -1.0 if counts else 1.0 / divided if divided != 0.0 else 0.0
            total, bad, mass, wrong = self._compute(code, call, scale, results)
            if wrong:
                self._check_labels(request, call)
            if bad:
                whole, t = np.moveaxis(call.counts(self.record.row_loop), -1, axis), incoming(request.target, "target")
                check.violation("target", t, self.record.target_domain, counts=whole)
            divided = mass if counts else divided
            if last and not request.details and call is given:
                self._remember(request, call, code)
        elif call.kind == "labels":
            self._check_labels(request, call)
        for (o,), view in zip(groups, results[1:], strict=False):
            if not last:
                _turned().put_rows(o, axis, view)
            elif not direct(o, call.z.dtype):
                o[...] = rounded(view.reshape(o.shape), o.dtype)
        if request.mode == "surrogate":
            keep_finite(groups[1])
        back = outgoing(request.prediction)
        derivatives = finish(groups, request.out, back)
        if request.orders == 2:
            return derivatives[0], derivatives[1], None
        details = self._details(request, call, results, call is given) if request.details else None
        loss: Any = total / divided if divided != 0.0 else 0.0
        if request.reduction == "none":
            per_row = rounded(results[0].reshape(call.shape), p.dtype)
            loss = per_row if back is None else back(per_row)
        return loss, derivatives[0] if derivatives else None, details

    def _under_risk(self, request: Request) -> tuple[Any, Any]:
        """Serve a call whose reduction is a risk; rows whose label is ignored do not count."""
        p = self._checked(request._replace(reduction="none"))[1]
        shape, t = np.moveaxis(p, request.axis, -1).shape[:-1], incoming(request.target, "target")
        labels = self.record.row_loop.labels and t.dtype.kind in "iub" and request.ignore_index is not None
        ignored = t == request.ignore_index if labels and t.shape == shape else None
        ignored = ignored if ignored is not None and ignored.any() else None
        return under_risk(self.record, lambda r: self._run(r)[:2], request, shape, ignored)

    def _checked(self, request: Request) -> tuple[Request, Any]:
        """Check the options of a call; return it with reduction and details settled, and its prediction as an array."""
        record, axis = self.record, request.axis
        reduction = reduction_of(record, request.reduction)
        details = check.flag("details", request.details)
        if details and not record.row_loop.describes:
            raise CallValueError("has no details; they belong to losses of a softmax")
        check.target_given(record, request.target)
        p = predicted(request.prediction, "prediction")
        ndim = p.ndim
        if ndim == 0:
            raise CallValueError(f"is a scalar; expected rows of scores along axis {axis}", "prediction")
        check.integer("axis", axis)
        check.label_to_ignore(request.ignore_index)
        if not -ndim <= axis < ndim:
            raise CallValueError(f"is {axis}; the prediction has {ndim} dimensions", "axis")
        # Half the time of _replace.
        given: tuple[Any, ...] = (*request[:4], reduction, *request[5:10], details)
        return Request(*given), p

    def _room(self, request: Request, call: _Call, outs: tuple[Any, ...], last: bool) -> tuple[Any, ...]:
        """Return arrays for a kernel's results: per-row losses, first and second derivatives, by-products."""
        (n, k), kept, details = call.z.shape, call.z.dtype, request.details
        views = [kernel_view(o, kept) if last else empty((o.size,), kept) for o in outs]
        empty2 = np.empty((0, 0), kept)
        grad, hess = (*(v.reshape(n, k) for v in views), empty2, empty2)[:2]
        by_row = details or (request.reduction == "none" and request.orders < 2)
        values = empty((n,), call.dtype) if by_row else EMPTY[call.dtype]
        extra = empty((n, 3) if details else (0, 0), F64)
        if not k:
            # Rows without classes have a loss of 0, and minus infinity as their log-sum-exp.
            values.fill(0.0)
            if details:
                extra[:] = -math.inf, -1.0, 0.0
        return values, grad, hess, extra

    def _details(self, request: Request, call: _Call, results: tuple[Any, ...], own: bool) -> Details:
        """Return the by-products of each row; from another call where class weights were scaled for the mean."""
        if not own:
            found: Details = self._run(request._replace(mode="value", reduction="none", divisor=None, out=None))[2]
            return found
        lse, best, rank = (results[3][:, i].reshape(call.shape) for i in range(3))
        return Details(results[0].reshape(call.shape), lse, best.astype(np.int64), rank.astype(np.int64))

    def _code(self, mode: str, call: _Call, details: bool) -> _Code:
        """Choose the kernel of a call, and its driver."""
        record, dtype, k = self.record, call.dtype, call.z.shape[1]
        labels = call.kind == "labels"
        smooth = labels and self.defaults.get("label_smoothing", 0.0) > 0.0
        tiled = call.kind in record.row_loop.tiles and k <= TILED_TO
        address, driver, _ = rows(record, NAMES[dtype], mode, call.kind, smooth, tiled)
        # Kernels that have tiles of dense targets read a weight of each class.
        read = smooth or (not labels and "dense" in record.row_loop.tiles)
        ones = np.ones(k, dtype) if read and not call.class_weight.size else EMPTY[dtype]
        half = call.z.dtype != dtype
        driver = half_row_driver(BITS[call.z.dtype.name].name) if half else driver
        chunk = rows_per_chunk(k, HALF_CHUNK if half else CHUNK)
        space = room(k, mode, call.kind, tiled, record.loop, chunk)
        tail = (helpers(k, dtype, tiled, call.kind if details else ""), self._classes(k), space, chunk)
        return _Code(address, driver, ones, tail)

    def _compute(
        self, code: _Code, call: _Call, scale: float, results: tuple[Any, ...]
    ) -> tuple[float, float, float, float]:
        """Run a kernel; the results are the driver's."""
        class_weight = call.class_weight if call.class_weight.size else code.ones
        arrays = (call.z, call.labels, call.target, call.weight, class_weight, call.counted, *results)
        fixed = (scale, call.ignored, self._packed, code.tail[0])
        if call.z.dtype != call.dtype:
            bits = BITS[call.z.dtype.name]
            bare = [a.view(bits) if a.dtype == call.z.dtype else a for a in arrays]
            bare.insert(3, np.empty((0, 0), bits))
            if bare[2].dtype is bits:
                bare[2:4] = np.empty((0, 0), call.dtype), bare[2]
            return launch(code.driver, call.z.size, code.address, tuple(bare), *fixed, *code.tail[1:])  # type: ignore[no-any-return]
        streamed = results[1].size > 0 and overflows((call.z,), results)
        arguments = (code.address, arrays, *fixed, streamed, *code.tail[1:])
        result: tuple[float, float, float, float] = launch(code.driver, call.z.size, *arguments)
        return result

    def _remember(self, request: Request, call: _Call, code: _Code) -> None:
        """Leave a plan for small calls of this kind."""
        if type(request.prediction) is not ndarray or type(request.target) is not ndarray:
            return
        k, dtype, stored, reduction = call.z.shape[1], call.dtype, call.z.dtype, request.reduction
        target, divided = request.target.dtype, request.divisor is not None
        if call.z.size >= PARALLEL_FROM or target == np.uint64:
            return
        if request.mode == "surrogate" and stored != dtype:
            return
        labels = call.kind == "labels"
        kind = Rows(
            *(code.address, code.driver, self._packed, dtype, stored, k),
            labels=code.tail[1] if labels else 0,
            target=I64 if labels and target == I64 else call.target.dtype,
            observed=not self.record.row_loop.has_classes,
            orders=request.orders,
            by_row=reduction == "none" and request.orders < 2,
            averaged=reduction == "mean" and not divided,
            weighted=call.weight.size > 0,
            classed=call.class_weight.size > 0,
            divides=call.counted.size > 0,
            ones=code.ones,
            tail=code.tail,
        )
        plan = plan_of_rows(kind)
        key = (request.mode, stored, target, k)
        options = (divided, not kind.weighted, not kind.classed)
        remember(self._plans, (*key, reduction, *options), plan, PLANS)
        if reduction == self.record.reduction:
            remember(self._plans, (*key, None, *options), plan, PLANS)
            if not (divided or kind.weighted or kind.classed):
                remember(self._plans, key, plan, PLANS)

    def _pack(self, values: Mapping[str, Any]) -> Any:
        own = [v for k, v in values.items() if k not in self.record.loop_parameters]
        beta = values.get("logit_scale", 1.0) * values.get("scale", 1.0) / values.get("temperature", 1.0)
        return np.array([*own, beta, values.get("label_smoothing", 0.0), values.get("z_loss", 0.0)], np.float64)

    def _prepare(self, p: Any, request: Request) -> _Call:
        """Check shapes and labels, and lay every array out as rows."""
        weight, class_weight, axis = request.weight, request.class_weight, request.axis
        dtype = compute_dtype(p, "prediction")
        shape = p.shape[:-1]
        k, n = p.shape[-1], math.prod(shape)
        stored = common_half((p,))
        z = contiguous(p, stored or dtype).reshape(n, k)
        t = incoming(request.target, "target")
        e, no_labels, none2 = EMPTY[dtype], EMPTY[I64], np.empty((0, 0), dtype)
        w = e
        if weight is not None:
            w = weights(weight, shape, dtype)
            check.violation("weight", w.reshape(shape), NONNEGATIVE)
        cw = e
        if class_weight is not None:
            given = incoming(class_weight, "class_weight")
            check.class_weight(self.record, given.shape, k)
            cw = flat(given, dtype)
            check.violations("class_weight", given, cw, FINITE_NONNEGATIVE)
        total = float(n) if weight is None else row_mass(w)
        kind = check.row_target(self.record, t.dtype, t.dtype.kind in "iub", t.shape, shape, k, axis)
        if not self.record.row_loop.has_classes:
            dense = contiguous(t, dtype).reshape(n, 1)
            return _Call("dense", z, no_labels, dense, w, e, e, 0, total, shape, dtype)
        if kind == "labels":
            counted = cw if self.record.row_loop.divides else e
            labels, ignored = self._labels(t, w, self._classes(k), request.ignore_index)
            return _Call("labels", z, labels, none2, w, cw, counted, ignored, 0.0, shape, dtype)
        t = t if axis in (-1, p.ndim - 1) or t.ndim != p.ndim else _turned().as_rows(t, axis)
        check.same_shape("target", t.shape, p.shape)
        dense = contiguous(t, stored if stored and t.dtype == stored else dtype).reshape(n, k)
        return _Call("dense", z, no_labels, dense, w, cw, e, 0, total, shape, dtype)

    def _balanced(self, call: _Call) -> _Call:
        """Return the call with class weights scaled so that the mean divides by the rows that count."""
        inside = (call.labels >= 0) & (call.labels < call.z.shape[1])
        weight = call.weight[inside] if call.weight.size else None
        scaled = balanced(call.class_weight, call.labels[inside], weight)
        return call._replace(class_weight=scaled, counted=EMPTY[call.dtype])

    def _classes(self, k: int) -> int:
        """Return the number of classes for rows of K scores."""
        return self.record.row_loop.classes(k)

    def _labels(self, t: Any, w: Any, k: int, ignore_index: int | None) -> tuple[Any, int]:
        """Return the labels as int64, and the label of ignored rows."""
        labels = flat(unwrapped(t, ignore_index), I64)
        # None ignores nothing: as if it were class 0, which no label outside the classes equals.
        ignored = (0 if k else LEAST) if ignore_index is None else int(ignore_index)
        if ignore_index is not None and 0 <= ignored < k:
            check.labels(t, labels, w, k, ignored, ignore_index)
            return np.where(labels == ignored, LEAST, labels), LEAST
        return labels, ignored

    def _check_labels(self, request: Request, call: _Call) -> None:
        """Raise for a wrong label of a call."""
        classes = self._classes(call.z.shape[1])
        t = incoming(request.target, "target")
        check.labels(t, call.labels, call.weight, classes, call.ignored, request.ignore_index)
