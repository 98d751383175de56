"""Names of other libraries: those that resolve, in any case, and those that differ by a factor or an input."""

import re

import pytest

import fastloss as fl
from fastloss.losses.aliases import ALIASES, DIFFERENT, key_of

OTHERS = [(other, own) for own, others in ALIASES.items() for other in others.split()]


def test_the_tables_are_consistent():
    own = {key_of(name): name for name in fl.LOSSES}
    assert len(own) == len(fl.LOSSES)
    keys = [key_of(other) for other, _ in OTHERS] + [key_of(name) for name in DIFFERENT]
    assert len(keys) == len(set(keys))
    assert not set(keys) & set(own)
    assert set(ALIASES) <= set(fl.LOSSES)
    for text in DIFFERENT.values():
        assert any(word in fl.LOSSES for word in re.findall(r"\w+", text)), text


@pytest.mark.parametrize(("other", "own"), OTHERS)
def test_other_names_in_any_case(other, own):
    camel = "".join(word.capitalize() for word in other.split("_"))
    for name in (other, other.upper(), other.replace("_", "-"), other.replace("_", " "), camel):
        assert fl.LOSSES[name] is fl.LOSSES[own]
    assert other in fl.LOSSES
    assert other not in list(fl.LOSSES)
    assert other not in dir(fl)
    with pytest.raises(AttributeError, match=rf"has no attribute '{other}'; did you mean {own}\?"):
        getattr(fl, other)


@pytest.mark.parametrize("name", list(fl.LOSSES))
def test_own_names_in_any_case_and_with_loss_at_the_end(name):
    assert fl.LOSSES[name.upper()] is fl.LOSSES[name.replace("_", "")] is fl.LOSSES[name]
    if not {key_of(name + "loss")} & {key_of(other) for other in [*DIFFERENT, *(x for x, _ in OTHERS)]}:
        assert fl.LOSSES[name.title().replace("_", "") + "Loss"] is fl.LOSSES[name]


@pytest.mark.parametrize("name", DIFFERENT)
def test_names_that_differ_are_suggestions(name):
    assert name not in fl.LOSSES
    assert fl.LOSSES.get(name) is None
    for given in (name, name.upper(), name.title()):
        with pytest.raises(KeyError, match=r"no loss named '.*'; take ") as caught:
            fl.LOSSES[given]
        assert str(caught.value).endswith(DIFFERENT[name])
    with pytest.raises(AttributeError) as caught:
        getattr(fl, name)
    assert str(caught.value).endswith(f"; take {DIFFERENT[name]}")


def test_the_last_word_does_not_change_the_meaning():
    assert fl.LOSSES["L1"] is fl.l1  # the penalty
    assert fl.LOSSES["L1Loss"] is fl.mae
    assert "L2Loss" not in fl.LOSSES


def test_wherever_a_loss_is_named():
    assert fl.objective("MSE").loss is fl.mse
    assert fl.scorer("pinball:q=.9").loss == fl.quantile.bind(q=0.9)
    assert list(fl.evaluate(([0.5, 1.0], [1.0, 1.0]), ["MSELoss", "pinball:q=.9"])) == ["mse", "quantile:q=.9"]
    torch = pytest.importorskip("torch")
    assert repr(fl.torch.Loss("HuberLoss", delta=2.0)) == "Loss('huber', delta=2.0)"
    z, t = torch.tensor([0.5]), torch.tensor([1.0])
    assert fl.torch.Loss("BCEWithLogitsLoss")(z, t) == fl.torch.bce_with_logits(z, t)
    with pytest.raises(AttributeError, match=r"did you mean bce_with_logits\?"):
        _ = fl.torch.BCEWithLogitsLoss
    with pytest.raises(AttributeError, match=r"did you mean quantile\?"):
        _ = fl.jax.pinball
