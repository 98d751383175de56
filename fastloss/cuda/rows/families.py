"""Which functions make up each family of row losses: what is found of a row, pass by pass, and what is written."""

from typing import Any, NamedTuple

from ..runtime.teams import SUM, Merge
from . import multiclass as m
from . import softmax as s

__all__ = ["FAMILIES", "Family", "Pass"]


class Pass(NamedTuple):
    """One reading of a row: what an element gives, how two parts are merged, how many numbers are."""

    each: Any
    merge: Merge | None = None
    numbers: int = 0
    emits: bool = False


class Family(NamedTuple):
    """How the rows of one loop, against one kind of target, are worked on."""

    work: Any
    passes: dict[str, Pass]
    classed: bool = False
    """Whether the passes read class weights; if not, a row counts as its label's."""
    wide: bool = True
    """Whether the passes read 128 bits at a time; where arithmetic sets the pace, that is only more code."""
    blocks: int = 2
    """For how many blocks a multiprocessor should have room in double; with less, numbers would be kept in memory."""


def _emitting(each: Any) -> Pass:
    return Pass(each, emits=True)


SCAN = Pass("score", s.ONLINE, 2)

LABELS = Family(s.softmax_labels, {"scan": SCAN, "emit": _emitting(s.softmax_slope)})
DENSE = Family(
    s.softmax_dense,
    {"scan": SCAN, "total": Pass(s.softmax_term, SUM, 5), "emit": _emitting(s.softmax_dense_slope)},
    classed=True,
)
SUMMED = Family(m.summed, {"total": Pass(m.summed_term, SUM, 2, True)}, classed=True)
SPARSEMAX = Family(
    m.sparsemax,
    {
        "top": Pass(m.score, m.LARGEST, 1),
        "above": Pass(m.sparsemax_above, SUM, 2),
        "total": Pass(m.sparsemax_term, SUM, 3),
        "emit": _emitting(m.sparsemax_slope),
    },
)
EVIDENCE = Family(
    m.evidential,
    {
        "gather": Pass(m.evidence_found, SUM, 4),
        "total": Pass(m.evidence_term, SUM, 3),
        "emit": _emitting(m.evidence_slope),
    },
    wide=False,
    blocks=1,
)

FAMILIES = {
    ("softmax", "labels"): LABELS,
    ("softmax", "dense"): DENSE,
    ("angular", "labels"): LABELS,
    ("distillation", "dense"): DENSE._replace(passes={**DENSE.passes, "learn": Pass("target", s.ONLINE, 2)}),
    ("log_probs", "labels"): Family(m.picked, {"emit": _emitting(m.picked_slope)}),
    ("log_probs", "dense"): SUMMED,
    ("divergence", "dense"): SUMMED,
    ("ordinal", "labels"): SUMMED,
    ("ensemble", "dense"): Family(m.ensemble, {"total": Pass(m.ensemble_term, SUM, 1, True)}, wide=False),
    ("margin", "labels"): Family(m.margin, {"total": Pass(m.margin_term, SUM, 3), "emit": _emitting(m.margin_slope)}),
    ("top_margin", "labels"): Family(
        m.top_margin, {"top": Pass(m.other_class, m.FIRST_LARGEST, 2), "emit": _emitting(m.top_margin_slope)}
    ),
    ("sparsemax", "labels"): SPARSEMAX,
    ("sparsemax", "dense"): SPARSEMAX._replace(classed=True),
    ("evidence", "labels"): EVIDENCE,
    ("evidence", "dense"): EVIDENCE._replace(classed=True),
}
"""By loop and kind of target."""
