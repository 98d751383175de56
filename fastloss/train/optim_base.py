"""Optimizer: parameters with their states, updated in place by one compiled pass a step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..call.check import shown
from . import optim_checks as check
from .optim_checks import BELOW_ONE, Option

__all__ = [
    *("BETAS", "COMMON", "DECOUPLED", "EPS", "MOMENTUM"),
    *("Closure", "Optimizer", "Rule", "Slot", "decay_of", "direction"),
]

COMMON = {
    "lr": Option("learning rate"),
    "weight_decay": Option("factor of the L2 penalty, whose gradient is added, or of decoupled decay"),
    "maximize": Option("whether the objective is maximised", bool),
}
"""Options of all first-order optimisers."""

SCHEDULED = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")
"""Entries of a group that schedules write."""

EPS = Option("term added to the denominator")
BETAS = Option("rates of decay of the moving averages", BELOW_ONE, pair=True)
MOMENTUM = Option("factor of the buffer of past gradients")
DECOUPLED = Option("whether weight decay shrinks the parameter instead of entering the gradient", bool)


def direction(group: Mapping[str, Any]) -> float:
    """Return the factor of gradients: -1 where the objective is maximised."""
    return -1.0 if group["maximize"] else 1.0


def decay_of(group: Mapping[str, Any], decoupled: bool) -> tuple[float, float]:
    """Return the decay that enters the gradient, and the factor that shrinks the parameter."""
    decay = group["weight_decay"]
    return (0.0, 1.0 - group["lr"] * decay) if decoupled else (decay, 1.0)


ARRAY, INFINITY = np.ndarray, math.inf


class Rule(NamedTuple):
    """Update rule of an optimiser."""

    formula: Any
    """Scalar formula of (parameter, gradient, states, numbers), compiled for each dtype."""
    states: tuple[str, ...]
    """Names of the states (arrays of the parameter's shape) that the formula takes, as torch calls them."""
    options: Mapping[str, Option]
    """Options by name, each with its meaning and its allowed values."""
    math: str
    """The update, as a formula."""
    paper: str
    """Source of the rule."""


class Slot:
    """One parameter: its array, its states by name and its number of steps."""

    def __init__(self, name: str, array: Any, index: int, group: int) -> None:
        self.name, self.array, self.index, self.group = name, array, index, group
        self.dtype, self.shape = array.dtype, array.shape
        self.step = 0
        self.born = 0
        """Number of steps before the states were allocated; -1 for states that were restored."""
        self.product = 1.0
        """Product of the momenta of all steps, which NAdam corrects its averages by."""
        self.state: dict[str, Any] = {}
        # Kernels read contiguous memory: other parameters are copied there and back.
        self.work = array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)


