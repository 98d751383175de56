"""Scalar formulas of all losses, which importing this package registers in order."""

from importlib import import_module
from types import MappingProxyType

from ..spec.record import registered

FILES = {
    "regression": "Regression",
    "robust": "Robust regression",
    "counts": "Counts and positive amounts",
    "likelihoods": "Likelihoods and scores of distributions",
    "uncertainty": "Intervals, divergences and calibration",
    "classification": "Binary classification",
    "softmax": "Classes",
    "multiclass": "Classes, thresholds and angles",
    "margins": "Pairs of scores and given distances",
    "adversarial": "Adversarial training",
    "pairs": "Pairs and triplets of embeddings",
    "mining": "Mined triplets",
    "infonce": "Contrastive softmax",
    "redundancy": "Embeddings of two views",
    "regions": "Regions",
    "boxes": "Boxes",
    "transport": "Transport",
    "sequences": "Sequences",
    "linear": "Language models",
    "preference": "Preferences",
    "policy": "Policies",
    "ranking": "Ranking",
    "fairness": "Fairness",
    "cox": "Survival: risk sets",
    "survival": "Survival: accelerated failure times",
}
"""Titles of the files of formulas, in the order of the guide."""

for _file in FILES:
    import_module(f"{__name__}.{_file}")

ALL = MappingProxyType(registered)
