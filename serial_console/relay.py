"""A relay: the process that holds one console stream and serves its clients.

Forked by the supervisor; talks to it over a channel, and when it is gone lives on and waits on a
socket of its own for the next one.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from dataclasses import dataclass

from . import __version__, consoles, control, guest
from . import log as logs
from .channel import Channel, Peer
from .clients import CONNECT, Clients
from .config import Config
from .control import State
from .errors import CloseCode, ConsoleError, Unavailable, os_reason
from .guestconsole import GuestConsole
from .listener import Listener
from .pump import Pump

log = logging.getLogger("relay")

BUSY = 2.0
"""Seconds that a new relay waits for a console which another program holds, before it refuses: as
long as a stream that was just closed may take to be gone."""
LAST_WORDS = 1.0
"""Seconds at most for telling the supervisor how the last session ended."""
PREDECESSORS = 10.0
"""Seconds at most that a new relay waits for an ending one to leave its socket: as long as the
supervisor gives it to become ready."""
DRAIN = (0.001, 0.05)
"""First and longest pause in seconds between two looks whether libvirtd has read the last packet;
no event tells it."""

RESPITE = 0.2
"""Seconds before the next accept when the kernel had no descriptor for us."""

_decoder = control.Decoder(control.ToRelay, others=True)


@dataclass(frozen=True)
class Spec:
    """What a relay is for. ``alias`` None: the guest's first console, named ``console``.
    ``predecessors``: the pids of relays that are ending and may still listen at ``path``."""

    id: str
    guest: str
    uuid: str
    console: str
    alias: str | None
    path: str
    predecessors: tuple[int, ...] = ()


def main(spec: Spec, config: Config, channel: socket.socket) -> int:
    """Be the relay of one console until its last client is gone. Returns the exit status."""
    return _Relay(spec, config, channel).run()


class _Relay:
    def __init__(self, spec: Spec, config: Config, channel: socket.socket) -> None:
        self._spec = spec
        self._config = config
        self._channel: Channel | None = None
        self._ready = False
        self._done = False
        self._departing = False
        self._told_to_end = False
        self._waits = config.session.on_guest_stop == "wait"
        guest.silence()
        self._loop = guest.event_loop()
        limits = config.session
        self._pump = Pump(limits.replay, limits.backlog, limits.idle_timeout, limits.max_session)
        self._console = GuestConsole(
            self._loop,
            config.libvirt.uri,
            spec.uuid,
            spec.alias,
            on_output=lambda data: self._pump.output(data, time.monotonic()),
            on_state=self._on_state,
            on_gone=lambda text: self._clients.end_all(CloseCode.GONE, text),
            private=(config.paths.consoles, config.paths.control, config.paths.api),
        )
        self._clients = Clients(self._loop, spec.id, self._pump, self._tell, self._depart)
        self._drain_at: float | None = None  # when to look again whether input can be sent
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
            _await_ends(self._spec.predecessors)
            self._listener = Listener(self._spec.path)
            self._adoption = Listener(
                os.path.join(self._config.paths.relays, self._spec.id + ".sock"), mode=0o600
            )
            self._loop.watch(self._listener.sock.fileno(), select.POLLIN, self._on_client)
            self._loop.watch(self._adoption.sock.fileno(), select.POLLIN, self._on_supervisor)
            self._console.start()
            while not self._done:
                now = time.monotonic()
                self._settle(now)
                if not self._done:
                    self._loop.run_once(
                        self._deadline(), self._pump.rest(now, self._console.gather)
                    )
        except ConsoleError as error:
            self._clients.close_all(error.close, "The console was lost; connect again.")
            self._tell(control.Failed(code=error.code, message=str(error)))
            return error.exit
        finally:
            self._leave()
        return 0

    # ---- what comes in

    def _on_state(self, state: State, text: str) -> None:
        now = time.monotonic()
        how = text
        if self._pump.state is State.RECONNECTING and state is not State.RECONNECTING:
            self._tell(control.Reconnected())
        if state is State.WAITING:
            text = f"{how}; waiting for its start." if how and self._waits else ""
        self._pump.set_state(state, text, now)
        if not self._ready:
            if state is State.BUSY:
                self._unused.set(BUSY)
            else:
                self._become_ready()
        elif state is State.WAITING and not self._waits:
            self._clients.end_all(CloseCode.ENDED, f"{how or 'The guest has stopped'}.")

    def _become_ready(self) -> None:
        self._ready = True
        self._tell(control.Ready())
        if self._channel is not None:
            self._use_channel(self._channel)
        self._unused.set(CONNECT)

    def _on_unused(self) -> None:
        if not self._ready:
            raise consoles.held_by_another()
        self._depart()

    def _on_signal(self, wake: int) -> None:
        os.read(wake, 64)
        self._end(CloseCode.UNAVAILABLE, "The console service on the host was stopped.")

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
                        self._clients.refuse(message, error)
                        return
                    back = Channel(socket.socket(fileno=fd), control.REQUEST_MAX)
                self._unused.set(None)
                self._clients.expect(message, back)
            case control.End():
                if message.session is None:
                    self._end(message.code, message.reason)
                else:
                    self._clients.end(message.session, message.code, message.reason)
            case control.Query():
                self._tell(self._clients.report(time.monotonic()))

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
                    sessions=self._clients.sessions(),
                    version=__version__,
                )
            )

    def _on_client(self, _events: int) -> None:
        while (accepted := self._accept(self._listener)) is not None:
            self._clients.connect(*accepted, wait=self._waits)

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

    # ---- what goes out

    def _settle(self, now: float) -> None:
        """Bring everything outside in line with the pump; runs after every round of events."""
        self._pump.tick(now)
        self._to_guest(now)
        self._clients.settle(now)

    def _deadline(self) -> float | None:
        """Return when _settle is to run though nothing has happened, or None."""
        due = (self._pump.deadline(), self._clients.deadline(), self._drain_at)
        return min((one for one in due if one is not None), default=None)

    def _to_guest(self, now: float) -> None:
        self._drain_at = None
        while packet := self._pump.to_guest():
            if not self._console.writable:
                self._drain_at = now + self._pause
                self._pause = min(self._pause * 2, DRAIN[1])
                return
            count = self._console.send(packet)
            if not count:
                self._drain_at = now + DRAIN[1]
                return
            self._pump.sent(count, now)
        self._pause = DRAIN[0]

    # ---- ends

    def _end(self, code: int, reason: str) -> None:
        """End, as we were told to, when every client has been told."""
        self._told_to_end = True
        self._clients.end_all(code, reason)
        self._done = self._done or not self._clients

    def _depart(self) -> None:
        """End with the last client, once the console can be closed and is free then. Until that
        time, whoever comes is served."""
        if self._clients:
            return
        if self._told_to_end:
            self._done = True
        elif not self._departing:
            self._departing = True
            self._console.when_settled(self._on_settled)

    def _on_settled(self) -> None:
        self._departing = False
        self._done = self._done or not self._clients

    # ---- the supervisor

    def _tell(self, message: control.FromRelay) -> None:
        if self._channel is not None:
            self._channel.send(control.encode(message))
        if (self._channel is None or self._channel.broken) and isinstance(message, control.Closed):
            session = message.client.session
            log.info(
                "session %s closed, no supervisor: %d %s",
                session,
                message.code,
                message.reason,
                extra=logs.fields(
                    event="session_closed",
                    session=session,
                    code=message.code,
                    reason=message.reason,
                ),
            )

    def _use_channel(self, channel: Channel) -> None:
        """Hear the supervisor there, once we are ready; what it says before waits in the kernel."""
        self._channel = channel
        if self._ready:
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


def _await_ends(pids: tuple[int, ...]) -> None:
    """Return when these processes have ended, or have had ``PREDECESSORS`` to do so."""
    end = time.monotonic() + PREDECESSORS
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue  # gone
        select.select([pidfd], [], [], max(0.0, end - time.monotonic()))
        os.close(pidfd)


def _signals() -> int:
    """Let SIGTERM wake the loop, leave SIGINT to the supervisor. Returns the fd to watch."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return read
