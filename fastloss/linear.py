"""Linear models with any loss, as estimators of scikit-learn."""

try:
    import sklearn as _  # noqa: F401
except ModuleNotFoundError as error:
    text = 'fastloss.linear needs scikit-learn, which is not installed; pip install "fastloss[sklearn]"'
    raise ModuleNotFoundError(text, name="sklearn") from error

from .train.linear.ensemble import LossEnsemble
from .train.linear.estimators import LossClassifier, LossRegressor

__all__ = ["LossClassifier", "LossEnsemble", "LossRegressor"]
