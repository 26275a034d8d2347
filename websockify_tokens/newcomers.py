"""Connections that have not redeemed a token yet: how many, and which makes room; no I/O.

Refusing the newest, as a plain limit does, lets whoever opens enough connections and says nothing
lock everybody else out. So the newest is let in, and ends the oldest of the address that has most.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass

from .addresses import parsed

GRACE = 0.5
"""Seconds that a connection has for its request before another one may take its place: a TLS
handshake and a request over a link of 200 ms. It bounds the forks of a flood, too: twice as many a
second as there may be newcomers."""
NETWORK = 64
"""Bits of an IPv6 address that count: one host has all the others to itself, as sshd's
PerSourceNetBlockSize knows."""


def source_of(host: str) -> str:
    """Return what counts as one source: an IPv4 address, an IPv6 network, or the text itself."""
    address = parsed(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, NETWORK), strict=False))
    return host if address is None else str(address)


@dataclass
class _Newcomer:
    source: str
    since: float
    redeeming: bool = False


class Newcomers:
    """The processes of such connections, the oldest first.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._newcomers: dict[int, _Newcomer] = {}

    def add(self, pid: int, host: str, now: float) -> None:
        """Take note of a new one. ``now``: seconds of a clock that does not jump, as below."""
        self._newcomers[pid] = _Newcomer(source_of(host), now)

    def redeeming(self, pid: int, yes: bool) -> None:
        """Its token is with the supervisor, or was refused: till then it makes room for nobody."""
        if pid in self._newcomers:
            self._newcomers[pid].redeeming = yes

    def forget(self, pid: int) -> None:
        """It has redeemed a token, or is gone."""
        self._newcomers.pop(pid, None)

    def wait(self, now: float) -> float | None:
        """Return in how many seconds one more may come; None: when one of these is forgotten."""
        if len(self._newcomers) < self.most:
            return 0.0
        oldest = self._oldest()
        if oldest is None:
            return None
        return max(0.0, self._newcomers[oldest].since + GRACE - now)

    def displaced(self) -> tuple[int, str] | None:
        """Return pid and source of the one that makes room for one more, if one has to."""
        pid = self._oldest() if len(self._newcomers) >= self.most else None
        return None if pid is None else (pid, self._newcomers[pid].source)

    def _oldest(self) -> int | None:
        """Return the oldest of the source that has most."""
        idle = {pid: one.source for pid, one in self._newcomers.items() if not one.redeeming}
        counts = Counter(idle.values())
        most = max(counts.values(), default=0)
        return next((pid for pid, source in idle.items() if counts[source] == most), None)
