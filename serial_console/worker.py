"""Calls that may hang, in threads beside an event loop."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from .errors import LibvirtUnavailable
from .eventloop import EventLoop

log = logging.getLogger("guest")

_T = TypeVar("_T")


class Worker:
    """Calls libvirt in threads: a libvirtd that hangs must not freeze a relay's other work."""

    def __init__(self, loop: EventLoop) -> None:
        self._results: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.watch(self._wake, select.POLLIN, self._worked)

    def call(self, call: Callable[[], _T], then: Callable[[_T | Exception], None]) -> None:
        """Make a call in a thread.

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
