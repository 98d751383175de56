"""Generate the files that follow from the catalogue: the type stub of the package and parts of the pages in docs/.

`python -m tools.stubs` writes them; with `--check` it writes nothing and exits 1 when one is stale.
"""

import argparse
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fastloss
from fastloss.spec.record import LOOPS, SIGNS, Formula, Integers, Parameter

from . import pages

__all__ = ["generated", "main", "stub"]

PACKAGE = Path(fastloss.__file__).parent
STUB = PACKAGE / "__init__.pyi"
DOCS = PACKAGE.parent / "docs"

HEADER = """\
# Written by `python -m tools.stubs` from the catalogue of losses. Do not edit.
# A loss names its own parameters where Loss takes any, so its methods narrow those of Loss on purpose.
# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from ._version import __version__ as __version__
from . import balance as balance, optim as optim, recipes as recipes, rewards as rewards, risk as risk
from .call.backend_choice import backend as backend
from .call.errors import BackendError as BackendError, CallError as CallError
from .call.errors import CallTypeError as CallTypeError, CallValueError as CallValueError
from .cuda.placement import synchronize as synchronize
from .evaluation import evaluate as evaluate
from .evaluation.compare import compare as compare
from .advice import advise as advise, mismatches as mismatches
from .spec.record import Formula
from .call.memory import release_memory as release_memory
from .losses.sums.combine import combine as combine
from .losses.sums.tasks import tasks as tasks
from .losses.custom.elements import formula as formula, loss as loss, losses_from as losses_from
from .losses.custom.arrays import array_loss as array_loss
from .losses.custom.rows import row_loss as row_loss
from .losses.rows import Details
from .spec.spelling import FormulaError as FormulaError
from .text.sequences import sequence_log_probs as sequence_log_probs
from .train.search.run import search as search
from . import duckdb as duckdb, jax as jax, plot as plot, polars as polars, scipy as scipy, torch as torch
from .interop.boosting import objective as objective
from .interop.scorer import scorer as scorer

class _SupportsDLPack(Protocol):
    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

_Input: TypeAlias = ArrayLike | _SupportsDLPack
_Floats: TypeAlias = NDArray[np.floating[Any]]
_Reduced: TypeAlias = Literal["mean", "sum", "batchmean"] | risk.Risk | None
_Reduction: TypeAlias = Literal["mean", "sum", "none", "batchmean"] | risk.Risk | None
_Curvature: TypeAlias = Literal["exact", "surrogate"]
_Backend: TypeAlias = Literal["auto", "cpu", "cuda"]

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...

class Loss:
    @property
    def name(self) -> str: ...
    @property
    def record(self) -> Formula: ...
    @property
    def defaults(self) -> Mapping[str, Any]: ...
    def warmup(self, dtypes: tuple[str, ...] = ...) -> None: ...
    def on(self, name: str) -> Loss: ...
"""

KEYWORDS = {
    "weight": "_Input | None = ...",
    "divisor": "float | None = ...",
    "curvature": "_Curvature = ...",
    "class_weight": "_Input | None = ...",
    "ignore_index": "int | None = ...",
    "axis": "int = ...",
    "details": "Literal[False] = ...",
}
"""Types of the keywords that methods name beside the parameters of a formula."""

LABELS = frozenset({"class_weight", "ignore_index"})
"""Keywords that apply to integer labels only."""


def _takes_labels(record: Formula) -> bool:
    return record.family == "rows" and LOOPS[record.loop].labels


def _parameters(record: Formula) -> str:
    """Return the parameters of a formula as keywords of a stub."""
    text = ""
    for name, parameter in record.parameters.items():
        kind = _kind(parameter)
        kind += " | Sequence[float] | _Floats" if parameter.vector else ""
        kind += " | _Input" if parameter.spread else ""
        kind += " | None" if parameter.none is not None else ""
        text += f", {name}: {kind} = ..."
    text += ', labels: Literal["signs", "01"] = ...' if record.target_domain is SIGNS else ""
    return text + ", backend: _Backend | None = ..."


def _kind(parameter: Parameter) -> str:
    if parameter.choices:
        words = ", ".join(f'"{word}"' for word in parameter.choices)
        return f"Literal[{words}]"
    return "bool" if parameter.flag else "int" if isinstance(parameter.allowed, Integers) else "float"


