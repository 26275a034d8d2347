"""The supervisor: session table and policy; forks, watches, adopts and ends the relays.

One thread, one loop, and never a connection to libvirt: it must stay safe to fork from.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import __version__, control, inventory, names, relay
from . import log as logs
from .child import Child, fork
from .config import Config, escape_byte
from .control import Channel, ClientInfo, GuestInfo, SessionInfo
from .door import Caller, Door
from .errors import (
    BadRequest,
    BadToken,
    CloseCode,
    ConsoleError,
    Forbidden,
    InUse,
    LibvirtUnavailable,
    LimitReached,
    NoSuchSession,
    NoSuchToken,
    RelayLost,
    from_wire,
)
from .guest import pick
from .listener import make_directory, remove_stale
from .loop import Loop, Timer
from .tokens import Grant, MemoryStore

log = logging.getLogger("supervisor")

ADMISSION = 10.0
"""Seconds from a redeem to its answer; a relay that is not ready then is ended."""
ANSWER = 5.0
"""Seconds that the inventory has for an answer, before it is ended and another is forked."""
REPORT = 0.5
"""Seconds that relays have to report their figures; a slower one's last ones are shown."""
STOP = 4.0
"""Seconds that relays have to end their sessions at SIGTERM."""
ADOPTION = 2.0
"""Seconds that relays of the supervisor before have to greet us."""
USER_MAX = 128
"""Characters of a user's name."""
TTL_MAX = 24 * 3600
"""Longest life of a token in seconds."""

_from_relay = control.Decoder(control.FromRelay)
_from_inventory = control.Decoder(control.FromInventory)


@dataclass
class _Session:
    info: SessionInfo
    relay: _Relay
    figures: ClientInfo
    admission: _Admission | None = None
    opened: bool = False


@dataclass
class _Admission:
    """A session between its redeem and the answer to it."""

    grant: Grant
    caller: Caller
    events: bool
    timer: Timer
    sent: bool = False


@dataclass
class _Relay:
    id: str
    guest: str
    uuid: str
    console: str
    path: str
    child: Child | None = None
    ready: bool = False
    sessions: dict[str, _Session] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.uuid, self.console


def serve(config: Config) -> int:
    """Run the supervisor until SIGTERM, SIGINT or SIGUSR1. Returns the exit status.

    Raises:
        SetupError: a directory or a socket cannot be had.
    """
    logs.start(config.log.level, config.log.format)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # two descriptors a relay
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    supervisor = _Supervisor(config)
    gc.collect()
    gc.freeze()  # relays share these pages
    supervisor.start()
    print("ready", flush=True)  # noqa: T201 - the services' sign of readiness
    supervisor.loop.run()
    return 0


