"""Figures and tables as text."""

__all__ = ["aligned", "figure"]


def aligned(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Return a heading, a rule and rows as lines of aligned columns; the first are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return lines


def figure(value: float | None) -> str:
    """Return a number as text of six digits, so that the table fits a terminal of 80 columns."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.6g}"
