"""Entry point of the command `fastloss`; it imports only the standard library until a command runs."""

import io
import os
import sys
from typing import Any, NoReturn

from .. import _signals
from .._terminal import EXTRA

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and exit with 0, 2 (usage error or bad input) or 1 (unexpected error)."""
    _signals.leave_at_once()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding cannot show is escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from . import lean
        from .commands import app
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "fastloss":
            raise
        print(f"fastloss: {EXTRA}", file=sys.stderr)
        sys.exit(2)
    code: Any = 0
    try:
        _signals.unwind()
        lean.own_process.append(True)
        app(arguments, prog_name="fastloss")
    except BrokenPipeError:
        _silence()
    except SystemExit as end:
        code = end.code
    except BaseException:
        if not _signals.ended_by():
            raise
        _signals.leave(_signals.ended_by())
    _signals.leave_at_once()
    code = _flushed(code)
    if _signals.ended_by():
        # Without waiting for threads that still compile.
        os._exit(128 + _signals.ended_by())
    sys.exit(code)


def _flushed(code: Any) -> Any:
    """Flush the output streams and return the exit code, which is 2 after a failed write such as a full disk."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as error:
        _silence()
        print(f"fastloss: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        return 2
    return code


def _silence() -> None:
    """Redirect further output to the null device, so that Python reports no second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
