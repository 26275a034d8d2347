"""A relay: the process that holds one console stream and serves its clients.

Forked by the supervisor; talks to it over a channel, and when it is gone lives on and waits on a
socket of its own for the next one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from dataclasses import dataclass

from . import consoles, control, guest, names
from .channel import Channel, Peer
from .config import Config
from .control import State
from .errors import CloseCode, ConsoleError, Unavailable, os_reason
from .listener import Listener
from .pump import Finish, Pump

log = logging.getLogger("relay")

CONNECT = 10.0
"""Seconds from a redeemed token to the client's connection, after which it is released."""
BUSY = 2.0
"""Seconds that a new relay waits for a console which another program holds, before it refuses: as
long as a stream that was just closed may take to be gone."""
LAST_WORDS = 1.0
"""Seconds at most for telling the supervisor how the last session ended."""
REPLACED = 1.0
"""Seconds that the gateway of a client which came back elsewhere has to say what it had not
delivered."""
LAST_OUTPUT = 1.0
"""Seconds at most for a client whose session ends to take what the guest printed before."""
DRAIN = (0.001, 0.05)
"""First and longest pause in seconds between two looks whether libvirtd has read the last packet;
no event tells it."""

RESPITE = 0.2
"""Seconds before the next accept when the kernel had no descriptor for us."""

_decoder = control.Decoder(control.ToRelay)
_from_gateway = control.Decoder(control.FromGateway)


@dataclass(frozen=True)
class Spec:
    """What a relay is for. ``alias`` None: the guest's first console, named ``console``."""

    id: str
    guest: str
    uuid: str
    console: str
    alias: str | None
    path: str


@dataclass
class _Client:
    admit: control.Admit
    back: Channel | None
    # To connect, or to come back; once it is ``ending``: to take what it is still to be shown.
    deadline: float
    sock: socket.socket | None = None
    opened: bool = False  # the pump knows it
    successor: tuple[control.Admit, Channel | None] | None = None  # replaces its connection
    full: bool = False  # its socket took nothing the last time
    ending: Finish | None = None

    @property
    def id(self) -> str:
        return self.admit.session.id


def main(spec: Spec, config: Config, channel: socket.socket) -> int:
    """Be the relay of one console until its last client is gone. Returns the exit status."""
    return _Relay(spec, config, channel).run()


