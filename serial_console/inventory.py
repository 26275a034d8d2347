"""The inventory: the process that knows which guests and consoles there are.

It may hang with libvirt; the supervisor then kills it and forks another. So it needs no event
loop: it reads a question, asks libvirt, answers.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

from . import control, guest
from .config import Config
from .errors import ConsoleError, LibvirtUnavailable

_decoder = control.Decoder(control.ToInventory)


def main(config: Config, channel: socket.socket) -> int:
    """Answer Lookup and Scan until the supervisor is gone. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guest.silence()
    inventory = _Inventory(config.libvirt.uri)
    channel.setblocking(True)
    with channel, channel.makefile("rb") as lines:
        for line in lines:
            request = _decoder.decode(line)
            try:
                for answer in inventory.answers(request):
                    channel.sendall(control.encode(answer))
            except ConsoleError as error:
                failed = control.Failed(id=request.id, code=error.code, message=str(error))
                channel.sendall(control.encode(failed))
            except BrokenPipeError:
                return 0
    return 0


class _Inventory:
    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connection: Any = None

    def answers(self, request: control.ToInventory) -> Iterator[control.Found]:
        if isinstance(request, control.Lookup):
            found = self._asked(lambda: guest.describe(guest.find(self._connect(), request.guest)))
            yield control.Found(id=request.id, guest=found, last=True)
            return
        if isinstance(request, control.Probe):
            self._asked(lambda: guest.probe(self._connect()))
        else:
            for one in self._asked(lambda: list(guest.scan(self._connect()))):
                yield control.Found(id=request.id, guest=one, last=False)
        yield control.Found(id=request.id, guest=None, last=True)

    def _connect(self) -> Any:
        if self._connection is None:
            self._connection = guest.connect(self._uri, readonly=True)
        return self._connection

    def _asked(self, question: Any) -> Any:
        """Ask; once more on a new connection when the old one has died, as by a restart."""
        fresh = self._connection is None
        try:
            return question()
        except LibvirtUnavailable:
            self._connection = None
            if fresh:
                raise
        return question()
