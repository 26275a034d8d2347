"""How a client takes its output, and how much of it has arrived; no I/O.

The relay must tell a client that is slow, for which the guest waits, from one that has stalled, for
which it does not. From a closed window they look alike: TCP opens it in steps of up to half a
receive buffer, 3 s apart at 10 KB/s, and our own buffers add theirs. So the output is strewn with
pings: a pong comes when the client has read up to there.
"""

from __future__ import annotations

import struct
from collections import deque

from . import frames

SPACING = 1024
"""Bytes of output from one ping to the next: a client that reads 10 KB/s answers ten times a
second, well within the 250 ms after which the relay takes it for stalled."""
PINGS = 512
"""Pings per second at most; faster output has them further apart."""
WINDOW = 0.1
"""Seconds over which the speed of the output is measured."""
MEMORY = 10.0
"""Seconds for which a pause is remembered, at least; at most twice that."""

_POSITION = struct.Struct("!Q")


class Flow:
    """Counts one client's output.

    Args:
        pings: whether to strew pings.
        now: seconds of a clock that does not jump, here and below.

    Attributes:
        outstanding: where each frame of output ends that is on its way: on the wire, in payload.
        room: bytes of output that the client's window has room for; None: it has set none.
    """

    def __init__(self, now: float, *, pings: bool) -> None:
        self._pings = pings
        self._payload = 0
        self._wire = 0
        self._pinged = self._ponged = 0
        self._acknowledged = 0
        self._delivered = 0
        self.outstanding: deque[tuple[int, int]] = deque()
        self._measured = (now, 0)
        self._spacing = SPACING
        self._sign = now
        self._pauses = [0.0, 0.0]
        self._turn = now
        self.room: int | None = None
        self._window: int | None = None
        self._taken_in = 0
        self._full_since: float | None = None

    def limit(self, window: int, now: float) -> None:
        """Have at most so many bytes of output under way that the client has not taken."""
        self._window = window
        self._look_at_room(now)

    def took(self, total: int, now: float) -> bool:
        """Note how many bytes of output the client says it has taken.

        Returns:
            Whether it waited for that to be given more.

        Raises:
            ValueError: it has said more before, or has been given less.
        """
        if not self._taken_in <= total <= self._payload:
            raise ValueError
        if total == self._taken_in:
            return False
        self._taken_in = total
        since = self._full_since
        self._look_at_room(now)
        if since is None:
            return False
        self._sign = since
        return self._taken(now)

    @property
    def pause(self) -> float:
        """The longest time in seconds, of late, in which the client took nothing."""
        return max(self._pauses)

    def frames(self, payload: bytes, now: float) -> bytes:
        """Return output as frames, with pings among them."""
        if not self.outstanding and (not self._ponged or self._ponged >= self._pinged):
            self._sign = now  # it had nothing to take until now
        if now - self._measured[0] >= WINDOW:
            self._measure(now)
        wire: list[bytes] = []
        at = 0
        while at < len(payload):
            end = len(payload)
            if self._pings:
                end = min(end, at + max(1, self._pinged + self._spacing - self._payload))
            head, piece = frames.head(frames.BINARY, end - at), payload[at:end]
            wire += head, piece
            self._wire += len(head) + len(piece)
            self._payload += len(piece)
            self.outstanding.append((self._wire, self._payload))
            if self._pings and self._payload - self._pinged >= self._spacing:
                wire.append(self.other(self.ping()))
            at = end
        if self._window is not None:
            self._look_at_room(now)
        return b"".join(wire)

    def ping(self) -> bytes:
        """Return a ping that tells where it stands; the caller counts it with ``other``."""
        self._pinged = self._payload
        return frames.frame(frames.PING, _POSITION.pack(self._payload))

    def other(self, wire: bytes) -> bytes:
        """Count frames that are not output, and return them."""
        self._wire += len(wire)
        return wire

    def pong(self, payload: bytes, now: float) -> bool:
        """Take a pong. Returns whether it shows that the client takes output."""
        if len(payload) != _POSITION.size:
            return False
        (position,) = _POSITION.unpack(payload)
        if not self._ponged < position <= self._pinged:
            return False
        self._ponged = position
        return self._taken(now)

    def look(self, waiting: int, now: float) -> bool:
        """Note how many bytes of what it was given are not acknowledged.

        Returns:
            Whether it took some since the last look.
        """
        acknowledged = self._wire - waiting
        progress = acknowledged > self._acknowledged and bool(self.outstanding)
        self._acknowledged = max(self._acknowledged, acknowledged)
        while self.outstanding and self.outstanding[0][0] <= self._acknowledged:
            self._delivered = self.outstanding.popleft()[1]
        return progress and self._taken(now)

    @property
    def delivered(self) -> int:
        """Bytes of output that had arrived whole at the last look."""
        return max(self._delivered, self._ponged)

    def _look_at_room(self, now: float) -> None:
        if self._window is not None:
            self.room = self._window - self._payload + self._taken_in
            self._full_since = now if self.room <= 0 else None

    def _taken(self, now: float) -> bool:
        if now - self._turn >= MEMORY:
            self._pauses = [self._pauses[1], 0.0]
            self._turn = now
        self._pauses[1] = max(self._pauses[1], now - self._sign)
        self._sign = now
        return True

    def _measure(self, now: float) -> None:
        began, payload = self._measured
        speed = (self._payload - payload) / (now - began)
        self._spacing = max(SPACING, int(speed / PINGS))
        self._measured = (now, self._payload)
