"""The messages on redeem.sock, admin.sock and the relays' channels, and how they travel.

One JSON object a line, UTF-8, ``{"v": 1, "op": ...}``; ``docs/protocol.md`` writes them down.
A request is answered by ``{"v": 1, "ok": true, ...}`` or
``{"v": 1, "ok": false, "code": ..., "message": ..., "close": ...}``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from enum import Enum
from typing import Any, TypeVar

import msgspec

from .errors import (
    BadRequest,
    BadVersion,
    ConsoleError,
    SupervisorUnavailable,
    UnknownOp,
    from_wire,
    os_reason,
)

VERSION = 1
REQUEST_MAX = 4096
"""Bytes of a request line; the design's number."""
LISTING_MAX = 65536
"""Bytes of an answer that lists, and of a line between our own processes."""

Mode = str
"""``rw`` or ``ro``."""


class Message(msgspec.Struct, tag_field="op", forbid_unknown_fields=True, kw_only=True):
    """Anything that has an ``op``."""

    v: int = VERSION


class State(Enum):
    """What a console is to its clients; on the wire by value."""

    STARTING = "starting"
    CONNECTED = "connected"
    PAUSED = "paused"
    WAITING = "waiting"
    BUSY = "busy"
    RECONNECTING = "reconnecting"


# ---- redeem.sock


class Redeem(Message, tag="redeem"):
    """Exchange a token for the path of a relay's socket.

    Attributes:
        token: the bearer secret.
        client: the client's address as the gateway sees it; for listings and logs.
        events: keep this connection and write the session's events on it.
    """

    token: str
    client: str = ""
    events: bool = False


# ---- admin.sock


class Issue(Message, tag="issue"):
    """Make a token. Fields as in REST; None means the configured default."""

    guest: str
    user: str = ""
    mode: Mode = "rw"
    console: str | None = None
    ttl: int | None = None
    takeover: bool = False
    notices: bool | None = None
    replay: int | None = None
    escape: str | None = None
    client_address: str | None = None


class Revoke(Message, tag="revoke"):
    """Make a token useless and end the session that it opened."""

    id: str


class ListGuests(Message, tag="guests"):
    """List guests, sorted by name; ``after`` is the last name of the page before."""

    after: str = ""


class GetGuest(Message, tag="guest"):
    """Describe one guest."""

    guest: str


class ListSessions(Message, tag="sessions"):
    """List sessions, sorted by id; ``after`` is the last id of the page before."""

    after: str = ""


class GetSession(Message, tag="session"):
    """Describe one session."""

    id: str


class Close(Message, tag="close"):
    """End a session, or all of them; ``by`` is who asked, for the person at the terminal."""

    id: str | None = None
    by: str = ""


class Health(Message, tag="health"):
    """Ask how things are."""


Redeeming = Redeem
Administering = Issue | Revoke | ListGuests | GetGuest | ListSessions | GetSession | Close | Health


# ---- things described


class ConsoleInfo(msgspec.Struct, forbid_unknown_fields=True):
    """One console of a guest. ``type`` is libvirt's; ``supported``: we can open it."""

    alias: str
    type: str
    supported: bool


class GuestInfo(msgspec.Struct, forbid_unknown_fields=True):
    """One guest; its first console stands first. ``state`` is one of guest.STATES."""

    name: str
    uuid: str
    state: str
    consoles: list[ConsoleInfo]