class Optimizer:
    """Base class of the optimisers: updates float32 and float64 arrays in place, by given gradients.

    `step(grads)` takes gradients in the order of the parameters, or by their names. `param_groups` is a list of
    dictionaries of options, which may be changed between steps, as schedules do with "lr".
    """

    rule: ClassVar[Rule]
    """Formula, states, options and source."""

    def __init__(self, params: Any, defaults: Mapping[str, Any]) -> None:
        self.defaults = self._validated(defaults)
        self.param_groups: list[dict[str, Any]] = []
        self._slots: list[Slot] = []
        self._batches: list[Any] = []
        self._parts: dict[Any, Any] = {}
        if isinstance(params, Sequence) and params and isinstance(params[0], Mapping):
            for group in params:
                self.add_param_group(group)
        else:
            self.add_param_group({"params": params})

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own: {"params": [w], "lr": 0.1}."""
        if "params" not in group:
            raise ValueError(f"{self._name} group has no entry 'params'; expected {{'params': [w], 'lr': 0.1}}")
        given = {k: v for k, v in group.items() if k != "params"}
        check.unknown(self._name, given, self.defaults)
        options = self._validated({**self.defaults, **given})
        arrays = check.named(f"{self._name} params", group["params"])
        taken = {slot.name: slot.array for slot in self._slots}
        for text, array in arrays.items():
            name = f"{self._name} params{text}" if not taken else f"{self._name} group {len(self.param_groups)}{text}"
            check.parameter(name, array)
        start, number = len(self._slots), len(self.param_groups)
        slots = [Slot(text, array, start + i, number) for i, (text, array) in enumerate(arrays.items())]
        named = [s for s in (*self._slots, *slots) if not s.name[1:-1].isdecimal()]
        if named and (len(named) < start + len(slots) or len({s.name for s in named}) < len(named)):
            raise ValueError(
                f"{self._name} group {number}: expected all parameters named, each by another name, or none"
            )
        check.overlaps({f"{self._name} params{s.name} of group {s.group}": s.array for s in (*self._slots, *slots)})
        self._slots += slots
        self._is_named = bool(named)
        self._has_copies = any(slot.work is not slot.array for slot in self._slots)
        self.param_groups.append({"params": list(arrays.values()), **options})
        self._batches.append(None)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _validated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options with validated values."""
        return {k: self.rule.options[k].checked(f"{self._name}: {k}", v) for k, v in options.items()}

    def step(self, grads: Any) -> None:
        """Update all parameters in place.

        Parameters
        ----------
        grads : list or dict of arrays
            The gradient of each parameter, in the order of the parameters or by their names, with their shapes and
            dtypes. None leaves a parameter as it is. `SGD` and `Adagrad` also take `(indices, rows)`: gradients of
            rows of the parameter, (k,) integers and (k, ...), where repeated indices add up.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter. No parameter has then been changed.
        """
        # Spares the usual call 1 us of checks.
        usual = type(grads) is list and len(grads) == len(self._slots) and not self._is_named
        found = grads if usual else self._in_order(grads)
        taken, whole = [], True
        for slot, g in zip(self._slots, found):  # noqa: B905, as the lengths agree and the keyword takes 0.1 us
            # `carray`: contiguous, aligned and writable; other gradients take the checks below.
            is_usual = type(g) is ARRAY and g.dtype is slot.dtype and g.shape == slot.shape and g.flags.carray
            if is_usual and slot.array.flags.writeable:
                taken.append(g)
            else:
                taken.append(self._taken(slot, g))
                whole = whole and isinstance(taken[-1], ARRAY)
        for group in self.param_groups:
            if not 0.0 <= group["lr"] < INFINITY:
                number = next(i for i, g in enumerate(self.param_groups) if g is group)
                raise ValueError(f"{self._name}: lr of group {number} is {group['lr']}; allowed: [0, inf)")
        for number, group in enumerate(self.param_groups):
            holds = self._holds(group)
            batches = self._batches[number]
            if batches is None or batches[0] != holds:
                batches = self._batches[number] = self._built(number, holds)
            for slots, batch in batches[1]:
                if whole:
                    self._update(group, slots, batch, taken)
                else:
                    self._update_some(group, holds, slots, taken)

    def _in_order(self, grads: Any) -> list[Any]:
        """Return the gradients in the order of the parameters."""
        if isinstance(grads, Mapping):
            names = [slot.name for slot in self._slots]
            given = check.named(f"{self._name} grads", grads)
            for name in names:
                if name not in given:
                    raise ValueError(f"{self._name} grads{name} is missing; expected {', '.join(names)}")
            for name in given:
                if name not in names:
                    raise ValueError(f"{self._name} grads{name} has no parameter; expected {', '.join(names)}")
            return [given[name] for name in names]
        if isinstance(grads, np.ndarray) or not isinstance(grads, Sequence):
            raise TypeError(
                f"{self._name}: grads is {shown(type(grads).__name__)}; expected a list of arrays, type: [g]"
            )
        if self._is_named:
            raise TypeError(f"{self._name}: grads is a list; expected a dictionary, as the parameters have names")
        if len(grads) != len(self._slots):
            raise ValueError(f"{self._name} got {len(grads)} gradients; expected {len(self._slots)}, one a parameter")
        return list(grads)

    def _taken(self, slot: Slot, g: Any) -> Any:
        """Return a gradient as kernels read it; raise unless it fits its parameter."""
        what = f"{self._name} grads{slot.name}"
        if g is None:
            return None
        self._require_writable(slot)
        if isinstance(g, tuple):
            self._allow_rows(what, self.param_groups[slot.group])
            return check.row_sparse(what, g, slot.array)
        return check.dense(what, g, slot.array)

    def _require_writable(self, slot: Slot) -> None:
        """Raise where a parameter became read-only after the optimiser was made: kernels write by its address."""
        check.parameter(f"{self._name} params{slot.name}", slot.array)

    def _allow_rows(self, what: str, group: Mapping[str, Any]) -> None:
        """Raise unless the optimiser takes row-sparse gradients."""
        raise TypeError(f"{what} is a tuple; only SGD and Adagrad take row-sparse gradients (indices, rows)")

    def _holds(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        """Return which states the options need."""
        return (True,) * len(self.rule.states)

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        """Return the numbers of the formula for a step, and bring the slot's product up to it."""
        raise NotImplementedError

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        """Return the value with which a state begins."""
        return 0.0

    def _built(self, number: int, holds: tuple[bool, ...]) -> tuple[Any, list[Any]]:
        """Return the kept states and the batches of a group: its parameters of each dtype."""
        self._parts.clear()
        group: dict[Any, list[Slot]] = {}
        for slot in self._slots:
            if slot.group == number:
                self._prepare(slot, holds)
                group.setdefault(slot.dtype, []).append(slot)
        return holds, [(slots, self._batch(slots, holds)) for slots in group.values()]

    def _prepare(self, slot: Slot, holds: tuple[bool, ...]) -> None:
        """Allocate the states that a parameter needs and has not got."""
        for name, held in zip(self.rule.states, holds, strict=True):
            if held and name not in slot.state:
                start = self._start(name, self.param_groups[slot.group])
                slot.state[name] = np.full(slot.shape, start, slot.dtype) if start else np.zeros(slot.shape, slot.dtype)
                slot.born = slot.step

    def _made(self, holds: tuple[bool, ...], dtype: Any) -> Any:
        from ..cpu.optimisers import Update  # brings Numba

        return Update(self.rule.formula.__name__, self.rule.formula, holds, dtype.name)

    def _batch(self, slots: list[Slot], holds: tuple[bool, ...]) -> Any:
        from ..cpu.optimisers import Batch

        kept = [[s.state[n] if h else None for n, h in zip(self.rule.states, holds, strict=True)] for s in slots]
        return Batch(self._made(holds, slots[0].dtype), [s.work for s in slots], kept)

    def _update(self, group: Mapping[str, Any], slots: list[Slot], batch: Any, taken: list[Any]) -> None:
        """Update the parameters of a batch by their gradients."""
        if len(slots) == 1:
            (slot,) = slots
            gradients = [taken[slot.index]]
            slot.step += 1
            batch.set_numbers(0, self._numbers(group, slot))
        else:
            gradients = [taken[slot.index] for slot in slots]
            known: dict[Any, Any] = {}
            for i, slot in enumerate(slots):
                key = slot.step, slot.born, slot.product
                slot.step += 1
                if key not in known:
                    known[key] = self._numbers(group, slot), slot.product
                row, slot.product = known[key]
                batch.set_numbers(i, row)
        copied = [slot for slot in slots if slot.work is not slot.array] if self._has_copies else ()
        for slot in copied:
            slot.work[...] = slot.array
        if not batch.run(gradients):
            batch.run([g.copy() for g in gradients])
        for slot in copied:
            slot.array[...] = slot.work

    def _update_some(
        self, group: Mapping[str, Any], holds: tuple[bool, ...], slots: list[Slot], taken: list[Any]
    ) -> None:
        """Update the parameters that have gradients, some of them by rows."""
        dense = [s for s in slots if isinstance(taken[s.index], np.ndarray)]
        key = tuple(s.index for s in dense)
        if dense:
            if key not in self._parts:
                self._parts[key] = self._batch(dense, holds)
            self._update(group, dense, self._parts[key], taken)
        for slot in slots:
            if isinstance(taken[slot.index], tuple):
                self._update_rows(group, holds, slot, taken[slot.index])

    def _update_rows(
        self, group: Mapping[str, Any], holds: tuple[bool, ...], slot: Slot, gradient: tuple[Any, Any]
    ) -> None:
        """Update rows of a parameter."""
        from ..cpu.optimisers import NUMBERS, update_rows_by

        slot.step += 1
        row = self._numbers(group, slot)
        numbers = np.array((*row, *[0.0] * (NUMBERS - len(row))))
        kept = [slot.state[n] for n, held in zip(self.rule.states, holds, strict=True) if held]
        table = (len(slot.array), gradient[1].shape[1])
        slot.work[...] = slot.array
        state = kept[0].reshape(table) if kept else None
        update_rows_by(self._made(holds, slot.dtype), slot.work.reshape(table), state, gradient, numbers)
        if slot.work is not slot.array:
            slot.array[...] = slot.work

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the states and options, with the keys of torch: {"state": ..., "param_groups": ...}."""
        groups = []
        for number, group in enumerate(self.param_groups):
            indices = [slot.index for slot in self._slots if slot.group == number]
            groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": indices})
        return {
            "state": {slot.index: self._state_of(slot) for slot in self._slots if slot.step},
            "param_groups": groups,
        }

    def _state_of(self, slot: Slot) -> dict[str, Any]:
        return {"step": slot.step, **{name: array.copy() for name, array in slot.state.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore states and options that `state_dict` returned, of this library or of the torch class of this name.

        Parameters are left as they are. Raises ValueError where groups, names or shapes do not fit, before anything
        is changed.
        """
        groups, states = state_dict["param_groups"], state_dict["state"]
        sizes = [len(group["params"]) for group in groups]
        own = [len(group["params"]) for group in self.param_groups]
        if sizes != own:
            raise ValueError(f"{self._name}: state has groups of {sizes} parameters; expected {own}")
        options = [self._loaded_options(group) for group in groups]
        loaded = [self._loaded(slot, states.get(slot.index, {})) for slot in self._slots]
        for group, found in zip(self.param_groups, options, strict=True):
            group.update(found)
        for slot, (step, product, arrays) in zip(self._slots, loaded, strict=True):
            slot.step, slot.product, slot.state = step, product, arrays
            slot.born = -1
        self._batches = [None] * len(self.param_groups)

    def _loaded_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        missing = [name for name in self.defaults if name not in group]
        if missing:
            raise ValueError(f"{self._name}: state has no option {missing[0]!r}; expected the state of {self._name}")
        found = self._validated({name: group[name] for name in self.defaults})
        return {**found, **{name: group[name] for name in SCHEDULED if name in group}}

    def _loaded(self, slot: Slot, given: Mapping[str, Any]) -> tuple[int, float, dict[str, Any]]:
        """Return steps, product and states of one parameter, after checks of their shapes."""
        arrays = {}
        for name in self.rule.states:
            if given.get(name) is None:
                continue
            array = np.array(np.asarray(given[name]), slot.dtype, order="C")
            if array.shape != slot.shape:
                raise ValueError(
                    f"{self._name}: state {name} of params{slot.name} has shape {array.shape}; expected {slot.shape}"
                )
            arrays[name] = array
        return int(given.get("step", bool(given))), float(given.get("mu_product", 1.0)), arrays

    def warmup(self) -> None:
        """Compile the kernels of all parameters, or load them from the disk cache, without a step."""
        for number, group in enumerate(self.param_groups):
            holds = self._holds(group)
            self._batches[number] = self._built(number, holds)
            for _, batch in self._batches[number][1]:
                batch.compile()

    def __getstate__(self) -> dict[str, Any]:
        kept = {k: v for k, v in self.__dict__.items() if k != "_parts"}
        return {**kept, "_batches": [None] * len(self._batches), "_parts": {}}

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.defaults.items())
        return f"{self._name}({len(self._slots)} parameters, {options})"


Closure = Callable[[], tuple[float, Any]]
"""Function that returns the loss and the gradients at the current parameters."""
