"""The catalogue and the loss objects: names, binding, pickles, documentation and imports."""

import copy
import doctest
import importlib
import pickle
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from children import environment

import fastloss as fl
from fastloss.spec.record import registered

ALL = list(fl.LOSSES)
each_loss = pytest.mark.parametrize("name", ALL)
# Attributes are refused by the class of a loss, whichever loss it is.
each_class = pytest.mark.parametrize("name", list({type(loss): name for name, loss in fl.LOSSES.items()}.values()))


# The catalogue -------------------------------------------------------------------------------------------------------


def test_the_catalogue_is_read_only_and_in_order():
    assert list(registered) == ALL
    assert ALL[0] == "mse"
    assert len(fl.LOSSES) == len(ALL) == len(set(ALL))
    for change in ("__setitem__", "__delitem__", "pop", "clear", "update"):
        assert not hasattr(fl.LOSSES, change)
    with pytest.raises(TypeError):
        fl.LOSSES["mse"] = fl.mae
    assert "huber" in fl.LOSSES
    assert "hubr" not in fl.LOSSES
    assert fl.LOSSES.get("hubr") is None
    assert repr(fl.LOSSES).startswith("fastloss.LOSSES: mse, mae, ")


def test_every_catalogued_loss_is_here():
    """The names of the guide, written out: a loss that is lost from a family's file is missed."""
    text = """mse mae huber smooth_l1 pseudo_huber log_cosh quantile expectile msle mape smape cauchy
    welsch geman_mcclure charbonnier tukey fair wing barron poisson gamma tweedie gaussian_nll
    student_t_nll laplace_nll negative_binomial_nll evidential_regression crps_gaussian crps_ensemble l1
    l2 elastic_net bce bce_with_logits focal hinge squared_hinge smooth_hinge modified_huber perceptron
    exponential logistic brier log_loss poly1_bce asymmetric cross_entropy nll softmax_focal
    poly1_cross_entropy generalized_cross_entropy kl_div js_div crammer_singer multi_margin label_relaxation
    sparsemax_loss reverse_kl tv_distance ordinal dirichlet_evidential distillation linear_cross_entropy contrastive
    triplet cosine_embedding cosine_distance margin_ranking hinge_embedding batch_hard_triplet batch_all_triplet
    semi_hard_triplet n_pairs info_nce ntxent supcon circle arcface cosface barlow_twins vicreg dice jaccard tversky
    focal_tversky generalized_dice mcc lovasz_hinge lovasz_softmax boundary iou giou diou ciou siou wasserstein_1d
    wasserstein_samples energy_distance cramer sliced_wasserstein sinkhorn wasserstein_critic wasserstein_generator
    gradient_penalty gan_bce gan_hinge lsgan mmd sequence_cross_entropy perplexity bits_per_byte ctc unlikelihood
    self_critical reinforce ppo_clip dpo ipo simpo orpo kto pairwise_logistic ranknet lambda_rank listnet list_mle
    softmax_ranking approx_ndcg auc_pairwise soft_f1 cox aft demographic_parity equal_opportunity equalized_odds
    bounded_group_loss covariance_fairness mindiff interval_score ordered_quantiles heteroscedastic_cross_entropy
    soft_calibration_error kl_gaussian kl_dirichlet predictive_parity false_omission_parity f_score_parity
    minimum_risk"""
    assert set(text.split()) <= set(ALL)


@each_loss
def test_a_loss_is_an_attribute_of_the_package(name):
    assert getattr(fl, name) is fl.LOSSES[name]
    assert name in fl.__all__
    assert fl.LOSSES[name].name == fl.LOSSES[name].__name__ == name


def test_a_misspelt_name_lists_the_nearest():
    with pytest.raises(KeyError, match="no loss named 'hubr'; did you mean huber"):
        fl.LOSSES["hubr"]
    with pytest.raises(AttributeError, match="cross_entropy"):
        _ = fl.crossentropy


# A loss as an object -------------------------------------------------------------------------------------------------


@each_class
def test_a_loss_is_immutable(name):
    loss = fl.LOSSES[name]
    for attribute in ("name", "record", "defaults", "anything"):
        with pytest.raises(AttributeError):
            setattr(loss, attribute, None)
    with pytest.raises(TypeError):
        loss.defaults["delta"] = 1.0
    assert isinstance(loss, fl.Loss)


@each_loss
def test_representation_equality_hash_and_pickle(name):
    loss = fl.LOSSES[name]
    assert repr(loss) == f"fastloss.{name}"
    for again in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss), copy.copy(loss), loss.bind()):
        assert again == loss
        assert hash(again) == hash(loss)
        assert again.record is loss.record
    other = fl.mae if name != "mae" else fl.mse
    assert loss != other
    assert loss != name


def test_binding():
    wide = fl.huber.bind(delta=2.0)
    assert repr(wide) == "fastloss.huber.bind(delta=2.0)"
    assert wide != fl.huber
    assert wide == fl.huber.bind(delta=2) == pickle.loads(pickle.dumps(wide))
    assert len({wide, fl.huber, fl.huber.bind(delta=2.0)}) == 2
    assert wide.bind(delta=1.0) == fl.huber
    assert dict(fl.huber.defaults) == {"delta": 1.0}
    assert dict(wide.defaults) == {"delta": 2.0}
    z, t = np.array([5.0, 0.5]), np.zeros(2)
    assert wide(z, t) == fl.huber(z, t, delta=2.0) != fl.huber(z, t)
    assert wide(z, t, delta=1.0) == fl.huber(z, t)
    assert repr(fl.focal.bind(alpha=None, gamma=1.0)) == "fastloss.focal.bind(alpha=None, gamma=1.0)"
    assert repr(fl.poisson.bind(full=True)) == "fastloss.poisson.bind(full=True)"
    assert repr(fl.quantile.bind(q=[0.1, 0.9])) == "fastloss.quantile.bind(q=(0.1, 0.9))"
    assert fl.cross_entropy.bind(label_smoothing=0.1).defaults["label_smoothing"] == 0.1


