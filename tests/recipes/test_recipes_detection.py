"""Losses of detectors against the papers' definitions, written with torch.

By hand, ssd_multibox and retinanet were compared with torchvision 0.28 as well: values and gradients agree to 3e-16.
"""

import math

import numpy as np
import pytest

import fastloss as fl

PRIORS, IMAGES, CLASSES = 60, 3, 4
TOLERANCE = {"rtol": 1e-10, "atol": 1e-14}


def boxes(rng, m):
    centre, size = rng.uniform(10, 90, (m, 2)), rng.uniform(8, 40, (m, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def scene(seed=0, first=0):
    """Priors, and true boxes of three images: some near priors, none, and some anywhere."""
    rng = np.random.default_rng(seed)
    priors = boxes(rng, PRIORS)
    true = [np.concatenate([priors[:4] + 1.5, boxes(rng, 2)]), np.empty((0, 4)), boxes(rng, 5)]
    targets = [(b, rng.integers(first, CLASSES, len(b))) for b in true]
    return rng, priors, targets


def overlap(a, b):
    """Intersection over union of two boxes."""
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def table(priors, true):
    return np.array([[overlap(p, b) for b in true] for p in priors]).reshape(len(priors), len(true))


def encoded(box, prior):
    """Offsets of a box from a prior: the centre in units of the prior's size, and logarithms of the scales."""
    (px, py, pw, ph), (x, y, w, h) = (
        ((q[0] + q[2]) / 2, (q[1] + q[3]) / 2, q[2] - q[0], q[3] - q[1]) for q in (prior, box)
    )
    return [(x - px) / pw, (y - py) / ph, math.log(w / pw), math.log(h / ph)]


def tensors(torch, *arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def agree(found, parts, total, **leaves):
    """Compare a result with torch's parts, and its gradients with those of the total."""
    assert list(found.parts) == list(parts)
    for name, part in parts.items():
        assert found.parts[name] == pytest.approx(float(part.detach()), rel=1e-10)
    assert found.value == pytest.approx(float(total.detach()), rel=1e-10)
    total.backward()
    assert list(found.grads) == list(leaves)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(found.grads[name], leaf.grad, err_msg=name, **TOLERANCE)


@pytest.mark.parametrize("seed", [0, 1])
def test_ssd_multibox(seed):
    torch = pytest.importorskip("torch")
    rng, priors, targets = scene(seed, first=1)
    offsets, logits = rng.normal(size=(IMAGES, PRIORS, 4)), rng.normal(size=(IMAGES, PRIORS, CLASSES))
    o, z = tensors(torch, offsets, logits)
    by_boxes, by_classes, positives = 0.0, 0.0, 0
    for i, (true, labels) in enumerate(targets):
        ratios, matched = table(priors, true), np.full(PRIORS, -1)
        for p in range(PRIORS):
            if len(true) and ratios[p].max() >= 0.5:
                matched[p] = ratios[p].argmax()
        for b in range(len(true)):
            matched[ratios[:, b].argmax()] = b
        own = np.flatnonzero(matched >= 0)
        positives += len(own)
        for p in own:
            wanted = torch.tensor(encoded(true[matched[p]], priors[p])) / torch.tensor(np.array([0.1, 0.1, 0.2, 0.2]))
            by_boxes += torch.nn.functional.smooth_l1_loss(o[i, p], wanted, reduction="sum")
        classes = torch.tensor(np.where(matched >= 0, labels[matched] if len(true) else 0, 0))
        losses = -torch.log_softmax(z[i], dim=1)[torch.arange(PRIORS), classes]
        background = losses[torch.tensor(matched < 0)]
        by_classes += losses[own].sum() + background.sort(descending=True).values[: 3 * len(own)].sum()
    assert positives > 8
    parts = {"boxes": by_boxes / positives, "classes": by_classes / positives}
    found = fl.recipes.ssd_multibox(offsets, logits, priors, targets, weights={"boxes": 2.0})
    agree(found, parts, 2.0 * parts["boxes"] + parts["classes"], offsets=o, logits=z)


def focal(torch, z, t):
    p = torch.sigmoid(z)
    return -(0.25 * t * (1 - p) ** 2 * torch.log(p) + 0.75 * (1 - t) * p**2 * torch.log(1 - p)).sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_retinanet(seed):
    torch = pytest.importorskip("torch")
    rng, priors, targets = scene(seed)
    offsets, logits = rng.normal(size=(IMAGES, PRIORS, 4)), rng.normal(size=(IMAGES, PRIORS, CLASSES))
    o, z = tensors(torch, offsets, logits)
    parts, between = {"boxes": 0.0, "classes": 0.0}, 0
    for i, (true, labels) in enumerate(targets):
        ratios, classes, counted = table(priors, true), np.zeros((PRIORS, CLASSES)), np.ones(PRIORS, bool)
        by_boxes, positives = torch.zeros(()), 0
        for p in range(PRIORS if len(true) else 0):
            best, b = ratios[p].max(), ratios[p].argmax()
            if best >= 0.5 or (ratios[p] == ratios.max(axis=0)).any():
                classes[p, labels[b]] = 1.0
                by_boxes = by_boxes + (o[i, p] - torch.tensor(encoded(true[b], priors[p]))).abs().sum()
                positives += 1
            elif best >= 0.4:
                counted[p] = False
        between += (~counted).sum()
        parts["boxes"] += by_boxes / max(1, positives) / IMAGES
        parts["classes"] += focal(torch, z[i][counted], torch.tensor(classes[counted])) / max(1, positives) / IMAGES
    assert between > 0
    found = fl.recipes.retinanet(offsets, logits, priors, targets)
    agree(found, parts, parts["boxes"] + parts["classes"], offsets=o, logits=z)


def complete_iou(torch, a, b):
    """Complete IoU loss of two boxes (Zheng et al. 2020), the trade-off held constant."""
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    common = (high - low).clamp(min=0).prod()
    ratio = common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common)
    hull = torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])
    apart = ((a[:2] + a[2:] - b[:2] - b[2:]) / 2).square().sum() / hull.square().sum()
    angles = [torch.atan((x[2] - x[0]) / (x[3] - x[1])) for x in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = (v / (1 - ratio + v)).detach()
    return 1 - ratio + apart + alpha * v, ratio.detach()


@pytest.mark.parametrize("soft", [False, True])
def test_yolo(soft):
    torch = pytest.importorskip("torch")
    rng, anchors, targets = scene(2)
    predicted = anchors + rng.uniform(-2, 2, (IMAGES, PRIORS, 4))
    scores, logits = rng.normal(size=(IMAGES, PRIORS)), rng.normal(size=(IMAGES, PRIORS, CLASSES))
    o, s, z = tensors(torch, predicted, scores, logits)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    there, counted, pairs, by_class = torch.zeros(IMAGES, PRIORS).double(), np.ones((IMAGES, PRIORS), bool), [], []
    for i, (true, labels) in enumerate(targets):
        ratios = table(anchors, true)
        best = {int(ratios[:, b].argmax()): b for b in range(len(true))}
        for p in range(PRIORS):
            if p in best:
                loss, ratio = complete_iou(torch, o[i, p], torch.tensor(true[best[p]]))
                pairs.append(loss)
                there[i, p] = ratio if soft else 1.0
                by_class.append(bce(z[i, p], torch.eye(CLASSES).double()[labels[best[p]]]))
            elif len(true) and ratios[p].max() > 0.5:
                counted[i, p] = False
    assert not counted.all()
    parts = {
        "boxes": torch.stack(pairs).mean(),
        "objectness": bce(s[counted], there[counted]),
        "classes": torch.stack(by_class).mean(),
    }
    total = 0.05 * parts["boxes"] + parts["objectness"] + 0.5 * parts["classes"]
    found = fl.recipes.yolo(predicted, scores, logits, anchors, targets, soft_objectness=soft)
    agree(found, parts, total, boxes=o, objectness=s, logits=z)


def test_images_without_boxes_have_no_box_loss():
    nothing = [(np.empty((0, 4)), np.empty(0, int))] * 2
    priors, offsets, logits = boxes(np.random.default_rng(0), 5), np.ones((2, 5, 4)), np.zeros((2, 5, 3))
    found = fl.recipes.ssd_multibox(offsets, logits, priors, nothing)
    assert found.value == 0.0
    found = fl.recipes.retinanet(offsets, logits, priors, nothing)
    assert found.parts["boxes"] == 0.0
    # Scores of 0: 15 classes an image of 0.75 / 4 log 2 each.
    assert found.parts["classes"] == pytest.approx(15 * 0.75 / 4 * math.log(2), rel=1e-12)
    np.testing.assert_array_equal(found.grads["offsets"], 0.0)
    found = fl.recipes.yolo(np.ones((2, 5, 4)), np.zeros((2, 5)), logits, priors, nothing)
    assert found.parts == {"boxes": 0.0, "objectness": pytest.approx(math.log(2)), "classes": 0.0}


def test_parts_of_weight_zero_are_left_out_and_tensors_come_back():
    torch = pytest.importorskip("torch")
    _, priors, targets = scene(first=1)
    offsets, logits = torch.ones(IMAGES, PRIORS, 4), torch.zeros(IMAGES, PRIORS, CLASSES)
    found = fl.recipes.ssd_multibox(offsets, logits, priors, targets, weights={"classes": 0})
    assert list(found.parts) == ["boxes"]
    assert found.value == found.parts["boxes"] > 0.0
    assert found.grads["offsets"].dtype == torch.float32
    assert not found.grads["logits"].any()


def test_diverged_logits_show():
    _, priors, targets = scene(first=1)
    logits = np.zeros((IMAGES, PRIORS, CLASSES))
    logits[2, 50] = np.nan
    assert np.isnan(fl.recipes.ssd_multibox(np.zeros((IMAGES, PRIORS, 4)), logits, priors, targets).value)


BOX = np.array([[0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": []}, r"ssd_multibox: targets has 0 entries; expected 1 pairs \(boxes, labels\), one per image"),
        ({"targets": [(BOX, [0])]}, r"ssd_multibox: targets\[0\]\[1\]\[0\] is 0; allowed: 1 to 2"),
        ({"targets": [(BOX, [1.0])]}, r"ssd_multibox: targets\[0\]\[1\] has dtype float64; expected integers"),
        (
            {"targets": [(BOX[:, ::-1], [1])]},
            r"ssd_multibox: targets\[0\]\[0\]\[0\] is \[1.0, 1.0, 0.0, 0.0\]; expected",
        ),
        ({"targets": [BOX]}, r"ssd_multibox: targets\[0\] is array.*; expected a pair \(boxes, labels\)"),
        ({"priors": BOX}, "ssd_multibox: priors has 1 rows; expected 2, one per predicted box of an image"),
        ({"offsets": np.zeros((1, 2, 3))}, r"ssd_multibox: offsets has shape \(1, 2, 3\); expected \(n, a, 4\)"),
        ({"logits": np.zeros((1, 3, 3))}, r"ssd_multibox: logits has shape \(1, 3, 3\); expected \(1, 2, c\)"),
        ({"logits": np.zeros((1, 2, 3), int)}, "ssd_multibox: logits has dtype int64; expected float64"),
        ({"threshold": 1.5}, "ssd_multibox: threshold is 1.5"),
        ({"weights": {"box": 1.0}}, "ssd_multibox: weights names the part 'box'; known: boxes, classes"),
        ({"weights": 0.5}, "ssd_multibox: weights is 0.5; expected a dictionary such as {'boxes': 1, 'classes': 1}"),
        ({"weights": {"boxes": "1"}}, r"ssd_multibox: weights\['boxes'\] is '1'; expected a number"),
        ({"variances": 0.1}, "ssd_multibox: variances is 0.1; expected four positive numbers"),
    ],
)
def test_errors(change, message):
    given = {"offsets": np.zeros((1, 2, 4)), "logits": np.zeros((1, 2, 3)), "targets": [(BOX, [1])]}
    given = {**given, "priors": np.concatenate([BOX, BOX]), **change}
    with pytest.raises(fl.CallError, match=message):
        fl.recipes.ssd_multibox(**given)


def test_thresholds_in_order():
    logits = np.zeros((1, 1, 2))
    with pytest.raises(fl.CallError, match=r"retinanet: thresholds is \(0.5, 0.4\); expected the lower one first"):
        fl.recipes.retinanet(np.zeros((1, 1, 4)), logits, BOX, [(BOX, [1])], thresholds=(0.5, 0.4))
