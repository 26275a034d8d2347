"""The soak's clients: they do what people and networks do, then their streams are checked."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import websockets.exceptions

from serial_console.demo.libvirtd import Guest
from tests.clients import Terminal
from tests.stack import Json, Stack

from . import soak_journal as journals
from .soak_journal import Journal, Visit
from .soak_truth import MismatchError, Truth

PATIENCE = 60.0
"""Seconds in which a typed line must come back, whatever was done meanwhile: the longest fault,
the connection's time-out and backoff, a guest's start, on a busy machine."""
LINGER = 15.0
"""Seconds for which a fault that is over still explains a refusal: a relay notices, backs off."""
BEHIND = 30.0
"""Seconds after a stall in which a client may still be reading what it missed."""
NOISY = 1
"""Guests that may print their noise at once: each takes a processor while it does."""
STALL = 20.0
"""Seconds at most for which a client waits for a gap: all buffers have to be full before."""
RECEIVE = 16384
"""Bytes that a client's kernel reads ahead: left to itself, more than is printed in a stall."""
REPLAY = 65536
"""Bytes of recent output that a client may ask for: the configuration's default."""
OPENED = 2.5
"""Seconds in which what came before QEMU saw that its pty is open has reached a client: one, at
most, until it looks, and some on the way on a busy machine."""


class Client(Terminal):
    """A client that reads for a while, and does not have others read megabytes ahead of it."""

    def __init__(self, url: str) -> None:
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
            parts = urlsplit(url)
            sock.connect((parts.hostname, parts.port))
            super().__init__(url, sock=sock, max_queue=1)
        except BaseException:
            sock.close()
            raise
        self._arrivals: list[tuple[float, int]] = []

    def _receive(self, deadline: float, what: str) -> None:
        super()._receive(deadline, what)
        self._arrivals.append((time.monotonic(), len(self.output)))

    def soon_after(self, at: int) -> int:
        """Return how many bytes of the output came within OPENED seconds of the one at ``at``."""
        begin = next((when for when, size in self._arrivals if size > at), 0.0)
        return max(size - at for when, size in self._arrivals if when <= begin + OPENED)

    def read(self, seconds: float, pause: float = 0.0, until: bytes = b"") -> bool:
        """Read until ``until`` has come, the session has ended, or the time is up.

        Args:
            seconds: at most so long.
            pause: wait so long between two messages: a slow reader.
            until: what to wait for; what came before the call does not count.

        Returns:
            Whether ``until`` came.
        """
        deadline = time.monotonic() + seconds
        begin = len(self.output)
        while self._end is None and time.monotonic() < deadline:
            try:
                self._receive(min(deadline, time.monotonic() + 0.5), "")
            except AssertionError:
                continue  # nothing came yet
            if until and self.output.find(until, max(0, begin - len(until))) >= 0:
                return True
            time.sleep(pause)
        return False

    @property
    def end(self) -> tuple[int, str] | None:
        """How it ended, None while it has not."""
        return self._end


@dataclass
class Place:
    """A guest of the soak with its log.

    ``noisy``: it is asked for its noise. It always is the same, so that where a replay of it begins
    would not be known: only the others are asked for a replay.
    """

    guest: Guest
    truth: Truth
    noisy: bool

    @property
    def uuid(self) -> str:
        """The guest's UUID."""
        return self.guest.uuid