def _methods(kind: Any, data: str, gradient: str, parameters: str, bound: str, leave_out: frozenset[str]) -> str:
    """Return the methods of one signature, with an overload for each kind of reduction.

    Keywords and their order are those of the methods of `kind`; only their types are said here.
    """

    def keywords(method: str, types: Mapping[str, str]) -> str:
        named = [
            p.name for p in inspect.signature(getattr(kind, method)).parameters.values() if p.kind == p.KEYWORD_ONLY
        ]
        return "".join(f", {name}: {types.get(name, 'Any = ...')}" for name in named if name not in leave_out)

    lines = []
    for method, returned in (("__call__", "{}"), ("value_and_grad", f"tuple[{{}}, {gradient}]")):
        for reduction, value in (
            ("_Reduced = ...", "float"),
            ('Literal["none"]', "_Floats"),
            ("_Reduction = ...", "float | _Floats"),
        ):
            named = keywords(method, KEYWORDS | {"reduction": reduction, "out": f"{gradient} | None = ..."})
            lines += ["@overload", f"def {method}(self, {data}{named}{parameters}) -> {returned.format(value)}: ..."]
    if "details" not in leave_out and hasattr(kind, "details"):
        types = KEYWORDS | {"out": f"{gradient} | None = ...", "details": "Literal[True]"}
        named = keywords("value_and_grad", types | {"reduction": "_Reduction = ..."})
        triple = f"tuple[float | _Floats, {gradient}, Details]"
        lines += ["@overload", f"def value_and_grad(self, {data}{named}{parameters}) -> {triple}: ..."]
        lines.append(f"def details(self, {data}{keywords('details', KEYWORDS)}{parameters}) -> Details: ...")
    pair = f"tuple[{gradient}, {gradient}]"
    if named := keywords("grad_and_hess", KEYWORDS | {"out": f"{pair} | None = ..."}):
        lines.append(f"def grad_and_hess(self, {data}{named}{parameters}) -> {pair}: ...")
    lines.append(f"def bind(self{bound}) -> Self: ...")
    return "".join(f"    {line}\n" for line in lines)


def _own_methods(loss: Any) -> str:
    """Return the methods of one loss: its predictions, its target and its parameters by name."""
    record: Formula = loss.record
    if record.family == "arrays":
        return _array_methods(loss)
    several = len(record.predictions)
    first = list(inspect.signature(type(loss).__call__).parameters)[1]
    data = f"{first}: _Input" + (f" | tuple[{', '.join(['_Input'] * several)}]" if several > 1 else "")
    data += "" if record.target is None else ", target: _Input"
    data += ", *more: _Input" if several > 1 and record.link == "difference" else ", *"
    gradient = "_Floats" if several == 1 else f"tuple[{', '.join(['_Floats'] * several)}]"
    parameters = _parameters(record)
    by_name = "".join(f", {name}: _Input = ..." for name in record.predictions[1:])
    leave_out = frozenset() if _takes_labels(record) else LABELS
    leave_out |= frozenset() if record.family == "rows" and record.row_loop.describes else {"details"}
    bound = f", *{parameters}, reduction: _Reduction = ..."
    return _methods(type(loss), data, gradient, by_name + parameters, bound, leave_out)


def _array_methods(loss: Any) -> str:
    """Return the methods of a loss of several arrays: each by its name, in order or as keywords."""
    record: Formula = loss.record
    # After an input that may be left out, those that must be given can only be told apart by the call itself.
    optional = False
    parts = []
    for name, spec in record.inputs.items():
        optional = optional or spec.optional
        parts.append(f"{name}: _Input" + (" | None = ..." if spec.optional else " = ..." if optional else ""))
    data = ", ".join([*parts, "*"])
    differentiable = [x for x in record.inputs.values() if x.grad]
    gradient = "_Floats" if len(differentiable) == 1 else "tuple[_Floats, ...]"
    if sum(not x.optional for x in differentiable) == 1 < len(differentiable):
        gradient = f"_Floats | {gradient}"
    parameters = _parameters(record)
    return _methods(type(loss), data, gradient, parameters, f", *{parameters}, reduction: _Reduction = ...", LABELS)


def stub(losses: Mapping[str, Any]) -> str:
    """Return the text of `__init__.pyi`: one class for each distinct signature, one name for each loss."""
    classes: dict[str, str] = {}
    names = []
    for name, loss in losses.items():
        body = _own_methods(loss)
        classes.setdefault(body, f"_{''.join(word.title() for word in name.split('_'))}")
        names.append(f"{name}: {classes[body]}\n")
    of_any = ", **parameters: Any"
    first = next(iter(losses.values()))
    text = HEADER + _methods(type(first), "prediction: Any, target: Any = ..., *", "Any", of_any, of_any, LABELS)
    text += "".join(f"\nclass {title}(Loss):\n{body}" for body, title in classes.items())
    return f"{text}\nLOSSES: Mapping[str, Loss]\n{''.join(names)}"


def generated(losses: Mapping[str, Any]) -> Iterable[tuple[Path, str]]:
    """Yield every generated file with the text that it should have; the pages only in a checkout, which has docs/."""
    yield STUB, stub(losses)
    if DOCS.exists():
        for page, sections in pages.sections(losses).items():
            yield DOCS / page, pages.renewed(DOCS / page, sections)


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or with `--check` report those that are stale; return the exit code."""
    from fastloss import LOSSES

    parser = argparse.ArgumentParser(prog="python -m tools.stubs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args(arguments).check
    stale = 0
    for path, text in generated(LOSSES):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"{path.name} is stale; run `python -m tools.stubs`.", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path.name}")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
