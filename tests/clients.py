"""Who uses the services in tests: a WebSocket client, and a program under a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any, Self

import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

STOP = 10.0
"""Seconds that a program may take to end on a busy machine."""
REASON_MAX = 120
"""Bytes of a close reason (DESIGN.md)."""


class Terminal:
    """A WebSocket client that remembers what came, and how it ended."""

    def __init__(self, url: str, origin: str | None = None, subprotocol_token: str = "") -> None:
        """Connect; ``subprotocol_token`` goes as a subprotocol instead of in the URL.

        Raises:
            websockets.exceptions.InvalidStatus, OSError: the handshake was refused.
        """
        protocols = ["binary", f"token.{subprotocol_token}"] if subprotocol_token else None
        self._stack = contextlib.ExitStack()
        self._ws: ClientConnection = self._stack.enter_context(
            connect(
                url,
                origin=origin,  # type: ignore[arg-type]
                subprotocols=protocols,  # type: ignore[arg-type]
                compression=None,
                proxy=None,
                max_size=None,
                ping_interval=None,
                close_timeout=5,
            )
        )
        self.output = bytearray()
        self._taken = 0
        self._end: tuple[int, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def subprotocol(self) -> str | None:
        """What the gateway chose."""
        return self._ws.subprotocol

    def send(self, data: bytes) -> None:
        """Send one message."""
        self._ws.send(data)

    def read_until(self, wanted: bytes, seconds: float = 20.0) -> bytes:
        """Return what comes up to and with ``wanted``; the rest stays for the next call."""

        def end() -> int | None:
            at = self.output.find(wanted, self._taken)
            return None if at < 0 else at + len(wanted)

        return self._take(end, seconds, f"{wanted!r}")

    def read_exactly(self, count: int, seconds: float = 60.0) -> bytes:
        """Return the next ``count`` bytes."""
        end = self._taken + count
        return self._take(
            lambda: end if len(self.output) >= end else None, seconds, f"{count} bytes"
        )

    def rest(self) -> bytes:
        """Return what has come and was not read."""
        return bytes(self.output[self._taken :])

    def ended(self, seconds: float = 10.0) -> tuple[int, str]:
        """Wait for the close; return its code and reason. 1006: there was no close frame."""
        deadline = time.monotonic() + seconds
        while self._end is None:
            self._receive(deadline, "the close")
        reason = self._end[1]
        assert len(reason.encode()) <= REASON_MAX, f"the reason is cut: {reason!r}"
        return self._end

    def close(self) -> None:
        """Close, if it is not closed yet."""
        self._stack.close()

    def vanish(self) -> None:
        """Break the connection without a close frame."""
        with contextlib.suppress(OSError):
            self._ws.socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def _take(self, end: Any, seconds: float, what: str) -> bytes:
        deadline = time.monotonic() + seconds
        while (to := end()) is None:
            if self._end is not None:
                raise AssertionError(f"ended with {self._end}, {self._seen(what)}")
            self._receive(deadline, what)
        taken = bytes(self.output[self._taken : to])
        self._taken = to
        return taken

    def _receive(self, deadline: float, what: str) -> None:
        try:
            message = self._ws.recv(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise AssertionError(f"timed out, {self._seen(what)}") from None
        except websockets.exceptions.ConnectionClosed as closed:
            frame = closed.rcvd
            self._end = (1006, "") if frame is None else (frame.code, frame.reason)
        else:
            assert isinstance(message, bytes), f"a text frame: {message!r}"
            self.output += message

    def _seen(self, what: str) -> str:
        return f"no {what} in {len(self.rest())} bytes: {self.rest()[-400:]!r}"


class Pty:
    """A command on a terminal of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self._master, self._slave = os.openpty()
        self._read = bytearray()
        self._settings = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            cwd="/",
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    @property
    def raw(self) -> bool:
        """Whether the terminal's settings are others than at the start."""
        return bool(termios.tcgetattr(self._slave) != self._settings)

    def send(self, data: bytes) -> None:
        """Type."""
        os.write(self._master, data)

    def read_until(self, wanted: bytes, seconds: float = 15.0) -> bytes:
        """Return what is shown up to and with ``wanted``."""
        deadline = time.monotonic() + seconds
        while (at := self._read.find(wanted)) < 0:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._master], [], [], left)[0], f"only {bytes(self._read)!r}"
            self._read += os.read(self._master, 65536)
        shown = bytes(self._read[: at + len(wanted)])
        del self._read[: at + len(wanted)]
        return shown

    def wait(self, seconds: float = STOP) -> int:
        """Wait for its end; return the exit status."""
        return self.process.wait(seconds)
