"""The supervisor's event loop: selectors, timers, signals as bytes in a pipe."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable

log = logging.getLogger("loop")

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Timer:
    """A running timer; made by ``Loop.after``."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not fire (any more)."""
        self.callback = None


class Loop:
    """Waits for fds and timers and calls back, one at a time, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = True

    def watch(
        self, fd: int, callback: Callable[[], None], *, read: bool = True, write: bool = False
    ) -> None:
        """Call back when ``fd`` is readable, or writable; again to change it, neither to stop."""
        events = (_READ if read else 0) | (_WRITE if write else 0)
        if not events:
            self.forget(fd)
            return
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            self._selector.register(fd, events, callback)
        else:
            if (key.events, key.data) != (events, callback):
                self._selector.modify(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Stop watching; before the fd is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once after so many seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def on_signals(
        self, signals: Iterable[signal.Signals], callback: Callable[[signal.Signals], None]
    ) -> None:
        """Have signals call back from the loop; the handlers themselves do nothing."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda _signal, _frame: None)

        def woken() -> None:
            for number in os.read(read, 64):
                callback(signal.Signals(number))

        self.watch(read, woken)

    def stop(self) -> None:
        """Have ``run`` return after the current callback."""
        self._running = False

    def run(self) -> None:
        """Run until ``stop``."""
        while self._running:
            for key, _ in self._selector.select(self._wait()):
                if self._running and key.fd in self._selector.get_map():
                    self._call(key.data)
            self._fire()

    def _call(self, callback: Callable[[], None]) -> None:
        """Call back; a mistake in one callback must not end every session."""
        try:
            callback()
        except Exception:
            log.exception("a callback failed")

    def _wait(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _fire(self) -> None:
        now = time.monotonic()
        while self._running and self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)
