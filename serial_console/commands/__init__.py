"""The commands of ``serial-console``, a module for each group: its arguments, and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


class Commands:
    """Where commands are added: to the program, or to one that has commands of its own."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._added: Any = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], help_: str
    ) -> argparse.ArgumentParser:
        """Add a command.

        Args:
            name: what is typed.
            run: does it; gets the options, returns the exit status.
            help_: what it does, in the imperative, without a full stop.
        """
        added = self._parser(name, help_)
        added.set_defaults(command=run)
        return added

    def group(self, name: str, help_: str) -> Commands:
        """Add a command that has commands of its own, and return where they go."""
        return Commands(self._parser(name, help_))

    def _parser(self, name: str, help_: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = self._added.add_parser(
            name, help=help_, description=help_[0].upper() + help_[1:] + ".", allow_abbrev=False
        )
        return added
