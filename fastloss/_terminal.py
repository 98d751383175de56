"""Safe output to terminals: control characters in names and values from files are escaped, never obeyed."""

import unicodedata
from typing import Any

__all__ = ["EXTRA", "console", "printable"]

EXTRA = 'the command line needs typer, rich and pyarrow: pip install "fastloss[eval]"'
"""Message where a package of the command line is missing."""

JOINERS = "\u200c\u200d"
"""Invisible characters that join glyphs and do no more: several languages and many emoji are spelt with them."""


def printable(text: object) -> str:
    r"""Return the text with every character escaped that a terminal would obey instead of showing.

    Control characters, marks that turn the direction of writing, separators of lines and bytes that are no text become
    escapes such as ``\x1b``. Everything else, brackets included, stays as it is.

    Examples
    --------
    >>> print(printable("a\x1b[31m[bold].csv"))
    a\x1b[31m[bold].csv
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is no UTF-8, as Python holds it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def console(**options: Any) -> Any:
    """Return a console of rich that prints strings as they are: without markup, emoji codes or guessed colours."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)
