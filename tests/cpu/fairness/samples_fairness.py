"""Sample inputs of the fairness losses."""

import numpy as np
from array_cases import Sample


def people(rng):
    """Scores of five groups, one of which has no positives and one no negatives."""
    group = np.array([3, -1, 7, 4, 9])[np.arange(34) % 5]
    labels = rng.integers(0, 2, 34)
    labels[group == 4], labels[group == 9] = 0, 1
    return {
        "scores": rng.normal(0, 1.5, 34),
        "labels": labels,
        "group": group,
        "sample_weight": rng.integers(0, 4, 34) / 2.0,
    }


def without_labels(rng):
    """Scores of groups at the intersections of two columns."""
    made = people(rng)
    del made["labels"]
    made["group"] = np.stack([made["group"], rng.integers(0, 2, 34)], axis=1)
    return made


def nobody():
    """No samples."""
    return {"scores": np.empty(0), "group": np.empty(0, int)}


def nobody_labelled():
    """No samples with labels."""
    return {**nobody(), "labels": np.empty(0, int)}


NORMS = [{}, {"norm": "absolute"}]
SAMPLES = {
    "demographic_parity": Sample(without_labels, NORMS, empty=nobody),
    "equal_opportunity": Sample(people, NORMS, empty=nobody_labelled),
    "equalized_odds": Sample(people, NORMS, empty=nobody_labelled),
    "bounded_group_loss": Sample(people, [{}, {"bound": 1.0}], empty=nobody_labelled),
    "covariance_fairness": Sample(without_labels, NORMS, empty=nobody),
    "predictive_parity": Sample(people, NORMS, empty=nobody_labelled),
    "false_omission_parity": Sample(people, NORMS, empty=nobody_labelled),
    "f_score_parity": Sample(people, [*NORMS, {"beta": 2.0}], empty=nobody_labelled),
    "mindiff": Sample(people, [{"sigma": 0.3}, {"sigma": 0.5, "samples": "all"}], empty=nobody_labelled),
}
for _sample in SAMPLES.values():
    # One value for all samples.
    _sample.independent = False
