"""Speaks to the supervisor's redeem.sock: one JSON object a line (docs/protocol.md)."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

__version__ = "0.1.0"
"""The release, which is that of serial_console."""

VERSION = 1
ANSWER_MAX = 4096
"""Bytes of a line from the supervisor or a relay."""
TIMEOUT = 15.0
"""Seconds in which the answer must have come; the supervisor itself gives up after 10."""
REASON_MAX = 500
"""Characters of a sentence from the supervisor or a relay."""
UNAVAILABLE = 4503
_CODES = range(1000, 5000)  # RFC 6455, 7.4.2
# Deep nesting comes as RecursionError.
_NOT_UNDERSTOOD = (ValueError, KeyError, AttributeError, TypeError, RecursionError)


class RefusedError(Exception):
    """The token was not redeemed.

    Attributes:
        close: the WebSocket close code that says why.
        reason: a sentence fit to show; it never holds the token.
    """

    def __init__(self, close: int, reason: str) -> None:
        super().__init__(reason)
        self.close = close
        self.reason = reason


class WayBack:
    """The redeem connection after the answer: the relay writes the session's events on it."""

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._buffer = rest
        self.ended = False

    def fileno(self) -> int:
        """The fd to watch for reading, until ``ended``."""
        return self._sock.fileno()

    def events(self) -> list[dict[str, Any]]:
        """Return the events that have come; lines that are none are passed over."""
        while not self.ended and len(self._buffer) <= ANSWER_MAX and self._poll.poll(0):
            try:
                data = self._sock.recv(ANSWER_MAX)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.ended = not data
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        if len(self._buffer) > ANSWER_MAX:
            self._buffer, self.ended = b"", True
        events = []
        for line in lines:
            with contextlib.suppress(*_NOT_UNDERSTOOD):
                event = json.loads(line)
                if event["v"] == VERSION:
                    if event["op"] == "end":
                        event["code"] = _code(event["code"])
                        event["reason"] = _sentence(event["reason"])
                    events.append(event)
        return events

    def tell(self, op: str, **fields: float | str | bool) -> None:
        """Tell the relay something, if it takes it at once."""
        line = json.dumps({"v": VERSION, "op": op, **fields}).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._sock.send(line)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


class Redemption:
    """A token on its way to be exchanged for the path of a socket, which this process, and no
    other, may then connect. What goes wrong is told by ``answer``.

    Args:
        source: the path of redeem.sock.
        token: the secret as it came.
        client: the client's address, for listings and for tokens that are bound to one.
        events: have the session's events written to the way back.
        shows_events: the client itself is shown them, and needs no notices among its bytes.
        after: where its output ended before, as it says; "" where it says nothing.
    """

    def __init__(
        self,
        source: str,
        token: str,
        client: str = "",
        *,
        events: bool = False,
        shows_events: bool = False,
        after: str = "",
    ) -> None:
        request = {
            "v": VERSION,
            "op": "redeem",
            "token": token,
            "client": client,
            "events": events,
            "version": __version__,
        }
        if shows_events:
            request |= {"shows_events": True, "after": after}
        self._deadline = time.monotonic() + TIMEOUT
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._failure: OSError | None = None
        try:
            self._sock.settimeout(TIMEOUT)
            self._sock.connect(source)
            # It may have said no before it was asked.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._sock.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            self._failure = error

    def answer(self) -> tuple[str, WayBack]:
        """Wait for the answer.

        Returns:
            The path, and the way back, which the caller closes.

        Raises:
            RefusedError: the token was refused, or the supervisor cannot be reached.
        """
        try:
            if self._failure is not None:
                raise self._failure
            line, rest = self._line()
            answer = json.loads(line)
            if answer.get("op") == "end":  # the relay's last event overtook the supervisor's answer
                raise RefusedError(_code(answer["code"]), _sentence(answer["reason"]))
            if answer.get("ok") is not True:
                raise RefusedError(_code(answer["close"]), _sentence(answer["message"]))
            return _path(answer["path"]), WayBack(self._sock, rest)
        except RefusedError:
            self._sock.close()
            raise
        except OSError as error:
            self._sock.close()
            why = error.strerror or "it does not answer"
            raise RefusedError(
                UNAVAILABLE, f"The console service cannot be reached ({why}); try again in a while."
            ) from None
        except _NOT_UNDERSTOOD:
            self._sock.close()
            raise RefusedError(
                UNAVAILABLE, "The console service gave no proper answer; see the gateway's log."
            ) from None

    def _line(self) -> tuple[bytes, bytes]:
        """Return the answer's line, and what came after it."""
        buffer = b""
        while b"\n" not in buffer:
            self._sock.settimeout(max(0.001, self._deadline - time.monotonic()))
            data = self._sock.recv(ANSWER_MAX)
            if not data or len(buffer) > ANSWER_MAX:
                raise RefusedError(UNAVAILABLE, "The console service broke off; try again.")
            buffer += data
        line, _, rest = buffer.partition(b"\n")
        return line, rest


def _code(value: object) -> int:
    """Return a close code as a close frame can hold it. Raises ValueError."""
    if type(value) is not int or value not in _CODES:
        raise ValueError("no close code")
    return value


def _sentence(value: object) -> str:
    """Return a sentence as a log and a close frame can show it. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError("no sentence")
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)[
        :REASON_MAX
    ]


def _path(value: object) -> str:
    """Return a path as ``connect`` takes it. Raises ValueError."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("no path")
    value.encode()
    return value
