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
import time

from . import control, names, relay, sd
from . import log as logs
from .admin import Admin
from .adoption import Adoption
from .audit import Audit
from .channel import Channel, peer_of
from .child import Child, fork
from .control import SessionInfo
from .door import Caller, Door
from .errors import (
    BadToken,
    CloseCode,
    Closed,
    ConsoleError,
    LibvirtUnavailable,
    NoSuchGuest,
    RelayLost,
    Unavailable,
    for_the_person,
    from_wire,
)
from .figures import Figures
from .inventory import Inventory
from .listener import make_directory, remove_stale
from .loop import Loop
from .reload import Current
from .sessions import Admission, Relay, Session, SessionTable, ended_at
from .tally import Tally
from .tokens import BAD, Grant, MemoryStore, digest

log = logging.getLogger("supervisor")

ADMISSION = 10.0
"""Seconds from a redeem to its answer; a relay that is not ready then is ended."""
OBEY = 3.0
"""Seconds that a relay has to end a session."""
STOP = 4.0
"""Seconds that relays have to end their sessions at SIGTERM."""
ADOPTION = 2.0
"""Seconds that relays of the supervisor before have to greet us before we serve."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_REFUSALS: dict[int, type[ConsoleError]] = {
    CloseCode.GONE: NoSuchGuest,
    CloseCode.UNAVAILABLE: Unavailable,
}
_from_relay = control.Decoder(control.FromRelay, others=True)


def serve(current: Current) -> int:
    """Run the supervisor until SIGTERM, SIGINT or SIGUSR1. Returns the exit status.

    Raises:
        SetupError: a directory or a socket cannot be had.
    """
    log_settings = current.config.log
    logs.start(log_settings.level, log_settings.format)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # two descriptors a relay
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    supervisor = _Supervisor(current)
    gc.collect()
    gc.freeze()  # relays share these pages
    supervisor.start()
    logs.ready()
    sd.notify("READY=1")
    supervisor.ping()
    supervisor.loop.run()
    return 0


class _Supervisor:
    def __init__(self, current: Current) -> None:
        self.loop = Loop()
        self._current = current
        config = current.config
        self._tokens = MemoryStore(config.limits.tokens)
        self._inventory = Inventory(self.loop, config)
        self._table = SessionTable(config.limits)
        self._tally = Tally()
        self._audit = Audit(config.log.audit, self._tally)
        self._relays: dict[tuple[str, str], Relay] = {}
        self._children: dict[str, Relay] = {}
        self._figures = Figures(self.loop, self._children)
        self._admin = Admin(
            current,
            self._tokens,
            self._table,
            self._inventory,
            self._audit,
            self._end,
            self._figures.bring,
            functools.partial(self._tally.totals, self._children, self._table),
        )
        self._doors: list[Door] = []
        self._watchdog = sd.Watchdog()
        self._stopping = False

    def start(self) -> None:
        paths = self._current.config.paths
        inherited = sd.Inherited()
        # Who may connect to a relay is in this directory's group; its sockets get that group.
        make_directory(paths.consoles, 0o2710)
        make_directory(paths.control, 0o711)
        make_directory(paths.relays, 0o700)
        with contextlib.ExitStack() as doors:
            for path, union, handler in (
                (paths.redeem, control.Redeeming, self._on_redeem),
                (paths.admin, control.Administering, self._admin.handle),
            ):
                door = Door(self.loop, path, union, handler, inherited.unix(path))
                doors.callback(door.close)
                self._doors.append(door)
            inherited.finish()
            doors.pop_all()
        self.loop.on_signals(SIGNALS, self._on_signal)
        self._adopt()
        self._audit.started(paths.control, len(self._table))

    def ping(self) -> None:
        """Tell the watchdog, now and from the loop, that the loop runs."""
        seconds = self._watchdog.ping(f"STATUS={len(self._table)} sessions")
        if seconds is not None:
            self.loop.after(seconds, self.ping)

    # ---- redeem.sock

    def _on_redeem(self, request: control.Redeem, caller: Caller) -> None:
        try:
            back = self._table.resumable(digest(request.token).hex(), request.client)
            if back is not None:
                self._resume(back, request, caller)
                return
            grant = self._tokens.reserve(request.token)
        except BadToken as error:
            self._audit.refused(error, request.client, None, *self._tokens.fate(request.token))
            raise
        try:
            after = ended_at(request.after)
            own = self._table.own(grant, after.session) if after is not None else ""
            self._table.check(grant, request.client, own)
            session = self._new_session(grant, request, caller, own)
        except ConsoleError as error:
            self._tokens.release(grant)
            self._audit.refused(error, request.client, grant, grant.id)
            raise
        caller.on_gone = functools.partial(self._abandon, session)

    def _resume(self, session: Session, request: control.Redeem, caller: Caller) -> None:
        """A session's own client comes back."""
        if session.admission is not None:
            raise BadToken(BAD)
        session.info.client = request.client
        session.info.gateway_pid, session.info.gateway_uid = caller.peer.pid, caller.peer.uid
        session.admission = self._admission(session, None, request, caller, own="")
        self._admit(session)
        caller.on_gone = functools.partial(self._abandon, session)

    def _admission(
        self,
        session: Session,
        grant: Grant | None,
        request: control.Redeem,
        caller: Caller,
        own: str,
    ) -> Admission:
        if request.version:
            self._admin.gateway = request.version
        late = LibvirtUnavailable(
            "libvirt on the host did not open the console in time; try again in a while."
        )
        timer = self.loop.after(ADMISSION, lambda: self._late(session, late))
        shows_events = request.events and request.shows_events
        after = ended_at(request.after) if shows_events else None
        return Admission(grant, caller, request.events, shows_events, after, own, timer)

    def _new_session(
        self, grant: Grant, request: control.Redeem, caller: Caller, own: str
    ) -> Session:
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
            key=grant.key,
        )
        if grant.resume:
            info.resume = control.Resume(
                seconds=grant.resume,
                digest=digest(request.token).hex(),
                client_address=grant.client_address,
            )
        session = Session(info, relay)
        session.admission = self._admission(session, grant, request, caller, own)
        self._table.add(session)
        self._admit(session)  # a relay that is not ready takes it when it is
        return session

    def _relay_for(self, grant: Grant) -> Relay:
        key = (grant.uuid, grant.console)
        found = self._relays.get(key)
        if found is not None:
            return found
        directory = self._current.config.paths.consoles
        path = names.console_socket(directory, grant.guest, grant.uuid, grant.alias)
        if any(one.path == path and one.key != key for one in self._children.values()):
            # Of a guest that had this name, or that is named like this one's UUID.
            path = names.console_socket(directory, f"{grant.uuid}+", grant.uuid, grant.alias)
        ending = tuple(one.child.pid for one in self._children.values() if one.path == path)
        new = Relay(secrets.token_hex(8), grant.guest, grant.uuid, grant.console, path)
        spec = relay.Spec(new.id, grant.guest, grant.uuid, grant.console, grant.alias, path, ending)
        pid, channel = fork(functools.partial(relay.main, spec, self._current.config), "relay")
        self._take_on(new, pid, channel)
        return new

    def _take_on(self, new: Relay, pid: int, channel: Channel) -> None:
        new.child = Child(
            self.loop,
            pid,
            channel,
            on_line=functools.partial(self._on_relay, new),
            on_end=functools.partial(self._on_relay_end, new),
        )
        self._relays[new.key] = self._children[new.id] = new

    def _admit(self, session: Session) -> None:
        admission = session.admission
        if admission is None:
            return
        grant = admission.grant
        admit = control.Admit(
            session=session.info,
            events=admission.events,
            shows_events=admission.shows_events,
            after=admission.after,
            replaces=admission.replaces,
        )
        if grant is not None:
            admit.takeover, admit.notices = grant.takeover, grant.notices
            admit.replay, admit.escape = grant.replay, grant.escape
        fd = admission.caller.channel.fileno() if admission.events else None
        try:
            self._tell(session.relay, admit, fd)
        except ConsoleError as error:
            self._refuse(session, error)

    def _admitted(self, session: Session) -> None:
        admission = session.admission
        if admission is None:
            return
        try:
            if admission.grant is not None:
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
        self._audit.redeemed(session, again=admission.grant is None)
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

    def _refuse(self, session: Session, error: ConsoleError) -> None:
        """Answer a redeem that came to nothing; the token may be tried again."""
        admission, session.admission = session.admission, None
        if admission is not None:
            admission.timer.cancel()
            info = session.info
            self._audit.refused(error, info.client, info, info.token_id)
            admission.caller.refuse(error)
            if admission.grant is None:
                return  # the session it wanted to come back to goes on
            self._tokens.release(admission.grant)
        self._table.remove(session)
        self._end_unneeded(session.relay)

    def _late(self, session: Session, error: ConsoleError) -> None:
        if session.admission is not None and session.admission.grant is None:
            pass  # the session its client wanted to come back to goes on
        elif session.relay.ready:
            self._end(session, error.close, str(error))
        else:
            session.relay.child.kill()
        self._refuse(session, error)

    def _abandon(self, session: Session) -> None:
        """Whoever redeemed the token left before the answer."""
        admission = session.admission
        if admission is None:
            return
        session.admission = None
        admission.timer.cancel()
        if admission.grant is None:
            return  # the session waits on for its client
        self._tokens.release(admission.grant)
        self._end(session, CloseCode.ENDED, "The client is gone.")
        self._table.remove(session)
        self._end_unneeded(session.relay)

    def _end_unneeded(self, which: Relay) -> None:
        """A relay that nobody waits for any more need not go on waiting for libvirt."""
        if not which.ready and not which.sessions:
            self._retire(which)
            which.child.kill()

    # ---- relays

    def _on_relay(self, which: Relay, line: bytes) -> None:
        message = _from_relay.decode(line)
        match message:
            case control.Ready():
                which.ready = True
            case control.Failed():
                self._retire(which)
                error = from_wire(message.code, message.message)
                log.warning("the relay of %s ends: %s", names.shown(which.guest), error)
                for session in list(which.sessions.values()):
                    self._refuse(session, for_the_person(error))
            case control.Admitted() if message.session in which.sessions:
                self._admitted(which.sessions[message.session])
            case control.Opened() if message.session in which.sessions:
                self._audit.opened(which.sessions[message.session], message.again)
            case control.Closed() if message.client.session in which.sessions:
                session = which.sessions[message.client.session]
                self._tally.measured(session, message.client)
                taker = which.sessions.get(message.taker)
                self._audit.closed(session, message.code, message.reason, taker)
                kind = _REFUSALS.get(message.code, Closed)
                self._refuse(session, kind(message.reason))  # if it was not answered yet
                self._table.remove(session)
            case control.Report():
                for figures in message.clients:
                    if figures.session in which.sessions:
                        self._tally.measured(which.sessions[figures.session], figures)
                self._figures.reported(which)
            case control.Reconnected():
                self._tally.reconnected()
            case control.Adopt():
                which.ready = which.adopted = True
                for session in [Session(info, which, adopted=True) for info in message.sessions]:
                    self._table.add(session)
                    self._admin.adopted(session)

    def _on_relay_end(self, which: Relay, how: str) -> None:
        self._retire(which)
        del self._children[which.id]
        self._figures.reported(which)
        with contextlib.suppress(ConsoleError):
            if all(other.path != which.path for other in self._children.values()):
                remove_stale(which.path)
            remove_stale(os.path.join(self._current.config.paths.relays, which.id + ".sock"))
        for session in list(which.sessions.values()):
            admission = session.admission
            grant = admission.grant if admission is not None else None
            if admission is not None and grant is not None and which.ready and not self._stopping:
                self._try_again(session, grant)
                continue
            if admission is not None:
                self._refuse(session, RelayLost(f"The relay {how}; try again."))
            if grant is None:
                log.error("relay %d %s", which.child.pid, how)
                self._audit.closed(session, CloseCode.RELAY_LOST, f"relay {how}")
                self._table.remove(session)
        if self._stopping and not self._children:
            self._stopped()

    def _try_again(self, session: Session, grant: Grant) -> None:
        """The relay ended with its last client while this one was on its way to it."""
        del session.relay.sessions[session.info.id]
        try:
            session.relay = self._relay_for(grant)
        except ConsoleError as error:
            self._refuse(session, error)
            return
        session.relay.sessions[session.info.id] = session
        self._admit(session)

    def _retire(self, which: Relay) -> None:
        """Send it no new client: it is ending."""
        if self._relays.get(which.key) is which:
            del self._relays[which.key]

    def _end(self, session: Session, code: CloseCode, reason: str) -> None:
        """Have a session ended by its relay, or with its relay if that does not answer."""
        self._tell(session.relay, control.End(session=session.info.id, code=code, reason=reason))
        if session.relay.ready:
            self.loop.after(OBEY, lambda: self._insist(session))
        elif session.admission is not None:  # else it has been abandoned
            self._refuse(session, Closed(reason))

    def _insist(self, session: Session) -> None:
        if session.info.id in session.relay.sessions:
            log.error("relay %d does not end its session; killed", session.relay.child.pid)
            session.relay.child.kill()

    def _tell(self, which: Relay, message: control.ToRelay, fd: int | None = None) -> None:
        which.child.send(control.encode(message), fd)

    def _adopt(self) -> None:
        """Find the relays of the supervisor before us, and what dead ones left."""
        paths = self._current.config.paths
        Adoption(self.loop, paths.relays, self._greeted).wait(ADOPTION)
        alive = {one.path for one in self._relays.values()}
        for name in os.listdir(paths.consoles):
            path = os.path.join(paths.consoles, name)
            if path not in alive and name.endswith(".sock"):
                with contextlib.suppress(ConsoleError):
                    remove_stale(path)

    def _greeted(
        self, path: str, channel: Channel, greeting: control.Adopt, lines: list[bytes]
    ) -> None:
        which = Relay(
            os.path.basename(path).removesuffix(".sock"),
            greeting.guest,
            greeting.uuid,
            greeting.console,
            greeting.path,
            version=greeting.version,
        )
        try:
            self._take_on(which, peer_of(channel.sock).pid, channel)
        except ConsoleError as error:
            log.warning("cannot adopt %s: %s", path, error)
            return
        for line in lines:
            self._on_relay(which, line)

    # ---- the end

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            return
        if number == signal.SIGHUP:
            self._reload()
            return
        self._stopping = True
        self._audit.stopping(number.name)
        sd.notify("STOPPING=1")
        for door in self._doors:
            door.close()
        self._inventory.stop()
        if number == signal.SIGUSR1:
            for which in self._children.values():
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

    def _reload(self) -> None:
        """New tokens, sessions and relays have the new configuration; those that are, the old."""
        if self._current.hang_up():
            limits = self._current.config.limits
            self._tokens.limit = limits.tokens
            self._table.limits = limits

    def _kill_all(self) -> None:
        for which in self._children.values():
            log.error("relay of %s does not end; killed", names.shown(which.guest))
            which.child.kill()

    def _stopped(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._current.config.paths.relays)
        self.loop.stop()
