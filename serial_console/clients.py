"""The clients of one relay: expected, connected, gone for a while, ending."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import control, names
from .channel import Channel, Peer
from .config import escape_name
from .errors import CloseCode, ConsoleError
from .eventloop import EventLoop
from .pump import Finish, Pump, Start
from .usage import Memory, cpu

log = logging.getLogger("relay")

CONNECT = 10.0
"""Seconds from a redeemed token to the client's connection, after which it is released."""
REPLACED = 1.0
"""Seconds that the gateway of a client which came back elsewhere has to say what it delivered."""
LAST_OUTPUT = 1.0
"""Seconds at most for a client whose session ends to take what the guest printed before."""
LAST_INPUT = 1.0
"""Seconds at most for the guest to take what a client that has gone had typed before."""
COME_BACK = "You have come back on another connection."
REASON_MAX = 120
"""Characters of what a gateway says of a client's end."""

_from_gateway = control.Decoder(control.FromGateway, others=True)


@dataclass
class _Client:
    admit: control.Admit
    back: Channel | None
    # To connect, or to come back; once it is ``ending``: for last output or input.
    deadline: float
    invited: float  # until when its gateway may connect; 0 once it has
    sock: socket.socket | None = None
    opened: bool = False  # the pump knows it
    successor: tuple[control.Admit, Channel | None] | None = None  # replaces its connection
    full: bool = False  # its socket took nothing the last time
    gathered: float | None = None  # when it is given output that waits for more
    ending: Finish | None = None
    gone: str = "The client is gone."  # why, once its gateway has said so
    left: bool = False  # of its own will, though it might come back
    taker: str = ""  # the session that takes over

    @property
    def id(self) -> str:
        return self.admit.session.id

    @property
    def grace(self) -> int:
        """Seconds that it has to come back."""
        resume = self.admit.session.resume
        return resume.seconds if resume else 0

    def expects(self, peer: Peer) -> bool:
        """Whether it is this peer that may connect, once for each redeem: while a client is away,
        another process of the gateway may have been given the number of its former one."""
        session = self.admit.session
        expected = (session.gateway_pid, session.gateway_uid)
        invited = time.monotonic() < self.invited and not self.ending
        return invited and expected == (peer.pid, peer.uid)


