"""A client that never reads: its window closes, and it answers neither pings nor a close."""

from __future__ import annotations

import select
import socket
from typing import Self

from .raw_http import upgrade

STUCK = 1.0
"""Seconds without room for more after which a flood is taken for held."""


class Silent:
    """It reads the answer to its handshake, and nothing after it."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._sock = socket.create_connection((host, port), timeout=10)
        # Else megabytes of a flood would wait on this side.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self._sock.sendall(upgrade(port, token, [f"{host}:{port}"]) + b"\r\n")
        with self._sock.makefile("rb", buffering=0) as answer:
            while answer.readline() not in (b"\r\n", b""):
                pass
        self._sock.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()

    def vanish(self) -> None:
        """Break the connection without a close frame."""
        self._sock.close()

    def flood(self, frame: bytes, size: int) -> int:
        """Send a frame over and over until so many bytes are sent, or held; return how many."""
        data = frame * (2 + 65536 // len(frame))
        sent = 0
        while sent < size and select.select([], [self._sock], [], STUCK)[1]:
            start = sent % len(frame)
            sent += self._sock.send(data[start : start + 65536])
        return sent
