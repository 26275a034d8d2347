"""The command line: arguments and wiring only. What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__, config, names
from .commands import Commands, audit, doctor, keys, services, sessions, settings
from .errors import ConsoleError
from .output import drop

PROGRAM = "serial-console"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None for those of this process.

    Returns:
        The exit status: 0 done, 1 refused or failed (with one line on stderr). Wrong usage exits
        with status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except ConsoleError as error:
        sys.stderr.write(f"{PROGRAM}: {names.printable(' '.join(str(error).split()))}\n")
        return error.exit
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        drop()  # the reader is gone
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """All arguments of all commands; the man pages are made from it too."""
    program = argparse.ArgumentParser(
        PROGRAM, description="Browser serial console for libvirt guests.", allow_abbrev=False
    )
    program.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    program.add_argument("--config", metavar="FILE", help=f"default: {config.SYSTEM_FILE}")
    commands = Commands(program)
    for group in (services, sessions, keys, audit, settings, doctor):
        group.add(commands)
    return program
