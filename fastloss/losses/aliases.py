"""Names of losses in other libraries: those of the same value, and those that differ by a factor or an input."""

from collections.abc import Iterable

__all__ = ["ALIASES", "DIFFERENT", "key_of", "resolved", "suggestion"]

ALIASES = {
    "mse": "mean_squared_error mse_loss",
    "mae": "mean_absolute_error absolute_error l1_loss",
    "huber": "huber_loss",
    "smooth_l1": "smooth_l1_loss",
    "log_cosh": "log_cosh_loss",
    "quantile": "pinball pinball_loss mean_pinball_loss quantile_loss quantile_error",
    "expectile": "expectile_error",
    "msle": "mean_squared_log_error mean_squared_logarithmic_error",
    "smape": "symmetric_mean_absolute_percentage_error",
    "pseudo_huber": "pseudo_huber_error",
    "poisson": "poisson_nll poisson_nll_loss",
    "gaussian_nll": "gaussian_nll_loss",
    "bce": "binary_cross_entropy bce_loss",
    "bce_with_logits": "binary_cross_entropy_with_logits bce_with_logits_loss sigmoid_binary_cross_entropy "
    "sigmoid_cross_entropy",
    "log_loss": "binary_logloss",
    "focal": "focal_loss sigmoid_focal_loss",
    "hinge": "hinge_loss",
    "brier": "brier_score brier_score_loss brier_loss",
    "logistic": "soft_margin_loss logistic_loss",
    "asymmetric": "asl asymmetric_loss",
    "exponential": "exponential_loss",
    "cross_entropy": "ce cross_entropy_loss softmax_cross_entropy "
    "softmax_cross_entropy_with_integer_labels softmax_cross_entropy_with_logits",
    "softmax_focal": "multiclass_focal",
    "nll": "nll_loss negative_log_likelihood",
    "js_div": "js_divergence jensen_shannon_divergence",
    "tv_distance": "total_variation_distance",
    "sparsemax_loss": "sparsemax",
    "generalized_cross_entropy": "gce",
    "ordinal": "coral",
    "multi_margin": "multi_margin_loss",
    "triplet": "triplet_margin_loss triplet_loss",
    "cosine_embedding": "cosine_embedding_loss",
    "margin_ranking": "margin_ranking_loss",
    "hinge_embedding": "hinge_embedding_loss",
    "ntxent": "nt_xent_loss",
    "supcon": "supervised_contrastive supervised_contrastive_loss",
    "circle": "circle_loss",
    "dice": "dice_loss soft_dice",
    "jaccard": "jaccard_loss soft_jaccard",
    "tversky": "tversky_loss",
    "giou": "giou_loss generalized_box_iou_loss",
    "diou": "diou_loss distance_box_iou_loss",
    "ciou": "ciou_loss complete_box_iou_loss",
    "wasserstein_samples": "wasserstein_distance",
    "linear_cross_entropy": "fused_linear_cross_entropy liger_fused_linear_cross_entropy cut_cross_entropy",
    "cox": "cox_ph cox_ph_loss",
}
"""Other names of each loss, by its own: the same value for the same arguments, at the parameters' defaults."""

DIFFERENT = {
    "squared_error": "mse; where a library means half of it, 0.5 * fl.mse",
    "half_squared_error": "0.5 * fl.mse",
    "l2_loss": "0.5 * fl.mse, as optax has it",
    "rmse": "mse, whose square root it is",
    "root_mean_squared_error": "mse, whose square root it is",
    "mean_absolute_percentage_error": "mape, a share; Keras returns 100 times as much",
    "mean_poisson_deviance": "poisson, half of it but for a term in the target, of the logarithm of the mean",
    "mean_gamma_deviance": "gamma with full=True, half of it, of the logarithm of the mean",
    "mean_tweedie_deviance": "tweedie, half of it but for a term in the target, of the logarithm of the mean",
    "cosine_similarity": "cosine_distance, which is 1 more than the negative similarity",
    "cosine_loss": "cosine_distance",
    "categorical_crossentropy": "cross_entropy, of logits; of probabilities p, nll of their logarithms",
    "sparse_categorical_crossentropy": "cross_entropy, of logits; of probabilities p, nll of their logarithms",
    "multi_logloss": "cross_entropy, of logits; of probabilities p, nll of their logarithms",
    "mlogloss": "cross_entropy, of logits; of probabilities p, nll of their logarithms",
    "kl_divergence": "kl_div, of log-probabilities, with the mean over rows: torch's 'batchmean', K times its 'mean'",
    "kl_div_loss": "kl_div, with the mean over rows: torch's 'batchmean', K times its 'mean'",
    "multilabel_soft_margin_loss": "bce_with_logits, whose mean over all elements it is",
    "ctc_loss": "ctc; torch's 'mean' divides each loss by the length of its target",
    "contrastive_loss": "contrastive; where a library has a factor 1/2, 0.5 times it",
    "iou_loss": "iou for boxes, jaccard for masks",
    "crps": "crps_gaussian for a mean and a scale, crps_ensemble for members",
    "binary_focal_crossentropy": "focal.bind(alpha=None), unless class balancing is on",
    "emd": "wasserstein_1d for histograms, wasserstein_samples for samples",
    "earth_mover_distance": "wasserstein_1d for histograms, wasserstein_samples for samples",
    "swd": "sliced_wasserstein",
    "cross_entropy_with_label_smoothing": "cross_entropy.bind(label_smoothing=0.1)",
}
"""Names that do not resolve, as value or input differ: what to take instead, and the factor."""


def key_of(name: str) -> str:
    """Return a name without case, spaces and punctuation: "Mean-Squared Error" is "meansquarederror"."""
    return "".join(c for c in name.lower() if c.isalnum())


_BY_KEY = {key_of(other): own for own, others in ALIASES.items() for other in others.split()}
_DIFFERENT_BY_KEY = {key_of(name): text for name, text in DIFFERENT.items()}


def resolved(name: str, known: Iterable[str]) -> str:
    """Return the name in the catalogue of a loss that has another name elsewhere, in any case; empty for unknown names.

    "MSELoss" and "dice loss" are names with "loss" at their end. Names of losses that differ resolve to nothing.
    """
    key, own = key_of(name), {key_of(k): k for k in known}
    for candidate in (key, key.removesuffix("loss")):
        if candidate in _DIFFERENT_BY_KEY:
            return ""
        found = own.get(candidate) or _BY_KEY.get(candidate, "")
        if found:
            return found
    return ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the hint for a name of another library: the loss to take, with its factor; empty for unknown names."""
    different = _DIFFERENT_BY_KEY.get(key_of(name), "")
    found = different or resolved(name, known)
    return f"did you mean {found}?" if found and not different else f"take {found}" if found else ""
