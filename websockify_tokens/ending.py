"""How a session ends: why, by whose words, and the closing handshake."""

from __future__ import annotations

import contextlib
import fcntl
import select
import signal
import socket
import ssl
import struct
import termios
import time
from typing import Any

from . import frames
from .client import WayBack

NORMAL = 1000
GOING_AWAY = 1001
GATEWAY_RESTARTING = 1012
RELAY_LOST = 4412

TICK = 0.1
"""Seconds between two looks at how much of the output has arrived, while some is on its way."""
CLOSE_REPLY = 2.0
"""Seconds to wait for the client's close frame (DESIGN.md)."""
LAST_OUTPUT = 10.0
"""Seconds at most for a client to take what was sent before ours: what a slow one has still to read
comes in steps of seconds."""
END_EVENT = 1.0
"""Seconds to wait for the relay's ``end`` once its socket is closed."""
CHUNK = 65536
"""Bytes of one read, and so what the gateway holds of a session in either direction."""
LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket raises that is not ready, TLS or not."""


class Ended(Exception):
    """The session is over: close code and reason.

    Attributes:
        by_client: the client closed or is gone; it will not answer our close frame.
        vanished: it is not even worth waiting for room for that frame.
        left: it meant to, and will not come back: a client of serial-console.v1 that says 1000.
        unsent: what is to be sent before the close frame.
        reader: what reads the client's frames, maybe within one.
    """

    def __init__(
        self, code: int, reason: str, *, by_client: bool = False, vanished: bool = False
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.by_client = by_client or vanished
        self.vanished = vanished
        self.left = False
        self.unsent = b""
        self.reader = frames.Reader()


def end_in(told: list[dict[str, Any]]) -> Ended | None:
    """Return what a relay's ``end`` among its events says."""
    for event in told:
        if event.get("op") == "end":
            return Ended(int(event["code"]), str(event["reason"]))
    return None


def end_of(back: WayBack) -> Ended:
    """The relay has closed its socket: it said why on the way back, unless it died."""
    deadline = time.monotonic() + END_EVENT
    while not back.ended and time.monotonic() < deadline:
        select.select([back], [], [], max(0.0, deadline - time.monotonic()))
        end = end_in(back.events())
        if end is not None:
            return end
    return Ended(RELAY_LOST, "The relay of this console was lost; connect again.")


def close(client: socket.socket, end: Ended) -> None:
    """Send what was half sent and the close frame, and wait a moment for the client's own.

    One that reads slowly has more time, but for a gateway that restarts: ended before, it would
    never know why. The session is over already.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # there is an end in sight, and a better reason
    unsent = bytearray(end.unsent + frames.close_frame(end.code, end.reason))
    began = time.monotonic()
    last = began + (CLOSE_REPLY if end.code == GATEWAY_RESTARTING else LAST_OUTPUT)
    delivered = False
    poll = select.poll()
    client.setblocking(False)
    with contextlib.suppress(OSError):
        while (now := time.monotonic()) < last:
            if unsent:
                del unsent[: send(client, unsent)]
            if end.vanished or (end.by_client and not unsent):
                break
            if not delivered and not unsent and not in_kernel(client):
                delivered = True
                last = min(last, now + CLOSE_REPLY)
            if now >= began + CLOSE_REPLY:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            poll.register(client, select.POLLIN | (select.POLLOUT if unsent else 0))
            poll.poll(min(TICK, max(0.0, last - now)) * 1000)
            with contextlib.suppress(*LATER):
                data = client.recv(CHUNK)
                if not data or _closes(end.reader, data):
                    break
        client.shutdown(socket.SHUT_RDWR)


def _closes(reader: frames.Reader, data: bytes) -> bool:
    """Tell whether a close frame is in it. One that broke the protocol is read on nevertheless:
    what it sent, unread, would reset the connection before it has read our close frame."""
    with contextlib.suppress(frames.FrameError):
        return any(opcode == frames.CLOSE for opcode, _ in reader.feed(data))
    return False


def send(sock: socket.socket, data: bytes | bytearray) -> int:
    """Send what a socket takes at once. Returns how many bytes."""
    try:
        return sock.send(data)
    except LATER:
        return 0


def in_kernel(client: socket.socket) -> int:
    """Return how many bytes the client's kernel has not acknowledged."""
    with contextlib.suppress(OSError):
        (count,) = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, b"\0\0\0\0"))
        return int(count)
    return 0


def restart() -> Ended:
    """Return the end of every session of a gateway that was told SIGTERM."""
    return Ended(GATEWAY_RESTARTING, "The gateway restarts; connect again.")


def restarting(_signal: int, _frame: object) -> None:
    """Handle SIGTERM while the token is redeemed: nothing else ends that wait."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise restart()
