"""The messages on redeem.sock, admin.sock and the relays' channels; channel.py carries them.

One JSON object a line, UTF-8, ``{"v": 1, "op": ...}``; ``docs/protocol.md`` writes them down.
A request is answered by ``{"v": 1, "ok": true, ...}`` or
``{"v": 1, "ok": false, "code": ..., "message": ..., "close": ...}``.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec

from .errors import BadRequest, BadVersion, ConsoleError, UnknownOp
from .names import shown

VERSION = 1
REQUEST_MAX = 4096
"""Bytes of a request line; the design's number."""
LISTING_MAX = 65536
"""Bytes of an answer that lists, and of a line between our own processes."""

USER_MAX = 128
"""Characters of a user's name."""
TTL_MAX = 24 * 3600
"""Longest life of a token in seconds."""
RESUME_MAX = 3600
"""Longest time in seconds that a session waits for its client to come back."""

Mode = Literal["rw", "ro"]
"""To type, or only to watch."""


class Message(msgspec.Struct, tag_field="op", forbid_unknown_fields=True, kw_only=True):
    """Anything that has an ``op``."""

    v: int = VERSION


class Told(Message, forbid_unknown_fields=False):
    """A Message between processes of ours, of which one may be of the next release: what it says
    beside what is known here is passed over. A request is not: who asks for more than is understood
    has to know."""


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
        client: the client's address as the gateway sees it; for listings and logs. At most 64
            characters of ASCII: a relay tells of all its sessions in one line.
        events: keep this connection and write the session's events on it.
        shows_events: the client itself is shown them (serial-console.v1): it gets no notices among
            its bytes, and ``session`` first. Needs ``events``.
        after: where the client's output ended on an earlier connection, as ``After`` is written.
        version: the gateway's release.
    """

    token: str
    client: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,64}\Z")] = ""
    events: bool = False
    shows_events: bool = False
    after: Annotated[str, msgspec.Meta(max_length=128)] = ""
    version: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,32}\Z")] = ""


# ---- admin.sock


class Issue(Message, tag="issue"):
    """Make a token. Fields as in REST; None means the configured default.

    ``by``: who asks, for the audit log; ``key``: with which API key, "" for none.
    """

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
    resume: int = 0
    by: str = ""
    key: str = ""


class Revoke(Message, tag="revoke"):
    """Make a token useless and end the session that it opened.

    ``own``: only if it was issued for ``key``.
    """

    id: str
    own: bool = False
    by: str = ""
    key: str = ""


class RevokeKey(Message, tag="revoke_key"):
    """Make the unused tokens of an API key useless; ``close``: end its sessions too."""

    key: str
    close: bool = False
    by: str = ""


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
    """End a session, or all of them; ``by`` or ``key`` is told to the person at the terminal."""

    id: str | None = None
    by: str = ""
    key: str = ""


class Health(Message, tag="health"):
    """Ask how things are."""


class Metrics(Message, tag="metrics"):
    """Ask for the Totals."""


class Audit(Message, tag="audit"):
    """Write down what only the API or the command line knows.

    Attributes:
        key: the API key's name.
        by: who, where that is no key.
        source: where it came from, where nobody is known.
        method, route, status: of a request; the route is a template, without what was asked for.
        left_out: events before this one that could not be told.
    """

    event: Literal[
        "api_request", "api_unauthorized", "api_forbidden", "api_rate_limited", "key_added"
    ]
    key: str = ""
    by: str = ""
    source: str = ""
    method: str = ""
    route: str = ""
    status: int = 0
    left_out: int = 0


class AuditHead(Message, tag="audit_head"):
    """Ask for the number and hash of the audit file's last line."""


Redeeming = Redeem
Administering = (
    Issue
    | Revoke
    | RevokeKey
    | ListGuests
    | GetGuest
    | ListSessions
    | GetSession
    | Close
    | Health
    | Metrics
    | Audit
    | AuditHead
)


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


class ClientInfo(msgspec.Struct, kw_only=True):
    """What only the relay knows of a session. Counts in bytes, ``idle`` in seconds.

    ``held``: bytes of input that the guest does not take now. ``memory`` (share of the memory, PSS,
    in bytes; 0: not known) and ``cpu`` (seconds since its start) are the relay process's.
    """

    session: str
    state: str
    idle: float
    bytes_in: int
    bytes_out: int
    skipped: int
    held: int = 0
    memory: int = 0
    cpu: float = 0.0


