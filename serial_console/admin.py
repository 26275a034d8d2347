"""What admin.sock can do: issue and revoke tokens, list, close."""

from __future__ import annotations

import functools
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from . import __version__, control, names
from .audit import Audit
from .config import escape_byte
from .consoles import pick
from .control import GuestInfo
from .door import Caller
from .errors import BadRequest, CloseCode, ConsoleError, Forbidden, NoSuchToken
from .inventory import Inventory
from .reload import Current
from .sessions import Session, SessionTable
from .tokens import Grant, MemoryStore

REVOKED = 1000
"""How many revocations are remembered for the sake of relays that are adopted late."""

_REVOKED = "Your access to this console was revoked."


class Admin:
    """Answers the requests on admin.sock.

    Args:
        current: the configuration.
        tokens, table, inventory, audit: the supervisor's.
        end: ends a session with a close code and a reason.
        reports: brings the sessions' figures up to date, then calls back.
        totals: makes the Totals, given whether libvirt answers and how many guests there are.
    """

    def __init__(
        self,
        current: Current,
        tokens: MemoryStore,
        table: SessionTable,
        inventory: Inventory,
        audit: Audit,
        end: Callable[[Session, CloseCode, str], None],
        reports: Callable[[Callable[[], None]], None],
        totals: Callable[[bool, int | None], control.Totals],
    ) -> None:
        self._current = current
        self._tokens = tokens
        self._table = table
        self._inventory = inventory
        self._audit = audit
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self.gateway = ""
        """The release of the gateway that redeemed a token last; "" before."""
        self._end = end
        self._reports = reports
        self._totals = totals

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
                self._inventory.list_page(
                    after,
                    lambda found: caller.answer(**self._page_of_guests(found)),
                    caller.refuse,
                )
            case control.GetGuest():
                self._inventory.ask(
                    functools.partial(control.Lookup, guest=request.guest),
                    lambda found: caller.answer(guest=next(self._guests(found))),
                    caller.refuse,
                )
            case control.ListSessions():
                after = request.after
                if after:  # the first page has brought the figures up to date
                    caller.answer(**self._page_of_sessions(after))
                else:
                    self._reports(lambda: caller.answer(**self._page_of_sessions("")))
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
                health = {
                    "status": "ok",
                    "sessions": len(self._table),
                    "version": __version__,
                    "gateway_version": self.gateway,
                    "relay_versions": sorted({one.relay.version for one in self._table.all()}),
                }
                self._inventory.probe(
                    lambda up: caller.answer(libvirt="ok" if up else "unavailable", **health)
                )
            case control.Metrics():
                self._inventory.count_guests()
                self._reports(lambda: self._inventory.probe(lambda up: self._measure(up, caller)))

    def _issue(self, request: control.Issue, caller: Caller) -> None:
        ttl = _checked(request, self._current.config.tokens.ttl)

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
        defaults = self._current.config.session
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
        owner = session.info.key if session else self._tokens.key_of(request.id)
        if request.own and owner not in (None, request.key):
            raise Forbidden(
                "this API key is read-only and can revoke only what it has issued; "
                "use the key that issued this token, or one of mode rw"
            )
        self._remember(f"token {request.id}" + (f" of {request.key}" if request.own else ""))
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
        token = f"token {info.token_id}"
        if {token, f"{token} of {info.key}", f"key {info.key}"} & self._revoked.keys():
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

    def _measure(self, libvirt: bool, caller: Caller) -> None:
        caller.answer(**msgspec.to_builtins(self._totals(libvirt, self._inventory.guests)))

    def _guests(self, guests: Iterable[GuestInfo]) -> Iterator[dict[str, Any]]:
        sessions: dict[str, list[str]] = {}
        for one in self._table.all():
            sessions.setdefault(one.info.uuid, []).append(one.info.id)
        for guest in guests:
            yield {**msgspec.to_builtins(guest), "sessions": sessions.get(guest.uuid, [])}

    def _page_of_guests(self, found: list[GuestInfo]) -> dict[str, Any]:
        return _page("guests", self._guests(found), "name")

    def _page_of_sessions(self, after: str) -> dict[str, Any]:
        rest = (one.described() for one in self._table.all() if one.info.id > after)
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


def _page(key: str, items: Iterable[dict[str, Any]], cursor: str) -> dict[str, Any]:
    """Cut a listing so that its line stays under LISTING_MAX; what comes after is not made."""
    room = control.LISTING_MAX - 1024
    page: list[dict[str, Any]] = []
    for item in items:
        room -= len(msgspec.json.encode(item)) + 1
        if room < 0 and page:
            return {key: page, "next": page[-1][cursor]}
        page.append(item)
    return {key: page, "next": ""}
