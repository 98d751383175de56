"""Records of sums of several loops: what adapters, evaluation and documentation ask of a loss."""

from collections.abc import Sequence
from typing import Any

from ...call.errors import CallTypeError, CallValueError
from ...spec.record import FINITE, Formula, Input, Parameter
from ..risks.base import Risk, alike
from .penalties import Penalty
from .terms import Term, own_parameters, parameter_names, weight_of

__all__ = ["mixed", "refuse_reductions", "target_of"]

SAMPLES = {"log": "log-probabilities", "softmax": "logits"}
"""Content of the predictions of row-wise losses, by their links."""


def mixed(terms: Sequence[Term], name: str) -> Formula:
    """Return the record of a sum of parts that are evaluated one after another; raise TypeError for unlike parts."""
    data = [t for t in terms if not isinstance(t.loss, Penalty)]
    penalties = dict.fromkeys(t.loss.of for t in terms if isinstance(t.loss, Penalty))
    _fit(data, name)
    own = own_parameters(terms)
    parameters = {weight_of(t.name): Parameter(f"weight of {t.name}", FINITE) for t in terms}
    for term, renamed in zip(terms, parameter_names(terms), strict=True):
        parameters |= {renamed[k]: p for k, p in term.loss.record.parameters.items()}
    records = [t.loss.record for t in data]
    families = {r.family for r in records}
    first = next((r for r in records if r.family == "arrays"), (records or [terms[0].loss.record])[0])
    family = families.pop() if len(families) == 1 and not penalties else "arrays"
    single = all(len(_predictions(r)) == 1 for r in records)
    predictions = (() if not records else ("prediction",) if single else _predictions(first)) + tuple(penalties)
    return first._replace(
        name=name,
        family=family,
        function=_parts,
        predictions=first.predictions if family != "arrays" else predictions,
        target="target" if any(target_of(r) for r in records) else None,
        defaults={k: 1.0 if k.endswith("_weight") else _plain(v) for k, v in own.items()},
        parameters=parameters,
        link=_common([r.link for r in records]),
        from_logits="",
        surrogate="sum of the surrogates of the parts" if any(r.surrogate for r in records) else None,
        second=bool(records) and not penalties and all(r.second for r in records),
        paper="",
        math=" + ".join(f"{weight_of(t.name)} * {t.loss.name}" for t in terms),
        switched={},
        loop_parameters=(),
        inputs=_inputs(data, tuple(penalties), first) if family == "arrays" else {},
        units_by={},
        ordered=(),
        example="",
        together=(),
        mean_of="",
    )


def _parts() -> None:
    """Weighted sum of losses."""


def _plain(value: Any) -> Any:
    return value[0] if type(value) is tuple else value


def _common(found: list[str]) -> str:
    return found[0] if len(set(found)) == 1 else "identity"


def _predictions(record: Formula) -> tuple[str, ...]:
    """Return the names of the differentiable inputs."""
    return record.predictions


def _inputs(data: Sequence[Term], penalties: tuple[str, ...], first: Formula) -> dict[str, Input]:
    """Return the inputs of a sum: predictions, target, what single parts take beside, and parameters."""
    found: dict[str, Input] = {}
    if data and first.family == "arrays" and len(first.predictions) == 1:
        found["prediction"] = first.inputs[first.predictions[0]]
        found["target"] = first.inputs.get(target_of(first), Input("*", "target"))
    elif data and first.family == "arrays":
        found |= first.inputs
    elif data:
        dims = "* k" if any(t.loss.record.family == "rows" for t in data) else "*"
        found |= {"prediction": Input(dims, "prediction", grad=True), "target": Input("*", "target")}
    if not any(target_of(t.loss.record) for t in data):
        found.pop("target", None)
    for term in data:
        for name, spec in term.loss.record.inputs.items():
            if name not in found and not spec.grad and name not in TARGETS:
                found[name] = spec
    return found | {name: Input("*", "parameters of a penalty", grad=True) for name in penalties}


TARGETS = ("target", "targets", "labels", "relevance")
"""Names of the inputs of losses over several arrays that take the target of a sum."""


def target_of(record: Formula) -> str:
    """Return the name of the input that takes the target of a sum; empty where a loss has none."""
    if record.family != "arrays":
        return "target" if record.target else ""
    return next((k for k, spec in record.inputs.items() if k in TARGETS and not spec.grad), "")


def _fit(data: Sequence[Term], name: str) -> None:
    """Raise TypeError for parts that cannot have the same predictions."""
    if not data:
        return
    first = data[0]
    for term in data:
        mine, others = first.loss.record, term.loss.record
        several = len(_predictions(mine)) > 1 or len(_predictions(others)) > 1
        if several and (_predictions(mine) != _predictions(others) or mine.family != others.family):
            one, other = (", ".join(x.predictions) if x.inputs or len(x.predictions) > 1 else "one prediction"
                          for x in (mine, others))  # fmt: skip
            problem = f"cannot hold {first.name}, which takes {one}, and {term.name}, which takes {other}"
            raise CallTypeError(f"{problem}; expected parts with the same predictions", loss=name)
    rows = [t for t in data if t.loss.record.family == "rows"]
    for term in rows:
        kinds = [SAMPLES.get(t.loss.record.link, "") for t in (rows[0], term)]
        if all(kinds) and kinds[0] != kinds[1]:
            problem = f"cannot hold {rows[0].name}, which takes {kinds[0]}, beside {term.name}, which takes {kinds[1]}"
            raise CallTypeError(problem, loss=name)


def refuse_reductions(terms: Sequence[Term], name: str) -> None:
    """Raise for parts of unlike reductions, and for risks of single parts."""
    data = [t for t in terms if not isinstance(t.loss, Penalty)]
    for term in data:
        mine: Any = data[0].loss.record.reduction
        others: Any = term.loss.record.reduction
        if isinstance(others, Risk):
            problem = f"has the part {term.name} under a risk; bind the risk to the sum: (a + b).bind(reduction=...)"
            raise CallValueError(problem, loss=name)
        if not alike(mine, others):
            problem = f"cannot hold {data[0].name}, whose default is the {mine}, and {term.name}, whose default is "
            penalty = next((t.loss.name for t in (data[0], term) if t.loss.name in PENALTIES), "")
            hint = f'; a penalty on parameters is fl.{penalty}.on("params")' if penalty else ""
            raise CallTypeError(f"{problem}the {others}{hint}", loss=name)


PENALTIES = ("l1", "l2", "elastic_net")
"""Losses that are penalties on parameters rather than on predictions."""