class Resume(msgspec.Struct, kw_only=True):
    """How a session's client may come back: with the same token, within so many seconds.

    ``digest``: the token's, as tokens.digest makes it. ``client_address``: as in Issue.
    """

    seconds: int
    digest: str
    client_address: str | None


class SessionInfo(msgspec.Struct, kw_only=True):
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
    resume: Resume | None = None
    key: str = ""


class After(msgspec.Struct):
    """Where a client's output ended: relay, session, position; ``<relay>.<session>.<position>``.

    ``position``: bytes of output since that relay began; None: it does not know any more.
    """

    relay: str
    session: str
    position: int | None


SETUP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds of the histogram of set-up times; the last bucket has none."""


class Counts(msgspec.Struct, kw_only=True):
    """What a supervisor has counted since its start; nothing in it ever falls.

    Attributes:
        issued, redeemed: tokens.
        not_issued, refused: tokens that were not issued, and redeems, by the error's ``code``.
        opened: sessions whose client has connected, by mode; ``resumed``: that came back.
        ended: sessions, by close code.
        setup: sessions by set-up time, a number for each of SETUP_BUCKETS and one for the rest.
        setup_seconds: sum of these times.
        bytes_in, bytes_out, skipped: of all sessions, as in ClientInfo.
        cpu: seconds of all relays.
        reconnects: of relays to libvirt.
    """

    issued: int = 0
    redeemed: int = 0
    not_issued: dict[str, int] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    opened: dict[str, int] = msgspec.field(default_factory=dict)
    resumed: int = 0
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    setup: list[int] = msgspec.field(default_factory=lambda: [0] * (len(SETUP_BUCKETS) + 1))
    setup_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    skipped: int = 0
    cpu: float = 0.0
    reconnects: int = 0


class Totals(msgspec.Struct, kw_only=True):
    """The supervisor's figures as a whole.

    Attributes:
        version: its.
        started_at: when it began, in Unix seconds.
        libvirt: whether libvirt answers.
        guests: how many the last listing had; None: there was none yet, or it failed.
        relays: how many processes.
        memory: their shares of the memory (PSS), in bytes.
        held: bytes of input that guests do not take now.
        sessions: how many, by mode and then by state.
        counts: what it has counted.
    """

    version: str
    started_at: float
    libvirt: bool
    guests: int | None
    relays: int
    memory: int
    held: int
    sessions: dict[str, dict[str, int]]
    counts: Counts


# ---- supervisor -> relay


class Admit(Told, tag="admit"):
    """Expect one client. With ``events`` the redeem connection travels along (SCM_RIGHTS).

    A session that the relay has already is resumed: its client comes back. ``after``: where the
    client's output ended; ``replaces``: the session that it was, which ends when it connects.
    """

    session: SessionInfo
    events: bool
    shows_events: bool = False
    after: After | None = None
    replaces: str = ""
    takeover: bool = False
    notices: bool = True
    replay: int = 0
    escape: str = ""


class End(Told, tag="end"):
    """End one session, or all of them (None); also the last event of a session."""

    code: int
    reason: str
    session: str | None = None


class Query(Told, tag="query"):
    """Ask for a Report."""


# ---- relay -> supervisor


class Ready(Told, tag="ready"):
    """The relay serves: its socket is bound, its console is open or waited for."""


class Failed(Told, tag="failed"):
    """The relay, or an inventory look-up, could not do its work."""

    code: str
    message: str
    id: int = 0


class Admitted(Told, tag="admitted"):
    """The client of an Admit may connect now."""

    session: str


class Opened(Told, tag="opened"):
    """The client has connected; ``again``: it has come back."""

    session: str
    again: bool = False


class Closed(Told, tag="closed", kw_only=True):
    """A session is over; ``taker``: the session that has taken it over."""

    code: int
    reason: str
    client: ClientInfo
    taker: str = ""


class Reconnected(Told, tag="reconnected"):
    """The lost connection to libvirt is there again."""


class Report(Told, tag="report"):
    """Answer to Query: every client's figures."""

    clients: list[ClientInfo]


class Adopt(Told, tag="adopt"):
    """A relay's greeting to a new supervisor; ``version``: the relay's release."""

    guest: str
    uuid: str
    console: str
    path: str
    sessions: list[SessionInfo]
    version: str = ""


ToRelay = Admit | End | Query
FromRelay = Ready | Failed | Admitted | Opened | Closed | Reconnected | Report | Adopt


# ---- supervisor <-> inventory


