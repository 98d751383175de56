"""Parser of the command line's losses, sizes and contestants into cases."""

import re
from collections.abc import Iterable, Sequence

from ..call.check import nearest
from ..evaluation.columns import InputError
from ..evaluation.losses import OWN, named
from .cases import CLASSES, DTYPES, MEASURED, MODES, Case, loss_of, target_of
from .contestants import BUILDERS, installed

__all__ = ["SHORT", "chosen_contestants", "parse_loss", "parse_sizes", "table"]

SHORT = ("mse", "huber", "bce_with_logits", "focal", "cross_entropy")
"""Losses measured where none is named."""

SLOW = ("torch.compile",)
"""Contestants that compile for seconds per case, and take part only when named."""


def parse_loss(text: str) -> Case:
    """Parse `NAME[:param=value,...]`, followed for row-wise losses by `[K=1000]` or `[K=1000,probabilities]`.

    The name may be one of a user's own, `file.py:NAME` or `expr:FORMULA`.
    """
    match = re.fullmatch(r"(.*?)(?:\[(.*)\])?", text.strip())
    assert match
    try:
        (asked,) = named([match[1]])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(error)) from None
    record = asked.loss.record
    own = bool(OWN.match(match[1].strip()))
    if asked.figure or not (record.family != "arrays" if own else record.name in MEASURED):
        raise InputError(
            f"{asked.figure or record.name} takes several arrays; python -m bench.families measures such losses"
        )
    changed = {k: v for k, v in asked.loss.defaults.items() if v != record.defaults[k]}
    for k, v in changed.items():
        if isinstance(v, tuple):
            raise InputError(f"{text!r}: {k} has several levels; expected one")
    parameters = tuple((k, None if v == record.parameters[k].none else v) for k, v in changed.items())
    # The name of a loss of a user's own has its parameters in it.
    name, parameters = (asked.label, ()) if own else (record.name, parameters)
    classes, target = _brackets(name, match[2], text)
    return Case(name, 0, parameters=parameters, classes=classes, target=target)


def _brackets(name: str, inside: str | None, text: str) -> tuple[int, str]:
    """Parse the number of columns and the kind of target of a row-wise loss."""
    record = loss_of(name).record
    if record.family != "rows":
        if inside is not None:
            raise InputError(f"{text!r}: {name} is a loss of single elements and has no columns")
        return 0, ""
    classes, target = CLASSES, target_of(name)
    for part in filter(None, (p.strip() for p in (inside or "").split(","))):
        if (count := re.fullmatch(r"K=(\d+)", part)) and int(count[1]) > 1:
            classes = int(count[1])
        elif part == "probabilities" and record.row_loop.dense == part:
            target = part
        else:
            raise InputError(f"{text!r}: expected [K=NUMBER] with at least 2 columns, got {part!r}")
    return classes, target


def parse_sizes(texts: Iterable[str]) -> list[int]:
    """Parse sizes such as 100, 1e6 or 1e4,1e7."""
    sizes = []
    for text in (part.strip() for t in texts for part in t.split(",")):
        try:
            size = float(text)
            whole = int(size)
        except (OverflowError, ValueError):
            size, whole = 0.5, 0
        if whole != size or not 1 <= whole <= 1 << 34:
            raise InputError(f"--size is {text!r}; expected a whole number from 1 to {1 << 34}, such as 1000 or 1e6")
        sizes.append(whole)
    return list(dict.fromkeys(sizes))


def _words(option: str, given: Iterable[str], allowed: Sequence[str]) -> list[str]:
    words = list(dict.fromkeys(w.strip() for text in given for w in text.split(",")))
    for word in words:
        if word not in allowed:
            raise InputError(f"{option} is {word!r}; allowed: {', '.join(allowed)}")
    return words


def chosen_contestants(given: Sequence[str]) -> list[str]:
    """Return the named contestants; by default all that are installed and need no long compilation."""
    if not given:
        return [n for n in BUILDERS if installed(n) and n not in SLOW]
    names = list(dict.fromkeys(w.strip() for text in given for w in text.split(",")))
    if names == ["all"]:
        return [n for n in BUILDERS if installed(n)]
    for name in names:
        if name not in BUILDERS:
            raise InputError(f"no contestant named {name!r}; {nearest(name, [*BUILDERS, 'all'])}")
        if not installed(name):
            raise InputError(f"{name} is not installed: pip install {BUILDERS[name].needs.replace('sklearn', name)}")
    return names


def table(
    names: Sequence[str], everything: bool, sizes: Iterable[int], dtypes: Iterable[str], modes: Iterable[str]
) -> list[Case]:
    """Return the requested cases."""
    sizes, dtypes, modes = list(sizes), _words("--dtype", dtypes, DTYPES), _words("--mode", modes, MODES)
    losses = [parse_loss(n) for n in (names or (MEASURED if everything else SHORT))]
    return [
        Case(x.loss, size, dtype, mode, x.parameters, x.classes, x.target)
        for mode in modes
        for dtype in dtypes
        for x in losses
        if mode != "grad_and_hess" or loss_of(x.loss).record.second
        for size in sizes
    ]
