"""How messages travel: lines cut from a stream, non-blocking channels, the blocking client."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from typing import Any

import msgspec

from .control import LISTING_MAX, ListGuests, ListSessions, Message, encode
from .errors import BadRequest, SupervisorUnavailable, Unavailable, from_wire, os_reason

NOT_ITS_ANSWER = "the answer is not the supervisor's; is another program listening on that socket?"


class Lines:
    """Cuts a stream of bytes into lines, with a bound. No I/O."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next whole line without its end, or None.

        Raises:
            BadRequest: the line is longer than the limit; the stream is of no use any more.
        """
        end = self._buffer.find(b"\n", self._scanned)
        if (end if end >= 0 else len(self._buffer)) >= self._limit:
            raise BadRequest(f"a line may have at most {self._limit} bytes; send less")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return line


# ---- sockets


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of a unix socket (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """Return who connected this unix socket, as the kernel says."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", raw))


_DROPPED = -1


class _Line:
    """A line that waits to be written, maybe with a descriptor: the caller's, or our copy of it."""

    def __init__(self, data: bytes, fd: int | None) -> None:
        self.data = data
        self.fd = fd
        self.copy: int | None = None

    def sent(self) -> None:
        """It is on its way, or will never be."""
        if self.copy is not None:
            os.close(self.copy)
        self.fd = self.copy = None