class Clients:
    """Between the pump and the clients' sockets.

    Args:
        loop: the process's event loop.
        relay: the relay's id.
        pump: the relay's.
        tell: sends a message to the supervisor.
        on_empty: called when the last client has gone.
    """

    def __init__(
        self,
        loop: EventLoop,
        relay: str,
        pump: Pump,
        tell: Callable[[control.FromRelay], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._relay = relay
        self._pump = pump
        self._tell = tell
        self._on_empty = on_empty
        self._memory = Memory()
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def sessions(self) -> list[control.SessionInfo]:
        """Return every session."""
        return [one.admit.session for one in self._clients.values()]

    def report(self, now: float) -> control.Report:
        """Return the figures of those that have connected."""
        clients = [self._pump.info(one.id, now) for one in self._clients.values() if one.opened]
        for one in clients:
            one.cpu, one.memory = cpu(), self._memory.share(now)
        return control.Report(clients=clients)

    # ---- coming

    def expect(self, admit: control.Admit, back: Channel | None) -> None:
        """Let a client connect; one whose session is here comes back to it."""
        client = self._clients.get(admit.session.id)
        if client is None:
            until = time.monotonic() + CONNECT
            client = _Client(admit, back, deadline=until, invited=until)
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
        else:  # its gateway now says what it had delivered
            end = control.End(code=CloseCode.TAKEN_OVER, reason=COME_BACK)
            client.back.send(control.encode(end))

    def refuse(self, admit: control.Admit, error: ConsoleError) -> None:
        """Do not let a client connect, nor come back."""
        client = self._clients.get(admit.session.id)
        if client is not None:  # its gateway could not be told why it may not
            self._close(client, error.close, str(error))
            return
        figures = _nothing(admit.session.id)
        self._tell(control.Closed(code=error.close, reason=str(error), client=figures))

    def connect(self, sock: socket.socket, peer: Peer, *, wait: bool) -> None:
        """Take a connection on, if its maker is expected.

        Args:
            sock: the connection; ours from here on.
            peer: who made it, as the kernel says.
            wait: whether a session waits for a guest that is off, or ends.
        """
        # The newest: an older one of this process number never connected.
        client = next((one for one in reversed(self._clients.values()) if one.expects(peer)), None)
        if client is None:
            log.warning("refused a connection of pid %d, uid %d: no token", peer.pid, peer.uid)
            sock.close()
            return
        now = time.monotonic()
        sock.setblocking(False)
        client.sock = sock
        client.invited = 0.0
        client.full = False
        if client.opened:
            start = self._pump.come_back(
                client.id,
                now,
                shows_events=client.admit.shows_events,
                after=self._after(client),
            )
        else:
            start = self._take_on(client, now)
        if client.admit.shows_events and client.back is not None:
            client.back.send(control.encode(self._described(client, start)))
        self._loop.watch(sock.fileno(), select.POLLIN, lambda events: self._on_io(client, events))
        self._tell(control.Opened(session=client.id, again=client.opened))
        client.opened = True
        if self._pump.state is control.State.WAITING and not wait:
            self._pump.finish(client.id, CloseCode.ENDED, "The guest is off.", now)

    def _take_on(self, client: _Client, now: float) -> Start:
        admit = client.admit
        by = names.shown(admit.session.user) or "another user"
        for other in list(self._clients.values()):
            own = other.id == admit.replaces
            taken_over = admit.takeover and other.admit.session.mode == "rw"
            if other is not client and (own or taken_over):
                other.taker = other.taker or client.id
                reason = COME_BACK if own else f"{by} has taken over this console."
                self._end(other, CloseCode.TAKEN_OVER, reason)
        return self._pump.attach(
            client.id,
            mode=admit.session.mode,
            notices=admit.notices,
            escape=admit.escape.encode("latin-1"),
            replay=admit.replay,
            resumable=admit.session.resume is not None,
            now=now,
            shows_events=admit.shows_events,
            after=self._after(client),
        )

    def _after(self, client: _Client) -> int | None:
        """Return the position after which a client's output is to go on, if it is one of ours."""
        after = client.admit.after
        return after.position if after is not None and after.relay == self._relay else None

    def _described(self, client: _Client, start: Start) -> control.SessionEvent:
        session = client.admit.session
        return control.SessionEvent(
            id=client.id,
            guest=session.guest,
            uuid=session.uuid,
            console=session.console,
            user=session.user,
            mode=session.mode,
            escape=escape_name(client.admit.escape.encode("latin-1")),
            resume=client.grace,
            relay=self._relay,
            position=start.position,
            replay=start.replay,
            printed=start.printed,
            continued=start.continued,
        )

    def _succeed(self, client: _Client) -> None:
        """Have a client that comes back replace its former connection."""
        if client.successor is None:
            return
        self._drop_back(client)
        (admit, client.back), client.successor = client.successor, None
        # The rest of what the token says is in the first.
        client.admit.session, client.admit.after = admit.session, admit.after
        client.admit.shows_events = admit.shows_events
        client.deadline = time.monotonic() + max(CONNECT, client.grace)
        client.invited = time.monotonic() + CONNECT
        self._watch_back(client)
        self._tell(control.Admitted(session=client.id))

    # ---- the way back

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
        back.flush()
        try:
            for line in back.receive():
                match _from_gateway.decode(line):
                    case control.Taking() as message if client.opened:
                        self._pump.taking(client.id, message.pause, time.monotonic())
                    case control.Delivered() as message if client.opened:
                        self._pump.delivered(client.id, message.bytes)
                        client.gone = names.shown(message.reason, REASON_MAX) or client.gone
                        client.left = message.left
        except ConsoleError as error:
            log.warning("a gateway sent what is not understood: %s", error)
            back.broken = True
        if back.ended:
            self._drop_back(client)
            if client.successor is not None:
                self._succeed(client)
            elif not client.opened and not client.grace:  # the gateway died before it connected
                self._close(client, CloseCode.ENDED, client.gone)

    # ---- bytes

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

    def settle(self, now: float) -> None:
        """Carry out what the pump intends, write what it has, end who is to end."""
        for client in list(self._clients.values()):
            self._expire(client, now)
        self._carry_out(now)
        for client in list(self._clients.values()):
            self._write(client, now)
        self._carry_out(now)
        for client in list(self._clients.values()):
            end = client.ending
            last = self._pump.has_output if client.sock else self._pump.has_input
            if end and (now >= client.deadline or not last(client.id)):
                self._close(client, end.code, end.reason)
        for client in self._clients.values():
            if client.sock is not None:
                events = select.POLLIN if self._pump.wants_input(client.id) else 0
                events |= select.POLLOUT if client.full else 0
                self._loop.want(client.sock.fileno(), events)
            if client.back is not None:
                events = select.POLLOUT if client.back.pending else 0
                self._loop.want(client.back.fileno(), select.POLLIN | events)

    def deadline(self) -> float | None:
        """Return when ``settle`` is due, or None."""
        due = [one.deadline for one in self._clients.values() if not one.sock or one.ending]
        due += [one.gathered for one in self._clients.values() if one.gathered is not None]
        return min(due, default=None)

    def _expire(self, client: _Client, now: float) -> None:
        if client.sock is not None or client.ending or now < client.deadline:
            return
        if client.successor is not None:
            self._succeed(client)
        elif client.opened:
            self._close(client, CloseCode.ENDED, "The client did not come back in time.")
        else:
            self._close(client, CloseCode.ENDED, "The token's holder did not connect in time.")

    def _write(self, client: _Client, now: float) -> None:
        client.gathered = self._pump.gathered_at(client.id, now) if client.sock else None
        if client.gathered is not None:
            return
        while client.sock and not client.full and self._pump.has_output(client.id):
            try:
                with self._pump.to_client(client.id) as waiting:
                    self._carry_out(now)  # what is told of a gap comes before what is behind it
                    if client.admit.shows_events and client.back and client.back.pending:
                        return
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
            elif client.back is not None and client.sock is not None:
                client.back.send(control.encode(intent.event))

    # ---- going

    def end(self, session: str, code: int, reason: str) -> None:
        """End one session; one that is not there is no error."""
        if session in self._clients:
            self._end(self._clients[session], code, reason)

    def end_all(self, code: int, reason: str) -> None:
        """End every session, once its client has taken what was printed before."""
        for client in list(self._clients.values()):
            self._end(client, code, reason)

    def close_all(self, code: int, reason: str) -> None:
        """End every session at once."""
        for client in list(self._clients.values()):
            self._close(client, code, reason)

    def _end(self, client: _Client, code: int, reason: str) -> None:
        if client.sock is None:
            self._close(client, code, reason)
        else:
            self._pump.finish(client.id, code, reason, time.monotonic())

    def _gone(self, client: _Client) -> None:
        """Its connection has ended: so has the session, unless the client may come back."""
        if client.ending:
            self._close(client, client.ending.code, client.ending.reason)
            return
        self._let_go(client)
        self._on_back(client)  # what was delivered
        self._drop_back(client)
        if client.grace and not client.left:
            client.deadline = time.monotonic() + client.grace
        else:
            client.ending = Finish(client.id, CloseCode.ENDED, client.gone)
            client.deadline = time.monotonic() + LAST_INPUT

    def _let_go(self, client: _Client) -> None:
        if client.sock is not None:
            self._loop.forget(client.sock.fileno())
            _close_read(client.sock)
            client.sock = None
            self._pump.leave(client.id)

    def _close(self, client: _Client, code: int, reason: str) -> None:
        del self._clients[client.id]
        self._let_go(client)
        end = control.encode(control.End(code=code, reason=reason))
        if client.back is not None:
            client.back.send(end)
        self._drop_back(client)
        if client.successor is not None and client.successor[1] is not None:
            client.successor[1].send(end)
            client.successor[1].close()
        figures = self._pump.detach(client.id) if client.opened else _nothing(client.id)
        figures.cpu = cpu()
        taker = client.taker if code == CloseCode.TAKEN_OVER else ""
        self._tell(control.Closed(code=code, reason=reason, client=figures, taker=taker))
        if not self._clients:
            self._on_empty()


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
