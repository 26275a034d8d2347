"""The inventory: the process that knows which guests and consoles there are.

It may hang with libvirt; the supervisor then kills it and forks another. So it needs no event
loop: it reads a question, asks libvirt, answers. ``Inventory`` is the supervisor's side of it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import control, guest
from .child import Child, fork
from .config import Config
from .control import GuestInfo
from .errors import ConsoleError, LibvirtDenied, LibvirtUnavailable, NoSuchGuest, from_wire
from .loop import Loop, Timer

log = logging.getLogger("supervisor")

ANSWER = 5.0
"""Seconds that the inventory has for its next line, before it is ended and another is forked."""

_from_inventory = control.Decoder(control.FromInventory)
_decoder = control.Decoder(control.ToInventory)


def main(config: Config, channel: socket.socket) -> int:
    """Answer Lookup and Scan until the supervisor is gone. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guest.silence()
    inventory = _Desk(config.libvirt.uri)
    channel.setblocking(True)
    # A supervisor that was killed with an answer unread resets the channel.
    with channel, channel.makefile("rb") as lines, contextlib.suppress(ConnectionError):
        for line in lines:
            request = _decoder.decode(line)
            try:
                for answer in inventory.answers(request):
                    channel.sendall(control.encode(answer))
            except ConsoleError as error:
                failed = control.Failed(id=request.id, code=error.code, message=str(error))
                channel.sendall(control.encode(failed))
    return 0


class _Desk:
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
            # Each at once: with libvirt's access driver 600 guests took longer than ANSWER.
            for domain in self._asked(lambda: guest.find_all(self._connect())):
                try:
                    one = guest.describe(domain)
                except NoSuchGuest:
                    continue
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
        except LibvirtDenied:
            raise
        except LibvirtUnavailable:
            self._connection = None
            if fresh:
                raise
        return question()


class Inventory:
    """The supervisor's side of the inventory: forked when asked, ended when it does not answer."""

    def __init__(self, loop: Loop, config: Config) -> None:
        self._loop = loop
        self._config = config
        self._child: Child | None = None
        self._asked: dict[int, _Question] = {}
        self._last = 0
        self._listing = False
        self._listeners: list[_Question] = []  # of the next listing
        self._stopping = False
        self._timer: Timer | None = None

    def ask(
        self,
        question: Callable[..., control.ToInventory],
        answered: Callable[[list[GuestInfo]], None],
        failed: Callable[[ConsoleError], None],
    ) -> None:
        """Ask something; one of the two callbacks follows.

        Raises:
            Unavailable: the kernel refuses to fork.
        """
        if self._child is None:
            pid, channel = fork(functools.partial(main, self._config))
            self._child = Child(self._loop, pid, channel, self._on_line, self._on_end)
        self._last += 1
        self._asked[self._last] = _Question(answered, failed)
        if len(self._asked) == 1:
            self._wait()
        self._child.send(control.encode(question(id=self._last)))

    def list_all(
        self, answered: Callable[[list[GuestInfo]], None], failed: Callable[[ConsoleError], None]
    ) -> None:
        """Ask for all guests; one of the two callbacks follows.

        It takes long, and whoever asks again and again must not have the others wait. So all who
        ask while guests are listed share the next listing: not this one, which may have begun
        before what they want to see.
        """
        self._listeners.append(_Question(answered, failed))
        if not self._listing:
            self._list()

    def _list(self) -> None:
        listeners, self._listeners = self._listeners, []
        self._listing = bool(listeners)
        if not listeners:
            return

        def answered(found: list[GuestInfo]) -> None:
            self._list()
            for one in listeners:
                one.answered(found)

        def failed(error: ConsoleError) -> None:
            self._listing = False
            listeners.extend(self._listeners)
            self._listeners = []
            for one in listeners:
                one.failed(error)

        try:
            self.ask(control.Scan, answered, failed)
        except ConsoleError as error:
            failed(error)

    def stop(self) -> None:
        """End it."""
        self._stopping = True
        if self._child is not None:
            self._child.kill()

    def _wait(self) -> None:
        """Give it ANSWER from now for its next line, as long as something is asked."""
        if self._timer is not None:
            self._timer.cancel()
        child = self._child
        self._timer = self._loop.after(ANSWER, child.kill) if child and self._asked else None

    def _on_line(self, line: bytes) -> None:
        self._answer(_from_inventory.decode(line))
        self._wait()

    def _answer(self, message: control.FromInventory) -> None:
        question = self._asked.get(message.id)
        if question is None:
            return
        if isinstance(message, control.Found):
            if message.guest is not None:
                question.found.append(message.guest)
            if not message.last:
                return
        del self._asked[message.id]
        if isinstance(message, control.Failed):
            question.failed(from_wire(message.code, message.message))
        else:
            question.answered(question.found)

    def _on_end(self, how: str) -> None:
        if not self._stopping:
            log.warning("the inventory %s; the next question starts another", how)
        self._child = None
        asked, self._asked = self._asked, {}
        self._wait()
        for question in asked.values():
            question.failed(
                LibvirtUnavailable("libvirt on this host does not answer; see its log, try again")
            )


@dataclass
class _Question:
    answered: Callable[[list[GuestInfo]], None]
    failed: Callable[[ConsoleError], None]
    found: list[GuestInfo] = field(default_factory=list)
