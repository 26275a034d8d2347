"""The inventory: the process that knows which guests and consoles there are.

It may hang with libvirt; the supervisor then kills it and forks another. So it needs no event
loop: it reads a question, asks libvirt, answers. ``Inventory`` is the supervisor's side of it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import control, guest
from .child import Child, fork
from .config import Config
from .control import GuestInfo
from .errors import ConsoleError, LibvirtDenied, LibvirtUnavailable, NoSuchGuest, from_wire
from .loop import Loop, Timer

log = logging.getLogger("supervisor")

ANSWER = 5.0
"""Seconds that the inventory has for its next line, before it is ended and another is forked."""
PROBE = 2.0
"""Seconds that libvirt has to show that it is there."""
GUESTS_AGE = 300.0
"""Seconds for which the number of guests is good: listing them costs libvirtd something."""

_from_inventory = control.Decoder(control.FromInventory)
_decoder = control.Decoder(control.ToInventory)


def main(config: Config, channel: socket.socket) -> int:
    """Answer questions until the supervisor is gone. Returns the exit status."""
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
            yield control.Found(id=request.id, guest=None, last=True)
            return
        # One call for all names. What costs is to describe a guest: that is done for one page.
        domains = self._asked(lambda: guest.find_all(self._connect()))
        if isinstance(request, control.Scan):
            room = control.LISTING_MAX
            behind = (one for one in domains if one.name() > request.after)
            for domain in sorted(behind, key=lambda one: str(one.name())):
                if room < 0:
                    break
                try:
                    one = guest.describe(domain)
                except NoSuchGuest:
                    continue
                room -= len(msgspec.json.encode(one))
                # Each at once: with libvirt's access driver 600 guests took longer than ANSWER.
                yield control.Found(id=request.id, guest=one, last=False)
        yield control.Found(id=request.id, guest=None, last=True, total=len(domains))

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
        self._listeners: dict[str, list[_Question]] = {}  # of the pages to be made, by ``after``
        self._stopping = False
        self._timer: Timer | None = None
        self._probing: list[Callable[[bool], None]] = []
        self._probe_timer: Timer | None = None
        self._heard_at = -PROBE
        self._counted_at = -GUESTS_AGE
        self.guests: int | None = None
        """How many there were lately; None: nobody has asked yet, or there was no answer."""

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
            pid, channel = fork(functools.partial(main, self._config), "guests")
            self._child = Child(self._loop, pid, channel, self._on_line, self._on_end)
        self._last += 1
        self._asked[self._last] = _Question(answered, failed)
        if len(self._asked) == 1:
            self._wait()
        self._child.send(control.encode(question(id=self._last)))

    def list_page(
        self,
        after: str,
        answered: Callable[[list[GuestInfo]], None],
        failed: Callable[[ConsoleError], None],
    ) -> None:
        """Ask for the guests behind a name, at least as many as an answer holds; one of the two
        callbacks follows.

        It takes long, and whoever asks again and again must not have the others wait. So one page
        is made at a time, and all who ask for the same one share the next: not the one that is
        being made, which may have begun before what they want to see.
        """
        self._listeners.setdefault(after, []).append(_Question(answered, failed))
        if not self._listing:
            self._list()

    def count_guests(self) -> None:
        """Count the guests if that was not done lately; nobody waits for it."""
        now = time.monotonic()
        if now - self._counted_at < GUESTS_AGE:
            return
        self._counted_at = now
        try:
            self.ask(control.Count, lambda _: None, self._not_counted)
        except ConsoleError as error:
            self._not_counted(error)

    def _not_counted(self, _error: ConsoleError) -> None:
        self.guests, self._counted_at = None, -GUESTS_AGE

    def probe(self, told: Callable[[bool], None]) -> None:
        """Tell within PROBE whether libvirt answers. All who ask meanwhile share the answer."""
        self._probing.append(told)
        if self._probe_timer is not None:
            return
        # A probe waits behind a listing, which may take longer: libvirt that answers it is there.
        self._probe_timer = self._loop.after(
            PROBE, lambda: self._probed(time.monotonic() - self._heard_at < PROBE)
        )
        try:
            self.ask(control.Probe, lambda _: self._probed(True), lambda _: self._probed(False))
        except ConsoleError:
            self._probed(False)

    def _probed(self, up: bool) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        probing, self._probing = self._probing, []
        for told in probing:
            told(up)

    def _list(self) -> None:
        """Have the next page made, the one that was first asked for."""
        self._listing = bool(self._listeners)
        if not self._listing:
            return
        after = next(iter(self._listeners))
        listeners = self._listeners.pop(after)

        def answered(found: list[GuestInfo]) -> None:
            self._list()
            for one in listeners:
                one.answered(found)

        def failed(error: ConsoleError) -> None:
            self._not_counted(error)
            self._listing = False
            waiting = [*listeners, *itertools.chain(*self._listeners.values())]
            self._listeners = {}
            for one in waiting:
                one.failed(error)

        try:
            self.ask(functools.partial(control.Scan, after=after), answered, failed)
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
        message = _from_inventory.decode(line)
        if isinstance(message, control.Found):
            self._heard_at = time.monotonic()
        self._answer(message)
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
            if message.total is not None:
                self.guests, self._counted_at = message.total, time.monotonic()
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
