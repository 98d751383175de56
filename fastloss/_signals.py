"""Signals that end the command line: one sentence, the status of the signal, and no unfinished file left behind.

Only the command uses this; a program that imports fastloss keeps its own handlers. The package imports this module
first, as NumPy and Numba take a few tenths of a second to import: the time in which people press Ctrl-C most.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

__all__ = ["discard", "ended_by", "leave", "leave_at_once", "sentence", "unfinished", "unwind"]

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}

unfinished: set[str] = set()
"""Paths of temporary files that are being written; each is entered here before the file is made."""

_first: list[int] = []


def ended_by() -> int:
    """Return the number of the signal that ends this process; 0 where none came."""
    return _first[0] if _first else 0


def sentence(number: int) -> str:
    """Return the word that names the effect of a signal, for messages."""
    return WORDS[signal.Signals(number).name]


def discard() -> None:
    """Remove the unfinished files."""
    for path in list(unfinished):
        with suppress(OSError):
            os.unlink(path)


def leave(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process at once with a sentence and the status of a signal."""
    discard()
    with suppress(OSError):
        os.write(2, f"fastloss: {sentence(number)}\n".encode())
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt, so that files, processes and the terminal are left as they were found."""
    _first.append(number)
    _handle(leave)  # a second signal does not wait for that
    raise KeyboardInterrupt


def _unraisable(found: Any) -> None:
    """Leave where the exception was lost, as in a destructor: nobody else would ever see it."""
    if ended_by():
        if isinstance(found.exc_value, KeyboardInterrupt):
            leave(ended_by())
        return
    sys.__unraisablehook__(found)


def _handle(handler: Any) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for name in WORDS:
        number = getattr(signal, name, None)
        # One that is ignored stays so: under nohup, and in the background of a shell script.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def leave_at_once() -> None:
    """End the process where a signal comes, before there is anything to put in order."""
    _handle(leave)


def unwind() -> None:
    """Raise KeyboardInterrupt where a signal comes."""
    sys.unraisablehook = _unraisable
    _handle(_raise)


def _is_command() -> bool:
    """Whether this process is `fastloss ...` or `python -m fastloss ...`."""
    words = sys.orig_argv
    module = any(words[i : i + 2] == ["-m", "fastloss"] for i in range(1, len(words)))
    return module or os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0] == "fastloss"


if _is_command():
    leave_at_once()
