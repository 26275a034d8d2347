"""The session table: which sessions there are, who may open another."""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import __version__
from .child import Child
from .config import Limits
from .control import After, ClientInfo, SessionInfo
from .door import Caller
from .errors import BadToken, InUse, LimitReached, NoSuchSession
from .loop import Timer
from .names import shown
from .tokens import Grant


@dataclass
class Admission:
    """A session between a redeem and the answer to it.

    ``grant`` None: its client comes back with a token that is used up. ``after``: where its output
    ended. ``replaces``: the session that its client had before.
    """

    grant: Grant | None
    caller: Caller
    events: bool
    shows_events: bool
    after: After | None
    replaces: str
    timer: Timer


@dataclass
class Relay:
    """A relay process; ``ready``: its console is open or waited for. ``adopted``: the supervisor
    before us forked it, and its figures are not known yet. ``version``: its release. ``memory``,
    ``cpu``: as in ClientInfo.
    """

    id: str
    guest: str
    uuid: str
    console: str
    path: str
    child: Child = field(init=False)
    ready: bool = False
    adopted: bool = False
    version: str = __version__
    memory: int = 0
    cpu: float = 0.0
    sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Which console it is for."""
        return self.uuid, self.console


class Session:
    """One client attached to one console, from its redeem to its end.

    Args:
        info: what is known of it.
        relay: its relay.
        adopted: the supervisor before us opened it, and its figures are not known yet.
    """

    def __init__(self, info: SessionInfo, relay: Relay, *, adopted: bool = False) -> None:
        self.info = info
        self.relay = relay
        self.adopted = adopted
        self.since = time.monotonic()
        self.admission: Admission | None = None
        self.figures = ClientInfo(
            session=info.id, state="starting", idle=0.0, bytes_in=0, bytes_out=0, skipped=0
        )

    def described(self) -> dict[str, Any]:
        """Return it as admin.sock and REST show it, but for the form of the time."""
        info = msgspec.to_builtins(self.info)
        del info["gateway_uid"], info["resume"], info["key"]
        figures = msgspec.to_builtins(self.figures)
        del figures["session"]
        return {**info, **figures, "relay_pid": self.relay.child.pid}


_AFTER = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{12})(?:\.([0-9]{1,18}))?", re.ASCII)


class SessionTable:
    """All sessions of this host.

    Args:
        limits: how many there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """Take a session in, and into its relay's."""
        self._sessions[session.info.id] = session.relay.sessions[session.info.id] = session

    def remove(self, session: Session) -> None:
        """Forget a session; one that is not there is no error."""
        self._sessions.pop(session.info.id, None)
        session.relay.sessions.pop(session.info.id, None)

    def get(self, session_id: str) -> Session:
        """Return a session.

        Raises:
            NoSuchSession: there is none of that id (any more).
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise NoSuchSession(
                f'there is no session "{shown(session_id)}" (any more); '
                '"serial-console sessions" lists those there are'
            )
        return session

    def all(self) -> list[Session]:
        """Return every session, sorted by id."""
        return [self._sessions[key] for key in sorted(self._sessions)]

    def of_key(self, key: str) -> list[Session]:
        """Return the sessions whose tokens were issued for an API key."""
        return [one for one in self.all() if one.info.key == key]

    def of_token(self, token_id: str) -> Session | None:
        """Return the session that a token opened, if it is still there."""
        return next((one for one in self.all() if one.info.token_id == token_id), None)

    def resumable(self, digest: str, client: str) -> Session | None:
        """Return the session to which the holder of a used token may come back.

        Args:
            digest: the token's.
            client: the address that the gateway sees.

        Raises:
            BadToken: the token is for another address.
        """
        for one in self._sessions.values():
            resume = one.info.resume
            if resume is not None and resume.digest == digest:
                _check_address(client, resume.client_address)
                return one
        return None

    def own(self, grant: Grant, session_id: str) -> str:
        """Return the id of the session that a token's holder had before, if it is that, else "":
        it holds the same console for the same user, by a token of the same issuer."""
        one = self._sessions.get(session_id)
        if one is None or grant.mode != "rw":
            return ""
        had = one.info
        before = had.uuid, had.console, had.mode, had.user, had.key
        now = grant.uuid, grant.console, grant.mode, grant.user, grant.key
        return session_id if before == now else ""

    def check(self, grant: Grant, client: str, own: str = "") -> None:
        """Refuse what can be refused without burning the token.

        Args:
            grant: what the token stands for.
            client: the address that the gateway sees.
            own: a session that ends for this one.

        Raises:
            BadToken: the token is for another address.
            InUse: another ``rw`` client has the console.
            LimitReached: a limit is reached.
        """
        limits = self.limits
        _check_address(client, grant.client_address)
        sessions = [one.info for one in self._sessions.values() if one.info.id != own]
        here = [one for one in sessions if (one.uuid, one.console) == (grant.uuid, grant.console)]
        if grant.mode == "rw" and not grant.takeover:
            for one in here:
                if one.mode == "rw":
                    since = time.strftime("%H:%M UTC", time.gmtime(one.opened_at))
                    by = shown(one.user) or "another user"
                    raise InUse(f"In use by {by} since {since}; try again when they have left.")
        if grant.takeover:  # needs no room of its own: who has the console leaves
            sessions = [one for one in sessions if one not in here or one.mode == "ro"]
        if len(sessions) >= limits.sessions:
            raise LimitReached(f"All {limits.sessions} sessions of this host are in use.")
        if grant.user and sum(one.user == grant.user for one in sessions) >= limits.per_user:
            raise LimitReached(
                f"The limit of {limits.per_user} sessions a user is reached; close one."
            )
        if grant.mode == "ro" and sum(one.mode == "ro" for one in here) >= limits.watchers:
            raise LimitReached(f"{limits.watchers} watchers look at this console; no more may.")


def ended_at(text: str) -> After | None:
    """Return where a client's output ended, None where it is not written as After is."""
    found = _AFTER.fullmatch(text)
    if found is None:
        return None
    position = None if found[3] is None else int(found[3])
    return After(relay=found[1], session=found[2], position=position)


def _check_address(client: str, address: str | None) -> None:
    if address is not None and not _is_from(client, address):
        raise BadToken("This token is for a client at another address; ask for a new one.")


def _is_from(client: str, address: str) -> bool:
    """Whether a client, ``host:port`` or ``[v6]:port`` as the gateway sees it, has an address."""
    host = client.rpartition(":")[0].strip("[]")
    try:
        seen = ipaddress.ip_address(host)
        mapped = seen.ipv4_mapped if isinstance(seen, ipaddress.IPv6Address) else None
        return (mapped or seen) == ipaddress.ip_address(address)
    except ValueError:
        return False
