"""What the command line prints on stdout: lines and tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from . import names
from .errors import SetupError, os_reason


def say(text: str) -> None:
    """Print a line.

    Raises:
        BrokenPipeError: the reader is gone.
        SetupError: it cannot be written.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop()
        raise SetupError(f"cannot write what there is to say: {os_reason(error)}") from error


def drop() -> None:
    """Print no more. Python flushes once more at exit, which must not fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns under titles; names are made harmless for the terminal. Raises as say()."""
    lines = [list(titles), *([names.shown(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say("  ".join(cells).rstrip())
