"""Sums of losses in the adapters: against torch, boosting's derivatives, and evaluation."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.jit

RANDOM = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(2, 3, 4, 5, generator=RANDOM), torch.randint(0, 3, (2, 4, 5), generator=RANDOM)


def test_cross_entropy_and_dice_in_torch():
    ours, theirs = (LOGITS.clone().requires_grad_() for _ in range(2))
    weight = torch.tensor([1.0, 2.0, 3.0])
    fl.torch.Loss(fl.cross_entropy + 0.5 * fl.dice)(ours, LABELS).backward()
    p, t = theirs.softmax(1).flatten(2), torch.nn.functional.one_hot(LABELS, 3).movedim(-1, 1).flatten(2)
    dice = 1 - ((2 * (p * t).sum(2) + 1e-5) / ((p + t).sum(2) + 1e-5)).mean()
    (torch.nn.functional.cross_entropy(theirs, LABELS) + 0.5 * dice).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    # As in torch, weight= is that of classes.
    found = fl.torch.Loss(fl.cross_entropy + 0.0 * fl.dice, weight=weight)(LOGITS, LABELS)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(LOGITS, LABELS, weight=weight))


def test_groups_and_penalties_in_torch():
    scores = torch.randn(20, generator=RANDOM).requires_grad_()
    labels, group = (scores > 0.1).float(), torch.arange(20) % 2
    loss = fl.bce_with_logits + 5 * fl.equalized_odds
    fl.torch.Loss(loss)(scores, labels, group=group).backward()
    expected = loss.value_and_grad(scores.detach().numpy(), labels.numpy(), group=group.numpy())[1]
    np.testing.assert_allclose(scores.grad.numpy(), expected, rtol=1e-6)
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    value = fl.torch.Loss(fl.mse + 0.1 * fl.l2.on("params"))(scores.detach(), labels, params=w)
    value.backward()
    torch.testing.assert_close(w.grad, 0.1 * w.detach())
    torch.testing.assert_close(
        value.detach(), torch.nn.functional.mse_loss(scores.detach(), labels) + 0.05 * (w.detach() ** 2).sum()
    )
    bound = fl.torch.Loss(fl.mse.bind(reduction="sum"))(scores, labels)
    torch.testing.assert_close(bound, torch.nn.functional.mse_loss(scores, labels, reduction="sum"))


def test_boosting_and_evaluation():
    rows, labels = LOGITS.movedim(1, -1).reshape(-1, 3).numpy().astype(float), LABELS.reshape(-1).numpy()
    loss = fl.cross_entropy + 0.5 * fl.softmax_focal
    grad, hess = fl.objective(loss, curvature="exact").xgboost_sklearn(labels.astype(float), rows)
    first, second = loss.grad_and_hess(rows, labels)
    np.testing.assert_allclose(grad, first)
    np.testing.assert_allclose(hess, second)
    report = fl.evaluate((rows, labels), losses=[loss])
    assert report["cross_entropy_plus_softmax_focal:softmax_focal_weight=0.5"].mean == pytest.approx(loss(rows, labels))
    with pytest.raises(ValueError, match="cross_entropy_plus_dice"):
        fl.evaluate((rows, labels), losses=[fl.cross_entropy + fl.dice])