class Visitor:
    """A thread that visits guests until told to stop.

    Args:
        stack, places, journal: the soak's.
        seed: of its random numbers.
        stop: set when it is to end.
    """

    def __init__(
        self, stack: Stack, places: list[Place], journal: Journal, seed: int, stop: threading.Event
    ) -> None:
        self._stack = stack
        self._places = places
        self._journal = journal
        self._random = random.Random(seed)
        self._stop = stop
        self.thread = threading.Thread(target=self._run, name=f"visitor {seed}")

    noisy = threading.BoundedSemaphore(NOISY)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.visit(self._random.choice(self._places))
            except Exception as error:
                self._journal.fail(f"{self.thread.name}: {type(error).__name__}: {error}")
                raise

    def visit(self, place: Place) -> None:
        """Be one client of a guest."""
        rng = self._random
        mode = rng.choice(("rw", "rw", "rw", "ro"))
        takeover = mode == "rw" and rng.random() < 0.35
        via = "stock" if rng.random() < 0.25 else "gateway"
        visit = self._journal.visit(place.uuid, mode, takeover, via)
        begin = place.truth.size()
        replay = 0 if place.noisy else rng.choice((0, 1000, REPLAY))
        if replay:
            begin = max(0, begin - 2 * REPLAY)  # what QEMU logged twice counts twice
        client = self._connect(visit, replay)
        if client is None:
            visit.end = time.monotonic()
            self._stop.wait(0.3)
            return
        self._journal.count(f"clients {mode} via {via}")
        how = "ended"
        try:
            with client:
                for _ in range(rng.randint(1, 6)):
                    if client.end is None:
                        self._act(client, visit, place)
                if client.end is None:
                    how = self._leave(client, visit)
        except websockets.exceptions.ConnectionClosed:
            client.read(5.0)
        except OSError as error:
            visit.note(f"connection: {error}")
            client.read(5.0)
        visit.end = time.monotonic()
        self._judge_end(client, visit, how)
        self._judge_stream(client, visit, place, begin)

    # ---- coming

    def _connect(self, visit: Visit, replay: int) -> Client | None:
        wanted: Json = {"mode": visit.mode, "ttl": 120, "replay": replay}
        wanted["user"] = f"u{visit.number}"
        if visit.takeover:
            wanted["takeover"] = True
        try:
            answer = self._stack.ask("issue", guest=visit.guest, **wanted)
        except (OSError, StopIteration, ValueError) as error:
            self._refused(visit, f"no answer: {error!r}", journals.SUPERVISOR)
            return None
        if not answer["ok"]:
            causes = {"libvirt_unavailable": journals.LIBVIRTD}.get(answer["code"], frozenset())
            self._refused(visit, f"no token: {answer}", causes)
            return None
        try:
            return Client(self._stack.url(answer["token"], visit.via))
        except (OSError, websockets.exceptions.WebSocketException) as error:
            if visit.via == "stock":  # it has no other way to refuse
                self._judge_refusal(visit, error)
            else:
                self._refused(visit, f"no handshake: {error!r}", journals.GATEWAY)
            return None

    def _judge_refusal(self, visit: Visit, error: Exception) -> None:
        now = time.monotonic()
        if self._journal.others(visit, visit.begin - 4.0, now):
            self._journal.count("refusals before a session")
        else:
            causes = journals.LIBVIRTD | journals.SUPERVISOR | journals.RELAY
            self._refused(visit, f"no handshake: {error!r}", causes)

    def _refused(self, visit: Visit, how: str, causes: frozenset[str]) -> None:
        self._journal.count("refusals before a session")
        now = time.monotonic()
        if not self._journal.was(causes, visit.guest, visit.begin - LINGER, now):
            self._journal.fail(f"{visit}: {how}, without a cause")

    # ---- staying

    def _act(self, client: Client, visit: Visit, place: Place) -> None:
        rng = self._random
        acts = ("type", "much", "read", "stall", "slowly", "noise")
        act = rng.choices(acts, weights=(4, 2, 2, 3, 2, 5 if place.noisy else 0))[0]
        visit.note(act)
        self._journal.count(f"did {act}")
        if act == "read" or (visit.mode == "ro" and act in ("type", "noise")):
            client.read(rng.uniform(0.1, 3.0))
        elif act == "stall":
            self._stall(client, visit, place)
        elif act == "slowly":
            client.read(rng.uniform(0.5, 4.0), pause=0.05)
            visit.stalled = time.monotonic()
        elif act == "type":
            for _ in range(rng.randint(1, 10)):
                self._type(client, visit)
            self._echo(client, visit)
        elif act == "much":
            visit.held = True
            visit.stalled = time.monotonic()
            for _ in range(50):
                self._type(client, visit, count=20)
        elif self.noisy.acquire(blocking=False):
            try:
                if not all(one.truth.still(0.1, 0.1) for one in self._places if one.noisy):
                    return
                self._type(client, visit)
                client.send(b"\5")
                if rng.random() < 0.5:
                    self._stall(client, visit, place)
                client.read(rng.uniform(0.2, 8.0))
            finally:
                self.noisy.release()

    def _stall(self, client: Client, visit: Visit, place: Place) -> None:
        """Read nothing for a while; if the guest prints much, until output was skipped."""
        deadline = time.monotonic() + self._random.uniform(0.3, 4.0)
        if not place.truth.still(0.1, 0.1):
            visit.note("until output is skipped")
            deadline = time.monotonic() + STALL
        while time.monotonic() < deadline and not self._stop.wait(0.3):
            with contextlib.suppress(OSError, StopIteration, ValueError, KeyError):
                listing = self._stack.ask("sessions")["sessions"]
                mine = [one for one in listing if one["user"] == f"u{visit.number}"]
                if not mine or mine[0]["skipped"]:
                    break
        visit.stalled = time.monotonic()
        client.read(self._random.uniform(0.0, 6.0))

    def _type(self, client: Client, visit: Visit, count: int = 1) -> bytes:
        """Type numbered lines in one message; return the last one."""
        lines = []
        for _ in range(count):
            number = len(visit.typed)
            visit.typed[number] = time.monotonic()
            lines.append(_line(visit, number) + b"\r\n")
        client.send(b"".join(lines))
        return lines[-1][:-2]

    def _echo(self, client: Client, visit: Visit) -> None:
        """Type a line a second until one comes back."""
        begin = time.monotonic()
        first = len(visit.typed)
        seen = max(0, len(client.output) - 20)
        while client.end is None:
            self._type(client, visit)
            client.read(1.0, until=_line(visit, first))
            new = bytes(client.output[seen:])
            if any(_line(visit, number) in new for number in range(first, len(visit.typed))):
                self._journal.count("lines that came back")
                visit.held = False
                return
            if time.monotonic() - begin > PATIENCE:
                self._journal.fail(f"{visit}: nothing typed came back in {PATIENCE:.0f} s")
                return

    # ---- leaving

    def _leave(self, client: Client, visit: Visit) -> str:
        how = self._random.choice(("closed", "closed", "vanished", "escape", "operator", "stays"))
        if how == "escape" and visit.held:
            how = "closed"  # behind input that is held, Ctrl-Q is one byte of it
        visit.note(how)
        self._journal.count(f"left: {how}")
        if how == "vanished":
            client.vanish()
        elif how == "escape":
            client.send(b"\x11")
            client.read(20.0)
        elif how == "operator":
            if not self._close_by_operator(visit):
                return "no operator"
            client.read(20.0)
        elif how == "stays":
            client.read(self._random.uniform(1.0, 8.0))
        return how

    def _close_by_operator(self, visit: Visit) -> bool:
        """Close it; tell whether there was a supervisor that knew of it."""
        try:
            listing = self._stack.ask("sessions")["sessions"]
            mine: list[Any] = [one for one in listing if one["user"] == f"u{visit.number}"]
            return any(self._stack.ask("close", id=one["id"], by="soak")["ok"] for one in mine)
        except (OSError, StopIteration, ValueError):
            visit.note("no supervisor")
            return False

    # ---- judging

    def _judge_end(self, client: Client, visit: Visit, how: str) -> None:
        code, reason = client.end or (0, "")
        self._journal.count(f"end {code or how} via {visit.via}")
        if visit.via == "stock" or code == 0:
            if how in ("escape", "operator") and code == 0 and visit.via != "stock":
                self._without_cause(visit, how, code, reason, "did not end")
            return
        journal, guest, begin = self._journal, visit.guest, visit.begin - 1.0
        end = visit.end
        rivals = journal.others(visit, begin - 3.0, end)
        explained = {
            1000: how == "escape",
            1012: journal.was(journals.GATEWAY, guest, begin, end),
            1006: journal.was(journals.CHILD, guest, begin, end),
            4401: journal.was(journals.SUPERVISOR, guest, begin - LINGER, end),
            4409: bool(rivals) or journal.was(journals.RELAY, guest, begin - 5.0, end),
            4410: any(one.takeover for one in rivals),
            4411: how == "operator",
            4412: journal.was(journals.RELAY, guest, begin, end),
            4503: journal.was(journals.LIBVIRTD | journals.SUPERVISOR, guest, begin - LINGER, end),
        }
        if code == 1006 and end - visit.stalled < BEHIND and how == "ended":
            # It did not come to the close frame within ending.LAST_OUTPUT, and it went on typing.
            code = next((other for other, fits in explained.items() if fits), code)
        if not explained.get(code, False):
            self._without_cause(visit, how, code, reason, "ended without a cause")

    def _without_cause(self, visit: Visit, how: str, code: int, reason: str, what: str) -> None:
        self._journal.fail(f"{what}: {how} {code} {reason!r}: {visit}")

    def _judge_stream(self, client: Client, visit: Visit, place: Place, begin: int) -> None:
        self._stop.wait(0.2)  # QEMU writes its log just after the port
        journal = self._journal
        away = journal.was(journals.AWAY, visit.guest, visit.begin - LINGER, visit.end)
        try:
            output = bytes(client.output)
            verdict = place.truth.check(output, begin, away=away, opened=client.soon_after)
        except MismatchError as error:
            journal.fail(f"{visit}: stream differs: {error}")
            name = os.path.join(self._stack.directory, f"visit-{visit.number}")
            with open(f"{name}.stream", "wb") as file:
                file.write(client.output)
            with open(f"{name}.printed", "wb") as file:
                file.write(place.truth.since(begin))
            return
        journal.count("bytes checked", verdict.checked)
        journal.count("gaps", verdict.gaps)
        journal.count("bytes skipped, as said", verdict.skipped)
        self._judge_input(visit, place.truth, begin)

    def _judge_input(self, visit: Visit, truth: Truth, begin: int) -> None:
        came = truth.lines(visit.typist, begin)
        self._journal.count("lines typed and printed", len(came))
        wrong = [(a, b) for a, b in zip([-1, *came], came, strict=False) if b <= a]
        if wrong:
            self._journal.fail(f"{visit}: input doubled or out of order: {wrong[:5]}")
        lost = sorted(set(range(max(came, default=-1))) - set(came))
        unexplained = [
            number
            for number in lost
            if not self._journal.was(
                journals.LOSES_INPUT, visit.guest, visit.typed[number] - LINGER, visit.end
            )
            and not truth.has(_line(visit, number), begin)
        ]
        self._journal.count("lines lost by a fault", len(lost) - len(unexplained))
        if unexplained:
            self._journal.fail(f"{visit}: lines lost without a cause: {unexplained[:5]}")


def _line(visit: Visit, number: int) -> bytes:
    """Return a numbered line without its end."""
    return f"<{visit.typist}:{number:06d}>".encode()
