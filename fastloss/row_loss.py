"""Losses of whole rows: K scores against an integer label, class probabilities, or one number."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import check, devices
from .arrays import (
    BITS,
    F64,
    NAMES,
    common_half,
    compute_dtype,
    contiguous,
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
from .dispatch import (
    CHUNK,
    EMPTY,
    HALF_CHUNK,
    PARALLEL_FROM,
    TILED_TO,
    half_row_driver,
    helpers,
    label_driver,
    launch,
    overflows,
    room,
    rows,
    rows_per_chunk,
)
from .formulas.record import LOOPS, NONNEGATIVE
from .loss import ComposedDoc, Loss, denominator, reduction_of, second_of

__all__ = ["Details", "RowLoss"]

I64 = np.dtype(np.int64)

TILED = {("softmax", "labels"), ("softmax", "dense"), ("angular", "labels"), ("distillation", "dense")}
"""The loops that have such tiles, with their kinds of target."""


class Details(NamedTuple):
    """By-products of a softmax loss, per row, from the same pass."""

    loss: Any
    """Loss of each row, times its weights."""
    logsumexp: Any
    """Log-sum-exp of the scaled logits, in float64."""
    argmax: Any
    """Class of the largest logit."""
    rank: Any
    """Number of classes ahead of the label: 0 where the prediction is right, K where the row is ignored."""

    def top_k(self, k: int = 1) -> Any:
        """Whether the label is among the k largest logits."""
        return self.rank < k


class _Call(NamedTuple):
    """One call's arrays, as kernels take them: rows of K, flattened."""

    kind: str
    z: Any
    labels: Any
    target: Any
    weight: Any
    class_weight: Any
    counted: Any
    """The class weights that the mean divides by."""
    ignored: int
    total: float
    shape: tuple[int, ...]
    dtype: Any


class _Small(NamedTuple):
    """What the short way needs to know of a kind of call that has been made before."""

    address: int
    driver: Any
    labels: bool
    class_weight: Any
    empty: Any
    empty2: Any
    no_details: Any
    no_labels: Any
    tail: tuple[Any, ...]


