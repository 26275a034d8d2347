"""Requests that no HTTP library would send, and answers as they came."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

ALWAYS = (
    "X-Content-Type-Options: nosniff",
    "X-Frame-Options: SAMEORIGIN",
    "Referrer-Policy: no-referrer",
    "Cross-Origin-Opener-Policy: same-origin",
    "Cross-Origin-Resource-Policy: same-origin",
)
"""Headers of every answer."""
_FIELDS = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
UPGRADE = "Host: {host}\r\n" + _FIELDS
"""The headers of a handshake."""


def upgrade(
    port: int, token: str, hosts: Sequence[str] | None = None, origin: str | None = None
) -> bytes:
    """Return the head of a handshake, but for the empty line at its end."""
    hosts = [f"127.0.0.1:{port}"] if hosts is None else hosts
    lines = [
        f"GET /websockify?token={token} HTTP/1.1",
        *(f"Host: {host}" for host in hosts),
        *([] if origin is None else [f"Origin: {origin}"]),
    ]
    return ("".join(f"{line}\r\n" for line in lines) + _FIELDS).encode()


def sent_raw(port: int, data: bytes) -> bytes:
    """Send bytes that need not be HTTP; return what comes, until the other end closes."""
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
    ):
        sock.sendall(data)
        with contextlib.suppress(OSError):  # it may have closed already
            sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(65536):
            answer += piece
    return answer


def status_of(answer: bytes) -> int:
    """Return the status of an answer, after a look at the headers that all of them have."""
    head = answer.partition(b"\r\n\r\n")[0].decode()
    status, _, headers = head.partition("\r\n")
    for line in ALWAYS:
        assert f"\r\n{line}\r\n" in f"\r\n{headers}\r\n", head
    assert "default-src 'none'" in headers
    assert "frame-ancestors 'self'" in headers
    assert "unsafe" not in headers
    return int(status.split()[1])
