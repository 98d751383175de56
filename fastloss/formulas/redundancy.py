"""Redundancy-reduction losses of two embedded views: similar rows, decorrelated columns."""

from ..spec.record import NONNEGATIVE, Input, Parameter, arrays

VIEWS = {
    "z1": Input("n d", "embeddings of one view of each sample", grad=True),
    "z2": Input("n d", "embeddings of another", grad=True),
}
EXAMPLE = "np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]]), np.array([[0.0, 1.5], [2.0, 0.5], [1.5, 2.0]])"


@arrays(
    "embeddings.redundancy",
    inputs=VIEWS,
    units="",
    math="sum_i (1 - C_ii)^2 + lam sum_{i != j} C_ij^2, with C the cross-correlation of the columns",
    parameters={
        "lam": Parameter("factor of what is off the diagonal", NONNEGATIVE),
        "eps": Parameter("added to the variance of each column", NONNEGATIVE),
    },
    paper="Zbontar et al. (2021), Barlow Twins, arXiv:2103.03230; variances and eps as in the authors' code",
    example=EXAMPLE,
)
def barlow_twins(lam=0.0051, eps=1e-5):
    """Barlow Twins loss: the cross-correlation of the columns of two views, over the batch, should be the identity.

    Columns are standardised with their variance over n, and the gradient goes through that. A constant column has
    correlation 0; its gradient, which is that of 1 / sqrt(eps), is 0 where eps is.
    """


@arrays(
    "embeddings.redundancy",
    inputs=VIEWS,
    units="",
    math="sim mean((z1 - z2)^2) + var sum_z mean_j max(gamma - std_j, 0) / 2 + cov sum_z sum_{i != j} Cov_ij^2 / d",
    parameters={
        "sim": Parameter("factor of the mean squared difference", NONNEGATIVE),
        "var": Parameter("factor of the missing standard deviation", NONNEGATIVE),
        "cov": Parameter("factor of the squared covariances", NONNEGATIVE),
        "gamma": Parameter("the standard deviation that each column should have", NONNEGATIVE),
        "eps": Parameter("added to the variance of each column", NONNEGATIVE),
    },
    paper="Bardes et al. (2022), VICReg, arXiv:2105.04906; the factors of the authors' code",
    example=EXAMPLE,
)
def vicreg(sim=25.0, var=25.0, cov=1.0, gamma=1.0, eps=1e-4):
    """Variance-invariance-covariance regularisation of two views.

    Variances and covariances are over n - 1; those of a single row are 0. Where a standard deviation is 0, so is its
    derivative.
    """