class Channel:
    """A non-blocking line channel over a unix stream socket; knows no event loop.

    The owner watches ``fileno()`` for reading, and for writing while ``pending``.

    Args:
        sock: the connected socket; the channel owns and closes it.
        limit: the longest line that may come, in bytes.
        fds: whether file descriptors may come along; else the kernel closes those that do.
    """

    OUT_MAX = 4 * LISTING_MAX
    """Bytes that may wait for a peer that does not read; past it the channel is broken."""

    def __init__(self, sock: socket.socket, limit: int = LISTING_MAX, *, fds: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._with_fds = fds
        self._lines = Lines(limit)
        self._out: deque[_Line] = deque()
        self._out_bytes = 0
        self._fds: deque[int] = deque()
        self.eof = False
        self.broken = False

    def fileno(self) -> int:
        """The socket's fd."""
        return self.sock.fileno()

    @property
    def ended(self) -> bool:
        """Whether the peer has closed its end, or nothing can be sent to it any more."""
        return self.eof or self.broken

    @property
    def pending(self) -> bool:
        """Whether bytes wait to be written."""
        return bool(self._out)

    def send(self, line: bytes, fd: int | None = None) -> None:
        """Queue a line, and with it a file descriptor, and write what can be written.

        Raises:
            Unavailable: the line has to wait, and no descriptor is left for a copy that waits with
                it; nothing was queued.
        """
        last = _Line(line, fd)
        self._out.append(last)
        self._out_bytes += len(line)
        self.broken = self.broken or self._out_bytes > self.OUT_MAX
        self.flush()
        if last.fd is not None and not self.broken:
            try:
                last.copy = last.fd = os.dup(last.fd)
            except OSError as error:
                self._out.pop()
                self._out_bytes -= len(line)
                raise Unavailable(
                    "The console service has too many files open now; try again in a while."
                ) from error

    def flush(self) -> None:
        """Write what can be written now. A peer that is gone sets ``broken``."""
        while self._out and not self.broken:
            first = self._out[0]
            try:
                if first.fd is None:
                    sent = self.sock.send(first.data)
                else:
                    sent = socket.send_fds(self.sock, [first.data], [first.fd])
                    first.sent()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.broken = True
                return
            self._out_bytes -= sent
            first.data = first.data[sent:]
            if not first.data:
                self._out.popleft()

    def receive(self) -> list[bytes]:
        """Return the whole lines that have come, also when nothing can be sent any more: before
        its end the peer may have said why. That end sets ``eof``.

        Raises:
            BadRequest: a line is too long; the channel is of no use any more.
        """
        while not self.eof:
            fds: list[int] = []
            flags = 0
            try:
                if self._with_fds:
                    data, fds, flags, _ = socket.recv_fds(self.sock, LISTING_MAX, 4)
                else:
                    data = self.sock.recv(LISTING_MAX)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            # One comes with a line at most, and is dropped where we have no descriptor left for it.
            self._fds.extend([_DROPPED] if flags & socket.MSG_CTRUNC else fds)
            self.eof = not data
            self._lines.feed(data)
            if len(data) < LISTING_MAX:
                break
        lines = []
        while (line := self._lines.next()) is not None:
            lines.append(line)
        return lines

    def take_fd(self) -> int:
        """Return the oldest file descriptor that came along with a line; the caller owns it.

        Raises:
            BadRequest: none came.
            Unavailable: it came when we had too many open.
        """
        if not self._fds:
            raise BadRequest("a message came without the file descriptor that belongs to it")
        fd = self._fds.popleft()
        if fd == _DROPPED:
            raise Unavailable("Too many files are open for this console; try again in a while.")
        return fd

    def close(self) -> None:
        """Close the socket and every file descriptor that nobody took."""
        self.broken = True
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        for line in self._out:
            line.sent()
        self._fds.clear()
        self._out.clear()
        self.sock.close()


def connect(path: str, timeout: float) -> socket.socket:
    """Connect to a socket of the supervisor; blocking, the caller closes it.

    Args:
        path: admin.sock or redeem.sock.
        timeout: seconds that connecting, and each later step, may take.

    Raises:
        SupervisorUnavailable: it cannot be reached.
        Unavailable: this process has too many files open.
    """
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(
            f"cannot open a socket: {os_reason(error)}; try again in a while"
        ) from error
    sock.settimeout(timeout)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        if isinstance(error, PermissionError):
            raise SupervisorUnavailable(
                f"not permitted to use {path}; run this as root or as a user who may"
            ) from error
        raise SupervisorUnavailable(
            f"cannot reach the supervisor at {path}: {os_reason(error)}; "
            "is 'serial-console supervisor' (or 'run') running with this configuration?"
        ) from error
    return sock


def ask(sock: socket.socket, request: Message) -> tuple[dict[str, Any], Lines]:
    """Send one request on a connected, blocking socket and wait for its answer.

    Returns:
        The answer, and what may have come after it.

    Raises:
        SupervisorUnavailable: there is no answer in time, or none that is understood.
        ConsoleError: what was answered, as its own class.
    """
    lines = Lines(LISTING_MAX)
    try:
        with contextlib.suppress(BrokenPipeError):  # it may have said no before it was asked
            sock.sendall(encode(request))
        while (line := lines.next()) is None:
            data = sock.recv(LISTING_MAX)
            if not data:
                raise ConnectionResetError(0, "it closed the connection")
            lines.feed(data)
        reply = msgspec.json.decode(line, type=dict[str, Any])
    except OSError as error:
        raise SupervisorUnavailable(
            f"the supervisor gives no answer: {os_reason(error)}; see its log"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SupervisorUnavailable(NOT_ITS_ANSWER) from error
    if reply.get("ok") is not True:
        raise from_wire(str(reply.get("code")), str(reply.get("message")))
    return reply, lines


def call(path: str, request: Message, timeout: float = 15.0) -> dict[str, Any]:
    """Ask the supervisor one thing and wait for its answer (API and command line).

    Args:
        path: admin.sock or redeem.sock.
        request: the question.
        timeout: seconds that each step may take.

    Raises:
        SupervisorUnavailable: it cannot be reached or does not answer.
        ConsoleError: what it answered, as its own class.
    """
    with connect(path, timeout) as sock:
        return ask(sock, request)[0]


def call_all(
    path: str, request: ListGuests | ListSessions, key: str, timeout: float = 15.0
) -> list[dict[str, Any]]:
    """Ask for a listing page by page and return all of it. Raises as call() does.

    Args:
        path: admin.sock.
        request: the listing's first page.
        key: ``guests`` or ``sessions``.
        timeout: seconds that each step of each page may take.
    """
    found: list[dict[str, Any]] = []
    while True:
        reply = call(path, request, timeout)
        try:
            found += reply[key]
            after = reply["next"]
        except (KeyError, TypeError) as error:
            raise SupervisorUnavailable(NOT_ITS_ANSWER) from error
        if not after:
            return found
        request = msgspec.structs.replace(request, after=after)
