"""Who uses the services in tests: a WebSocket client, and a program under a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any, Self

import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from .raw_http import upgrade

STOP = 10.0
"""Seconds that a program may take to end on a busy machine."""
REASON_MAX = 120
"""Bytes of a close reason (DESIGN.md)."""


class Terminal:
    """A WebSocket client that remembers what came, and how it ended."""

    def __init__(
        self,
        url: str,
        origin: str | None = None,
        subprotocol_token: str = "",
        protocols: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Connect; ``subprotocol_token`` goes as a subprotocol instead of in the URL.

        ``protocols`` are subprotocols to offer, ``options`` further ones of websockets'
        ``connect``.

        Raises:
            websockets.exceptions.InvalidStatus, OSError: the handshake was refused.
        """
        offered = list(protocols)
        if subprotocol_token:
            offered += ["binary", f"token.{subprotocol_token}"]
        self._stack = contextlib.ExitStack()
        self._ws: ClientConnection = self._stack.enter_context(
            connect(
                url,
                origin=origin,  # type: ignore[arg-type]
                subprotocols=offered or None,  # type: ignore[arg-type]
                compression=None,
                proxy=None,
                max_size=None,
                ping_interval=None,
                close_timeout=5,
                **options,
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
            self._take_message(message)

    def _take_message(self, message: str | bytes) -> None:
        assert isinstance(message, bytes), f"a text frame: {message!r}"
        self.output += message

    def _seen(self, what: str) -> str:
        return f"no {what} in {len(self.rest())} bytes: {self.rest()[-400:]!r}"


class Viewer(Terminal):
    """A client of serial-console.v1 that keeps count as docs/protocol.md says.

    Attributes:
        events: each with how many bytes had come before it.
        gaps: of them ``skipped``: bytes before it, and skipped.
        position: where the output stands; None: within the replay.
    """

    PROTOCOLS = ("serial-console.v1", "binary")

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, protocols=self.PROTOCOLS, **options)
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.gaps: list[tuple[int, int]] = []
        self._position = self._replay = 0

    @property
    def session(self) -> dict[str, Any]:
        """The ``session`` event, waited for."""
        return self.event("session")

    @property
    def position(self) -> int | None:
        return None if self._replay else self._position

    @property
    def after(self) -> str:
        """What to come back with."""
        session = f"{self.session['relay']}.{self.session['id']}"
        return session if self.position is None else f"{session}.{self.position}"

    def event(self, op: str, seconds: float = 10.0, **fields: Any) -> dict[str, Any]:
        """Wait for an event, of these fields at least; return the newest."""
        deadline = time.monotonic() + seconds
        while True:
            for _, event in reversed(self.events):
                if event["op"] == op and event.items() >= fields.items():
                    return event
            self._receive(deadline, f"{op} event in {self.events}")

    def say(self, op: str, count: int) -> None:
        """Send ``window`` or ``taken``."""
        self.send_text(json.dumps({"op": op, "bytes": count}))

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self._ws.send(text)

    def read_for(self, seconds: float) -> None:
        """Take what comes for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                self._take_message(self._ws.recv(timeout=left))

    def _take_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._count(len(message))
            self.output += message
            return
        event = json.loads(message)
        self.events.append((len(self.output), event))
        if event["op"] == "session":
            assert (len(self.events), self.output) == (1, b""), "it does not come first"
            self._position, self._replay = event["position"], event["replay"]
        elif event["op"] == "skipped":
            assert event["at"] == len(self.output)
            self.gaps.append((len(self.output), event["bytes"]))
            self._count(event["bytes"])

    def _count(self, count: int) -> None:
        replay = min(self._replay, count)
        self._replay -= replay
        self._position += count - replay


def echo(terminal: Terminal, data: bytes) -> bytes:
    """Type something at an echo guest; return the same number of bytes of what comes next."""
    terminal.send(data)
    return terminal.read_exactly(len(data), seconds=20)


class Raw:
    """A WebSocket client on a bare socket, which does both ways at once and only what it is told.

    ``serve`` reads and writes for a while; between two calls nothing is: the client is stalled.
    """

    def __init__(self, host: str, port: int, token: str, receive_buffer: int = 0) -> None:
        """Connect; ``receive_buffer`` in bytes, 0 for the kernel's."""
        self.output = bytearray()
        self.close_code: int | None = None
        self._frames = bytearray()
        self._unsent = bytearray()
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect((host, port))
        self._socket.sendall(upgrade(port, token, [f"{host}:{port}"]) + b"\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()

    @property
    def unsent(self) -> int:
        """Bytes of frames that were to be sent and could not be yet."""
        return len(self._unsent)

    def send(self, data: bytes) -> None:
        """Have one message sent by ``serve``."""
        self._unsent += _masked(2, data)

    def serve(self, seconds: float, most: int = 1 << 30, *, write: bool = True) -> int:
        """Read, at most so many bytes of the stream, and write; return how many were read."""
        deadline = time.monotonic() + seconds
        read = 0
        while read < most and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            events = select.POLLIN | (select.POLLOUT if write and self._unsent else 0)
            poll.register(self._socket, events)
            for _, ready in poll.poll(left * 1000):
                if ready & select.POLLOUT:
                    del self._unsent[: self._socket.send(self._unsent)]
                if ready & ~select.POLLOUT:
                    data = self._socket.recv(min(65536, most - read))
                    if not data:
                        return read
                    read += len(data)
                    self._frames += data
                    self._parse()
        return read

    def serve_until(self, wanted: bytes, seconds: float = 20.0) -> None:
        """Serve until so much has come."""
        deadline = time.monotonic() + seconds
        while wanted not in self.output:
            assert time.monotonic() < deadline, f"no {wanted!r} in {bytes(self.output[-300:])!r}"
            self.serve(0.02)

    def vanish(self) -> None:
        """Break the connection without a close frame."""
        self._socket.close()

    def _parse(self) -> None:
        frames = self._frames
        while len(frames) >= 2:
            size, start = frames[1] & 0x7F, 2
            if size > 125:
                start = 4 if size == 126 else 10
                if len(frames) < start:
                    return
                size = int.from_bytes(frames[2:start], "big")
            if len(frames) < start + size:
                return
            payload = bytes(frames[start : start + size])
            opcode = frames[0] & 0xF
            del frames[: start + size]
            if opcode == 2:
                self.output += payload
            elif opcode == 8:
                self.close_code = int.from_bytes(payload[:2], "big")
            elif opcode == 9:
                self._unsent += _masked(10, payload)


def _masked(opcode: int, data: bytes) -> bytes:
    """Return a client's frame; the mask is zero, which leaves the data as it is."""
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + bytes(4) + data


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

    def hang_up(self) -> None:
        """Close the terminal."""
        os.dup2(null := os.open(os.devnull, os.O_RDWR), self._master)
        os.close(null)

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
