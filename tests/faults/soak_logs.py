"""Each warning and error in the services' logs has to have its cause among the faults."""

from __future__ import annotations

import calendar
import re
import time

from tests.stack import Stack

from . import soak_journal as journals
from .soak_journal import Journal

TAKEOVER = "takeover"
"""A cause that is no fault: who is taken over on the way to the relay finds no place there."""
BEFORE, AFTER = 2.0, 45.0
"""Seconds by which a line may come before its fault, the log's seconds being whole, and after its
end: keepalive, backoff and a busy machine."""
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (\w+) (\w+)\[(\d+)\]: (.*)")
_BAD = re.compile(r"Traceback|exception|Exception|Fatal")

REFUSING = journals.LIBVIRTD | journals.GUEST | journals.RELAY

ALLOWED = [
    (r"connection to libvirt at \S+ lost: ", journals.LIBVIRTD),
    (r"cannot open the console of ", journals.LIBVIRTD | journals.GUEST),
    (r"the relay of \S+ ends: libvirt", journals.LIBVIRTD | journals.GUEST),
    (r"the relay of \S+ ends: .*(held|another program)", journals.LIBVIRTD | journals.RELAY),
    (r"relay \d+ (was killed by signal 9|has ended)", journals.RELAY),
    (r"session \w+ closed: 4412 ", journals.RELAY),
    (r"session \w+ closed: 4503 ", journals.LIBVIRTD | journals.GUEST),
    (r"refused .* for .*: (libvirt|The host|The relay)", REFUSING),
    (r"relay \d+ does not end its session; killed", journals.LIBVIRTD),
    (r"relay of \S+ does not end; killed", journals.LIBVIRTD),
    (r"refused a connection of pid \d+, uid 0: no token", journals.RELAY | {TAKEOVER}),
    (r"the inventory was killed by signal 9; ", journals.LIBVIRTD),
]
"""Patterns of what may be logged, and the faults that explain it."""


def check(stack: Stack, journal: Journal) -> None:
    """Fail the soak for each line that has no cause."""
    offset = time.time() - time.monotonic()
    for name in ("supervisor", "gateway"):
        service = stack.services[name]
        for line in service.logged().splitlines():
            parts = _LINE.fullmatch(line)
            if parts is None:
                if _BAD.search(line):
                    journal.fail(f"{name}.log: {line}")
                continue
            stamp, level, _, _, text = parts.groups()
            if level in ("debug", "info") and not _BAD.search(text):
                continue
            at = calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) - offset
            journal.count(f"log lines {level}")
            if not _explained(journal, text, at):
                journal.fail(f"{name}.log, without a cause: {line}")


def _explained(journal: Journal, text: str, at: float) -> bool:
    for pattern, kinds in ALLOWED:
        if re.match(pattern, text):
            causes = [(one.begin, one.end) for one in journal.faults if one.kind in kinds]
            if TAKEOVER in kinds:
                causes += [(one.begin, one.begin) for one in journal.visits if one.takeover]
            return any(begin - BEFORE <= at <= end + AFTER for begin, end in causes)
    return False
