"""The relays of the supervisor before us: asks all of them at once who they are."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import socket
import time
from collections.abc import Callable

from . import control
from .channel import Channel
from .errors import ConsoleError, Forbidden, os_reason
from .listener import remove_stale
from .loop import Loop

log = logging.getLogger("supervisor")

_from_relay = control.Decoder(control.FromRelay, others=True)


class Adoption:
    """Connects to every relay of a directory; removes the sockets of dead ones.

    Args:
        loop: the supervisor's.
        directory: of the relays' own sockets.
        greeted: called for each relay with its socket's path, the channel to it, its greeting, and
            the lines that have come so far, of which the greeting is the first.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        greeted: Callable[[str, Channel, control.Adopt, list[bytes]], None],
    ) -> None:
        self._loop = loop
        self._greeted = greeted
        self._waiting: dict[int, tuple[str, Channel]] = {}
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            channel = _connected(path)
            if channel is not None:
                self._waiting[channel.fileno()] = path, channel

    def wait(self, seconds: float) -> None:
        """Wait for the greetings, so long in all; one that comes later is heard in the loop."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for fd in self._waiting:
            poll.register(fd, select.POLLIN)
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if self._heard(fd):
                    poll.unregister(fd)
        for fd, (path, _) in self._waiting.items():
            log.warning("the relay at %s does not answer; it is adopted when it does", path)
            self._loop.watch(fd, functools.partial(self._late, fd))

    def _late(self, fd: int) -> None:
        self._loop.forget(fd)
        if not self._heard(fd):
            self._loop.watch(fd, functools.partial(self._late, fd))

    def _heard(self, fd: int) -> bool:
        """Take what has come from a relay. Returns whether it needs no more waiting."""
        path, channel = self._waiting[fd]
        try:
            lines = channel.receive()
            if not lines and not channel.ended:
                return False
            greeting = _from_relay.decode(lines[0]) if lines else None
            if not isinstance(greeting, control.Adopt):
                raise Forbidden("no greeting")
        except ConsoleError as error:
            log.warning("cannot adopt %s: %s", path, error)
            channel.close()
        else:
            self._greeted(path, channel, greeting, lines)
        del self._waiting[fd]
        return True


def _connected(path: str) -> Channel | None:
    try:
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect(path)
            stack.pop_all()
            return Channel(sock)
    except ConnectionRefusedError:
        with contextlib.suppress(ConsoleError):
            remove_stale(path)
    except OSError as error:
        log.warning("cannot adopt %s: %s", path, os_reason(error))
    return None
