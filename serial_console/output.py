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


def amount(count: float) -> str:
    """Return a number of bytes in five characters or less: ``999B``, ``9.8K``, ``976K``."""
    if count < 1000:
        return f"{count:.0f}B"
    for unit in "KMGT":
        count /= 1024
        if count < 9.95:
            return f"{count:.1f}{unit}"
        if count < 1000:
            break
    return f"{count:.0f}{unit}"


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns under titles; names are made harmless for the terminal. Raises as say()."""
    lines = [list(titles), *([names.shown(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say("  ".join(cells).rstrip())