@each_loss
def test_every_parameter_can_be_bound_and_called(name):
    loss = fl.LOSSES[name]
    for parameter, value in loss.defaults.items():
        given = loss.record.parameters[parameter].meant(value)
        assert loss.bind(**{parameter: given}) == loss


# Documentation -------------------------------------------------------------------------------------------------------


@each_loss
def test_docstrings(name):
    text = fl.LOSSES[name].__doc__
    record = fl.LOSSES[name].record
    assert text.splitlines()[0].endswith(".")
    for section in ("Parameters", "Returns", "Raises", "Examples", "References"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text
    for parameter in record.parameters:
        assert f"\n{parameter} : " in text
    assert record.paper in text
    assert record.math in text


@each_loss
def test_examples_of_losses_run(name):
    examples = doctest.DocTestFinder().find(fl.LOSSES[name].__doc__, name, globs={})
    examples = examples or [doctest.DocTestParser().get_doctest(fl.LOSSES[name].__doc__, {}, name, None, None)]
    assert sum(len(e.examples) for e in examples) >= 2
    for example in examples:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


# These need the eval extra, or are run as programs.
NOT_HERE = (
    *(
        "fastloss.__main__",
        "fastloss.command.main",
        "fastloss.command.commands",
        "fastloss.evaluation",
        "fastloss.data",
    ),
    *("fastloss.performance.command", "fastloss.tracking.command", "fastloss.interop.jax"),
)


def modules():
    names = [m.name for m in pkgutil.walk_packages(fl.__path__, "fastloss.") if not m.name.startswith(NOT_HERE)]
    return ["fastloss", *names]


@pytest.mark.parametrize("module", modules())
def test_examples_of_modules_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.oracle
@pytest.mark.parametrize("module", ["jax", "jax_arrays", "jax_ffi", "jax_rules"])
def test_examples_of_modules_that_need_jax_run(module):
    pytest.importorskip("jax")
    assert doctest.testmod(importlib.import_module(f"fastloss.interop.{module}")).failed == 0


@pytest.mark.parametrize("method", ["__call__", "value_and_grad", "grad_and_hess", "bind", "warmup"])
def test_methods_are_documented(method):
    for loss in (fl.mse, fl.cross_entropy):
        assert getattr(type(loss), method).__doc__.strip()
    assert fl.Loss.__doc__
    assert fl.__doc__


# Importing -----------------------------------------------------------------------------------------------------------


def test_importing_is_light():
    """Numba comes at the first call; the extras when they are used."""
    code = (
        "import sys, fastloss; fastloss.LOSSES['mse']; fastloss.huber.bind(delta=2.0); repr(fastloss.LOSSES)\n"
        "heavy = ('numba', 'llvmlite', 'pyarrow', 'torch', 'scipy', 'sklearn', 'typer', 'rich', 'pandas', 'mpmath',"
        " 'fastloss.performance')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]", done.stdout
    assert done.stderr == ""


def test_dir_shows_the_public_names_and_nothing_else():
    assert dir(fl) == sorted(fl.__all__)


BOUND = [
    (fl.mse, (np.array([1.0, -3.0, 2.0]), np.zeros(3))),
    (fl.cross_entropy, (np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), np.array([0, 0, 1]))),
    (fl.giou, (np.array([[0.0, 0, 2, 2], [1, 1, 3, 3]]), np.array([[0.0, 0, 2, 1], [1, 1, 2, 4]]))),
]


@pytest.mark.parametrize(("loss", "arrays"), BOUND, ids=lambda x: getattr(x, "name", ""))
def test_a_bound_reduction_is_that_of_calls_without_one(loss, arrays):
    losses = loss(*arrays, reduction="none")
    total = loss.bind(reduction="sum")
    for _ in range(2):  # the second call takes the fast path
        assert total(*arrays) == pytest.approx(losses.sum())
        value, grad = total.value_and_grad(*arrays)
        assert value == pytest.approx(losses.sum())
        np.testing.assert_allclose(grad, len(losses) * loss.value_and_grad(*arrays)[1], rtol=1e-12)
        assert total(*arrays, reduction="mean") == pytest.approx(losses.mean())
        assert loss(*arrays) == pytest.approx(losses.mean())
    np.testing.assert_array_equal(loss.bind(reduction="none")(*arrays), losses)
    worst = loss.bind(reduction=fl.risk.CVaR(1e-9))
    for _ in range(2):
        assert worst(*arrays) == pytest.approx(losses.max())
        grad = worst.value_and_grad(*arrays)[1]
        assert (np.abs(grad).reshape(len(losses), -1).sum(axis=1) > 0).sum() == 1
    for bound in (total, worst):
        again = pickle.loads(pickle.dumps(bound))
        assert again == bound != loss
        assert again(*arrays) == bound(*arrays)
    assert repr(total) == f"fastloss.{loss.name}.bind(reduction='sum')"
    with pytest.raises(ValueError, match="reduction is 'max'; allowed"):
        loss.bind(reduction="max")