class _Supervisor:
    def __init__(self, config: Config) -> None:
        self.loop = Loop()
        self._config = config
        self._tokens = MemoryStore(config.limits.tokens)
        self._inventory = _Inventory(self.loop, config)
        self._relays: dict[tuple[str, str], _Relay] = {}
        self._ending: set[str] = set()
        self._children: dict[str, _Relay] = {}
        self._sessions: dict[str, _Session] = {}
        self._reports: list[_Reports] = []
        self._doors: list[Door] = []
        self._stopping = False

    def start(self) -> None:
        paths = self._config.paths
        make_directory(paths.consoles, 0o711)
        make_directory(paths.control, 0o755)
        make_directory(paths.relays, 0o700)
        self._doors = [
            Door(self.loop, paths.redeem, control.Redeeming, self._on_redeem),
            Door(self.loop, paths.admin, control.Administering, self._on_admin),
        ]
        self._adopt()
        self.loop.on_signals((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), self._on_signal)
        log.info("serving %s, %d sessions adopted", paths.control, len(self._sessions))

    # ---- redeem.sock

    def _on_redeem(self, request: control.Redeem, caller: Caller) -> None:
        grant = self._tokens.reserve(request.token)
        try:
            self._check(grant, request.client)
            session = self._new_session(grant, request, caller)
        except ConsoleError as error:
            self._tokens.release(grant)
            log.info("refused %s for %s: %s", names.shown(grant.user), _shown(grant), error)
            raise
        caller.on_gone = functools.partial(self._abandon, session)

    def _check(self, grant: Grant, client: str) -> None:
        """Refuse what can be refused without burning the token."""
        limits = self._config.limits
        if grant.client_address is not None and grant.client_address != client:
            raise BadToken("This token is for a client at another address; ask for a new one.")
        sessions = [one.info for one in self._sessions.values()]
        here = [one for one in sessions if (one.uuid, one.console) == (grant.uuid, grant.console)]
        if grant.mode == "rw" and not grant.takeover:
            for one in here:
                if one.mode == "rw":
                    since = time.strftime("%H:%M UTC", time.gmtime(one.opened_at))
                    by = names.shown(one.user) or "another user"
                    raise InUse(f"In use by {by} since {since}; try again when they have left.")
        if len(sessions) >= limits.sessions:
            raise LimitReached(f"All {limits.sessions} sessions of this host are in use.")
        if grant.user and sum(one.user == grant.user for one in sessions) >= limits.per_user:
            raise LimitReached(
                f"You have {limits.per_user} sessions open; close one of them first."
            )
        if grant.mode == "ro" and sum(one.mode == "ro" for one in here) >= limits.watchers:
            raise LimitReached(f"{limits.watchers} watchers look at this console; no more may.")

    def _new_session(self, grant: Grant, request: control.Redeem, caller: Caller) -> _Session:
        relay = self._relay_for(grant)
        info = SessionInfo(
            id=secrets.token_hex(6),
            guest=grant.guest,
            uuid=grant.uuid,
            console=grant.console,
            mode=grant.mode,
            user=grant.user,
            client=request.client,
            opened_at=time.time(),
            gateway_pid=caller.peer.pid,
            gateway_uid=caller.peer.uid,
            token_id=grant.id,
        )
        session = _Session(info, relay, _no_figures(info.id))
        late = LibvirtUnavailable(
            f'libvirt did not open the console of "{names.shown(grant.guest)}" in time; '
            "try again in a while"
        )
        timer = self.loop.after(ADMISSION, lambda: self._late(session, late))
        session.admission = _Admission(grant, caller, request.events, timer)
        self._sessions[info.id] = relay.sessions[info.id] = session
        if relay.ready:
            self._admit(session)
        return session

    def _relay_for(self, grant: Grant) -> _Relay:
        key = (grant.uuid, grant.console)
        found = self._relays.get(key)
        if found is not None:
            return found
        path = names.console_socket(
            self._config.paths.consoles, grant.guest, grant.uuid, grant.alias
        )
        new = _Relay(secrets.token_hex(8), grant.guest, grant.uuid, grant.console, path)
        spec = relay.Spec(new.id, grant.guest, grant.uuid, grant.console, grant.alias, path)
        pid, channel = fork(functools.partial(relay.main, spec, self._config))
        self._take_on(new, pid, channel)
        return new

    def _take_on(self, new: _Relay, pid: int, channel: Channel) -> None:
        self._relays[new.key] = self._children[new.id] = new
        new.child = Child(
            self.loop,
            pid,
            channel,
            on_line=functools.partial(self._on_relay, new),
            on_end=functools.partial(self._on_relay_end, new),
        )

    def _admit(self, session: _Session) -> None:
        admission = session.admission
        if admission is None or admission.sent:
            return
        admission.sent = True
        grant = admission.grant
        admit = control.Admit(
            session=session.info,
            events=admission.events,
            takeover=grant.takeover,
            notices=grant.notices,
            replay=grant.replay,
            escape=grant.escape,
        )
        fd = admission.caller.channel.fileno() if admission.events else None
        self._tell(session.relay, admit, fd)

    def _admitted(self, session: _Session) -> None:
        admission = session.admission
        if admission is None:
            return
        try:
            self._tokens.consume(admission.grant)
        except BadToken as error:
            self._tell(
                session.relay,
                control.End(session=session.info.id, code=error.close, reason=str(error)),
            )
            self._refuse(session, error)
            return
        admission.timer.cancel()
        session.admission = None
        answer = admission.caller.hand_over if admission.events else admission.caller.answer
        info = session.info
        admission.caller.on_gone = None
        answer(
            path=session.relay.path,
            session=info.id,
            guest=info.guest,
            console=info.console,
            mode=info.mode,
        )

    def _refuse(self, session: _Session, error: ConsoleError) -> None:
        """Answer a redeem that came to nothing; the token may be tried again."""
        admission, session.admission = session.admission, None
        self._remove(session)
        if admission is not None:
            admission.timer.cancel()
            self._tokens.release(admission.grant)
            log.info("refused %s: %s", _shown(admission.grant), error)
            admission.caller.refuse(error)

    def _late(self, session: _Session, error: ConsoleError) -> None:
        if session.relay.ready:
            self._end(session, error.close, str(error))
        elif session.relay.child is not None:
            session.relay.child.kill()
        self._refuse(session, error)

    def _abandon(self, session: _Session) -> None:
        """Whoever redeemed the token left before the answer."""
        admission = session.admission
        if admission is None:
            return
        session.admission = None
        admission.timer.cancel()
        self._tokens.release(admission.grant)
        if admission.sent:
            self._end(session, CloseCode.ENDED, "The client is gone.")
        self._remove(session)

    # ---- relays

    def _on_relay(self, which: _Relay, line: bytes) -> None:
        message = _from_relay.decode(line)
        match message:
            case control.Ready():
                which.ready = True
                for session in list(which.sessions.values()):
                    self._admit(session)
            case control.Failed():
                self._retire(which)
                for session in list(which.sessions.values()):
                    self._refuse(session, from_wire(message.code, message.message))
            case control.Admitted() if message.session in which.sessions:
                self._admitted(which.sessions[message.session])
            case control.Opened() if message.session in which.sessions:
                session = which.sessions[message.session]
                session.opened = True
                _log_opened(session)
            case control.Closed() if message.client.session in which.sessions:
                session = which.sessions[message.client.session]
                session.figures = message.client
                _log_closed(session, message.code, message.reason)
                self._remove(session)
                if not which.sessions:
                    self._retire(which)
            case control.Report():
                for figures in message.clients:
                    if figures.session in which.sessions:
                        which.sessions[figures.session].figures = figures
                self._reported(which)
            case control.Adopt():
                which.ready = True
                for info in message.sessions:
                    session = _Session(info, which, _no_figures(info.id), opened=True)
                    self._sessions[info.id] = which.sessions[info.id] = session

    def _on_relay_end(self, which: _Relay, how: str) -> None:
        self._retire(which)
        del self._children[which.id]
        self._reported(which)
        with contextlib.suppress(ConsoleError):
            remove_stale(which.path)
            remove_stale(os.path.join(self._config.paths.relays, which.id + ".sock"))
        for session in list(which.sessions.values()):
            admission = session.admission
            if admission is not None and which.ready and not self._stopping:
                self._try_again(session, admission)
            elif admission is not None:
                self._refuse(session, RelayLost(f"The relay {how}; try again."))
            else:
                log.error("relay %d %s", which.child.pid if which.child else 0, how)
                _log_closed(session, CloseCode.RELAY_LOST, f"relay {how}")
                self._remove(session)
        if self._stopping and not self._children:
            self._stopped()

    def _try_again(self, session: _Session, admission: _Admission) -> None:
        """The relay ended with its last client while this one was on its way to it."""
        del session.relay.sessions[session.info.id]
        admission.sent = False
        try:
            session.relay = self._relay_for(admission.grant)
        except ConsoleError as error:
            self._refuse(session, error)
            return
        session.relay.sessions[session.info.id] = session
        if session.relay.ready:
            self._admit(session)

    def _retire(self, which: _Relay) -> None:
        """Send it no new client: it is ending."""
        if self._relays.get(which.key) is which:
            del self._relays[which.key]

    def _remove(self, session: _Session) -> None:
        self._sessions.pop(session.info.id, None)
        session.relay.sessions.pop(session.info.id, None)

    def _end(self, session: _Session, code: CloseCode, reason: str) -> None:
        self._tell(session.relay, control.End(session=session.info.id, code=code, reason=reason))

    def _tell(self, which: _Relay, message: control.ToRelay, fd: int | None = None) -> None:
        if which.child is not None:
            which.child.send(control.encode(message), fd)

    def _adopt(self) -> None:
        """Find the relays of the supervisor before us, and what dead ones left."""
        paths = self._config.paths
        for name in sorted(os.listdir(paths.relays)):
            path = os.path.join(paths.relays, name)
            adopted = _greeting(path)
            if adopted is None:
                continue
            channel, greeting, line = adopted
            which = _Relay(
                name.removesuffix(".sock"),
                greeting.guest,
                greeting.uuid,
                greeting.console,
                greeting.path,
            )
            try:
                self._take_on(which, greeting.pid, channel)
            except ProcessLookupError:
                channel.close()
                continue
            self._on_relay(which, line)
        alive = {one.path for one in self._relays.values()}
        for name in os.listdir(paths.consoles):
            path = os.path.join(paths.consoles, name)
            if path not in alive and name.endswith(".sock"):
                with contextlib.suppress(ConsoleError):
                    remove_stale(path)

    # ---- admin.sock

    def _on_admin(self, request: control.Administering, caller: Caller) -> None:
        match request:
            case control.Issue():
                self._issue(request, caller)
            case control.Revoke():
                self._revoke(request.id)
                caller.answer()
            case control.ListGuests():
                after = request.after
                self._inventory.ask(
                    control.Scan,
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
                self._with_reports(lambda: caller.answer(**self._page_of_sessions(request.after)))
            case control.GetSession():
                self._session(request.id)
                self._with_reports(lambda: self._answer_session(request.id, caller))
            case control.Close():
                caller.answer(closed=self._close(request))
            case control.Health():
                health = {"sessions": len(self._sessions), "version": __version__}
                self._inventory.ask(
                    control.Probe,
                    lambda _: caller.answer(status="ok", libvirt="ok", **health),
                    lambda _: caller.answer(status="ok", libvirt="unavailable", **health),
                )

    def _issue(self, request: control.Issue, caller: Caller) -> None:
        ttl = _checked(request, self._config.tokens.ttl)

        def found(guests: list[GuestInfo]) -> None:
            try:
                caller.answer(**self._grant(request, guests[0], ttl))
            except ConsoleError as error:
                caller.refuse(error)

        self._inventory.ask(
            functools.partial(control.Lookup, guest=request.guest), found, caller.refuse
        )

    def _grant(self, request: control.Issue, guest: GuestInfo, ttl: int) -> dict[str, Any]:
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
            expires_at=time.time() + ttl,
        )
        token = self._tokens.issue(grant, ttl)
        log.info("token %s issued to %s for %s", grant.id, names.shown(grant.user), _shown(grant))
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

    def _revoke(self, token_id: str) -> None:
        session = next((s for s in self._sessions.values() if s.info.token_id == token_id), None)
        if session is None:
            self._tokens.revoke(token_id)
            return
        with contextlib.suppress(NoSuchToken):
            self._tokens.revoke(token_id)  # not consumed yet: the admission finds it gone
        self._end(session, CloseCode.CLOSED, "Your access to this console was revoked.")

    def _close(self, request: control.Close) -> int:
        sessions = list(self._sessions.values())
        if request.id is not None:
            sessions = [self._session(request.id)]
        by = f" ({names.shown(request.by)})" if request.by else ""
        for session in sessions:
            self._end(session, CloseCode.CLOSED, f"The operator{by} closed this session.")
        return len(sessions)

    def _session(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise NoSuchSession(
                f'there is no session "{names.shown(session_id)}" (any more); '
                '"serial-console sessions" lists those there are'
            )
        return session

    def _answer_session(self, session_id: str, caller: Caller) -> None:
        try:
            caller.answer(session=_described(self._session(session_id)))
        except ConsoleError as error:
            caller.refuse(error)

    def _guest(self, guest: GuestInfo) -> dict[str, Any]:
        sessions = [s.info.id for s in self._sessions.values() if s.info.uuid == guest.uuid]
        return {**msgspec.to_builtins(guest), "sessions": sorted(sessions)}

    def _page_of_guests(self, found: list[GuestInfo], after: str) -> dict[str, Any]:
        rest = sorted((one for one in found if one.name > after), key=lambda one: one.name)
        return _page("guests", [self._guest(one) for one in rest], "name")

    def _page_of_sessions(self, after: str) -> dict[str, Any]:
        rest = sorted(key for key in self._sessions if key > after)
        return _page("sessions", [_described(self._sessions[key]) for key in rest], "id")

    def _with_reports(self, then: Callable[[], None]) -> None:
        """Go on when every relay has told its figures, or after a while without."""
        asked = {one.id for one in self._children.values() if one.ready and one.sessions}
        for key in asked:
            self._tell(self._children[key], control.Query())
        reports = _Reports(asked, then)
        if not asked:
            then()
            return
        self._reports.append(reports)
        reports.timer = self.loop.after(REPORT, lambda: self._reports_in(reports))

    def _reported(self, which: _Relay) -> None:
        for reports in list(self._reports):
            reports.missing.discard(which.id)
            if not reports.missing:
                self._reports_in(reports)

    def _reports_in(self, reports: _Reports) -> None:
        self._reports.remove(reports)
        if reports.timer is not None:
            reports.timer.cancel()
        reports.then()

    # ---- the end

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            return
        self._stopping = True
        log.info("%s: stopping", number.name)
        for door in self._doors:
            door.close()
        self._inventory.stop()
        if number == signal.SIGUSR1:
            for which in self._children.values():
                if which.child is not None:
                    which.child.forget()
            self.loop.stop()
            return
        end = control.End(
            code=CloseCode.UNAVAILABLE, reason="The console service on the host was stopped."
        )
        for which in self._children.values():
            self._tell(which, end)
        self.loop.after(STOP, self._kill_all)
        if not self._children:
            self._stopped()

    def _kill_all(self) -> None:
        for which in self._children.values():
            log.error("relay of %s does not end; killed", names.shown(which.guest))
            if which.child is not None:
                which.child.kill()

    def _stopped(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._config.paths.relays)
        self.loop.stop()


class _Inventory:
    """The supervisor's side of the inventory: forked when asked, ended when it does not answer."""

    def __init__(self, loop: Loop, config: Config) -> None:
        self._loop = loop
        self._config = config
        self._child: Child | None = None
        self._asked: dict[int, _Question] = {}
        self._last = 0

    def ask(
        self,
        question: Callable[..., control.ToInventory],
        answered: Callable[[list[GuestInfo]], None],
        failed: Callable[[ConsoleError], None],
    ) -> None:
        """Ask something; one of the two callbacks follows, at the latest after ANSWER."""
        if self._child is None:
            pid, channel = fork(functools.partial(inventory.main, self._config))
            self._child = Child(self._loop, pid, channel, self._on_line, self._on_end)
        self._last += 1
        timer = self._loop.after(ANSWER, self._child.kill)
        self._asked[self._last] = _Question(answered, failed, timer)
        self._child.send(control.encode(question(id=self._last)))

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.kill()

    def _on_line(self, line: bytes) -> None:
        message = _from_inventory.decode(line)
        question = self._asked.get(message.id)
        if question is None:
            return
        if isinstance(message, control.Found):
            if message.guest is not None:
                question.found.append(message.guest)
            if not message.last:
                return
        del self._asked[message.id]
        question.timer.cancel()
        if isinstance(message, control.Failed):
            question.failed(from_wire(message.code, message.message))
        else:
            question.answered(question.found)

    def _on_end(self, how: str) -> None:
        log.warning("the inventory %s", how)
        self._child = None
        asked, self._asked = self._asked, {}
        for question in asked.values():
            question.timer.cancel()
            question.failed(
                LibvirtUnavailable("libvirt on this host does not answer; see its log, try again")
            )


@dataclass
class _Question:
    answered: Callable[[list[GuestInfo]], None]
    failed: Callable[[ConsoleError], None]
    timer: Timer
    found: list[GuestInfo] = field(default_factory=list)


@dataclass
class _Reports:
    missing: set[str]
    then: Callable[[], None]
    timer: Timer | None = None


def _checked(request: control.Issue, default_ttl: int) -> int:
    """Check what the message's types cannot. Returns the token's life in seconds."""
    if request.mode not in ("rw", "ro"):
        raise BadRequest(f'mode is "{names.shown(request.mode)}"; it is "rw" or "ro"')
    ttl = default_ttl if request.ttl is None else request.ttl
    if not 1 <= ttl <= TTL_MAX:
        raise BadRequest(f"ttl is {ttl}; a token lives from 1 to {TTL_MAX} seconds")
    if len(request.user) > USER_MAX or not request.user.isprintable():
        raise BadRequest(f"user has to be at most {USER_MAX} printable characters")
    if request.replay is not None and request.replay < 0:
        raise BadRequest(f"replay is {request.replay}; it is a number of bytes, 0 for none")
    if request.takeover and request.mode == "ro":
        raise BadRequest("a watcher (mode ro) takes nothing over; leave takeover out")
    if request.escape is not None:
        try:
            escape_byte(request.escape)
        except ConsoleError as error:
            raise BadRequest(str(error)) from None
    return ttl


def _greeting(path: str) -> tuple[Channel, control.Adopt, bytes] | None:
    """Ask a relay that was there before us who it is; None if it is dead, or no relay."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(ADOPTION)
        sock.connect(path)
        line = sock.makefile("rb", buffering=0).readline(control.LISTING_MAX)
        greeting = _from_relay.decode(line)
        if not isinstance(greeting, control.Adopt):
            raise Forbidden("no greeting")
        return Channel(sock), greeting, line
    except ConnectionRefusedError:
        sock.close()
        with contextlib.suppress(ConsoleError):
            remove_stale(path)
    except (OSError, ConsoleError) as error:
        sock.close()
        log.warning("cannot adopt %s: %s", path, error)
    return None


def _described(session: _Session) -> dict[str, Any]:
    info = msgspec.to_builtins(session.info)
    del info["gateway_uid"]
    figures = msgspec.to_builtins(session.figures)
    del figures["session"]
    child = session.relay.child
    return {**info, **figures, "relay_pid": child.pid if child else 0}


def _no_figures(session: str) -> ClientInfo:
    return ClientInfo(
        session=session, state="starting", idle=0.0, bytes_in=0, bytes_out=0, skipped=0
    )


def _page(key: str, items: list[dict[str, Any]], cursor: str) -> dict[str, Any]:
    """Cut a listing so that its line stays under LISTING_MAX."""
    room = control.LISTING_MAX - 1024
    for count, item in enumerate(items):
        room -= len(msgspec.json.encode(item)) + 1
        if room < 0 and count:
            return {key: items[:count], "next": items[count - 1][cursor]}
    return {key: items, "next": ""}


def _shown(grant: Grant) -> str:
    return f"{names.shown(grant.guest)} {grant.console} ({grant.mode})"


def _log_opened(session: _Session) -> None:
    info = session.info
    log.info(
        "session %s opened: %s %s (%s), user %s, client %s",
        info.id,
        names.shown(info.guest),
        info.console,
        info.mode,
        names.shown(info.user) or "-",
        names.shown(info.client) or "-",
    )


def _log_closed(session: _Session, code: int, reason: str) -> None:
    figures = session.figures
    level = logging.ERROR if code == CloseCode.RELAY_LOST else logging.INFO
    log.log(
        level,
        "session %s closed: %d %s; %d bytes in, %d out, %d skipped",
        session.info.id,
        code,
        reason,
        figures.bytes_in,
        figures.bytes_out,
        figures.skipped,
    )
