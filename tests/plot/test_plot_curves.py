"""Curves hold what the formulas say: data and structure of the pictures, not their pixels."""

import matplotlib
import numpy as np
import pytest

import fastloss as fl
from fastloss.plot.curves import computed

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_curve_holds_the_loss_and_its_derivatives():
    [curve] = computed("huber", delta=0.5, over=(-2.0, 2.0))
    inside = np.abs(curve.x) <= 0.5
    expected = np.where(inside, curve.x**2 / 2.0, 0.5 * (np.abs(curve.x) - 0.25))
    np.testing.assert_allclose(curve.loss, expected, rtol=1e-15)
    np.testing.assert_allclose(curve.gradient, np.clip(curve.x, -0.5, 0.5), rtol=1e-15)
    np.testing.assert_array_equal(curve.curvature, np.where(inside, 1.0, 0.0))


def test_a_row_loss_varies_the_right_class_among_three():
    [curve] = computed(fl.cross_entropy, over=(-4.0, 4.0))
    np.testing.assert_allclose(curve.loss, np.log(np.exp(curve.x) + 2.0) - curve.x, rtol=1e-13)
    p = np.exp(curve.x) / (np.exp(curve.x) + 2.0)
    np.testing.assert_allclose(curve.gradient, p - 1.0, rtol=1e-12)
    np.testing.assert_allclose(curve.curvature, p * (1.0 - p), rtol=1e-12)


DRAWN = [name for name, loss in fl.LOSSES.items() if loss.record.family != "arrays"]


def test_every_loss_of_elements_or_rows_has_a_curve():
    for name in DRAWN:
        [curve] = computed(name)
        assert np.isfinite(curve.loss).all(), name
        assert np.ptp(curve.loss) > 0.0, name
        assert curve.x.shape == curve.loss.shape == curve.gradient.shape == curve.curvature.shape, name


@pytest.mark.parametrize("name", ["mape", "smape"])
def test_losses_relative_to_the_target_are_drawn_at_a_target_that_is_not_zero(name):
    [curve] = computed(name)
    assert "target 1" in curve.axis
    assert curve.loss.max() < 1e6


def test_a_list_sweeps_and_lists_combine():
    labels = [c.label for c in computed("focal", gamma=[0.0, 2.0], alpha=[0.25, 0.5])]
    assert labels == [f"focal gamma={g}, alpha={a}" for g in ("0", "2") for a in ("0.25", "0.5")]
    both = computed(["huber", "mse"], delta=np.array([1.0, 2.0]))
    assert [c.label for c in both] == ["huber delta=1", "huber delta=2", "mse"]


def test_losses_of_ones_own_and_sums_are_drawn():
    [own, both] = computed(["expr:(p - t)**2", 0.5 * fl.mse + fl.mae], over=(-1.0, 3.0), target=1.0)
    np.testing.assert_allclose(own.loss, (own.x - 1.0) ** 2, rtol=1e-15)
    np.testing.assert_allclose(both.loss, 0.5 * (both.x - 1.0) ** 2 + np.abs(both.x - 1.0), rtol=1e-14)


def test_panels_lines_and_legend():
    axes = fl.plot.curves(["mse", "mae"], show=("gradient", "loss"))
    assert [ax.get_title() for ax in axes] == ["gradient", "loss"]
    assert [line.get_label() for line in axes[0].lines] == ["mse", "mae"]
    [legend] = axes[0].figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["mse", "mae"]


def test_the_legend_lies_outside_the_panels():
    axes = fl.plot.curves("huber", delta=list(np.linspace(0.5, 3.0, 12)))
    figure = axes[0].figure
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(ax.get_tightbbox()) for ax in axes)


def test_own_axes_are_drawn_into():
    import matplotlib.pyplot as plt

    ax = plt.figure().add_subplot()
    assert fl.plot.curves("mse", show="loss", axes=ax) == [ax]
    assert len(ax.lines) == 1


def test_a_pole_does_not_flatten_the_curve():
    [ax] = fl.plot.curves("bce", show="gradient", over=(1e-6, 1.0))
    assert ax.get_ylim()[0] > -1000.0  # the gradient at 1e-6 is -1e6


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: fl.plot.curves("dice"), "cannot draw dice: it takes whole arrays"),
        (lambda: fl.plot.curves("hubr"), "did you mean huber"),
        (lambda: fl.plot.curves([]), "losses are none"),
        (lambda: fl.plot.curves(3), "expected names such as 'huber:delta=2', or losses"),
        (lambda: fl.plot.curves("huber", gamma=2.0), "'gamma' is a parameter of none of the losses"),
        (lambda: fl.plot.curves("huber", show="slope"), "show is 'slope'; allowed: loss, gradient, curvature"),
        (lambda: fl.plot.curves("huber", over=(1.0, -1.0)), "the smaller first"),
        (lambda: fl.plot.curves("bce", over=(-1.0, 1.0)), r"bce takes predictions in \[0, 1\]"),
        (lambda: fl.plot.curves("mse", others={"var": 1.0}), "others names var; mse takes none"),
        (lambda: fl.plot.curves("huber", delta=list(range(1, 40))), "39 curves; allowed: at most 24"),
        (lambda: fl.plot.curves("huber", axes=[1, 2]), "axes is 2 objects; expected 3 matplotlib axes"),
        (lambda: fl.plot.curves("huber", delta=-1.0), "delta is -1.0; allowed"),
    ],
)
def test_errors_are_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_saved_files(tmp_path):
    axes = fl.plot.curves("mse", show="loss")
    for name in ("a.svg", "b.svg"):
        fl.plot.save(axes, str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert len((tmp_path / "a.svg").read_bytes()) < 40_000
    fl.plot.save(axes[0], str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"path is 'a\.pdf'; expected a name that ends in \.png or \.svg"):
        fl.plot.save(axes, "a.pdf")


def test_style_has_readable_text_on_white_and_on_near_black():
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    from matplotlib.colors import to_rgb

    with fl.plot.style():
        grey = luminance(to_rgb(matplotlib.rcParams["text.color"]))
        assert matplotlib.rcParams["savefig.facecolor"] == "none"
    for page in ("#ffffff", "#0d1117"):
        light, dark = sorted([grey, luminance(to_rgb(page))], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.2
