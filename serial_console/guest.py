"""libvirt: the only file that imports it. Event loop, connection, guests, one guest's console.

Safe to import before a fork, not to use: whoever uses it does so in a process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import re
import select
import socket
import stat
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from .consoles import consoles, pick
from .control import GuestInfo, State
from .errors import LibvirtDenied, LibvirtUnavailable, NoSuchGuest
from .eventloop import EventLoop
from .names import shown

log = logging.getLogger("guest")

STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutoff",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}
"""libvirt's domain states as REST shows them."""

READ = 16384
"""Bytes of one recv. libvirt-python zeroes so many for each: with 131072, 0.1 MiB more of each
relay's own and 2 us a key; what libvirt reads on end (``eventloop.MESSAGES``) is seldom more."""
KEEPALIVE = (5, 5)
"""Seconds between keepalive messages, and how many may stay unanswered: libvirtd's own numbers."""
REOPEN = (0.1, 2.0)
"""First and longest wait in seconds before a console or a connection is tried again."""
CLOSE = 1.0
"""Seconds that closing the connection may take; the kernel closes it anyway when we exit."""
UNREAD = 5, 35.0
"""libvirtd stops reading a connection at five packets that its guest did not take, and gives it up
after 30 s of that (fact 2; measured: 30 s): packets, and seconds after which they tell nothing."""
STOP_EVENT = 1.5
"""Seconds from the stream's end in which the guest's STOPPED event may come (fact 4)."""
LOOK = 30.0
"""Seconds between two looks at a guest that is off: an offline migration takes it away without an
event (libvirt 9.0)."""
REBOOT = 1.0
"""Seconds in which all REBOOT events are of one reboot: SeaBIOS resets the machine too, and two or
three came within 110 ms."""

REFUSALS = (
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_ACCESS_DENIED,
)
"""What libvirt says when polkit does not allow something, and while it cannot ask polkit."""

_T = TypeVar("_T")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def silence() -> None:
    """Keep libvirt from printing errors to stderr by itself; they come as exceptions."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


def event_loop() -> EventLoop:
    """Make the process's event loop, once, before any connection is opened."""
    loop = EventLoop(libvirt.virEventInvokeFreeCallback)
    libvirt.virEventRegisterImpl(
        loop.add_handle,
        loop.update_handle,
        loop.remove_handle,
        loop.add_timeout,
        loop.update_timeout,
        loop.remove_timeout,
    )
    return loop


# ---- guests


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise _unavailable(error, f"libvirt at {uri}") from error


def _unavailable(error: Any, libvirt_there: str = "libvirt") -> LibvirtUnavailable:
    if error.get_error_code() in REFUSALS:
        return LibvirtDenied(
            f"{libvirt_there} refuses our user (uid {os.geteuid()}): {_reason(error)}; "
            "allow it what docs/libvirt-polkit.md lists"
        )
    return LibvirtUnavailable(
        f"{libvirt_there} does not answer: {_reason(error)}; "
        "is libvirtd running, and may this user connect to it?"
    )


def connect(uri: str, readonly: bool = False) -> Any:
    """Open a connection (virConnect).

    Args:
        uri: libvirt's connection URI.
        readonly: ask for no more than reading.

    Raises:
        LibvirtUnavailable: it cannot be opened; LibvirtDenied: it may not.
    """
    with _translated(uri):
        return libvirt.openReadOnly(uri) if readonly else libvirt.open(uri)


def probe(connection: Any) -> None:
    """See whether libvirt answers. Raises LibvirtUnavailable if it does not."""
    with _translated(connection.getURI()):
        connection.getLibVersion()


def find(connection: Any, guest: str) -> Any:
    """Find a guest (virDomain) by UUID or by name.

    What looks like a UUID is one first: no guest can be named so as to be taken for another.

    Raises:
        NoSuchGuest: there is none.
        LibvirtUnavailable: libvirt did not answer.
    """
    gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG)
    lookups = [connection.lookupByName]
    if _UUID.fullmatch(guest):
        lookups.insert(0, connection.lookupByUUIDString)
    for lookup in lookups:
        try:
            return lookup(guest)
        except ValueError:  # a NUL or a lone surrogate, which no guest's name can have
            continue
        except libvirt.libvirtError as error:
            if error.get_error_code() not in gone:
                raise _unavailable(error) from error
    raise NoSuchGuest(
        f'there is no guest "{shown(guest)}" here; "serial-console guests" lists those there are'
    )