class RowLoss(Loss):  # noqa: D101
    # A loss of each row of K scores.
    __doc__ = ComposedDoc()

    __slots__ = ()

    def __call__(
        self,
        prediction: Any,
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
        loss = self.bind(**parameters) if parameters else self
        if weight is None and class_weight is None and reduction is None and divisor is None and axis == -1:
            small = loss._run_small("value", prediction, target, ignore_index, None)
            if small is not None:
                return small[0]
        options = (weight, class_weight, ignore_index, axis)
        return loss._run("value", prediction, target, *options, reduction, divisor, None)[0]

    def value_and_grad(
        self,
        prediction: Any,
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
        loss = self.bind(**parameters) if parameters else self
        if (
            weight is None
            and class_weight is None
            and reduction is None
            and divisor is None
            and axis == -1
            and not details
        ):
            small = loss._run_small("grad", prediction, target, ignore_index, out)
            if small is not None:
                return small
        options = (weight, class_weight, ignore_index, axis)
        value, grad, extra = loss._run("grad", prediction, target, *options, reduction, divisor, out, details)
        return (value, grad, extra) if details else (value, grad)

    def grad_and_hess(
        self,
        prediction: Any,
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
        loss = self.bind(**parameters) if parameters else self
        options = (weight, class_weight, ignore_index, axis)
        grad, hess, _ = loss._run(mode, prediction, target, *options, "none", None, out)
        return grad, hess

    def details(
        self,
        prediction: Any,
        target: Any = None,
        *,
        weight: Any = None,
        class_weight: Any = None,
        ignore_index: int | None = -100,
        axis: int = -1,
        **parameters: Any,
    ) -> Details:
        """Return per-row loss, log-sum-exp, argmax and rank of the label, from one pass."""
        loss = self.bind(**parameters) if parameters else self
        options = (weight, class_weight, ignore_index, axis)
        extra: Details = loss._run("value", prediction, target, *options, "none", None, None, True)[2]
        return extra

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        for dtype in dtypes:
            loop = LOOPS[self.record.loop]
            if loop.labels:
                label_driver(dtype)
            for kind in ("labels",) * loop.labels + ("dense",) * bool(loop.dense):
                for mode in ("value", "grad", "hess")[: 2 + self.record.second]:
                    for tiled in {False, (self.record.loop, kind) in TILED}:
                        rows(self.record, dtype, mode, kind, False, tiled, False)

    def _run_small(self, mode: str, p: Any, t: Any, ignored: Any, out: Any) -> tuple[Any, Any] | None:
        """The short way for a few plain rows, where the general way costs more than the kernel; None if it is not."""
        if type(p) is not np.ndarray or type(t) is not np.ndarray or p.ndim != 2 or forced:
            return None
        n, k = p.shape
        if (
            (found := self._small.get((mode, p.dtype, t.dtype, k))) is None
            or not 0 < n * k < PARALLEL_FROM
            or t.shape != ((n,) if found.labels else (n, k))
            or not p.flags.carray
            or not t.flags.carray
            or type(ignored) is not int
            or 0 <= ignored <= k
            or (out is not None and not plain(out, p, t))
        ):
            return None
        address, driver, labels, cw, e, e2, x2, none, tail = found
        grad = e2 if mode == "value" else np.empty((n, k), p.dtype) if out is None else out
        if labels:
            total, _, mass, wrong = driver(address, p, t, grad, ignored, self._packed, *tail)
            return None if wrong or not mass else (total / mass, grad)
        arrays = (p, none, t, e, cw, e, e, grad, e2, x2)
        total, bad, _, _ = driver(address, *arrays, 1.0 / n, ignored, self._packed, *tail)
        return None if bad else (total / n, grad)

    def _run(
        self,
        mode: str,
        prediction: Any,
        target: Any,
        weight: Any,
        class_weight: Any,
        ignore_index: int | None,
        axis: int,
        reduction: Any,
        divisor: Any,
        out: Any,
        details: bool = False,
    ) -> tuple[Any, Any, Any]:
        if devices.involved(self._backend, prediction, target, weight, class_weight):
            arrays = (prediction, target, weight, class_weight, out)
            options = (mode, ignore_index, axis, reduction, divisor, details)
            found: tuple[Any, Any, Any] = devices.elsewhere(self, self._run_placed, arrays, *options)
            return found
        record = self.record
        reduction = reduction_of(record, reduction)
        if details and record.loop != "softmax":
            raise ValueError(f"{self.name} has no details; they belong to losses of a softmax")
        check.target_given(record, target)
        p = incoming(prediction, "prediction")
        if p.ndim == 0:
            raise ValueError(f"{self.name}: the prediction is a scalar; expected rows of scores along axis {axis}")
        check.integer(f"{self.name}: axis", axis)
        if ignore_index is not None:
            check.integer(f"{self.name}: ignore_index", ignore_index, "an integer or None")
        if not -p.ndim <= axis < p.ndim:
            raise ValueError(f"{self.name}: axis is {axis}; the prediction has {p.ndim} dimensions")
        last = axis in (-1, p.ndim - 1)
        moved = p if last else np.moveaxis(p, axis, -1)
        call = self._prepare(moved, target, weight, class_weight, ignore_index, axis)
        # The mean over labelled rows is known once the labels have been looked at, in the driver.
        counts = call.kind == "labels" and reduction == "mean" and divisor is None
        divided = 0.0 if counts else denominator(reduction, divisor, call.total, None)
        scale = -1.0 if counts else 1.0 / divided if divided != 0.0 else 0.0
        n, k = call.z.shape
        sets = {"value": 0, "grad": 1}.get(mode, 2)
        groups = outputs(out, sets, (p,), (target, weight, class_weight))
        outs = [group[0] for group in groups]
        kept = call.z.dtype
        views = [kernel_view(o, kept) if last else np.empty(o.size, kept) for o in outs]
        empty2 = np.empty((0, 0), kept)
        grad, hess = (*(v.reshape(n, k) for v in views), empty2, empty2)[:2]
        values = np.empty(n, call.dtype) if (reduction == "none" and sets < 2) or details else EMPTY[call.dtype]
        extra = np.empty((n, 3) if details else (0, 0), F64)

        total = 0.0
        if n and k:
            total, bad, mass, wrong = self._compute(mode, call, details, scale, (values, grad, hess, extra))
            if wrong:
                self._wrong_label(incoming(target, "target"), call.labels, self._classes(k), call.ignored, ignore_index)
            if bad:
                check.violation(self.name, "target", incoming(target, "target"), record.target_domain)
            divided = mass if counts else divided
        elif ((call.labels < 0) | (call.labels >= self._classes(k)))[call.labels != call.ignored].any():
            self._wrong_label(incoming(target, "target"), call.labels, self._classes(k), call.ignored, ignore_index)
        for o, view in zip(outs, views, strict=True):
            if not (last and direct(o, kept)):
                o[...] = rounded(
                    view.reshape(o.shape) if last else np.moveaxis(view.reshape(moved.shape), -1, axis), o.dtype
                )
        back = outgoing(prediction)
        results = finish(groups, out, back)
        if sets == 2:
            return results[0], results[1], None
        per_row = values.reshape(moved.shape[:-1]) if values.size == n else None
        described = None
        if details:
            lse, best, rank = (extra[:, i].reshape(moved.shape[:-1]) for i in range(3))
            described = Details(per_row, lse, best.astype(np.int64), rank.astype(np.int64))
        loss: Any = total / divided if divided != 0.0 else 0.0
        if reduction == "none" and per_row is not None:
            result = rounded(per_row, p.dtype)
            loss = result if back is None else back(result)
        return loss, results[0] if results else None, described

    def _run_placed(
        self, p: Any, target: Any, weight: Any, class_weight: Any, out: Any, mode: str, ignore_index: Any, *options: Any
    ) -> tuple[Any, Any, Any]:
        """Compute on the CPU what `devices` brought there."""
        axis, reduction, divisor, details = options
        given = (weight, class_weight, ignore_index, axis)
        return self._run(mode, p, target, *given, reduction, divisor, out, details)

    def _compute(
        self, mode: str, call: _Call, details: bool, scale: float, results: tuple[Any, ...]
    ) -> tuple[float, float, float, float]:
        """Choose the kernel and run it; the results are the driver's."""
        record, dtype, k = self.record, call.dtype, call.z.shape[1]
        labels = call.kind == "labels"
        smooth = labels and self.defaults.get("label_smoothing", 0.0) > 0.0
        tiled = (record.loop, call.kind) in TILED and k <= TILED_TO
        address, driver, _ = rows(record, NAMES[dtype], mode, call.kind, smooth, tiled, details)
        class_weight = call.class_weight
        plain_weights = not class_weight.size
        if plain_weights and (smooth or (not labels and record.loop in ("softmax", "distillation"))):
            class_weight = np.ones(k, dtype)
        arrays = (call.z, call.labels, call.target, call.weight, class_weight, call.counted, *results)
        half = call.z.dtype is not dtype
        tile, chunk = helpers(k, dtype, tiled), rows_per_chunk(k, HALF_CHUNK if half else CHUNK)
        space, classes = room(k, mode, call.kind, tiled, record.loop, chunk), self._classes(k)
        if half:
            bits = BITS[call.z.dtype.name]
            bare = [a.view(bits) if a.dtype == call.z.dtype else a for a in arrays]
            bare.insert(3, np.empty((0, 0), bits))
            if bare[2].dtype is bits:
                bare[2:4] = np.empty((0, 0), dtype), bare[2]
            fixed: tuple[Any, ...] = (scale, call.ignored, self._packed, tile, classes, space, chunk)
            return launch(half_row_driver(bits.name), call.z.size, address, *bare, *fixed)  # type: ignore[no-any-return]
        usual = plain_weights and not smooth and not details and mode in ("value", "grad")
        if usual and record.reduction == "mean" and record.loop != "ensemble" and len(self._small) < 256:
            empties = (EMPTY[dtype], np.empty((0, 0), dtype), np.empty((0, 0), F64), EMPTY[I64])
            tail = (tile, classes, space, chunk) if labels else (tile, False, classes, space, chunk, False)
            few = label_driver(NAMES[dtype]) if labels and call.z.size < PARALLEL_FROM else driver
            if few is not driver or not labels:
                key = (mode, dtype, I64 if labels else dtype, k)
                self._small[key] = _Small(address, few, labels, class_weight, *empties, tail)
        streamed = mode != "value" and overflows((call.z,), results)
        fixed = (scale, call.ignored, self._packed, tile, streamed, classes, space, chunk)
        result: tuple[float, float, float, float] = launch(driver, call.z.size, address, *arrays, *fixed)
        return result

    def _pack(self, values: Mapping[str, Any]) -> Any:
        own = [v for k, v in values.items() if k not in self.record.loop_parameters]
        beta = values.get("logit_scale", 1.0) * values.get("scale", 1.0) / values.get("temperature", 1.0)
        return np.array([*own, beta, values.get("label_smoothing", 0.0), values.get("z_loss", 0.0)], np.float64)

    def _prepare(
        self, p: Any, target: Any, weight: Any, class_weight: Any, ignore_index: int | None, axis: int
    ) -> _Call:
        """Check shapes and labels, and lay every array out as rows."""
        dtype = compute_dtype(p, "prediction")
        shape = p.shape[:-1]
        k, n = p.shape[-1], math.prod(shape)
        stored = common_half((p,))
        z = contiguous(p, stored or dtype).reshape(n, k)
        t = incoming(target, "target")
        e, no_labels, none2 = EMPTY[dtype], EMPTY[I64], np.empty((0, 0), dtype)
        w = e
        if weight is not None:
            w = weights(weight, shape, dtype)
            check.violation(self.name, "weight", w.reshape(shape), NONNEGATIVE)
        cw = e
        if class_weight is not None:
            cw = incoming(class_weight, "class_weight")
            check.class_weight(self.record, cw.shape, k)
            cw = flat(cw, dtype)
            check.violation(self.name, "class_weight", cw, NONNEGATIVE)
        total = float(n) if weight is None else float(w.sum(dtype=np.float64))
        kind = check.row_target(self.record, t.dtype, t.dtype.kind in "iub", t.shape, shape, k)
        if LOOPS[self.record.loop].dense == "number":
            dense = contiguous(t, dtype).reshape(n, 1)
            return _Call("dense", z, no_labels, dense, w, e, e, 0, total, shape, dtype)
        if kind == "labels":
            # Torch divides by the weights of the classes for likelihoods, and by the rows for margins.
            counted = e if self.record.loop in ("margin", "top_margin", "ordinal") else cw
            labels, ignored = self._labels(t, self._classes(k), ignore_index)
            return _Call("labels", z, labels, none2, w, cw, counted, ignored, 0.0, shape, dtype)
        t = t if axis in (-1, p.ndim - 1) else np.moveaxis(t, axis, -1)
        check.same_shape("target", t.shape, p.shape)
        dense = contiguous(t, stored if stored and t.dtype == stored else dtype).reshape(n, k)
        return _Call("dense", z, no_labels, dense, w, cw, e, 0, total, shape, dtype)

    def _classes(self, k: int) -> int:
        """How many labels there are for a row of K scores."""
        return k + (self.record.loop == "ordinal")

    def _labels(self, t: Any, k: int, ignore_index: int | None) -> tuple[Any, int]:
        """Labels as int64, and the one that means a row to ignore."""
        # An unsigned label beyond int64 would wrap to a negative one, which may be ignore_index.
        labels = flat(np.minimum(t, np.uint64(k)) if t.dtype == np.uint64 else t, I64)
        # None ignores nothing: as if it were class 0, which no label outside the classes equals.
        ignored = (0 if k else LEAST) if ignore_index is None else int(ignore_index)
        if ignore_index is not None and 0 <= ignored < k:
            if ((labels < 0) | (labels >= k)).any():
                self._wrong_label(t, labels, k, ignored, ignore_index)
            return np.where(labels == ignored, LEAST, labels), LEAST
        return labels, ignored

    def _wrong_label(self, t: Any, labels: Any, k: int, ignored: int, ignore_index: int | None) -> None:
        """Raise for the first label that is neither a class nor ignored."""
        first = int(np.argmax(((labels < 0) | (labels >= k)) & (labels != ignored)))
        where = check.position(first, t.shape)
        allowed = check.labels_allowed(k, ignore_index)
        raise ValueError(f"{self.name}: target[{where}] is {t.reshape(-1)[first]}; allowed: {allowed}")


LEAST = int(np.iinfo(np.int64).min)
"""Stands for an ignored row where ignore_index is also a class."""
