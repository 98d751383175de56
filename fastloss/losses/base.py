"""Public base class of losses: an immutable callable around one formula."""

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..call import check
from ..call.arrays import on_host
from ..call.backend_choice import BACKENDS
from ..call.errors import CallTypeError, CallValueError, named
from ..call.reduction import BATCH_MEAN, REDUCTIONS
from ..spec.record import BITS, SIGNS, Formula
from ..spec.record import registered as _registered
from .methods import CallSignature, describe
from .risks.base import Risk, alike

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ComposedDoc", "Loss", "remember"]


class ComposedDoc:
    """Descriptor for `__doc__`: the class's docstring on the class, the composed one on an instance."""

    def __init__(
        self, text: str = "A loss function: call it for the value; its methods give derivatives in the same pass."
    ) -> None:
        self.text = text

    def __get__(self, instance: "Loss | None", owner: type) -> str:
        return self.text if instance is None else instance._docstring()


class Loss:  # noqa: D101
    __doc__ = ComposedDoc()

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_backend",
        "_bound",
        "_levels",
        "_packed",
        "_plans",
        "_rewritten",
        "_usual",
        "defaults",
        "record",
    )

    __signature__ = CallSignature()

    _takes_more = False
    """Whether calls take options of the parts of a sum, which no signature lists."""

    record: Formula
    defaults: Mapping[str, Any]
    _backend: str
    _bound: dict[Any, Any]
    _levels: bool
    _packed: Any
    _rewritten: bool
    """Whether kernels alone do not give the loss: calls are rewritten as calls of a plain loss."""
    _plans: dict[Any, Any]
    _usual: bool

    def __init__(self, record: Formula, defaults: Mapping[str, Any] | None = None, backend: str = "") -> None:
        values = {k: v if defaults is None else defaults[k] for k, v in record.defaults.items()}
        for switch, domains in record.switched.items():
            if record.prediction_domains != domains[bool(values[switch])]:
                record = record._replace(prediction_domains=domains[bool(values[switch])])
        object.__setattr__(self, "record", record)
        object.__setattr__(self, "_backend", backend)
        object.__setattr__(self, "defaults", MappingProxyType(values))
        object.__setattr__(self, "_levels", any(type(v) is tuple for v in values.values()))
        spread = self._levels and any(type(v) is tuple and record.parameters[k].spread for k, v in values.items())
        moved = bool(values.get("softcap")) or (record.name == "nll" and values.get("label_smoothing", 0.0) > 0.0)
        object.__setattr__(self, "_rewritten", spread or moved or record.target_domain is BITS)
        usual = not any(type(v) is tuple for v in values.values()) and values == record.defaults
        object.__setattr__(self, "_usual", usual)
        object.__setattr__(self, "_packed", self._pack(values))
        object.__setattr__(self, "_bound", {})
        object.__setattr__(self, "_plans", {})

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        describe(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self.record.name} is immutable; bind(...) gives a loss with other defaults")

    def __reduce__(self) -> Any:
        usual, own = _registered[self.record.name], self.record
        changed: tuple[Any, ...] = () if own.reduction == usual.reduction else (own.reduction,)
        if own.target_domain is BITS:
            changed = (own.reduction, "01")
        return _restore, (type(self), self.record.name, dict(self.defaults), self._backend, *changed)

    def _docstring(self) -> str:
        """Return the docstring of this loss, composed from its record."""
        from .docs import docstring

        return docstring(self.record)

    @property
    def name(self) -> str:
        """Name of the loss in the catalogue."""
        return self.record.name

    @property
    def __name__(self) -> str:
        return self.record.name

    def __repr__(self) -> str:
        changed = {k: v for k, v in self.defaults.items() if v != self.record.defaults[k]}
        said = [f"{k}={self.record.parameters[k].show(v, repr)}" for k, v in changed.items()]
        said += [f"backend={self._backend!r}"] if self._backend else []
        usual = _registered.get(self.name, self.record).reduction
        said += [f"reduction={self.record.reduction!r}"] if self.record.reduction != usual else []
        said += ["labels='01'"] if self.record.target_domain is BITS else []
        inside = ", ".join(said)
        return f"fastloss.{self.name}" + (f".bind({inside})" if inside else "")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Loss):
            return False
        same = (self.name, self._backend, dict(self.defaults)) == (other.name, other._backend, dict(other.defaults))
        same = same and (self.record.target_domain is BITS) == (other.record.target_domain is BITS)
        return same and alike(self.record.reduction, other.record.reduction)

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.defaults.items())))

    def bind(self, **parameters: Any) -> "Self":
        """Return this loss with other parameter defaults.

        ``backend`` says where it is computed, and ``reduction`` is that of calls that name none: "mean", "sum", "none",
        "batchmean", or a risk of `fastloss.risk`. Losses of targets -1 and +1 take ``labels="01"``.

        Examples
        --------
        >>> import numpy as np, fastloss as fl
        >>> fl.huber.bind(delta=2.0)
        fastloss.huber.bind(delta=2.0)
        >>> fl.mae.bind(reduction=fl.risk.CVaR(0.5))(np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4))
        3.5
        """
        return self._with(parameters)

    def _with(self, parameters: dict[str, Any]) -> "Self":
        """Return this loss with other parameters, cached by their values."""
        key: Any = tuple(parameters.items())
        try:
            found = self._bound.get(key)
            if found is None and any(getattr(v, "ndim", 0) for v in parameters.values()):
                # Tensors are found by identity, and may have other values at the next call.
                key = _by_values(key)
                found = None if key is None else self._bound.get(key)
        except TypeError:
            key = _by_values(key)
            found = None if key is None else self._bound.get(key)
        if found is None:
            found = self._bind(dict(parameters))
            if key is not None:
                remember(self._bound, key, found, BOUND)
        return found

    @named
    def _bind(self, parameters: dict[str, Any]) -> "Self":
        """Return a new loss with other parameters."""
        backend, reduction = parameters.pop("backend", None), parameters.pop("reduction", None)
        if backend is not None:
            check.one_of("backend", backend, BACKENDS)
        record = self.record
        if reduction is not None:
            if not isinstance(reduction, Risk):
                check.one_of("reduction", reduction, (*REDUCTIONS, BATCH_MEAN))
            record = record._replace(reduction=reduction)
        if "labels" in parameters and _registered.get(record.name, record).target_domain is SIGNS:
            check.one_of("labels", parameters["labels"], ENCODINGS)
            record = record._replace(target_domain=BITS if parameters.pop("labels") == "01" else SIGNS)
        values = {k: self._parameter(k, v) for k, v in parameters.items()}
        return type(self)(record, {**self.defaults, **values}, backend or self._backend)

    def _pack(self, values: Mapping[str, Any]) -> Any:
        """Return the parameters in the form passed to kernels."""
        return np.array([math.nan if type(v) is tuple else v for v in values.values()], np.float64)

    def _parameter(self, name: str, value: Any) -> Any:
        spec = self.record.parameters.get(name)
        listed = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
        if spec is not None and spec.vector and listed:
            return tuple(check.parameter(self.record, name, v) for v in value)
        if spec is not None and spec.spread and (isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0):
            return self._spread(name, value)
        return check.parameter(self.record, name, value)

    def _spread(self, name: str, value: Any) -> Any:
        """Return an array of a parameter as nested tuples of checked numbers."""
        if type(value) in (list, tuple):
            return tuple(map(partial(self._spread, name), value))
        if getattr(value, "ndim", 0):
            return self._spread(name, on_host(value, name).tolist())
        if value is None:
            raise CallValueError("is an array with None in it; expected numbers", name)
        return check.parameter(self.record, name, value)

    def _needs(self, missing: list[str], is_bare: bool) -> CallTypeError:
        """Return the error for a call without some of its arrays; a bare call, of none, may have been meant to bind."""
        changed = dict(self.defaults) != self.record.defaults
        return check.arrays_missing(
            self.record, missing, repr(self).replace("fastloss.", "fl.") * (is_bare and changed)
        )

    def __call__(self, prediction: Any, target: Any = None, **options: Any) -> Any:
        """Return the reduced loss, or one value per sample with ``reduction="none"``."""
        raise NotImplementedError

    def value_and_grad(self, prediction: Any, target: Any = None, **options: Any) -> tuple[Any, ...]:
        """Return the loss and its gradient with respect to the prediction, in one pass over the data."""
        raise NotImplementedError

    def grad_and_hess(self, prediction: Any, target: Any = None, **options: Any) -> tuple[Any, Any]:
        """Return first and second derivatives per sample, times the weight."""
        raise NotImplementedError

    def on(self, name: str) -> "Loss":
        """Return this loss as a penalty on parameters of a model, which calls pass by this name.

        Its sum with other losses takes the parameters, an array or a list or dictionary of arrays, and gives their
        gradients in a dictionary. The penalty is a sum over all parameters, whatever the reduction of the samples.

        Examples
        --------
        >>> import numpy as np, fastloss as fl
        >>> loss = fl.mse + 0.1 * fl.l2.on("params")
        >>> value, grad, grads = loss.value_and_grad(np.array([1.0, 3.0]), np.zeros(2), params=np.array([2.0]))
        >>> value, grads["params"]
        (5.2, array([0.2]))
        """
        return import_module(".sums.penalties", __package__).on(self, name)  # type: ignore[no-any-return]

    @property
    def _of_classes(self) -> bool:
        """Whether targets may be labels of classes along an axis."""
        return self.record.family == "rows" and self.record.row_loop.labels

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        raise NotImplementedError

    __array_ufunc__ = None  # NumPy's numbers leave `np.float64(0.5) * loss` to the loss.

    def __add__(self, other: Any) -> "Loss":
        return _sums().added(self, other)  # type: ignore[no-any-return]

    def __radd__(self, other: Any) -> "Loss":
        return _sums().added(self, other)  # type: ignore[no-any-return]

    def __sub__(self, other: Any) -> "Loss":
        return _sums().subtracted(self, other)  # type: ignore[no-any-return]

    def __rsub__(self, other: Any) -> "Loss":
        return -_sums().added(self, other)  # type: ignore[no-any-return]

    def __mul__(self, factor: Any) -> "Loss":
        return _sums().scaled(self, factor)  # type: ignore[no-any-return]

    def __rmul__(self, factor: Any) -> "Loss":
        return _sums().scaled(self, factor)  # type: ignore[no-any-return]

    def __neg__(self) -> "Loss":
        return _sums().scaled(self, -1.0)  # type: ignore[no-any-return]


