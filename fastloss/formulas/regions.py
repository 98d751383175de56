"""Region losses (segmentation): formulas of sums over the pixels of a class.

With probabilities p and target t in [0, 1], a formula gets tp = sum min(p, t), fp = sum max(p - t, 0),
fn = sum max(t - p, 0) and tn = sum min(1 - p, 1 - t). For a target of zeros and ones these are the sums of p t,
p (1 - t), (1 - p) t and (1 - p) (1 - t); for soft ones, unlike sums of products, they make every loss 0 and least at
p = t (Wang et al., 2023, Dice semimetric losses, arXiv:2303.16296: 2 tp = |p| + |t| - |p - t|).
"""

from ..spec.record import (
    FINITE_NONNEGATIVE,
    NONNEGATIVE,
    POSITIVE,
    Input,
    Integers,
    Parameter,
    arrays,
)
from ..spec.vocabulary import log, log1p, maximum, minimum, pow, sqrt, where

PREDICTION = Input("n c +", "probabilities of each class in [0, 1], or scores if activation is given", grad=True)
MASK = Input("n +", "pixels that count; all if not given", "mask", optional=True)
INPUTS = {
    "prediction": PREDICTION,
    "target": Input("n c +", "region of each class, in [0, 1], or the label of each pixel", "regions"),
    "mask": MASK,
    "class_weight": Input("c", "factor of each class", optional=True, domain=FINITE_NONNEGATIVE, shared=True),
}
DISTANCES = {
    "prediction": PREDICTION,
    "distance": Input("n c +", "signed distance to the border of the region, negative inside"),
    "mask": MASK,
    "class_weight": INPUTS["class_weight"],
}
SMOOTH = {
    "smooth_num": Parameter("added to the numerator of the overlap", NONNEGATIVE),
    "smooth_den": Parameter("added to its denominator", NONNEGATIVE),
}
ACTIVATION = {
    "activation": (
        -1.0,
        Parameter("what makes probabilities of the prediction", choices=("sigmoid", "softmax"), none=-1.0),
    ),
}
PER = {
    "per": (0.0, Parameter("whether each sample has a loss, or the batch as a whole", choices=("sample", "batch"))),
    "include_background": (1.0, Parameter("whether class 0 counts", flag=True)),
}
IGNORE = {
    "ignore_index": (
        -100.0,
        Parameter("label of pixels that count for nothing; None: no label does", Integers(), none=float("-inf")),
    ),
}
OVERLAP = {
    "overlap": (
        0.0,
        Parameter("common part of soft regions: the smaller of p and t, or their product", choices=("min", "product")),
    ),
}
AVERAGE = {
    "average": (
        0.0,
        Parameter(
            "mean of the losses of classes, loss of their sums, or one of each class",
            choices=("macro", "micro", "none"),
        ),
    ),
}
PRESENT = {
    "classes": (
        0.0,
        Parameter("whether classes without a pixel in the target have a part in the mean", choices=("all", "present")),
    ),
}
AXIS = {"axis": (1.0, Parameter("axis of the classes, in regions and prediction", Integers(-8.0, 8.0)))}
LOG = Parameter("minus the logarithm of the overlap, at least 1e-7, in place of one minus it", flag=True)
SQUARED = {"squared": (0.0, Parameter("sums of squares: of p t, (p - t)^2, p^2 and t^2", flag=True))}
UNITS = {"units": "n", "units_by": {"per": {"sample": "n", "batch": ""}}}
REGIONS = {**UNITS, "inputs": INPUTS, "bounded": True}
OPTIONS = {**OVERLAP, **ACTIVATION, **PER, **AVERAGE, **PRESENT, **IGNORE, **AXIS}
EXAMPLE = "np.array([[[0.9, 0.2], [0.1, 0.8]]]), np.array([[0, 1]])"


def inverse_of(x):
    """Return 1 / x, and 0 where x is 0."""
    some = x != 0.0
    return where(some, 1.0 / where(some, x, 1.0), 0.0)


def overlap(common, wrong, smooth_num, smooth_den):
    """Return one minus (common + smooth_num) / (common + wrong + smooth_den), and its slopes by common and wrong."""
    inverse = inverse_of(common + wrong + smooth_den)
    # Not 1 - ratio, which cancels where the prediction is nearly right.
    value = (wrong + (smooth_den - smooth_num)) * inverse
    return value, -value * inverse, (1.0 - value) * inverse


def log_overlap(common, wrong, smooth_num, smooth_den, logarithm):
    """Return `overlap`, or minus the logarithm of the ratio."""
    value, by_common, by_wrong = overlap(common, wrong, smooth_num, smooth_den)
    ratio = (common + smooth_num) * inverse_of(common + wrong + smooth_den)
    low = ratio < 1e-7
    # log1p keeps the digits of a prediction that is nearly right.
    cost = where(value < 0.5, -log1p(-minimum(value, 0.5)), -log(maximum(ratio, 1e-7)))
    scale = where(low, 0.0, inverse_of(ratio))
    chosen = logarithm > 0.0
    by_both = where(chosen, scale * by_common, by_common), where(chosen, scale * by_wrong, by_wrong)
    return where(chosen, cost, value), *by_both