class _Relay:
    def __init__(self, spec: Spec, config: Config, channel: socket.socket) -> None:
        self._spec = spec
        self._config = config
        self._channel: Channel | None = None
        self._clients: dict[str, _Client] = {}
        self._ready = False
        self._done = False
        self._departing = False
        guest.silence()
        self._loop = guest.EventLoop()
        limits = config.session
        self._pump = Pump(limits.replay, limits.backlog, limits.idle_timeout, limits.max_session)
        self._console = guest.GuestConsole(
            self._loop,
            config.libvirt.uri,
            spec.uuid,
            spec.alias,
            on_output=lambda data: self._pump.output(data, time.monotonic()),
            on_state=self._on_state,
            on_gone=lambda text: self._end_all(CloseCode.GONE, text),
        )
        self._tick = self._loop.timer(lambda: None)  # what it is for, _settle does
        self._drain = self._loop.timer(lambda: None)
        self._unused = self._loop.timer(self._on_unused)
        self._respite = self._loop.timer(self._rested)
        self._pause = DRAIN[0]
        self._listener: Listener | None = None
        self._adoption: Listener | None = None
        self._use_channel(Channel(channel, fds=True))

    def run(self) -> int:
        wake = _signals()
        self._loop.watch(wake, select.POLLIN, lambda _events: self._on_signal(wake))
        try:
            self._listener = Listener(self._spec.path)
            self._adoption = Listener(
                os.path.join(self._config.paths.relays, self._spec.id + ".sock"), mode=0o600
            )
            self._loop.watch(self._listener.sock.fileno(), select.POLLIN, self._on_client)
            self._loop.watch(self._adoption.sock.fileno(), select.POLLIN, self._on_supervisor)
            self._console.start()
            while not self._done:
                self._settle()
                if not self._done:
                    self._loop.run_once(rest=self._pump.throttled)
        except ConsoleError as error:
            for client in list(self._clients.values()):
                self._close(client, error.close, "The console was lost; connect again.")
            self._tell(control.Failed(code=error.code, message=str(error)))
            return error.exit
        finally:
            self._leave()
        return 0

    # ---- what comes in

    def _on_state(self, state: State, text: str) -> None:
        now = time.monotonic()
        waits = self._config.session.on_guest_stop == "wait"
        how = text
        if state is State.WAITING:
            text = f"{how}; waiting for its start." if how and waits else ""
        self._pump.set_state(state, text, now)
        if not self._ready:
            if state is State.BUSY:
                self._unused.set(BUSY)
            else:
                self._become_ready()
        elif state is State.WAITING and not waits:
            self._end_all(CloseCode.ENDED, f"{how or 'The guest has stopped'}.")

    def _become_ready(self) -> None:
        self._ready = True
        self._tell(control.Ready())
        self._unused.set(CONNECT)

    def _on_unused(self) -> None:
        if not self._ready:
            raise consoles.held_by_another()
        self._depart()

    def _on_signal(self, wake: int) -> None:
        os.read(wake, 64)
        self._end_all(CloseCode.UNAVAILABLE, "The console service on the host was stopped.")
        self._done = self._done or not self._clients

    def _on_channel(self, _events: int) -> None:
        channel = self._channel
        if channel is None:
            return
        channel.flush()
        try:
            for line in channel.receive():
                self._on_message(_decoder.decode(line), channel)
        except ConsoleError as error:
            log.error("the supervisor sent what is not understood: %s", error)
            channel.broken = True
        if channel.ended:
            self._drop_channel()
            self._depart()

    def _on_message(self, message: control.ToRelay, channel: Channel) -> None:
        match message:
            case control.Admit() if self._done:
                pass  # too late: the supervisor sees us end and forks another for this client
            case control.Admit():
                back = None
                if message.events:
                    try:
                        fd = channel.take_fd()
                    except Unavailable as error:
                        self._refuse(message, error)
                        return
                    back = Channel(socket.socket(fileno=fd), control.REQUEST_MAX)
                self._expect(message, back)
            case control.End():
                code = CloseCode(message.code)
                if message.session is None:
                    self._end_all(code, message.reason)
                    self._done = self._done or not self._clients
                elif message.session in self._clients:
                    self._end(self._clients[message.session], code, message.reason)
            case control.Query():
                now = time.monotonic()
                opened = [one.id for one in self._clients.values() if one.opened]
                self._tell(control.Report(clients=[self._pump.info(one, now) for one in opened]))

    def _expect(self, admit: control.Admit, back: Channel | None) -> None:
        self._unused.set(None)
        client = self._clients.get(admit.session.id)
        if client is None:
            client = _Client(admit, back, time.monotonic() + CONNECT)
            self._clients[client.id] = client
            self._watch_back(client)
            self._tell(control.Admitted(session=client.id))
            return
        if client.successor is not None and client.successor[1] is not None:
            client.successor[1].close()
        client.successor = admit, back
        if client.sock is None:
            self._succeed(client)
            return
        self._let_go(client)
        client.deadline = time.monotonic() + REPLACED
        if client.back is None:
            self._succeed(client)
        else:  # its gateway now says what it had not delivered
            reason = "You have come back on another connection."
            client.back.send(control.encode(control.End(code=CloseCode.TAKEN_OVER, reason=reason)))

    def _succeed(self, client: _Client) -> None:
        """Have a client that comes back replace its former connection."""
        if client.successor is None:
            return
        self._drop_back(client)
        (client.admit, client.back), client.successor = client.successor, None
        client.deadline = time.monotonic() + max(CONNECT, _grace(client))
        self._watch_back(client)
        self._tell(control.Admitted(session=client.id))

    def _watch_back(self, client: _Client) -> None:
        if client.back is not None:
            fd = client.back.fileno()
            self._loop.watch(fd, select.POLLIN, lambda _events: self._on_back(client))

    def _drop_back(self, client: _Client) -> None:
        if client.back is not None:
            self._loop.forget(client.back.fileno())
            client.back.close()
            client.back = None

    def _on_back(self, client: _Client) -> None:
        """The gateway says how its client takes output."""
        back = client.back
        if back is None:
            return
        try:
            for line in back.receive():
                match _from_gateway.decode(line):
                    case control.Taking() as message if client.opened:
                        self._pump.taking(client.id, message.pause, time.monotonic())
                    case control.Undelivered() as message if client.opened:
                        self._pump.missed(client.id, max(0, message.bytes))
        except ConsoleError as error:
            log.warning("a gateway sent what is not understood: %s", error)
            back.broken = True
        if back.ended:
            self._drop_back(client)
            self._succeed(client)

    def _refuse(self, admit: control.Admit, error: ConsoleError) -> None:
        client = self._clients.get(admit.session.id)
        if client is not None:  # it came back, and its gateway could not be told why it may not
            self._close(client, error.close, str(error))
            return
        figures = _nothing(admit.session.id)
        self._tell(control.Closed(code=error.close, reason=str(error), client=figures))

    def _on_supervisor(self, _events: int) -> None:
        """A new supervisor adopts this relay."""
        while (accepted := self._accept(self._adoption)) is not None:
            sock, peer = accepted
            if peer.uid not in (0, os.geteuid()):
                log.warning("uid %d may not adopt this relay", peer.uid)
                sock.close()
                continue
            self._drop_channel()
            self._use_channel(Channel(sock, fds=True))
            self._tell(
                control.Adopt(
                    guest=self._spec.guest,
                    uuid=self._spec.uuid,
                    console=self._spec.console,
                    path=self._spec.path,
                    sessions=[one.admit.session for one in self._clients.values()],
                )
            )

    def _on_client(self, _events: int) -> None:
        while (accepted := self._accept(self._listener)) is not None:
            sock, peer = accepted
            client = next((one for one in self._clients.values() if _expects(one, peer)), None)
            if client is None:
                log.warning("refused a connection of pid %d, uid %d: no token", peer.pid, peer.uid)
                sock.close()
                continue
            self._connect(client, sock)

    def _accept(self, listener: Listener | None) -> tuple[socket.socket, Peer] | None:
        """Return who connected. Where no descriptor is left for them they wait: no session ends."""
        if listener is None:
            return None
        try:
            return listener.accept()
        except OSError as error:
            log.error("cannot accept a connection: %s", os_reason(error))
            self._loop.want(listener.sock.fileno(), 0)
            self._respite.set(RESPITE)
            return None

    def _rested(self) -> None:
        for listener in (self._listener, self._adoption):
            if listener is not None:
                self._loop.want(listener.sock.fileno(), select.POLLIN)

    def _connect(self, client: _Client, sock: socket.socket) -> None:
        now = time.monotonic()
        sock.setblocking(False)
        client.sock = sock
        client.full = False
        if client.opened:
            self._pump.come_back(client.id, now)
        else:
            self._take_on(client, now)
        self._loop.watch(sock.fileno(), select.POLLIN, lambda events: self._on_io(client, events))
        self._tell(control.Opened(session=client.id, again=client.opened))
        client.opened = True

    def _take_on(self, client: _Client, now: float) -> None:
        admit = client.admit
        if admit.takeover:
            by = names.shown(admit.session.user) or "another user"
            for other in list(self._clients.values()):
                if other is not client and other.admit.session.mode == "rw":
                    reason = f"{by} has taken over this console."
                    self._end(other, CloseCode.TAKEN_OVER, reason)
        self._pump.attach(
            client.id,
            mode=admit.session.mode,
            notices=admit.notices,
            escape=admit.escape.encode("latin-1"),
            replay=admit.replay,
            resumable=admit.session.resume is not None,
            now=now,
        )
        if self._pump.state is State.WAITING and self._config.session.on_guest_stop == "close":
            self._pump.finish(client.id, CloseCode.ENDED, "The guest is off.", now)

    def _on_io(self, client: _Client, events: int) -> None:
        sock = client.sock
        if sock is None:
            return
        if events & select.POLLOUT:
            client.full = False
        if events & select.POLLIN and self._pump.wants_input(client.id):
            try:
                data = sock.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if data:
                self._pump.input(client.id, data, time.monotonic())
                return
            self._gone(client)
        elif events & (select.POLLHUP | select.POLLERR):
            self._gone(client)

    # ---- what goes out

    def _settle(self) -> None:
        """Bring everything outside in line with the pump; runs after every round of events."""
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.sock is None and now >= client.deadline:
                if client.successor is not None:
                    self._succeed(client)
                elif client.opened:
                    self._close(client, CloseCode.ENDED, "The client did not come back in time.")
                else:
                    reason = "The token's holder did not connect in time."
                    self._close(client, CloseCode.ENDED, reason)
        self._pump.tick(now)
        self._to_guest(now)
        self._carry_out(now)
        for client in list(self._clients.values()):
            self._to_client(client, now)
        self._carry_out(now)
        for client in list(self._clients.values()):
            end = client.ending
            if end and (now >= client.deadline or not self._pump.has_output(client.id)):
                self._close(client, end.code, end.reason)
        due = [one.deadline for one in self._clients.values() if not one.sock or one.ending]
        deadline = self._pump.deadline()
        if deadline is not None:
            due.append(deadline)
        self._tick.set(max(0.0, min(due) - now) if due else None)
        for client in self._clients.values():
            if client.sock is not None:
                events = select.POLLIN if self._pump.wants_input(client.id) else 0
                events |= select.POLLOUT if client.full else 0
                self._loop.want(client.sock.fileno(), events)

    def _to_guest(self, now: float) -> None:
        while packet := self._pump.to_guest():
            if not self._console.writable:
                self._drain.set(self._pause)
                self._pause = min(self._pause * 2, DRAIN[1])
                return
            count = self._console.send(packet)
            if not count:
                self._drain.set(DRAIN[1])
                return
            self._pump.sent(count, now)
        self._pause = DRAIN[0]
        self._drain.set(None)

    def _to_client(self, client: _Client, now: float) -> None:
        while client.sock and not client.full and self._pump.has_output(client.id):
            try:
                with self._pump.to_client(client.id) as waiting:
                    count = client.sock.send(waiting)
            except (BlockingIOError, InterruptedError):
                client.full = True
                return
            except OSError:
                self._gone(client)
                return
            self._pump.took(client.id, count, now)

    def _carry_out(self, now: float) -> None:
        for intent in self._pump.intents():
            client = self._clients.get(intent.client)
            if client is None:
                continue
            if isinstance(intent, Finish):
                client.ending = intent
                client.deadline = now + LAST_OUTPUT
            elif client.back is not None:
                client.back.send(control.encode(intent.event))

    # ---- ends

    def _end_all(self, code: CloseCode, reason: str) -> None:
        for client in list(self._clients.values()):
            self._end(client, code, reason)

    def _end(self, client: _Client, code: CloseCode, reason: str) -> None:
        if client.sock is None:
            self._close(client, code, reason)
        else:
            self._pump.finish(client.id, code, reason, time.monotonic())

    def _gone(self, client: _Client) -> None:
        """Its connection has ended: so has the session, unless the client may come back."""
        self._to_guest(time.monotonic())  # its last words, if the guest takes them at once
        if client.ending or not _grace(client):
            self._close(client, CloseCode.ENDED, "The client is gone.")
            return
        self._let_go(client)
        self._on_back(client)  # what was not delivered
        self._drop_back(client)
        client.deadline = time.monotonic() + _grace(client)

    def _let_go(self, client: _Client) -> None:
        if client.sock is not None:
            self._loop.forget(client.sock.fileno())
            _close_read(client.sock)
            client.sock = None
            self._pump.leave(client.id)

    def _close(self, client: _Client, code: CloseCode, reason: str) -> None:
        del self._clients[client.id]
        self._let_go(client)
        if client.back is not None:
            client.back.send(control.encode(control.End(code=code, reason=reason)))
        self._drop_back(client)
        if client.successor is not None and client.successor[1] is not None:
            client.successor[1].send(control.encode(control.End(code=code, reason=reason)))
            client.successor[1].close()
        figures = self._pump.detach(client.id) if client.opened else _nothing(client.id)
        if self._channel is None:
            log.info("session %s closed, no supervisor: %d %s", client.id, code, reason)
        self._tell(control.Closed(code=code, reason=reason, client=figures))
        self._depart()

    def _depart(self) -> None:
        """End with the last client, once the console can be closed and is free then. Until that
        time, whoever comes is served."""
        if not self._clients and not self._departing:
            self._departing = True
            self._console.when_settled(self._on_settled)

    def _on_settled(self) -> None:
        self._departing = False
        self._done = self._done or not self._clients

    # ---- the supervisor

    def _tell(self, message: control.FromRelay) -> None:
        if self._channel is not None:
            self._channel.send(control.encode(message))

    def _use_channel(self, channel: Channel) -> None:
        self._channel = channel
        self._loop.watch(channel.fileno(), select.POLLIN, self._on_channel)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _leave(self) -> None:
        for listener in (self._listener, self._adoption):
            if listener is not None:
                listener.close()
        channel = self._channel
        end = time.monotonic() + LAST_WORDS
        while channel and channel.pending and not channel.ended and time.monotonic() < end:
            select.select([], [channel], [], end - time.monotonic())
            channel.flush()
        self._console.close()


def _expects(client: _Client, peer: Peer) -> bool:
    session = client.admit.session
    expected = (session.gateway_pid, session.gateway_uid)
    return client.sock is None and expected == (peer.pid, peer.uid)


def _grace(client: _Client) -> int:
    """Seconds that a client has to come back."""
    resume = client.admit.session.resume
    return resume.seconds if resume else 0


def _nothing(session: str) -> control.ClientInfo:
    """Return the figures of a client that never connected."""
    return control.ClientInfo(session=session, state="", idle=0, bytes_in=0, bytes_out=0, skipped=0)


def _close_read(sock: socket.socket) -> None:
    """Close a socket after reading what nobody will read: else its peer would get ECONNRESET."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
        while sock.recv(65536):
            pass
    sock.close()


def _signals() -> int:
    """Let SIGTERM wake the loop, leave SIGINT to the supervisor. Returns the fd to watch."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return read
