"""Counts what happens, for ``/metrics``: from the supervisor's start, in its memory alone.

Relays are not asked when they end: each report that comes is added as its difference to the one
before, so that no count ever falls, and what ends leaves its part behind. Of sessions and relays
that are adopted counts what they do from the first report on: the supervisor before has counted
the rest.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Mapping

from . import __version__
from .control import SETUP_BUCKETS, ClientInfo, Counts, Totals
from .errors import ConsoleError
from .sessions import Relay, Session, SessionTable


class Tally:
    """The counts of one supervisor."""

    def __init__(self) -> None:
        self._started_at = time.time()
        self._counts = Counts()

    def issued(self) -> None:
        """A token was issued."""
        self._counts.issued += 1

    def not_issued(self, error: ConsoleError) -> None:
        """A token was not issued."""
        _add(self._counts.not_issued, error.code)

    def redeemed(self, *, again: bool) -> None:
        """A token was used; ``again``: to come back, which uses up no other."""
        self._counts.redeemed += not again

    def refused(self, error: ConsoleError) -> None:
        """Who came with a token was refused."""
        _add(self._counts.refused, error.code)

    def opened(self, session: Session, *, again: bool) -> float:
        """A session's client has connected; return the seconds since it came with its token."""
        if again:
            self._counts.resumed += 1
            return 0.0
        seconds = time.monotonic() - session.since
        _add(self._counts.opened, session.info.mode)
        self._counts.setup[bisect.bisect_left(SETUP_BUCKETS, seconds)] += 1
        self._counts.setup_seconds += seconds
        return seconds

    def measured(self, session: Session, now: ClientInfo) -> None:
        """A relay has told the figures of a session, and its own."""
        before, relay, counts = session.figures, session.relay, self._counts
        session.figures = now
        if not session.adopted:
            counts.bytes_in += max(0, now.bytes_in - before.bytes_in)
            counts.bytes_out += max(0, now.bytes_out - before.bytes_out)
            counts.skipped += max(0, now.skipped - before.skipped)
        if not relay.adopted:
            counts.cpu += max(0.0, now.cpu - relay.cpu)
        session.adopted = relay.adopted = False
        relay.cpu = now.cpu
        relay.memory = now.memory or relay.memory

    def ended(self, code: int) -> None:
        """A session has ended."""
        _add(self._counts.ended, str(int(code)))

    def reconnected(self) -> None:
        """A relay has a connection to libvirt again."""
        self._counts.reconnects += 1

    def totals(
        self, relays: Mapping[str, Relay], table: SessionTable, libvirt: bool, guests: int | None
    ) -> Totals:
        """Return all there is to tell.

        Args:
            relays: all that there are.
            table: the sessions.
            libvirt: whether it answers.
            guests: how many there are, if that is known.
        """
        sessions: dict[str, dict[str, int]] = {}
        held = 0
        for one in table.all():
            _add(sessions.setdefault(one.info.mode, {}), one.figures.state)
            held += one.figures.held
        return Totals(
            version=__version__,
            started_at=self._started_at,
            libvirt=libvirt,
            guests=guests,
            relays=len(relays),
            memory=sum(one.memory for one in relays.values()),
            held=held,
            sessions=sessions,
            counts=self._counts,
        )


def _add(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
