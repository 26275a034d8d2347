"""Whether a client is still there: the decision alone, from what the kernel tells; no I/O.

A client that vanished (no FIN, no RST: power cut, cable pulled, lid closed) looks like one that is
idle, or one that does not read. What tells them apart is whether its kernel answers ours, and its
program our pings. Neither the age of the last acknowledgement alone nor TCP_USER_TIMEOUT does: to a
closed window the kernel sends probes ever more rarely, up to 120 s apart, so that a client which is
there may have acknowledged nothing for as long (measured: 48 s).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

SILENT = 3
"""Heartbeats without a sign of life that end a session (DESIGN.md: 30 s of 10 s)."""
ASKED = 2
"""Heartbeats of those throughout which the client owed one: the silence of a client that was asked
nothing tells nothing."""
LOOKS = 2
"""Looks per heartbeat. With SILENT and ASKED a session is over 3 to 3.5 heartbeats after the last
sign of life: 35 s by default, of the 40 s allowed."""

INFO_SIZE = 148
"""Bytes of TCP_INFO that are parsed."""
_INFO = struct.Struct("=3xB40xI4xII84xI")
"""struct tcp_info of linux/tcp.h: tcpi_probes, tcpi_last_data_sent, tcpi_last_data_recv,
tcpi_last_ack_recv, tcpi_notsent_bytes; the times in milliseconds."""


@dataclass(frozen=True)
class Look:
    """What the kernel says of a client's connection.

    Attributes:
        sent: seconds since data went out to it, for the first time or again.
        received: seconds since data came, whether it has been read or not.
        acknowledged: seconds since its last acknowledgement of anything.
        probes: probes of a closed window since then.
        unsent: bytes that wait for room in its window.
    """

    sent: float
    received: float
    acknowledged: float
    probes: int
    unsent: int

    @classmethod
    def parse(cls, info: bytes) -> Self:
        """Take TCP_INFO's INFO_SIZE bytes apart."""
        probes, sent, received, acknowledged, unsent = _INFO.unpack(info)
        return cls(sent / 1000, received / 1000, acknowledged / 1000, probes, unsent)


class Liveness:
    """Watches one client that is sent a ping every heartbeat.

    Args:
        heartbeat: seconds between two pings.
        now: seconds of a clock that does not jump, here and below.
    """

    def __init__(self, heartbeat: float, now: float) -> None:
        self._heartbeat = heartbeat
        self._looked = self._kernel_even = self._program_even = now

    def verdict(self, now: float, look: Look, *, reading: bool) -> str | None:
        """Return why the client is taken for vanished, or None; to be asked LOOKS per heartbeat.

        Args:
            look: what the kernel says just now; best before the next ping, which is unanswered.
            reading: what the client sends is being read. While it is not, its pongs cannot come.
        """
        if now - self._looked > self._heartbeat:  # this process was stopped: nobody pinged
            self._kernel_even = self._program_even = now
        self._looked = now
        if look.sent >= look.acknowledged and not look.probes:
            self._kernel_even = now
        # A client that reads slowly, or not at all, comes to our pings late, or not at all.
        if look.unsent or not reading:
            self._program_even = now
        silent, asked = SILENT * self._heartbeat, ASKED * self._heartbeat
        # One probe may just be lost, and the next be two minutes away: two are needed.
        kernel_asked = now - self._kernel_even >= asked and look.probes != 1
        if kernel_asked and look.acknowledged >= silent:
            return f"The client has vanished: it acknowledged nothing for {silent:g} s."
        if look.received >= silent and now - self._program_even >= asked:
            return f"The client has answered no ping for {silent:g} s."
        return None
