"""``audit``: the audit log."""

from __future__ import annotations

import argparse

from .. import config, names
from ..output import say
from . import Commands


def add(commands: Commands) -> None:
    """Add them."""
    group = commands.group("audit", "check the audit log")
    verify = group.add("verify", _verify, "say whether any line is missing or altered")
    verify.add_argument(
        "files", metavar="FILE", nargs="*", help="oldest first (default: log.audit)"
    )


def _verify(options: argparse.Namespace) -> int:
    from ..verify import report

    for line in report(config.load(options.config), options.files):
        say(names.printable(line))  # it may be about what somebody else has written
    return 0
