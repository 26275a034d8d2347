"""A relay's event loop, which libvirt's client uses too; imports no libvirt.

libvirt's own is glib's, which takes a descriptor out of its set while it calls back for it, and
wakes itself up by an eventfd for each such change: the echo of a key took five rounds and 30 system
calls, here two and 17, and a fifth less CPU.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import os
import select
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_Handler = Callable[[int], None]

READABLE, WRITABLE, ERROR, HANGUP = 1, 2, 4, 8
"""libvirt's events (virEventHandleType)."""

MESSAGES = 16
"""Messages that libvirt reads on end: it reads one per call, of some 100 bytes from a UART and of
4 KB from a fast source. A guest that never pauses must leave time, and memory, for others."""


class Timer:
    """One timer of an EventLoop; made by its ``timer``."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self.due: float | None = None

    def set(self, seconds: float | None) -> None:
        """Fire once after so many seconds; None for not at all."""
        self.due = None if seconds is None else time.monotonic() + seconds

    def fire(self) -> None:
        """Call back now."""
        self.due = None
        self._callback()


@dataclass
class _Handle:
    """A descriptor that libvirt has us watch; with no events it is not watched at all."""

    fd: int
    events: int
    callback: Callable[[int, int, int, Any], None]
    opaque: Any


@dataclass
class _Timeout:
    """A timer of libvirt's; it fires again and again."""

    seconds: float
    due: float | None
    callback: Callable[[int, Any], None]
    opaque: Any