describe(Loss)

ENCODINGS = ("signs", "01")
"""Encodings of the two labels of losses of margins: -1 and +1, or 0 and 1."""

BOUND = 64
"""Largest number of losses with other parameters that a loss remembers."""


def remember(cache: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Store an item in a cache of at most so many items, from which the oldest are dropped for it."""
    if most <= 0:
        return
    while key not in cache and len(cache) >= most:
        # Another thread may have changed the cache between the two steps, or dropped the same item.
        with suppress(RuntimeError, StopIteration):
            cache.pop(next(iter(cache)), None)
    cache[key] = value


def _sums() -> Any:
    """Return the module of sums, whose classes are subclasses of this one."""
    return import_module(".sums.combine", __package__)


def _by_values(key: tuple[tuple[str, Any], ...]) -> Any:
    """Return a key with lists and arrays of levels as tuples; None where a value cannot be hashed all the same."""
    lists = [(k, on_host(v, k).tolist() if getattr(v, "ndim", 0) else v) for k, v in key]
    hashable = tuple((k, _frozen(v)) for k, v in lists)
    try:
        hash(hashable)
    except TypeError:
        return None
    return hashable


def _frozen(value: Any) -> Any:
    """Return nested lists as nested tuples."""
    return tuple(map(_frozen, value)) if type(value) is list else value


def _restore(
    kind: type[Loss],
    name: str,
    defaults: dict[str, Any],
    backend: str = "",
    reduction: Any = None,
    labels: str = "signs",
) -> Loss:
    record = _registered[name]
    record = record._replace(target_domain=BITS) if labels == "01" else record
    return kind(record if reduction is None else record._replace(reduction=reduction), defaults, backend)