@arrays(
    "regions.sums",
    math="1 - (2 tp + smooth_num) / (2 tp + fp + fn + smooth_den)",
    parameters={**SMOOTH, "log": LOG},
    options={"squared": SQUARED["squared"], **OPTIONS},
    minimum_at_target=True,
    paper="Milletari, Navab, Ahmadi (2016), V-Net, arXiv:1606.04797; Wang et al. (2023), Dice semimetric losses, "
    "arXiv:2303.16296",
    example=EXAMPLE,
    **REGIONS,
)
def dice(tp, fp, fn, tn, smooth_num=1e-5, smooth_den=1e-5, log_=0.0):
    """Dice loss: one minus twice the overlap over the sum of the two regions.

    Soft targets count as min(p, t), so that a prediction equal to its target has loss 0 (with equal smoothing).
    Class weights divide by their sum. A sample without any pixel that counts has no part in the mean.
    """
    value, by_common, by_wrong = log_overlap(2.0 * tp, fp + fn, smooth_num, smooth_den, log_)
    return value, (2.0 * by_common, by_wrong, by_wrong, 0.0)


@arrays(
    "regions.sums",
    math="1 - (tp + smooth_num) / (tp + fp + fn + smooth_den)",
    parameters={**SMOOTH, "log": LOG},
    options={"squared": SQUARED["squared"], **OPTIONS},
    minimum_at_target=True,
    paper="Rahman, Wang (2016), Optimizing intersection-over-union; Wang et al. (2023), Jaccard metric losses, "
    "arXiv:2302.05666",
    example=EXAMPLE,
    **REGIONS,
)
def jaccard(tp, fp, fn, tn, smooth_num=1e-5, smooth_den=1e-5, log_=0.0):
    """Jaccard loss: one minus the overlap over the union of the two regions."""
    value, by_common, by_wrong = log_overlap(tp, fp + fn, smooth_num, smooth_den, log_)
    return value, (by_common, by_wrong, by_wrong, 0.0)


SIDES = {
    "alpha": Parameter("weight of false positives", NONNEGATIVE),
    "beta": Parameter("weight of false negatives", NONNEGATIVE),
}


@arrays(
    "regions.sums",
    math="1 - (tp + smooth_num) / (tp + alpha fp + beta fn + smooth_den)",
    parameters={**SIDES, **SMOOTH, "log": LOG},
    options=OPTIONS,
    minimum_at_target=True,
    paper="Salehi, Erdogmus, Gholipour (2017), Tversky loss function, arXiv:1706.05721",
    example=EXAMPLE,
    **REGIONS,
)
def tversky(tp, fp, fn, tn, alpha=0.5, beta=0.5, smooth_num=1e-5, smooth_den=1e-5, log_=0.0):
    """Tversky loss: an overlap in which false positives and false negatives weigh differently.

    With both weights 1/2 it is the Dice loss, with both 1 the Jaccard loss.
    """
    value, by_common, by_wrong = log_overlap(tp, alpha * fp + beta * fn, smooth_num, smooth_den, log_)
    return value, (by_common, alpha * by_wrong, beta * by_wrong, 0.0)


@arrays(
    "regions.sums",
    math="tversky^(1 / gamma)",
    parameters={**SIDES, "gamma": Parameter("the Tversky loss is raised to 1 / gamma", POSITIVE), **SMOOTH},
    options=OPTIONS,
    minimum_at_target=True,
    paper="Abraham, Khan (2018), A novel focal Tversky loss function, arXiv:1810.07842",
    example=EXAMPLE,
    **REGIONS,
)
def focal_tversky(tp, fp, fn, tn, alpha=0.5, beta=0.5, gamma=4.0 / 3.0, smooth_num=1e-5, smooth_den=1e-5):
    """Focal Tversky loss: the Tversky loss of each class to the power 1 / gamma.

    The exponent is the paper's, 3/4 by default; libraries that raise to gamma itself mean what is here 1 / gamma.
    Where the Tversky loss is 0, so is the slope.
    """
    value, by_common, by_wrong = overlap(tp, alpha * fp + beta * fn, smooth_num, smooth_den)
    base = maximum(value, 0.0)
    powered = pow(base, 1.0 / gamma)
    slope = powered * inverse_of(gamma * base)
    return powered, (slope * by_common, slope * alpha * by_wrong, slope * beta * by_wrong, 0.0)