class EventLoop:
    """Waits for descriptors and timers, ours and libvirt's, and calls back.

    The methods named as libvirt's (``add_handle`` and so on) are what virEventRegisterImpl wants:
    libvirt calls them with its locks held, from any thread, so they only note what is wanted.

    Args:
        free: frees what libvirt gave with a callback, virEventInvokeFreeCallback.
    """

    REST = 20.0
    """Longest time in seconds that libvirt's socket is left unread; libvirtd gives a client up that
    did not answer its keepalive for 30 s."""

    def __init__(self, free: Callable[[Any], None]) -> None:
        self._free = free
        self._poll = select.poll()
        self._ours: dict[int, tuple[int, _Handler]] = {}
        self._timers: list[Timer] = []
        self._handles: dict[int, _Handle] = {}
        self._timeouts: dict[int, _Timeout] = {}
        self._numbers = itertools.count(1)
        self._unused: deque[Any] = deque()  # to be freed
        self._resting = False
        self._lock = threading.Lock()  # of what libvirt has us watch, and whether it rests
        self._served = time.monotonic()
        self._failure: BaseException | None = None
        self._thread = threading.get_ident()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake, select.POLLIN, lambda _events: self._woken())

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Wrap a callback that libvirt calls: it would print an exception and go on."""

        def call(*args: Any) -> None:
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001 - run_once raises it again
                self._failure = error

        return call

    def timer(self, callback: Callable[[], None]) -> Timer:
        """Make a timer."""
        timer = Timer(callback)
        self._timers.append(timer)
        return timer

    def watch(self, fd: int, events: int, callback: _Handler) -> None:
        """Call back with the poll events when ``fd`` has one of them; POLLHUP always counts."""
        self._poll.register(fd, events)
        self._ours[fd] = (events, callback)

    def want(self, fd: int, events: int) -> None:
        """Change the events of a watched fd."""
        old, callback = self._ours[fd]
        if events != old:
            self.watch(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Stop watching; before the fd is closed."""
        if self._ours.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def attend(self, fd: int, callback: Callable[[], object]) -> int:
        """Call back when ``fd`` is readable, but not while it is left alone as libvirt's are.

        Returns the number that ``remove_handle`` takes, before the fd is closed.
        """
        return self.add_handle(fd, READABLE, lambda *_: callback(), None)

    def run_once(self, deadline: float | None, rest: float | None) -> None:
        """Wait for something to happen and call whom it concerns. Times are of time.monotonic().

        Args:
            deadline: do not wait longer.
            rest: until then leave libvirt alone and its socket unread: so a guest that prints
                faster than its client reads is made to wait.

        Raises:
            Exception: whatever a callback raised.
        """
        now = time.monotonic()
        if rest is not None:
            rest = min(rest, self._served + self.REST)
        self._rest(rest is not None and now < rest)
        due = [timer.due for timer in self._timers if timer.due is not None]
        if deadline is not None:
            due.append(deadline)
        if self._resting and rest is not None:
            due.append(rest)
        else:
            self._served = now
            due += [one.due for one in list(self._timeouts.values()) if one.due is not None]
        wait = max(0.0, min(due) - now) * 1000 if due else None
        if self._resting and wait is not None and wait < 1:
            time.sleep(wait / 1000)  # poll would wait for a whole millisecond
            wait = 0
        for fd, events in self._poll.poll(wait):
            known = self._ours.get(fd)
            if known is not None:
                known[1](events)
            elif not self._resting:
                self._read(fd, events)
        self._fire()
        while self._unused:
            self._free(self._unused.popleft())
        if self._failure is not None:
            raise self._failure

    def _fire(self) -> None:
        now = time.monotonic()
        for timer in self._timers:
            if timer.due is not None and timer.due <= now:
                timer.fire()
        if self._resting:
            return
        for number, one in list(self._timeouts.items()):
            if one.due is not None and one.due <= now and number in self._timeouts:
                one.due = now + one.seconds
                one.callback(number, one.opaque)

    # ---- libvirt's

    def _read(self, fd: int, events: int) -> None:
        """Have libvirt read what has come."""
        queued = array.array("i", [0])
        for number, one in list(self._handles.items()):
            if one.fd != fd:
                continue
            for _ in range(MESSAGES):
                wanted = _from_poll(events) & (one.events | ERROR | HANGUP)
                if not wanted or number not in self._handles:
                    break
                one.callback(number, fd, wanted, one.opaque)
                try:
                    fcntl.ioctl(fd, termios.FIONREAD, queued)
                except OSError:  # libvirt has closed it
                    break
                if not queued[0]:
                    break
                events = select.POLLIN

    def _rest(self, resting: bool) -> None:
        if resting != self._resting:
            with self._lock:
                self._resting = resting
                for one in self._handles.values():
                    self._watch_for_libvirt(one)

    def _watch_for_libvirt(self, one: _Handle) -> None:
        if one.events and not self._resting:
            self._poll.register(one.fd, _to_poll(one.events))
        else:
            self._stop_watching(one.fd)

    def _stop_watching(self, fd: int) -> None:
        with contextlib.suppress(KeyError):  # it was not watched
            self._poll.unregister(fd)

    def _changed(self) -> None:
        if threading.get_ident() != self._thread:
            os.eventfd_write(self._wake, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def add_handle(self, fd: int, events: int, callback: Any, opaque: Any) -> int:
        """Watch a descriptor."""
        number = next(self._numbers)
        with self._lock:
            self._handles[number] = one = _Handle(fd, events, callback, opaque)
            self._watch_for_libvirt(one)
        self._changed()
        return number

    def update_handle(self, number: int, events: int) -> None:
        """Change the events of a descriptor."""
        one = self._handles[number]
        if events != one.events:
            with self._lock:
                one.events = events
                self._watch_for_libvirt(one)
            self._changed()

    def remove_handle(self, number: int) -> int:
        """Stop watching. What belongs to the callback is freed later: libvirt holds its locks."""
        with self._lock:
            one = self._handles.pop(number)
            self._stop_watching(one.fd)
        if one.opaque is not None:  # of ``attend``
            self._unused.append(one.opaque)
        self._changed()
        return 0

    def add_timeout(self, milliseconds: int, callback: Any, opaque: Any) -> int:
        """Call back every so many milliseconds; -1 for not now."""
        number = next(self._numbers)
        self._timeouts[number] = _Timeout(0.0, None, callback, opaque)
        self.update_timeout(number, milliseconds)
        return number

    def update_timeout(self, number: int, milliseconds: int) -> None:
        """Change how often to call back, beginning now."""
        one = self._timeouts[number]
        one.seconds = milliseconds / 1000
        one.due = None if milliseconds < 0 else time.monotonic() + one.seconds
        if milliseconds >= 0:
            self._changed()

    def remove_timeout(self, number: int) -> int:
        """Do not call back any more; freed later, as with a descriptor."""
        self._unused.append(self._timeouts.pop(number).opaque)
        self._changed()
        return 0


def _to_poll(events: int) -> int:
    result = 0
    if events & READABLE:
        result |= select.POLLIN
    if events & WRITABLE:
        result |= select.POLLOUT
    return result


def _from_poll(events: int) -> int:
    result = 0
    if events & select.POLLIN:
        result |= READABLE
    if events & select.POLLOUT:
        result |= WRITABLE
    if events & select.POLLHUP:
        result |= HANGUP
    if events & (select.POLLERR | select.POLLNVAL):
        result |= ERROR
    return result
