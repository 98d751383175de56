"""The command `fastloss plot`: files, options and sentences."""

import pytest

testing = pytest.importorskip("typer.testing")
pytest.importorskip("matplotlib").use("Agg")

from fastloss.command.commands import app  # noqa: E402


def run(*arguments):
    result = testing.CliRunner().invoke(app, ["plot", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_picture_of_losses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("huber", "expr:abs(p - t)**1.5", "--sweep", "delta=0.5,2", "--over", "-2,2") == (
        0,
        "wrote losses.svg\n",
        "",
    )
    text = (tmp_path / "losses.svg").read_text()
    for label in ("huber delta=0.5", "huber delta=2", "curvature"):
        assert label in text, label
    assert run("mse", "-o", "a.png", "--show", "loss")[0] == 0
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["huber", "-o", "a.pdf"], "--out is 'a.pdf'; expected a file that ends in .png or .svg"),
        (["hubr"], "'hubr' cannot be drawn: no loss named 'hubr'; did you mean huber or pseudo_huber?"),
        (["dice"], "cannot draw dice: it takes whole arrays; expected losses of elements or of rows of scores"),
        (["huber", "--over", "3"], "--over is '3'; expected two numbers, such as -3,3"),
        (["huber", "--over", "a,3"], "--over is 'a,3'; 'a' is no number"),
        (["bce", "--over", "-1,1"], "--over is (-1.0, 1.0); bce takes predictions in [0, 1]"),
        (["huber", "--show", "slope"], "--show is ['slope']; allowed: loss, gradient, curvature, each at most once"),
        (["huber", "--sweep", "delta"], "--sweep is 'delta'; expected a parameter and its values"),
        (["huber", "--sweep", "delta=-1"], "huber: delta is -1.0; allowed: (0, inf)"),
    ],
)
def test_errors_name_the_option(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastloss: {sentence}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