class ClientInfo(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What only the relay knows of a session. Counts in bytes, ``idle`` in seconds."""

    session: str
    state: str
    idle: float
    bytes_in: int
    bytes_out: int
    skipped: int


class SessionInfo(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One session, as supervisor and relay both keep it; it outlives either's restart."""

    id: str
    guest: str
    uuid: str
    console: str
    mode: Mode
    user: str
    client: str
    opened_at: float
    gateway_pid: int
    gateway_uid: int
    token_id: str


# ---- supervisor -> relay


class Admit(Message, tag="admit"):
    """Expect one client. With ``events`` the redeem connection travels along (SCM_RIGHTS)."""

    session: SessionInfo
    events: bool
    takeover: bool
    notices: bool
    replay: int
    escape: str


class End(Message, tag="end"):
    """End one session, or all of them (None); also the last event of a session."""

    code: int
    reason: str
    session: str | None = None


class Query(Message, tag="query"):
    """Ask for a Report."""


# ---- relay -> supervisor


class Ready(Message, tag="ready"):
    """The relay serves: its socket is bound, its console is open or waited for."""


class Failed(Message, tag="failed"):
    """The relay, or an inventory look-up, could not do its work."""

    code: str
    message: str
    id: int = 0


class Admitted(Message, tag="admitted"):
    """The client of an Admit may connect now."""

    session: str


class Opened(Message, tag="opened"):
    """The client has connected."""

    session: str


class Closed(Message, tag="closed", kw_only=True):
    """A session is over."""

    code: int
    reason: str
    client: ClientInfo


class Report(Message, tag="report"):
    """Answer to Query: every client's figures."""

    clients: list[ClientInfo]


class Adopt(Message, tag="adopt"):
    """A relay's greeting to a new supervisor."""

    pid: int
    guest: str
    uuid: str
    console: str
    path: str
    sessions: list[SessionInfo]


ToRelay = Admit | End | Query
FromRelay = Ready | Failed | Admitted | Opened | Closed | Report | Adopt


# ---- supervisor <-> inventory


class Lookup(Message, tag="lookup"):
    """Find one guest by UUID or name."""

    id: int
    guest: str


class Scan(Message, tag="scan"):
    """List all guests."""

    id: int


class Probe(Message, tag="probe"):
    """Ask whether libvirt answers; the answer is an empty Found."""

    id: int


class Found(Message, tag="found"):
    """One guest of an answer; ``last`` ends the answer, which may have no guest at all."""

    id: int
    guest: GuestInfo | None
    last: bool


ToInventory = Lookup | Scan | Probe
FromInventory = Found | Failed


# ---- relay -> gateway: events on the way back


class StateEvent(Message, tag="state"):
    """The console's state changed; ``text`` is a sentence fit to show."""

    state: str
    text: str


class SkippedEvent(Message, tag="skipped"):
    """Output was dropped for this client because it did not read."""

    bytes: int


class HeldEvent(Message, tag="held"):
    """The guest does not take input; what the client typed is held (``bytes`` > 0) or not."""

    bytes: int


# ---- framing


class _Header(msgspec.Struct):
    v: int
    op: str


_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_header = msgspec.json.Decoder(_Header)


class Decoder:
    """Decodes lines into one union of messages.

    Args:
        union: the messages that may come.
    """

    def __init__(self, union: Any) -> None:
        self._decoder = msgspec.json.Decoder(union)
        args = getattr(union, "__args__", (union,))
        self._ops = {member.__struct_config__.tag for member in args}

    def decode(self, line: bytes) -> Any:
        """Return the message.

        Raises:
            BadRequest: it is not JSON, lacks ``v`` or ``op``, or has a wrong or unknown field.
            BadVersion, UnknownOp: as they say.
        """
        try:
            header = _header.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(
                f'not a message: {error}; send one JSON object a line with "v" and "op"'
            ) from None
        if header.v != VERSION:
            raise BadVersion(f"version {header.v} is not spoken here; speak version {VERSION}")
        if header.op not in self._ops:
            raise UnknownOp(
                f"this socket has no such operation; known: {', '.join(sorted(self._ops))}"
            )
        try:
            return self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the {header.op} message is wrong: {error}") from None


def encode(message: Message) -> bytes:
    """Return the message as a line."""
    return _encoder.encode(message) + b"\n"


def answer(**fields: Any) -> bytes:
    """Return a positive answer as a line."""
    return _encoder.encode({"v": VERSION, "ok": True, **fields}) + b"\n"


def refusal(error: ConsoleError) -> bytes:
    """Return a negative answer as a line."""
    fields = {"code": error.code, "message": str(error), "close": int(error.close)}
    return _encoder.encode({"v": VERSION, "ok": False, **fields}) + b"\n"


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


class Channel:
    """A non-blocking line channel over a unix stream socket; knows no event loop.

    The owner watches ``fileno()`` for reading, and for writing while ``pending``.

    Args:
        sock: the connected socket; the channel owns and closes it.
        limit: the longest line that may come, in bytes.
    """

    OUT_MAX = 4 * LISTING_MAX
    """Bytes that may wait for a peer that does not read; past it the channel is broken."""

    def __init__(self, sock: socket.socket, limit: int = LISTING_MAX) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._lines = Lines(limit)
        self._out: deque[tuple[bytes, int | None]] = deque()
        self._out_bytes = 0
        self._fds: deque[int] = deque()
        self.ended = False

    def fileno(self) -> int:
        """The socket's fd."""
        return self.sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether bytes wait to be written."""
        return bool(self._out)

    def send(self, line: bytes, fd: int | None = None) -> None:
        """Queue a line, and with it a copy of a file descriptor, and write what can be written."""
        copy = None if fd is None else os.dup(fd)
        self._out.append((line, copy))
        self._out_bytes += len(line)
        if self._out_bytes > self.OUT_MAX:
            self.ended = True
        self.flush()

    def flush(self) -> None:
        """Write what can be written now. A peer that is gone sets ``ended``."""
        while self._out and not self.ended:
            line, fd = self._out[0]
            try:
                if fd is None:
                    sent = self.sock.send(line)
                else:
                    sent = socket.send_fds(self.sock, [line], [fd])
                    os.close(fd)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.ended = True
                return
            self._out_bytes -= sent
            if sent == len(line):
                self._out.popleft()
            else:
                self._out[0] = (line[sent:], None)

    def receive(self) -> list[bytes]:
        """Return the whole lines that have come. The peer's end sets ``ended``.

        Raises:
            BadRequest: a line is too long; the channel is of no use any more.
        """
        while not self.ended:
            try:
                data, fds, _, _ = socket.recv_fds(self.sock, LISTING_MAX, 4)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data, fds = b"", []
            self._fds.extend(fds)
            if not data:
                self.ended = True
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
        """
        if not self._fds:
            raise BadRequest("a message came without the file descriptor that belongs to it")
        return self._fds.popleft()

    def close(self) -> None:
        """Close the socket and every file descriptor that nobody took."""
        self.ended = True
        for fd in [*self._fds, *(fd for _, fd in self._out if fd is not None)]:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self._out.clear()
        self.sock.close()


def call(path: str, request: Message, timeout: float = 15.0) -> dict[str, Any]:
    """Ask the supervisor one thing and wait for its answer (API and command line).

    Args:
        path: admin.sock or redeem.sock.
        request: the question.
        timeout: seconds to wait for the whole answer.

    Raises:
        SupervisorUnavailable: it cannot be reached or does not answer.
        ConsoleError: what it answered, as its own class.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(path)
            sock.sendall(encode(request))
            lines = Lines(LISTING_MAX)
            while (line := lines.next()) is None:
                data = sock.recv(LISTING_MAX)
                if not data:
                    raise SupervisorUnavailable(
                        "the supervisor closed the connection without an answer; see its log"
                    )
                lines.feed(data)
        except PermissionError as error:
            raise SupervisorUnavailable(
                f"not permitted to use {path}; run this as root or as a user who may"
            ) from error
        except OSError as error:
            raise SupervisorUnavailable(
                f"cannot reach the supervisor at {path}: {os_reason(error)}; "
                "is 'serial-console supervisor' (or 'run') running with this configuration?"
            ) from error
    reply: dict[str, Any] = msgspec.json.decode(line)
    if reply.get("ok"):
        return reply
    raise from_wire(str(reply.get("code")), str(reply.get("message")))


def call_all(path: str, request: ListGuests | ListSessions, key: str) -> list[dict[str, Any]]:
    """Ask for a listing page by page and return all of it. Raises as call() does.

    Args:
        path: admin.sock.
        request: the listing's first page.
        key: ``guests`` or ``sessions``.
    """
    found: list[dict[str, Any]] = []
    while True:
        reply = call(path, request)
        found += reply[key]
        if not reply["next"]:
            return found
        request = msgspec.structs.replace(request, after=reply["next"])
