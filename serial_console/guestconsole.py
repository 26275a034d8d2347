"""One console of one guest, kept open through the guest's stops and libvirt's restarts."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import libvirt

from . import phrases
from .connection import Dialled, dial, neighbour, release
from .consoles import address, pick
from .control import State
from .errors import (
    ConsoleError,
    InUse,
    LibvirtDenied,
    LibvirtUnavailable,
    NoSuchGuest,
    SetupError,
)
from .eventloop import EventLoop
from .guest import REFUSALS, describe, reason, unavailable
from .names import shown
from .socketline import SocketLine
from .streamline import StreamLine, drained
from .worker import Worker

log = logging.getLogger("guest")

NOT_NOW = (
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_OPERATION_FAILED,
    libvirt.VIR_ERR_OPERATION_INVALID,
)
"""What libvirt says of a console that cannot be opened now, whatever its type."""
REOPEN = (0.1, 2.0)
"""First and longest wait in seconds before a console or a connection is tried again."""
CLOSE = 1.0
"""Seconds that closing the connection may take; the kernel closes it anyway when we exit."""
STOP_EVENT = 1.5
"""Seconds from the stream's end in which the guest's STOPPED event may come (fact 4)."""
LOOK = 30.0
"""Seconds between two looks at a guest that is off: an offline migration takes it away without an
event (libvirt 9.0)."""
REBOOT = 1.0
"""Seconds in which all REBOOT events are of one reboot: SeaBIOS resets the machine too, and two or
three came within 110 ms."""


@dataclass(frozen=True)
class _Opened:
    line: StreamLine | SocketLine
    held: bool  # by another program, which it waits for
    state: int


class GuestConsole:
    """One console of one guest, kept open through the guest's stops and libvirt's restarts.

    Args:
        loop: the process's event loop.
        uri: libvirt's connection URI.
        uuid: the guest.
        alias: the console, or None for the guest's first.
        on_output: called with bytes that the guest printed.
        on_state: called with each new state and a sentence about it ("" if it needs no words); with
            WAITING it is how the guest came to be off, without a full stop.
        on_gone: called with a sentence when the guest is no more.
        private: directories whose sockets are no guest's.
    """

    def __init__(
        self,
        loop: EventLoop,
        uri: str,
        uuid: str,
        alias: str | None,
        on_output: Callable[[bytes], None],
        on_state: Callable[[State, str], None],
        on_gone: Callable[[str], None],
        private: Collection[str] = (),
    ) -> None:
        self._loop = loop
        self._uri = uri
        self._uuid = uuid
        self._alias = alias
        self._on_output = on_output
        self._on_state = on_state
        self._on_gone = on_gone
        self._private = private
        self._connection: Any = None
        self._dead: list[Callable[[], Any]] = []
        self._events: list[int] = []
        self._domain: Any = None
        self._line: StreamLine | SocketLine | None = None
        self._queued: SocketLine | None = None
        self._socket = -1
        self._persistent = True
        self._retry = loop.timer(self._try_again)
        self._wait = REOPEN[0]
        self._state = State.STARTING
        self._text = ""
        self._begun = "The guest has started."
        self._reboot = -REBOOT
        self._working = False
        self._attach_again = False
        self._heard: str | None = None  # of pause or run, since the console is being opened
        self._worker = Worker(loop)

    def start(self) -> None:
        """Connect and open the console, or begin to wait for the guest's start.

        Blocks while libvirt does: the supervisor ends a relay that is not ready in time.

        Raises:
            LibvirtUnavailable, NoSuchGuest, NoSuchConsole, UnsupportedConsole: as they say.
            SetupError: as SocketLine.
        """
        self._use(self._dial())
        try:
            result: _Opened | Exception = self._open(self._connection, self._domain)
        except libvirt.libvirtError as error:
            # Only now: reading the guest's XML takes 0.3 MiB and is for refusals alone.
            pick(describe(self._domain), self._alias)
            result = error
        except ConsoleError as error:
            result = error
        self._opened(result, self._connection)

    @property
    def writable(self) -> bool:
        """Whether a packet can be sent without blocking."""
        return self._line is not None and self._line.writable

    @property
    def gather(self) -> float:
        """Seconds for which output may be left to gather, as far as its line is concerned."""
        return self._line.gather if isinstance(self._line, SocketLine) else math.inf

    def send(self, data: bytes) -> int:
        """Send one packet; only while ``writable``. Returns the bytes taken, 0 when none were."""
        return 0 if self._line is None else self._line.send(data)

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call back when it can be closed: libvirtd reads this connection, or it is lost.

        Closed before, the console would stay taken: libvirtd does not notice our end until the
        guest has taken what it was sent, or 30 s are over.
        """
        if isinstance(self._line, StreamLine) and self._line.unsure:
            self._worker.call(self._connection.getLibVersion, lambda _: then())
        else:
            then()

    def close(self) -> None:
        """Close stream and connection, in a thread: it may block, and this process ends soon."""
        self._retry.set(None)
        self._hang_up()
        if self._connection is not None and drained(self._socket):
            thread = threading.Thread(target=self._close, daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread: the kernel closes it
                thread.start()
                thread.join(CLOSE)

    def _close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            if isinstance(self._line, StreamLine):
                self._line.close()
            self._connection.close()

    # ---- connection

    def _dial(self) -> Dialled:
        calls = self._dropped, self._lifecycle, self._rebooted
        return dial(self._loop, self._uri, self._uuid, *calls)

    def _use(self, new: Dialled) -> None:
        self._connection, self._socket = new.connection, new.socket
        self._domain, self._persistent = new.domain, new.persistent
        self._events = new.events

    def _dropped(self, connection: Any, _why: int, _opaque: object) -> None:
        if connection is self._connection:
            self._lost("the connection was closed")

    def _lost(self, why: str) -> None:
        """The connection is of no use any more."""
        log.warning("connection to libvirt at %s lost: %s", self._uri, why)
        self._bury()
        if self._line is None:
            self._say(State.RECONNECTING, phrases.AWAY)
        self._wait = REOPEN[0]
        self._retry.set(self._wait)

    def _bury(self) -> None:
        """Forget the connection, and free it later: in its own close callback that would hang.

        A console on a socket of QEMU's own stays.
        """
        if isinstance(self._line, StreamLine):
            self._dead.append(self._line.close)
            self._line = None
        if self._connection is not None:
            self._dead.append(functools.partial(release, self._connection, self._events))
        self._domain = self._connection = None
        self._events, self._socket = [], -1

    def _connected(self, result: Dialled | Exception) -> None:
        self._working = False
        if isinstance(result, Dialled):
            self._use(result)
            if self._connection.isAlive():
                self._back()
            else:  # its close callback came before it was in use
                self._bury()
                self._again()
        elif isinstance(result, NoSuchGuest):
            self._on_gone("The guest no longer exists.")
        elif isinstance(result, LibvirtDenied):
            self._denied(result)
        elif isinstance(result, (LibvirtUnavailable, libvirt.libvirtError)):
            log.debug("libvirt at %s is still away: %s", self._uri, result)
            self._again()
        else:
            raise result

    def _back(self) -> None:
        """Open the console, or learn what became of its guest while libvirt was away."""
        if self._line is None:
            self._attach()
            return
        self._retry.set(None)
        self._heard = None
        domain = self._domain
        self._worker.call(lambda: int(domain.state()[0]), self._looked)

    def _looked(self, state: int | Exception) -> None:
        if self._line is None or isinstance(state, Exception):
            return  # whatever has ended it tries again
        halted = phrases.HALTED.get(state, "") if self._heard is None else self._heard
        if halted:
            self._say(State.PAUSED, halted)
        elif self._state is State.PAUSED:
            self._say(State.CONNECTED, phrases.CONNECTED[State.PAUSED])

    def _denied(self, error: LibvirtUnavailable) -> None:
        """What was allowed before is not now: the rule was changed, or polkit restarts."""
        self._hang_up()
        if self._text != phrases.DENIED:
            log.warning("console of %s: %s", self._uuid, error)
        self._say(State.RECONNECTING, phrases.DENIED)
        self._again()

    def _again(self) -> None:
        self._wait = min(self._wait * 2, REOPEN[1])
        self._retry.set(self._wait)

    def _try_again(self) -> None:
        if self._working:
            return
        dead, self._dead = self._dead, []
        for end in dead:
            end()
        self._working = True
        self._heard = None
        if self._connection is None:
            self._worker.call(self._dial, self._connected)
        else:
            connection, domain = self._connection, self._domain
            self._worker.call(
                lambda: self._open(connection, domain),
                lambda result: self._opened(result, connection),
            )

    # ---- console

    def _attach(self) -> None:
        """Open the console if the guest runs; at once, so that its first byte is seen."""
        if self._line is not None:
            return
        if self._working:  # it may have found the guest off before it started
            self._attach_again = True
        else:
            self._try_again()

    def _open(self, connection: Any, domain: Any) -> _Opened:
        """Open the console. FORCE is never used: it would take the console from whoever has it,
        and libvirtd 9.0 can crash by it (fact 3).

        One without a pty is opened by ourselves, but only where libvirt would have allowed us to.
        """
        state = domain.state()[0]
        if self._queued is not None:
            return _Opened(self._queued, not self._queued.accepted(), state)
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            domain.openConsole(self._alias, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (*NOT_NOW, *REFUSALS):
                raise
            where = address(domain.XMLDesc(0), self._alias)
            if where is None:
                raise
            uid, path = neighbour(self._socket)
            users = {uid} if where.uid is None else {uid, where.uid}
            line = SocketLine(where, users, [*self._private, path])
            return _Opened(line, not line.accepted(), state)
        return _Opened(StreamLine(connection, self._socket, stream), False, state)

    def _opened(self, result: _Opened | Exception, connection: Any) -> None:
        self._working = False
        again, self._attach_again = self._attach_again, False
        if connection is not self._connection:  # lost meanwhile
            if isinstance(result, _Opened) and isinstance(result.line, SocketLine):
                self._queued = result.line  # it is as good as before
            self._retry.set(self._wait)
        elif isinstance(result, libvirt.libvirtError):
            self._not_attached(result)
        elif isinstance(result, LibvirtUnavailable):
            self._again()
        elif isinstance(result, InUse):
            self._busy()
        elif isinstance(result, SetupError):
            self._not_served(result)
        elif isinstance(result, Exception):
            raise result
        else:
            self._take(result)
        if again and self._line is None:
            self._attach()

    def _wait_for_start(self) -> None:
        if self._state is not State.WAITING:
            self._say(State.WAITING, "The guest is off")
        self._retry.set(LOOK)

    def _take(self, opened: _Opened) -> None:
        line = opened.line
        self._queued = line if opened.held and isinstance(line, SocketLine) else None
        if self._queued is not None:
            self._busy()
            return
        try:
            line.begin(self._loop, self._on_output, functools.partial(self._ended, line))
        except libvirt.libvirtError as error:
            self._not_attached(error)
            return
        self._line = line
        self._wait = REOPEN[0]
        self._retry.set(None)
        halted = phrases.HALTED.get(opened.state, "") if self._heard is None else self._heard
        if halted:
            self._say(State.PAUSED, halted)
        else:
            words = phrases.CONNECTED | {State.WAITING: self._begun}
            self._say(State.CONNECTED, words.get(self._state, ""))

    def _not_attached(self, error: Any) -> None:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            self._on_gone("The guest no longer exists.")
        elif code == libvirt.VIR_ERR_OPERATION_FAILED:  # "Active console session exists"
            self._busy()
        elif code == libvirt.VIR_ERR_OPERATION_INVALID:  # not running, or not any more
            self._wait_for_start()
        elif code in REFUSALS:
            if self._state is State.STARTING:
                raise unavailable(error)
            self._denied(unavailable(error))
        elif self._state is State.STARTING:
            raise LibvirtUnavailable(f"libvirt cannot open the console: {reason(error)}")
        else:
            log.warning("cannot open the console of %s: %s", self._uuid, reason(error))
            self._again()

    def _busy(self) -> None:
        self._say(
            State.BUSY,
            "The console is held by another program on the host (such as virsh console); "
            "waiting for it.",
        )
        self._again()

    def _not_served(self, error: ConsoleError) -> None:
        """QEMU's own socket cannot be opened, or is no more."""
        self._hang_up()
        if self._state is State.STARTING:
            raise error
        log.warning("console of %s: %s", self._uuid, error)
        self._say(State.RECONNECTING, "The guest's console cannot be opened; trying again.")
        self._again()

    def _hang_up(self) -> None:
        """Leave QEMU's own socket, if we are there or wait there."""
        for line in (self._line, self._queued):
            if isinstance(line, SocketLine):
                line.close()
                self._line = self._queued = None

    def _ended(self, line: StreamLine | SocketLine, why: str) -> None:
        """The console is over: the guest ended, which its event will say within a second or so, or
        another program forced it away."""
        if line is not self._line:  # the connection's close callback was called within the call
            return
        log.debug("console of %s: %s", self._uuid, why)
        if isinstance(line, StreamLine) and not line.alive:
            self._lost(why)
            return
        self._line = None
        line.close()
        self._wait = REOPEN[0]
        if self._connection is None:  # nobody will say why
            self._say(State.RECONNECTING, phrases.AWAY)
        else:
            self._retry.set(STOP_EVENT)

    # ---- events

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _o: Any) -> None:
        match event:
            case libvirt.VIR_DOMAIN_EVENT_STARTED:
                self._started(detail)
            case libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
                self._halted(
                    phrases.SUSPENDED.get(detail, phrases.HALTED[libvirt.VIR_DOMAIN_PAUSED])
                )
            case libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED:
                self._halted(phrases.HALTED[libvirt.VIR_DOMAIN_PMSUSPENDED])
            case libvirt.VIR_DOMAIN_EVENT_CRASHED:  # STOPPED or RESUMED follow by its <on_crash>
                self._halted(phrases.HALTED[libvirt.VIR_DOMAIN_CRASHED])
            case libvirt.VIR_DOMAIN_EVENT_RESUMED:
                self._resumed(phrases.RESUMED.get(detail, "The guest runs again."))
            case libvirt.VIR_DOMAIN_EVENT_STOPPED:
                self._stopped(detail)
            case libvirt.VIR_DOMAIN_EVENT_DEFINED:
                self._persistent = True
                if detail == libvirt.VIR_DOMAIN_EVENT_DEFINED_RENAMED:
                    self._say(State.WAITING, f"The guest was renamed to {shown(domain.name())}")
            case libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
                if detail != libvirt.VIR_DOMAIN_EVENT_UNDEFINED_RENAMED:
                    self._undefined()

    def _started(self, detail: int) -> None:
        if detail == libvirt.VIR_DOMAIN_EVENT_STARTED_WAKEUP:  # it was never off
            self._resumed("The guest has woken up.")
            return
        if self._line is not None:  # of the run before; its end is still on the way
            self._ended(self._line, "guest started anew")
            self._say(State.WAITING, "")
        self._hang_up()
        self._begun = phrases.STARTED.get(detail, "The guest has started.")
        self._attach()

    def _halted(self, text: str) -> None:
        self._heard = text
        if self._line is not None:
            self._say(State.PAUSED, text)

    def _resumed(self, text: str) -> None:
        self._heard = ""
        if self._state is State.PAUSED:
            self._say(State.CONNECTED, text)

    def _stopped(self, detail: int) -> None:
        if self._line is not None:
            self._line.drain()
        if self._line is not None:
            self._ended(self._line, "guest stopped")
        self._hang_up()
        self._retry.set(LOOK)
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
            self._on_gone("The guest has moved to another host.")
            return
        how = phrases.STOPPED.get(detail, "The guest has stopped")
        if self._persistent:
            self._say(State.WAITING, how)
        else:
            self._say(State.WAITING, "")  # for whom the session ends with the guest anyway
            self._on_gone(f"{how} and no longer exists.")

    def _undefined(self) -> None:
        self._persistent = False
        if self._state is State.WAITING:
            self._on_gone("The guest was removed from this host.")
        else:
            self._remark("The guest was removed from this host; it runs until it is switched off.")

    def _rebooted(self, _connection: Any, _domain: Any, _opaque: object) -> None:
        now = time.monotonic()
        if now - self._reboot >= REBOOT:
            self._reboot = now
            self._remark("The guest reboots.")

    def _remark(self, text: str) -> None:
        """Say something that changes nothing; not where it would hide why nothing can be typed."""
        if self._state is State.CONNECTED:
            self._on_state(self._state, text)

    def _say(self, state: State, text: str) -> None:
        if state is self._state and text in ("", self._text):
            return
        self._state = state
        self._text = text
        self._on_state(state, text)
