"""Adversarial losses: a critic's scores of real (t = 1) and generated (t = 0) samples, and its gradient's norm."""

from ..spec.record import NONNEGATIVE, UNIT, Parameter, elementwise
from ..spec.special import above_zero, finite, logistic_parts, share
from ..spec.vocabulary import log1p_unit, maximum, where


@elementwise(
    math="(1 - 2 t) z",
    target=UNIT,
    link="score",
    convex=True,
    lipschitz=1.0,
    surrogate="1",
    paper="Arjovsky et al. (2017), Wasserstein GAN",
)
def wasserstein_critic(z, t):
    """Wasserstein critic loss: minus the scores of real samples (1), plus those of generated ones (0)."""
    side = 1.0 - 2.0 * t
    return share(side, z), where(z == z, side, z), 0.0, 1.0


@elementwise(
    math="-z",
    link="score",
    convex=True,
    lipschitz=1.0,
    surrogate="1",
    paper="Arjovsky et al. (2017), Wasserstein GAN",
)
def wasserstein_generator(z):
    """Wasserstein generator loss: minus the critic's score of generated samples."""
    # Keeps the loop vectorised: with a constant gradient the compiler leaves it scalar, so the slope depends on z.
    return -z, where(z == z, -1.0, z), 0.0, 1.0


@elementwise(
    math="lam (n - center)^2, where one_sided 0 for n < center",
    prediction=NONNEGATIVE,
    link="norm",
    parameters={
        "center": Parameter("the norm that costs nothing", NONNEGATIVE),
        "one_sided": Parameter("only norms above the center cost", flag=True),
        "lam": Parameter("factor of the penalty", NONNEGATIVE),
    },
    convex=True,
    surrogate="2 lam",
    paper="Gulrajani et al. (2017), Improved training of Wasserstein GANs; one-sided: Petzka et al. (2018)",
)
def gradient_norm_penalty(n, center=1.0, one_sided=0.0, lam=10.0):
    """Gradient penalty of a critic, from the norms of its gradients with respect to the input."""
    r = n - center
    r = where(one_sided > 0.0, maximum(r, 0.0), r)
    bend = 2.0 * lam
    return lam * (r * r), bend * r, where(one_sided > 0.0, where(r > 0.0, bend, 0.0), bend), finite(bend)


@elementwise(
    math="-s log p - (1 - s) log(1 - p), with p = sigmoid(z) and s = (1 - label_smoothing) t",
    target=UNIT,
    link="logit",
    parameters={"label_smoothing": Parameter("by how much the target of real samples falls short of 1", UNIT)},
    convex=True,
    lipschitz=1.0,
    paper="Goodfellow et al. (2014), Generative adversarial nets; one-sided smoothing: Salimans et al. (2016)",
)
def gan_bce(z, t, label_smoothing=0.0):
    """Binary cross-entropy of a discriminator's logits, whose smoothing spares generated samples.

    With target 1 for generated samples it is the non-saturating loss of the generator.
    """
    e, p, n = logistic_parts(z)
    s = log1p_unit(e)
    positive = t - label_smoothing * t
    negative = 1.0 - t + label_smoothing * t
    value = share(positive, s + maximum(-z, 0.0)) + share(negative, s + maximum(z, 0.0))
    return value, negative * p - positive * n, p * n


@elementwise(
    math="t max(1 - z, 0) + (1 - t) max(1 + z, 0); -z where generator",
    target=UNIT,
    link="score",
    parameters={"generator": Parameter("minus the score, whatever the target", flag=True)},
    convex=True,
    differentiable=False,
    lipschitz=1.0,
    surrogate="1",
    paper="Lim and Ye (2017), Geometric GAN; Miyato et al. (2018)",
)
def gan_hinge(z, t, generator=0.0):
    """Hinge loss of a discriminator's scores: real samples (target 1) above 1, generated ones (0) below -1.

    The gradients at the kinks are those of a violated margin, as in hinge.
    """
    f = 1.0 - t
    real, down = above_zero(1.0 - z)
    fake, up = above_zero(1.0 + z)
    value = where(generator > 0.0, -z, share(t, real) + share(f, fake))
    return value, where(generator > 0.0, where(z == z, -1.0, z), f * up - t * down), 0.0, 1.0


@elementwise(
    math="(z - t)^2 / 2",
    convex=True,
    minimum_at_target=True,
    paper="Mao et al. (2017), Least squares generative adversarial networks",
)
def lsgan(z, t):
    """Least-squares GAN loss of a discriminator's scores: half the squared distance to 1 (real) or 0 (generated)."""
    r = z - t
    return 0.5 * r * r, r, 1.0