def describe(domain: Any) -> GuestInfo:
    """Describe a guest. Raises NoSuchGuest when it went away, LibvirtUnavailable as connect()."""
    try:
        return GuestInfo(
            name=domain.name(),
            uuid=domain.UUIDString(),
            state=STATES.get(domain.state()[0], "unknown"),
            consoles=consoles(domain.XMLDesc(0)),
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise NoSuchGuest("the guest went away while it was looked at") from error
        raise _unavailable(error) from error


def find_all(connection: Any) -> list[Any]:
    """Find every guest (virDomain). Raises LibvirtUnavailable as connect() does."""
    try:
        return list(connection.listAllDomains(0))
    except libvirt.libvirtError as error:
        raise _unavailable(error) from error


# ---- one console


@dataclass(frozen=True)
class _Dialled:
    connection: Any
    socket: int  # its file descriptor, -1 when it is not known
    domain: Any
    persistent: bool
    events: list[int]  # what is registered on it


@dataclass(frozen=True)
class _Opened:
    stream: Any
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
    ) -> None:
        self._loop = loop
        self._uri = uri
        self._uuid = uuid
        self._alias = alias
        self._on_output = on_output
        self._on_state = on_state
        self._on_gone = on_gone
        self._connection: Any = None
        self._dead: list[Callable[[], Any]] = []
        self._events: list[int] = []
        self._domain: Any = None
        self._stream: Any = None
        self._socket = -1
        self._persistent = True
        self._retry = loop.timer(self._try_again)
        self._wait = REOPEN[0]
        self._state = State.STARTING
        self._text = ""
        self._begun = "The guest has started."
        self._reboot = -REBOOT
        self._sent: deque[float] = deque(maxlen=UNREAD[0])
        self._working = False
        self._attach_again = False
        self._heard: str | None = None  # of pause or run, since the console is being opened
        self._results: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.watch(self._wake, select.POLLIN, self._worked)

    def start(self) -> None:
        """Connect and open the console, or begin to wait for the guest's start.

        Blocks while libvirt does: the supervisor ends a relay that is not ready in time.

        Raises:
            LibvirtUnavailable, NoSuchGuest, NoSuchConsole, UnsupportedConsole: as they say.
        """
        self._use(self._dial())
        try:
            result: _Opened | Exception = self._open(self._connection, self._domain)
        except libvirt.libvirtError as error:
            # Only now: reading the guest's XML takes 0.3 MiB and is for refusals alone.
            pick(describe(self._domain), self._alias)
            result = error
        self._opened(result, self._connection)

    @property
    def writable(self) -> bool:
        """Whether a packet can be sent without blocking: libvirtd has read the one before.

        virStream.send blocks, on a NONBLOCK stream too, once libvirtd holds five packets that the
        guest has not read, and then every call on the connection hangs (DESIGN.md, fact 2).
        """
        return self._stream is not None and self._drained()

    def _drained(self) -> bool:
        if self._socket < 0:
            return True
        try:
            queued = fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:  # libvirt has closed it and is about to tell us
            return False
        return bool(struct.unpack("i", queued)[0] == 0)

    def send(self, data: bytes) -> int:
        """Send one packet; only while ``writable``. Returns the bytes taken, 0 when none were."""
        connection = self._connection
        try:
            count = self._stream.send(data)
        except libvirt.libvirtError as error:
            if self._connection is not connection:
                pass  # its close callback was called within
            elif connection.isAlive():
                self._ended(_reason(error))
            else:
                self._lost(_reason(error))
            return 0
        self._sent.append(time.monotonic())
        return max(0, int(count))

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call back when it can be closed: libvirtd reads this connection, or it is lost.

        Closed before, the console would stay taken: libvirtd does not notice our end until the
        guest has taken what it was sent, or 30 s are over.
        """
        count, seconds = UNREAD
        unsure = len(self._sent) == count and time.monotonic() - self._sent[0] < seconds
        connection = self._connection
        if self._stream is None or not unsure:
            then()
            return
        self._in_thread(connection.getLibVersion, lambda _: then())

    def close(self) -> None:
        """Close stream and connection, in a thread: it may block, and this process ends soon."""
        self._retry.set(None)
        if self._connection is not None and self._drained():
            thread = threading.Thread(target=self._close, daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread: the kernel closes it
                thread.start()
                thread.join(CLOSE)

    def _close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            if self._stream is not None:
                self._stream.eventRemoveCallback()
                self._stream.abort()
            self._connection.close()

    # ---- calls that may hang

    def _in_thread(self, call: Callable[[], _T], then: Callable[[_T | Exception], None]) -> None:
        """Call libvirt in a thread: a libvirtd that hangs must not freeze this relay's other work.

        Args:
            call: what may block.
            then: called from the loop with what it returned, or with what it raised.
        """

        def work() -> None:
            result: _T | Exception
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 - ``then`` raises what it does not expect
                result = error
            self._results.append(lambda: then(result))
            os.eventfd_write(self._wake, 1)

        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError as error:  # the host's limit of processes
            log.error("cannot call libvirt: %s", error)
            failure = LibvirtUnavailable("the host cannot start another thread")
            self._results.append(lambda: then(failure))
            os.eventfd_write(self._wake, 1)

    def _worked(self, _events: int) -> None:
        os.eventfd_read(self._wake)
        while self._results:
            self._results.popleft()()

    # ---- connection

    def _dial(self) -> _Dialled:
        before = _sockets()
        connection = connect(self._uri)
        with _translated(self._uri), contextlib.suppress(AttributeError):
            connection.setKeepAlive(*KEEPALIVE)
        new = [fd for inode, fd in _sockets().items() if inode not in before]
        if not new:
            log.warning("cannot tell which socket leads to libvirt; a hung guest may hang us")
        events: list[int] = []
        try:
            domain = find(connection, self._uuid)
            with _translated(self._uri):
                connection.registerCloseCallback(self._loop.guarded(self._dropped), None)
                for event, callback in (
                    (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
                    (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._rebooted),
                ):
                    call = self._loop.guarded(callback)
                    events.append(connection.domainEventRegisterAny(domain, event, call, None))
                persistent = bool(domain.isPersistent())
        except Exception:
            _release(connection, events)
            raise
        return _Dialled(connection, min(new, default=-1), domain, persistent, events)

    def _use(self, new: _Dialled) -> None:
        self._connection, self._socket = new.connection, new.socket
        self._domain, self._persistent = new.domain, new.persistent
        self._events = new.events
        self._sent.clear()

    def _dropped(self, connection: Any, _why: int, _opaque: object) -> None:
        if connection is self._connection:
            self._lost("the connection was closed")

    def _lost(self, why: str) -> None:
        """The connection is of no use any more."""
        log.warning("connection to libvirt at %s lost: %s", self._uri, why)
        self._bury()
        self._say(
            State.RECONNECTING, "The connection to libvirt on the host is lost; trying again."
        )
        self._wait = REOPEN[0]
        self._retry.set(self._wait)

    def _bury(self) -> None:
        """Forget the connection, and free it later: in its own close callback that would hang."""
        if self._stream is not None:
            self._dead.append(functools.partial(_free, self._stream))
        if self._connection is not None:
            self._dead.append(functools.partial(_release, self._connection, self._events))
        self._stream = self._domain = self._connection = None
        self._events, self._socket = [], -1

    def _connected(self, result: _Dialled | Exception) -> None:
        self._working = False
        if isinstance(result, _Dialled):
            self._use(result)
            if self._connection.isAlive():
                self._attach()
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

    def _denied(self, error: LibvirtUnavailable) -> None:
        """What was allowed before is not now: the rule was changed, or polkit restarts."""
        if self._text != _DENIED:
            log.warning("console of %s: %s", self._uuid, error)
        self._say(State.RECONNECTING, _DENIED)
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
            self._in_thread(self._dial, self._connected)
        else:
            connection, domain = self._connection, self._domain
            self._in_thread(
                lambda: self._open(connection, domain),
                lambda result: self._opened(result, connection),
            )

    # ---- console

    def _attach(self) -> None:
        """Open the console if the guest runs; at once, so that its first byte is seen."""
        if self._stream is not None:
            return
        if self._working:  # it may have found the guest off before it started
            self._attach_again = True
        else:
            self._try_again()

    def _open(self, connection: Any, domain: Any) -> _Opened:
        """Open the console. FORCE is never used: it would take the console from whoever has it,
        and libvirtd 9.0 can crash by it (fact 3)."""
        state = domain.state()[0]
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(self._alias, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        return _Opened(stream, state)

    def _opened(self, result: _Opened | Exception, connection: Any) -> None:
        self._working = False
        again, self._attach_again = self._attach_again, False
        if connection is not self._connection:  # lost meanwhile
            self._retry.set(self._wait)
        elif isinstance(result, libvirt.libvirtError):
            self._not_attached(result)
        elif isinstance(result, LibvirtUnavailable):
            self._again()
        elif isinstance(result, Exception):
            raise result
        else:
            self._take(result)
        if again and self._stream is None:
            self._attach()

    def _wait_for_start(self) -> None:
        if self._state is not State.WAITING:
            self._say(State.WAITING, "The guest is off")
        self._retry.set(LOOK)

    def _take(self, opened: _Opened) -> None:
        stream = opened.stream
        try:
            stream.eventAddCallback(
                libvirt.VIR_STREAM_EVENT_READABLE
                | libvirt.VIR_STREAM_EVENT_ERROR
                | libvirt.VIR_STREAM_EVENT_HANGUP,
                self._loop.guarded(self._readable),
                stream,
            )
        except libvirt.libvirtError as error:
            self._not_attached(error)
            return
        self._stream = stream
        self._wait = REOPEN[0]
        self._retry.set(None)
        halted = _HALTED.get(opened.state, "") if self._heard is None else self._heard
        if halted:
            self._say(State.PAUSED, halted)
        else:
            words = _CONNECTED | {State.WAITING: self._begun}
            self._say(State.CONNECTED, words.get(self._state, ""))

    def _not_attached(self, error: Any) -> None:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            self._on_gone("The guest no longer exists.")
            return
        if code == libvirt.VIR_ERR_OPERATION_FAILED:  # "Active console session exists"
            self._say(
                State.BUSY,
                "The console is held by another program on the host (such as virsh console); "
                "waiting for it.",
            )
        elif code == libvirt.VIR_ERR_OPERATION_INVALID:  # not running, or not any more
            self._wait_for_start()
            return
        elif code in REFUSALS:
            if self._state is State.STARTING:
                raise _unavailable(error)
            self._denied(_unavailable(error))
            return
        elif self._state is State.STARTING:
            raise LibvirtUnavailable(f"libvirt cannot open the console: {_reason(error)}")
        else:
            log.warning("cannot open the console of %s: %s", self._uuid, _reason(error))
        self._again()

    def _readable(self, stream: Any, events: int, mine: Any) -> None:
        if mine is not self._stream:
            return
        hangup = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
        count = self._recv(stream)
        if not count and events & hangup:
            self._ended("hangup")
        while count == READ and mine is self._stream:
            count = self._recv(stream)

    def _recv(self, stream: Any) -> int:
        """Take what libvirt has read of the stream, at most READ bytes. Returns how many."""
        try:
            data = stream.recv(READ)
        except libvirt.libvirtError as error:
            self._ended(_reason(error))
            return 0
        if data == -2:
            return 0
        if not data:
            self._ended("end of stream")
            return 0
        self._on_output(data)
        return len(data)

    def _ended(self, why: str) -> None:
        """The stream is over: the guest ended, which its event will say within a second or so, or
        another program forced the console away."""
        log.debug("console stream of %s: %s", self._uuid, why)
        stream, self._stream = self._stream, None
        if stream is None:  # the connection's close callback was called within the last call
            return
        _free(stream)
        self._wait = REOPEN[0]
        self._retry.set(STOP_EVENT)

    # ---- events

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _o: Any) -> None:
        match event:
            case libvirt.VIR_DOMAIN_EVENT_STARTED:
                self._started(detail)
            case libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
                self._halted(_SUSPENDED.get(detail, _HALTED[libvirt.VIR_DOMAIN_PAUSED]))
            case libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED:
                self._halted(_HALTED[libvirt.VIR_DOMAIN_PMSUSPENDED])
            case libvirt.VIR_DOMAIN_EVENT_CRASHED:  # STOPPED or RESUMED follow by its <on_crash>
                self._halted(_HALTED[libvirt.VIR_DOMAIN_CRASHED])
            case libvirt.VIR_DOMAIN_EVENT_RESUMED:
                self._resumed(_RESUMED.get(detail, "The guest runs again."))
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
        if self._stream is not None:  # of the run before; its end is still on the way
            self._ended("guest started anew")
            self._say(State.WAITING, "")
        self._begun = _STARTED.get(detail, "The guest has started.")
        self._attach()

    def _halted(self, text: str) -> None:
        self._heard = text
        if self._stream is not None:
            self._say(State.PAUSED, text)

    def _resumed(self, text: str) -> None:
        self._heard = ""
        if self._state is State.PAUSED:
            self._say(State.CONNECTED, text)

    def _stopped(self, detail: int) -> None:
        while self._stream is not None and self._recv(self._stream):
            pass
        if self._stream is not None:
            self._ended("guest stopped")
        self._retry.set(LOOK)
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
            self._on_gone("The guest has moved to another host.")
            return
        how = _STOPPED.get(detail, "The guest has stopped")
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


_DENIED = "libvirt on the host does not allow this console; trying again."
_CONNECTED = {
    State.BUSY: "The console is free again.",
    State.RECONNECTING: "The connection to libvirt is back.",
    State.PAUSED: "The guest runs again.",
    State.CONNECTED: "The console was interrupted; some output may be missing.",
}
_HALTED = {
    libvirt.VIR_DOMAIN_PAUSED: "The guest is paused: what you type is held.",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "The guest sleeps: what you type is held.",
    libvirt.VIR_DOMAIN_CRASHED: "The guest has crashed: what you type is held.",
}
"""States of a guest that has a console and does not run."""
_SUSPENDED = {
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: (
        "The guest moves to another host: what you type is held."
    ),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: (
        "The guest was paused by an error of its disk: what you type is held."
    ),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG: (
        "The guest was paused by its watchdog: what you type is held."
    ),
}
_STARTED = {
    libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: "The guest has come from another host.",
    libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED: "The guest goes on where it was saved.",
    libvirt.VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT: "The guest goes on from a snapshot.",
}
_RESUMED = {
    libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED: "The guest runs on this host.",
    libvirt.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT: "The guest goes on where it was saved.",
}
_STOPPED = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "The guest has shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "The guest was switched off",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "The guest has crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "The guest was saved to disk",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "The guest was ended by an error on the host",
}


def _free(stream: Any) -> None:
    """End a stream. libvirt 9.0 never lets go of the data of a stream's callback; they hold the
    Python object, and that the connection, unless it is told to free it."""
    for end in (stream.eventRemoveCallback, stream.abort):
        with contextlib.suppress(libvirt.libvirtError):
            end()
    stream.__del__()


def _release(connection: Any, events: list[int]) -> None:
    """Close a connection. What is registered on it would keep it, and its descriptors, for good."""
    for number in events:
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventDeregisterAny(number)
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


def _sockets() -> dict[int, int]:
    """Return this process's sockets that are connected to an address: inode and descriptor.

    A number may be used again, an inode is not. Our own sockets, which come and go meanwhile, are
    accepted ones or of pairs: their peers have no address.
    """
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not connected, or the listing's own, closed by now
            status = os.fstat(int(name))
            if stat.S_ISSOCK(
                status.st_mode
            ):  # of anything else, socket() would leave the copy open
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    if sock.getpeername():
                        found[status.st_ino] = int(name)
    return found


def _reason(error: Any) -> str:
    return str(error.get_error_message() or error)
