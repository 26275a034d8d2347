"""What admin.sock can do: issue and revoke tokens, list, close."""

from __future__ import annotations

import functools
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from . import __version__, control, names
from .audit import Audit
from .config import Config, escape_byte
from .consoles import pick
from .control import GuestInfo
from .door import Caller
from .errors import BadRequest, CloseCode, ConsoleError, NoSuchToken
from .inventory import Inventory
from .sessions import Session, SessionTable
from .tokens import Grant, MemoryStore

REVOKED = 1000
"""How many revocations are remembered for the sake of relays that are adopted late."""

_REVOKED = "Your access to this console was revoked."


class Admin:
    """Answers the requests on admin.sock.

    Args:
        config: the configuration.
        tokens, table, inventory, audit: the supervisor's.
        end: ends a session with a close code and a reason.
        reports: brings the sessions' figures up to date, then calls back.
    """

    def __init__(
        self,
        config: Config,
        tokens: MemoryStore,
        table: SessionTable,
        inventory: Inventory,
        audit: Audit,
        end: Callable[[Session, CloseCode, str], None],
        reports: Callable[[Callable[[], None]], None],
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._table = table
        self._inventory = inventory
        self._audit = audit
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._end = end
        self._reports = reports

    def handle(self, request: control.Administering, caller: Caller) -> None:
        """Answer a request, now or when inventory or relays have answered.

        Raises:
            ConsoleError: the answer is no.
        """
        match request:
            case control.Issue():
                self._issue(request, caller)
            case control.Revoke():
                self._revoke(request, caller)
            case control.RevokeKey():
                self._revoke_key(request, caller)
            case control.ListGuests():
                after = request.after
                self._inventory.list_all(
                    lambda found: caller.answer(**self._page_of_guests(found, after)),
                    caller.refuse,
                )
            case control.GetGuest():
                self._inventory.ask(
                    functools.partial(control.Lookup, guest=request.guest),
                    lambda found: caller.answer(guest=self._guest(found[0])),
                    caller.refuse,
                )
            case control.ListSessions():
                self._reports(lambda: caller.answer(**self._page_of_sessions(request.after)))
            case control.GetSession():
                self._table.get(request.id)
                self._reports(lambda: self._answer_session(request.id, caller))
            case control.Close():
                self._close(request, caller)
            case control.Audit():
                self._audit.told(request, caller.peer)
                caller.answer()
            case control.AuditHead():
                head = self._audit.head
                caller.answer(seq=head.seq, hash=head.hash)
            case control.Health():
                health = {"sessions": len(self._table), "version": __version__}
                self._inventory.ask(
                    control.Probe,
                    lambda _: caller.answer(status="ok", libvirt="ok", **health),
                    lambda _: caller.answer(status="ok", libvirt="unavailable", **health),
                )

    def _issue(self, request: control.Issue, caller: Caller) -> None:
        ttl = _checked(request, self._config.tokens.ttl)

        def found(guests: list[GuestInfo]) -> None:
            try:
                answer = self._grant(request, guests[0], ttl, caller)
            except ConsoleError as error:
                refused(error)
            else:
                caller.answer(**answer)

        def refused(error: ConsoleError) -> None:
            self._audit.not_issued(request, error, caller.peer)
            caller.refuse(error)

        self._inventory.ask(functools.partial(control.Lookup, guest=request.guest), found, refused)

    def _grant(
        self, request: control.Issue, guest: GuestInfo, ttl: int, caller: Caller
    ) -> dict[str, Any]:
        console = pick(guest, request.console)
        defaults = self._config.session
        first = console is guest.consoles[0]
        escape = defaults.escape if request.escape is None else request.escape
        replay = defaults.replay if request.replay is None else request.replay
        grant = Grant(
            id=secrets.token_hex(8),
            guest=guest.name,
            uuid=guest.uuid,
            alias=None if first else console.alias,
            console=console.alias,
            mode=request.mode,
            user=request.user,
            takeover=request.takeover,
            notices=defaults.notices if request.notices is None else request.notices,
            replay=min(replay, defaults.replay),
            escape=escape_byte(escape).decode("latin-1"),
            client_address=request.client_address,
            resume=request.resume,
            expires_at=time.time() + ttl,
            key=request.key,
        )
        token = self._tokens.issue(grant, ttl)
        self._audit.issued(grant, request, caller.peer)
        return {
            "id": grant.id,
            "token": token,
            "guest": grant.guest,
            "uuid": grant.uuid,
            "console": grant.console,
            "mode": grant.mode,
            "user": grant.user,
            "expires_at": grant.expires_at,
        }

    def _revoke(self, request: control.Revoke, caller: Caller) -> None:
        session = self._table.of_token(request.id)
        self._remember(f"token {request.id}")
        try:
            self._tokens.revoke(request.id)
        except NoSuchToken:
            if session is None:
                raise
        self._audit.revoked(request, session, caller.peer)
        if session is not None:  # one whose token is not consumed yet finds it gone
            self._end(session, CloseCode.CLOSED, _REVOKED)
        caller.answer()

    def _revoke_key(self, request: control.RevokeKey, caller: Caller) -> None:
        tokens = self._tokens.revoke_of(request.key)
        sessions = []
        if request.close:
            self._remember(f"key {request.key}")
            sessions = self._table.of_key(request.key)
        self._audit.key_revoked(request, tokens, len(sessions), caller.peer)
        for session in sessions:
            self._end(session, CloseCode.CLOSED, _REVOKED)
        caller.answer(tokens=tokens, sessions=len(sessions))

    def _remember(self, what: str) -> None:
        """Keep in mind what was revoked: a relay that we have not heard of may have a session of
        it, and greet us later."""
        self._revoked[what] = None
        if len(self._revoked) > REVOKED:
            self._revoked.popitem(last=False)

    def adopted(self, session: Session) -> None:
        """Take on a session of the supervisor before, unless it was revoked meanwhile."""
        self._audit.adopted(session)
        info = session.info
        if f"token {info.token_id}" in self._revoked or f"key {info.key}" in self._revoked:
            self._end(session, CloseCode.CLOSED, _REVOKED)

    def _close(self, request: control.Close, caller: Caller) -> None:
        sessions = self._table.all()
        if request.id is not None:
            sessions = [self._table.get(request.id)]
        self._audit.close_asked(request, len(sessions), caller.peer)
        who = request.by or request.key
        by = f" ({names.shown(who)})" if who else ""
        for session in sessions:
            self._end(session, CloseCode.CLOSED, f"The operator{by} closed this session.")
        caller.answer(closed=len(sessions))

    def _answer_session(self, session_id: str, caller: Caller) -> None:
        try:
            caller.answer(session=self._table.get(session_id).described())
        except ConsoleError as error:
            caller.refuse(error)

    def _guest(self, guest: GuestInfo) -> dict[str, Any]:
        sessions = [one.info.id for one in self._table.all() if one.info.uuid == guest.uuid]
        return {**msgspec.to_builtins(guest), "sessions": sessions}

    def _page_of_guests(self, found: list[GuestInfo], after: str) -> dict[str, Any]:
        rest = sorted((one for one in found if one.name > after), key=lambda one: one.name)
        return _page("guests", [self._guest(one) for one in rest], "name")

    def _page_of_sessions(self, after: str) -> dict[str, Any]:
        rest = [one.described() for one in self._table.all() if one.info.id > after]
        return _page("sessions", rest, "id")


def _checked(request: control.Issue, default_ttl: int) -> int:
    """Check what the message's types cannot. Returns the token's life in seconds."""
    ttl = default_ttl if request.ttl is None else request.ttl
    if not 1 <= ttl <= control.TTL_MAX:
        raise BadRequest(f"ttl is {ttl}; a token lives from 1 to {control.TTL_MAX} seconds")
    if len(request.user) > control.USER_MAX or names.printable(request.user) != request.user:
        raise BadRequest(f"user has to be at most {control.USER_MAX} printable characters")
    if request.replay is not None and request.replay < 0:
        raise BadRequest(f"replay is {request.replay}; it is a number of bytes, 0 for none")
    if not 0 <= request.resume <= control.RESUME_MAX:
        raise BadRequest(
            f"resume is {request.resume}; a session waits 0 to {control.RESUME_MAX} seconds"
        )
    if request.takeover and request.mode == "ro":
        raise BadRequest("a watcher (mode ro) takes nothing over; leave takeover out")
    if request.client_address is not None:
        try:
            ipaddress.ip_address(request.client_address)
        except ValueError:
            raise BadRequest("client_address is no IP address; give one or leave it out") from None
    if request.escape is not None:
        try:
            escape_byte(request.escape)
        except ConsoleError:
            raise BadRequest('escape is no control key; write "ctrl-q", or "" for none') from None
    return ttl


def _page(key: str, items: list[dict[str, Any]], cursor: str) -> dict[str, Any]:
    """Cut a listing so that its line stays under LISTING_MAX."""
    room = control.LISTING_MAX - 1024
    for count, item in enumerate(items):
        room -= len(msgspec.json.encode(item)) + 1
        if room < 0 and count:
            return {key: items[:count], "next": items[count - 1][cursor]}
    return {key: items, "next": ""}
