"""Sample data shipped with fastloss: held-out predictions on real data, made by bench/make_sample.py."""

from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["SAMPLES", "Sample", "sample_for"]


class Sample(NamedTuple):
    """One sample file: its path, its columns, and the losses that suit it."""

    file: str
    title: str
    losses: tuple[str, ...]

    @property
    def path(self) -> str:
        """Path of the file."""
        return str(files(__package__) / self.file)


SAMPLES = (
    Sample(
        "breast_cancer.parquet", "breast cancer: is a tumour benign?", ("bce_with_logits", "focal", "brier", "hinge")
    ),
    Sample("digits.parquet", "digits: which of ten?", ("cross_entropy", "softmax_focal", "multi_margin")),
)


def sample_for(loss: Any) -> tuple[Sample, str, str] | None:
    """Return the file that fits a loss, with its prediction and target columns; None if none does."""
    record = loss.record
    if record.family == "rows":
        loop = record.row_loop
        raw = loop.labels and loop.scores in ("logits", "scores") and not loop.thresholds
        return (SAMPLES[1], "logits", "label") if raw else None
    if record.family == "arrays" or len(record.predictions) > 1 or record.link in ("log", "distance", "norm"):
        return None
    pred = "probability" if record.link == "identity" else "logit"
    return SAMPLES[0], pred, "sign" if str(record.target_domain) == "{-1, +1}" else "label"
