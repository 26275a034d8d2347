"""What a check finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warn", "fail"]
"""``warn``: it works, or cannot be seen from here; ``fail``: something does not work, or is open
to whom it must not be."""


class Finding(NamedTuple):
    """One line of the doctor's.

    Attributes:
        check: what was looked at; stable, for programs.
        status: how it is.
        message: a sentence on it, without a full stop.
        fix: what to do; "" with ``ok``.
    """

    check: str
    status: Status
    message: str
    fix: str = ""


def refused(check: str, error: Exception, fix: str = "", status: Status = "fail") -> Finding:
    """Make a finding of one of our errors, whose sentences say what is wrong, then what to do."""
    message, _, advice = str(error).partition("; ")
    return Finding(check, status, message, fix or advice or "see the services' logs")
