"""The command `fastloss`: its entry point, which needs nothing but Python until the command runs."""

import os
import sys
from typing import NoReturn

__all__ = ["main"]

EXTRA = 'the command line needs typer, rich and pyarrow: pip install "fastloss[eval]"'


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and exit: 0; 2 for usage and bad input; 1 for anything unexpected."""
    try:
        from .commands import app
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "fastloss":
            raise
        print(f"fastloss: {EXTRA}", file=sys.stderr)
        sys.exit(2)
    try:
        app(arguments, prog_name="fastloss")
    except BrokenPipeError:
        # The reader of a pipe left; Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
