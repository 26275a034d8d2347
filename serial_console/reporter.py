"""Tells the supervisor, which alone writes the audit log, what only the API knows."""

from __future__ import annotations

import contextlib
import queue
import threading

import msgspec

from . import channel, control
from .errors import ConsoleError

WAITING = 1000
"""Events that may wait for the supervisor; the next one tells how many were left out."""
TIMEOUT = 5.0
"""Seconds that the supervisor may take for one."""
LAST = 1.0
"""Seconds for the events that wait when the API ends."""


class Reporter:
    """Hands events on in a thread of its own: no request waits for it, or fails because of it.

    Args:
        path: admin.sock.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: queue.Queue[control.Audit | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._unqueued = 0  # counted by those who tell
        self._unsent = 0  # counted by the thread, as is what of both was told
        self._told = 0

    def start(self) -> None:
        """Begin to hand on."""
        self._thread.start()

    def tell(self, event: control.Audit) -> None:
        """Have an event written down."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._unqueued += 1

    def close(self) -> None:
        """Hand on what waits, if that can be done soon."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(LAST)

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            left_out = self._unqueued + self._unsent - self._told
            try:
                channel.call(
                    self._path,
                    msgspec.structs.replace(event, left_out=event.left_out + left_out),
                    TIMEOUT,
                )
            except ConsoleError:
                self._unsent += 1
            else:
                self._told += left_out
