"""How losses of several arrays lay out what they are given, and what they say where shapes or integers do not fit."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.call import layout
from fastloss.losses.arrays import ArrayLoss
from fastloss.spec.record import Input, Integers, Parameter, registered

F64 = np.dtype(np.float64)


def settle(dims, *given):
    """Lay arrays out by their specs; return what kernels would see, and the lengths learnt."""
    return [layout.laid(name, Input(spec, ""), np.zeros(shape), F64, dims) for name, spec, shape in given]


def test_names_leading_and_trailing_axes():
    dims = {}
    a, b, c = settle(dims, ("a", "n c +", (2, 3, 4, 5)), ("b", "* c", (7, 8, 3)), ("c", "c+1", (4,)))
    assert (a.shape, b.shape, c.shape) == ((2, 3, 20), (56, 3), (4,))
    assert (dims["n"], dims["c"], dims["*"], dims["+"]) == (2, 3, (7, 8), (4, 5))
    assert layout.shape_of("* c", dims) == (7, 8, 3)
    assert layout.shape_of("n +", dims) == (2, 4, 5)
    assert layout.shape_of("", dims) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("a", "n d", (2,))], r"a has shape \(2,\); expected \(n, d\)"),
        ([("a", "n d", (2, 3)), ("b", "m d", (5, 4))], r"b has shape \(5, 4\); expected \(5, 3\), as in a"),
        ([("a", "* 4", (2, 5))], r"a has shape \(2, 5\); expected \(\.\.\., 4\)$"),
        ([("a", "* 4", (2, 4)), ("b", "* 4", (3, 4))], r"b has shape \(3, 4\); expected \(2, 4\), as in a"),
        ([("a", "n c +", (2, 3, 4)), ("b", "n +", (2, 5))], r"b has shape \(2, 5\); expected \(2, 4\), as in a"),
        ([("a", "g+1", (0,))], r"a has shape \(0,\); expected \(g \+ 1,\)"),
        ([("a", "n", (3,)), ("b", "n+1", (3,))], r"b has shape \(3,\); expected \(4,\), as in a"),
    ],
)
def test_shapes_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        settle({}, *given)


def integers(spec, a, ignore=None, **dims):
    return layout.laid_integers("a", spec, np.asarray(a), dims, ignore)


def test_labels_are_checked_and_ignored_ones_marked():
    spec = Input("n", "", "labels", classes="k")
    assert integers(spec, [0, 2, -100], -100, k=3).tolist() == [0, 2, -1]
    assert integers(spec, [0, 2, 1], 2, k=3).tolist() == [0, -1, 1]
    with pytest.raises(ValueError, match=r"a\[1\] is 3; allowed: 0 to 2, or -100 \(ignore_index\)"):
        integers(spec, [0, 3], -100, k=3)
    with pytest.raises(ValueError, match=r"a\[1\] is -100; allowed: 0 to 2$"):
        integers(spec, [0, -100], k=3)
    with pytest.raises(ValueError, match=r"a\[0\] is \d+; allowed: 0 to 2"):
        integers(spec, np.array([2**64 - 1], np.uint64), k=3)
    with pytest.raises(TypeError, match="a has dtype float64; expected integers"):
        integers(spec, [0.5], k=3)
    anything = Input("n", "", "labels")
    assert integers(anything, [-7, 10**12]).tolist() == [-7, 10**12]


def test_lengths_offsets_and_masks():
    lengths = Input("n", "", "lengths", classes="t")
    assert integers(lengths, [0, 5], t=5).tolist() == [0, 5]
    with pytest.raises(ValueError, match=r"a\[0\] is 6; allowed: 0 to 5"):
        integers(lengths, [6], t=5)
    offsets = Input("g+1", "", "offsets", classes="n")
    assert integers(offsets, [0, 2, 2, 7], n=7).tolist() == [0, 2, 2, 7]
    with pytest.raises(ValueError, match="begin with"):
        integers(offsets, [1, 7], n=7)
    with pytest.raises(ValueError, match=r"a\[2\] is 1, below a\[1\] = 3"):
        integers(offsets, [0, 3, 1, 7], n=7)
    with pytest.raises(ValueError, match="end with 6; expected 7"):
        integers(offsets, [0, 6], n=7)
    mask = Input("n", "", "mask")
    for given in ([True, False], [1, 0], [1.0, 0.0]):
        assert integers(mask, given).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"a\[1\] is 2; allowed: 0 \(left out\) or 1"):
        integers(mask, [1, 2])
    with pytest.raises(TypeError, match="a has dtype complex128; expected bool"):
        integers(mask, np.array([1j]))


def test_words_and_whole_numbers_as_parameters():
    ties = Parameter("", choices=("breslow", "efron"))
    steps = Parameter("", Integers(1.0), none=-1.0)
    like = registered["iou"]
    parameters, defaults = {"ties": ties, "steps": steps}, {"ties": 0.0, "steps": 3.0}
    loss = ArrayLoss(like._replace(parameters=parameters, defaults=defaults))
    bound = loss.bind(ties="efron", steps=None)
    assert repr(bound) == "fastloss.iou.bind(ties='efron', steps=None)"
    assert bound._meant == {"ties": "efron", "steps": None}
    with pytest.raises(ValueError, match="iou: ties is 'exact'; allowed: 'breslow', 'efron'"):
        loss.bind(ties="exact")
    with pytest.raises(ValueError, match=r"iou: steps is 2\.5; allowed: whole numbers from 1"):
        loss.bind(steps=2.5)


def test_inputs_by_name_and_twice():
    a = np.array([[0.0, 0.0, 2.0, 2.0]])
    assert fl.iou(a, target=a) == fl.iou(boxes=a, target=a) == 0.0
    with pytest.raises(TypeError, match="iou: boxes is given twice"):
        fl.iou(a, a, boxes=a)


def test_evaluation_of_files_by_rows(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    target = np.sort(rng.random((500, 2, 2)), axis=1).reshape(500, 4)
    boxes = target + rng.normal(0, 0.02, (500, 4))
    path = tmp_path / "boxes.parquet"
    parquet.write_table(pa.table({"b": boxes.tolist(), "t": target.tolist()}), path)
    report = fl.evaluate(str(path), losses=["iou"], pred="b", target="t")
    assert report["iou"].mean == pytest.approx(fl.iou(boxes, target), rel=1e-12)
    assert report["iou"].count == 500