class Lookup(Message, tag="lookup"):
    """Find one guest by UUID or name."""

    id: int
    guest: str


class Scan(Message, tag="scan"):
    """List the guests behind a name, in the order of names, until no answer of ours holds more."""

    id: int
    after: str


class Count(Message, tag="count"):
    """Ask how many guests there are."""

    id: int


class Probe(Message, tag="probe"):
    """Ask whether libvirt answers; the answer is an empty Found."""

    id: int


class Found(Message, tag="found"):
    """One guest of an answer; ``last`` ends the answer, which may have no guest at all.

    ``total``: how many guests there are, with the last one of Scan and Count.
    """

    id: int
    guest: GuestInfo | None
    last: bool
    total: int | None = None


ToInventory = Lookup | Scan | Count | Probe
FromInventory = Found | Failed


# ---- relay -> gateway: events on the way back


class SessionEvent(Message, tag="session"):
    """A client's first event, before any byte; only for clients that are shown events.

    Attributes:
        id, guest, uuid, console, user, mode: as in SessionInfo.
        escape: the key that ends it, such as ``ctrl-q``; ``""``: none.
        resume: seconds for which its token may come back.
        relay: which relay it is; a position is good for one relay.
        position: bytes of output since the relay began, at the end of the replay.
        replay: how many of the first bytes, skipped ones included, are replay; they are not
            counted in ``position``.
        printed: seconds since the guest last printed; None: not since the relay began.
        continued: the output goes on where ``after``, or the session that is resumed, stood.
    """

    id: str
    guest: str
    uuid: str
    console: str
    user: str
    mode: Mode
    escape: str
    resume: int
    relay: str
    position: int
    replay: int
    printed: float | None
    continued: bool


class StateEvent(Message, tag="state"):
    """The console's state changed; ``text`` is a sentence fit to show."""

    state: str
    text: str


class SkippedEvent(Message, tag="skipped"):
    """Output was dropped for this client because it did not read.

    ``at``: bytes of this connection before the gap. It is written before the bytes behind it, but
    for clients that find a notice there.
    """

    bytes: int
    at: int = 0


class HeldEvent(Message, tag="held"):
    """The guest does not take input; what the client typed is held (``bytes`` > 0) or not."""

    bytes: int


class NoticeEvent(Message, tag="notice"):
    """What no other event tells; only for clients that are shown events."""

    text: str


# ---- gateway -> relay, on the way back as well


class Taking(Told, tag="taking"):
    """The client takes output, though the gateway's buffers are full.

    ``pause``: the longest time in seconds that it lately took nothing.
    """

    pause: float


class Delivered(Told, tag="delivered"):
    """The client is gone; so many bytes of output have reached it on this connection.

    ``reason``: why, as the gateway sees it; for listings of what happened, not for the client.
    ``left``: it will not come back, though it might.
    """

    bytes: int
    reason: str = ""
    left: bool = False


FromGateway = Taking | Delivered


# ---- framing


class _Header(msgspec.Struct):
    v: int
    op: str


# Deep nesting comes as RecursionError.
_NOT_UNDERSTOOD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.json.Encoder()
_header = msgspec.json.Decoder(_Header)


class Decoder:
    """Decodes lines into one union of messages.

    Args:
        union: the messages that may come.
        others: pass over an ``op`` that is not known: it is of a later release.
    """

    def __init__(self, union: Any, *, others: bool = False) -> None:
        self._others = others
        self._decoder = msgspec.json.Decoder(union)
        args = getattr(union, "__args__", (union,))
        self._ops = {member.__struct_config__.tag for member in args}

    def decode(self, line: bytes) -> Any:
        """Return the message; None for one that is passed over.

        Raises:
            BadRequest: it is not JSON, lacks ``v`` or ``op``, or has a wrong or unknown field.
            BadVersion, UnknownOp: as they say.
        """
        try:
            header = _header.decode(line)
        except _NOT_UNDERSTOOD as error:
            raise BadRequest(
                f'not a message: {error}; send one JSON object a line with "v" and "op"'
            ) from None
        if header.v != VERSION:
            raise BadVersion(
                f"version {shown(str(header.v))} is not spoken here; speak version {VERSION}"
            )
        if self._others and header.op not in self._ops:
            return None
        if header.op not in self._ops:
            raise UnknownOp(
                f"this socket has no such operation; known: {', '.join(sorted(self._ops))}"
            )
        try:
            return self._decoder.decode(line)
        except _NOT_UNDERSTOOD as error:
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