@arrays(
    "regions.sums",
    math="1 - (2 sum_c w_c tp_c + smooth_num) / (sum_c w_c (2 tp_c + fp_c + fn_c) + smooth_den), w_c ~ 1 / T_c^2",
    parameters=SMOOTH,
    options={
        "weighting": (
            0.0,
            Parameter("weight of a class of T pixels: 1 / T^2, 1 / T or 1", choices=("square", "simple", "uniform")),
        ),
        **ACTIVATION,
        **PER,
        **IGNORE,
    },
    minimum_at_target=True,
    paper="Sudre et al. (2017), Generalised Dice overlap, arXiv:1707.03237",
    example=EXAMPLE,
    **REGIONS,
)
def generalized_dice(tp, fp, fn, tn, smooth_num=1e-5, smooth_den=1e-5):
    """Generalized Dice loss: overlaps of all classes summed before the ratio, rare classes weighing more.

    Weights are scaled so that the rarest class that is there has weight 1: the smoothing counts its pixels. A class
    that is absent weighs 1 as well.
    """
    value, by_common, by_wrong = overlap(2.0 * tp, fp + fn, smooth_num, smooth_den)
    return value, (2.0 * by_common, by_wrong, by_wrong, 0.0)


@arrays(
    "regions.sums",
    math="1 - (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn))",
    options=OPTIONS,
    minimum_at_target=True,
    paper="Abhishek, Hamarneh (2021), Matthews correlation coefficient loss, arXiv:2010.13454",
    example=EXAMPLE,
    **REGIONS,
)
def mcc(tp, fp, fn, tn):
    """Matthews correlation loss: one minus the correlation of prediction and target.

    Where one of the two is all or nothing the correlation is 0 and the loss 1, without a slope; if both agree, 0.
    """
    scale = inverse_of(tp + fp + fn + tn)
    a, b, c, d = tp * scale, fp * scale, fn * scale, tn * scale
    p, t, p_not, t_not = a + b, a + c, c + d, b + d
    product = p * t * p_not * t_not
    root = sqrt(product)
    some = root != 0.0
    inverse = inverse_of(root)
    both = a * d - b * c
    value = both * inverse
    # 1 - value without its cancellation: no term below is negative, and each has a factor of b or c.
    rest = 4.0 * a * b * c * d + (a * d + b * c) * (a * c + b * d + a * b + c * d) + (a * c + b * d) * (a * b + c * d)
    positive = both > 0.0
    short = rest * inverse_of(where(positive, root * (root + both), 1.0))
    loss = where(some, where(positive, short, 1.0 - value), where(b + c == 0.0, 0.0, 1.0))
    half = 0.5 * value
    by_p, by_t, by_p_not, by_t_not = inverse_of(p), inverse_of(t), inverse_of(p_not), inverse_of(t_not)
    scale = where(some, scale, 0.0)
    return loss, (
        scale * (half * (by_p + by_t) - d * inverse),
        scale * (half * (by_p + by_t_not) + c * inverse),
        scale * (half * (by_t + by_p_not) + b * inverse),
        scale * (half * (by_p_not + by_t_not) - a * inverse),
    )


@arrays(
    "regions.sums",
    math="mean of phi p",
    inputs=DISTANCES,
    options={**ACTIVATION, **PER},
    paper="Kervadec et al. (2019), Boundary loss, arXiv:1812.07032",
    example="np.array([[[0.9, 0.2]]]), np.array([[[-1.0, 1.0]]])",
    **UNITS,
)
def boundary(total, fp, fn, pixels):
    """Boundary loss: probabilities times their signed distance to the border of the region, mean over pixels.

    The mean over classes follows, and that over samples.
    """
    inverse = inverse_of(pixels)
    return total * inverse, (inverse, 0.0, 0.0, 0.0)


@arrays(
    "regions.lovasz",
    inputs={**INPUTS, "prediction": Input("n c +", "scores of each class by itself", grad=True)},
    math="Lovasz extension of the Jaccard loss at max(1 - y z, 0), y = 2 t - 1",
    options={"per": PER["per"], **IGNORE},
    convex=True,
    differentiable=False,
    paper="Berman, Triki, Blaschko (2018), The Lovasz-Softmax loss, arXiv:1705.08790",
    example="np.array([[[1.2, -0.3]]]), np.array([[0, 1]])",
    **UNITS,
)
def lovasz_hinge():
    """Lovasz hinge: a convex surrogate of the Jaccard loss of binary regions, each class by itself.

    Targets are 0 or 1. Without a pixel of the region the largest error is the loss.
    """


@arrays(
    "regions.lovasz",
    inputs=INPUTS,
    math="mean over classes of the Lovasz extension of the Jaccard loss at |t - p|",
    options={
        **ACTIVATION,
        "classes": (0.0, Parameter("whether classes without a pixel count", choices=("present", "all"))),
        **PER,
        **IGNORE,
    },
    bounded=True,
    differentiable=False,
    minimum_at_target=True,
    paper="Berman, Triki, Blaschko (2018), The Lovasz-Softmax loss, arXiv:1705.08790",
    example=EXAMPLE,
    **UNITS,
)
def lovasz_softmax():
    """Lovasz-Softmax: a surrogate of the Jaccard loss, mean over the classes that a sample has, or over all.

    Takes probabilities, or scores with ``activation="softmax"``. Targets are 0 or 1.
    """
