"""Conventions of scikit-learn, by its own checks."""

import pytest

import fastloss as fl

checks = pytest.importorskip("sklearn.utils.estimator_checks")

ESTIMATORS = [
    fl.linear.LossRegressor("huber"),
    fl.linear.LossClassifier(tol=1e-12),
    fl.linear.LossEnsemble(("mse", "huber")),
]

# The check of array_api is skipped where a variable of the environment is not set.
CHECKS = [pair for e in ESTIMATORS for pair in checks.estimator_checks_generator(e) if "array_api" not in repr(pair[1])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=lambda x: getattr(getattr(x, "func", x), "__name__", ""))
def test_conventions(estimator, check):
    check(estimator)
