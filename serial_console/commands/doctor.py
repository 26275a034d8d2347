"""``doctor``: what is wrong on this host."""

from __future__ import annotations

import argparse
import json

from ..names import printable
from ..output import say
from . import Commands


def add(commands: Commands) -> None:
    """Add it."""
    doctor = commands.add("doctor", _doctor, "look what is wrong on this host and say what to do")
    doctor.add_argument(
        "--json", action="store_true", help="print an array of objects: check, status, message, fix"
    )


def _doctor(options: argparse.Namespace) -> int:
    from ..doctor.checks import checks
    from ..doctor.examine import examine

    findings = examine(checks(options.config))
    if options.json:
        say(json.dumps([one._asdict() for one in findings], indent=1))
    else:
        width = max(len(one.check) for one in findings)
        for one in findings:
            say(f"{one.status:4}  {printable(one.check):{width}}  {printable(one.message)}")
            if one.fix:
                say(f"{'':4}  {'':{width}}  fix: {printable(one.fix)}")
    return 1 if any(one.status == "fail" for one in findings) else 0
