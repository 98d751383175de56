"""Colours and axes of the pictures, and the file that one is saved to."""

import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..call.errors import CallTypeError, CallValueError
from ..evaluation.columns import InputError
from ..evaluation.files import output, write_text

__all__ = ["LINES", "check_file", "finish", "new_axes", "save", "style"]

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#8C564B")
"""Colours of lines: Okabe and Ito's palette, which colour-blind readers can distinguish, and two that it lacks."""

GREY = "#7A7A7A"
"""Colour of text and axes in saved pictures: 4.3 to 1 against white, 4.4 against the near-black of dark pages."""


def style() -> Any:
    """Return a context in which pictures suit light and dark pages: no background, grey text and axes.

    Without it, pictures follow matplotlib's own settings, such as `plt.style.use("dark_background")`.

    Examples
    --------
    >>> import fastloss as fl
    >>> with fl.plot.style():
    ...     axes = fl.plot.curves("huber")
    """
    grey = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
    none = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    settings: dict[str, Any] = {**dict.fromkeys(grey, GREY), **dict.fromkeys(none, "none")}
    settings |= {"font.sans-serif": ["DejaVu Sans"], "font.size": 9}
    return matplotlib().rc_context(settings)


def matplotlib() -> Any:
    """Return the package matplotlib, or say which extra installs it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError('fl.plot needs matplotlib: pip install "fastloss[plot]"', name="matplotlib")
    import matplotlib
    import matplotlib.colors

    return matplotlib


def new_axes(axes: Any, count: int, function: str, height: float = 3.4) -> list[Any]:
    """Return as many axes as were asked for: the caller's, checked, or those of a new figure, side by side."""
    matplotlib()
    if axes is None:
        import matplotlib.pyplot as plt

        width = {1: 5.6, 2: 8.6}.get(count, 3.6 * count)
        return list(plt.subplots(1, count, figsize=(width, height), layout="constrained", squeeze=False)[1][0])
    given = list(axes.ravel()) if hasattr(axes, "ravel") else list(axes) if isinstance(axes, Sequence) else [axes]
    if len(given) != count or not all(hasattr(a, "plot") for a in given):
        problem = f"is {len(given)} objects; expected {count} matplotlib axes, or None for new ones"
        raise CallValueError(problem, "axes", None, function)
    return given


def finish(axes: Sequence[Any], new: bool, entries: int) -> None:
    """Remove the frame's upper and right side, and add one legend, below the panels of a new figure."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.2, linewidth=0.6)
    if entries < 2:
        return
    if new:
        handles, labels = axes[0].get_legend_handles_labels()
        figure, size = axes[0].figure, matplotlib().rcParams["font.size"]
        # A character of DejaVu Sans is 0.58 em wide on average; the line before the text and the gaps take 5.2 em.
        width = size * (0.58 * max(map(len, labels)) + 5.2)
        columns = min(len(labels), max(1, int(72 * figure.get_figwidth() / width)))
        # Below the panels, so that it never covers a line.
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    else:
        axes[0].legend(frameon=False)


def check_file(path: str) -> None:
    """Raise at once if a picture of this name cannot be written."""
    if Path(path).suffix not in (".png", ".svg"):
        raise InputError(f"--out is {path!r}; expected a file that ends in .png or .svg")
    try:
        matplotlib()
    except ImportError as error:
        raise InputError(str(error).replace("fl.plot", "fastloss plot")) from None


def save(axes: Any, path: str) -> None:
    """Write the figure of axes as PNG (150 dots per inch) or SVG, complete or not at all.

    Parameters
    ----------
    axes : matplotlib axes, or the list of them that a function of `fl.plot` returned
    path : str
        Name that ends in `.png` or `.svg`. The same figure gives the same SVG: no date is written.
    """
    first = axes[0] if isinstance(axes, Sequence) else axes
    figure = getattr(first, "figure", None)
    if figure is None:
        raise CallTypeError(f"is {type(first).__name__}; expected axes of matplotlib", "axes", None, "fl.plot.save")
    path = str(path)
    if Path(path).suffix == ".svg":
        text = io.StringIO()
        with matplotlib().rc_context({"svg.hashsalt": "fastloss", "svg.fonttype": "none"}):
            figure.savefig(text, format="svg", metadata={"Date": None})
        # Two decimals of a point are a fortieth of a pixel; the file is half as long.
        write_text(path, re.sub(r"\n\s*", "\n", re.sub(r"(\d\.\d\d)\d+", r"\1", text.getvalue())))
    elif Path(path).suffix == ".png":
        with output(path) as file:
            figure.savefig(file, format="png", dpi=150)
    else:
        problem = f"is {path!r}; expected a name that ends in .png or .svg"
        raise CallValueError(problem, "path", None, "fl.plot.save")
