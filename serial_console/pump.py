"""The core of a relay, without I/O: bytes and events in, bytes and intents out.

Everything here is bounded. Output goes into a replay ring and into one queue per client; input
goes into one queue for the guest. The caller reads the guest unless it is to ``rest``, a client
while ``wants_input``, writes what ``to_client`` and ``to_guest`` give, says what was taken, calls
``tick`` no later than ``deadline`` and carries out ``intents``.

Times are seconds on any monotonic clock that the caller chooses.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from dataclasses import dataclass, field

from . import terminal
from .bytequeue import ByteQueue
from .control import (
    ClientInfo,
    HeldEvent,
    Message,
    NoticeEvent,
    SkippedEvent,
    State,
    StateEvent,
)
from .errors import CloseCode

log = logging.getLogger("relay")

PACKET = 4096
"""Bytes of one packet to the guest: five of them, which is what libvirtd takes of one connection
before it stops reading it, drain through a UART (11 KB/s under TCG) in 2 s."""
INPUT_MAX = 65536
"""Bytes of input held for a guest that does not read; past it we stop reading the client."""
STALL = 0.25
"""Seconds without taking anything after which a client is stalled and the guest no longer waits."""
PATIENCE = 8.0
"""Longest time in seconds that the guest waits for a client that takes output in gulps: well under
the 20 s after which libvirt has to be read for its keepalive."""
GATHER = 0.003
"""Seconds for which output is gathered after the last was read. A UART's comes in messages of some
100 bytes; a round of relay and gateway for each cost 1350 ms of CPU per MB, gathered 265."""
BURST = 0.00005
"""The same for faster output, which comes in pieces of 4 KB; by the kernel's leave some 0.1 ms. Not
at all: 77 MB/s and 12.0 ms of CPU per MB in relay and gateway; so: 85 and 8.6; for 0.15 ms 68 and
7.7; for 1 ms 39 and 7.7 (``make bench ARGS=flood``), as libvirtd waits once its socket is full."""
ECHO = 0.1
"""Seconds after input in which output is given out at once: it may be the echo of a key."""
STEADY = 0.02, 8e6
"""Seconds over which the guest's speed is measured, and bytes per second up to which its output is
gathered for GATHER: libvirtd's socket holds 45 KB, so a guest that it holds up has twice that speed
and goes over to BURST. One of 500 consoles prints 6 MB/s: 25 ms of CPU per MB; up to 2e6: 42."""
PIECE = 24576, 0.0005
"""Bytes of fast output that are gathered for a client, and seconds at most. Ungathered, at 12 KB a
reading, the gateway has 3.2 ms of CPU per MB, so 2.2."""
HELD = 1.0
"""Seconds that input waits before the person is told that it is held."""
UNREAD = 6, 35.0, 2.0
"""What a lost connection may have cost: the last packets, of which libvirtd had not written five to
the guest and not read one, if input was held, in the 35 s before, after which libvirtd had given
the connection up; else those of the last 2 s."""
IDLE_WARNING = 60.0
"""Seconds before the idle time-out when the person is warned."""


@dataclass(frozen=True)
class Emit:
    """Write this event on the client's way back."""

    client: str
    event: Message


@dataclass(frozen=True)
class Finish:
    """End this client: flush what can be flushed, say ``end``, close."""

    client: str
    code: int
    reason: str


@dataclass(frozen=True)
class Start:
    """Where a client's output begins; the fields are those of SessionEvent."""

    position: int
    replay: int
    printed: float | None
    continued: bool


@dataclass
class _Note:
    """Where our own words stand in a client's output, counted over the whole session.

    ``skipped``: bytes that they say were skipped; ``told``: the event has said so too. One without
    words marks a gap for a client that is shown events.
    """

    begin: int
    end: int
    skipped: int = 0
    told: bool = False


@dataclass
class _Client:
    id: str
    mode: str
    notices: bool
    shows_events: bool
    escape: bytes
    replay: int
    resumable: bool
    opened: float
    replay_end: int = 0  # counted as ``start``
    out: ByteQueue = field(default_factory=ByteQueue)
    start: int = 0  # where ``out`` begins, counted over the whole session
    notes: deque[_Note] = field(default_factory=deque)
    at_line_start: bool = True
    progress: float = 0.0
    patience: float = STALL
    stalled: bool = False
    away: bool = False
    gap: int = 0
    skipped: int = 0
    taken: int = 0  # bytes, on this connection
    tail: ByteQueue = field(default_factory=ByteQueue)  # what it took last, if it may come back
    bytes_in: int = 0
    bytes_out: int = 0
    last_input: float = 0.0
    warned: bool = False
    finished: bool = False


class Pump:
    """Fan-out of one console to its clients and fan-in of the one that types.

    Args:
        replay: bytes of recent output kept for whoever attaches.
        backlog: bytes that may wait for one client.
        idle_timeout: seconds without input after which an ``rw`` client ends; 0 = never.
        max_session: seconds after which any client ends; 0 = never.
    """

    def __init__(self, replay: int, backlog: int, idle_timeout: float, max_session: float) -> None:
        self._ring = ByteQueue()
        self._ring_max = replay
        self._ring_cut = False
        self._total = 0  # bytes of output
        self._backlog = backlog
        self._idle = idle_timeout
        self._longest = max_session
        self._clients: dict[str, _Client] = {}
        self._input: deque[tuple[str, bytearray]] = deque()
        self._input_bytes = 0
        self._input_since = 0.0
        self._sent: deque[tuple[float, int]] = deque(maxlen=UNREAD[0])
        self._held = False
        self._printed = 0.0
        self._speed = 0.0  # of the guest's output, bytes per second
        self._measured = (0.0, 0)  # since when, and how many bytes since
        self._typed = -ECHO
        self._intents: list[Emit | Finish] = []
        self.state = State.STARTING
        self._state_text = ""

    # ---- clients

    def attach(
        self,
        client: str,
        *,
        mode: str,
        notices: bool,
        escape: bytes,
        replay: int,
        resumable: bool,
        now: float,
        shows_events: bool = False,
        after: int | None = None,
    ) -> Start:
        """Take a client on; it gets recent output (at most ``replay`` bytes), then what comes.

        Args:
            client: its name.
            mode: ``rw`` or ``ro``.
            notices: whether it is shown our own words, and may be shown them in place of output.
            escape: the byte that ends it when it comes alone, or none.
            replay: bytes.
            resumable: whether it may ``leave`` and ``come_back``.
            now: the time.
            shows_events: our own words come as events, not among its output.
            after: bytes of output since we began that it has had.
        """
        new = _Client(
            client,
            mode,
            notices,
            shows_events,
            escape,
            replay,
            resumable,
            now,
            progress=now,
            last_input=now,
        )
        self._clients[client] = new
        start = self._begin(new, after, now)
        text = "" if self.state is State.CONNECTED else self._state_text  # else it is old news
        self._intents.append(Emit(client, StateEvent(state=self.state.value, text=text)))
        self._say(new, text, now)
        return start

    def leave(self, client: str) -> None:
        """Note that a client has gone and may come back: what comes meanwhile is kept for it, as
        for one that is stalled."""
        one = self._clients[client]
        one.away = one.stalled = True
        self._untell(one)

    def delivered(self, client: str, count: int) -> None:
        """Note how many of the bytes that a client took on its last connection have reached it.

        It is given the others again, as far as they are still there; the rest is a gap.
        """
        one = self._clients[client]
        missed = one.taken - max(0, count)
        if missed > 0:
            one.taken = max(0, count)
            self._missed(one, missed)

    def come_back(
        self, client: str, now: float, *, shows_events: bool = False, after: int | None = None
    ) -> Start:
        """Take a client on that comes back: it gets what it missed.

        Args:
            client: its name.
            now: the time.
            shows_events, after: as in ``attach``; it knows better than its gateway what it has had.
        """
        one = self._clients[client]
        one.away = one.stalled = False
        one.taken = 0
        one.progress = one.last_input = now
        one.warned = False
        self._intents.append(Emit(client, StateEvent(state=self.state.value, text="")))
        if self._held and one.mode == "rw":
            self._intents.append(Emit(client, HeldEvent(bytes=self._input_bytes)))
        known = after is not None and 0 <= self._total - after <= len(self._ring)
        # Of what waits for it, notices would be a part, or lack.
        changed = one.shows_events != shows_events
        if changed or (shows_events and (known or one.start < one.replay_end)):
            one.shows_events = shows_events
            one.out, one.tail, one.gap = ByteQueue(), ByteQueue(), 0
            one.notes.clear()
            return self._begin(one, after, now)
        ahead = one.gap + len(one.out) + sum(note.skipped for note in one.notes if not note.told)
        self._mark_gap(one)
        self._tell_gaps(one)
        return Start(self._total - ahead, 0, self._silence(now), continued=True)

    def detach(self, client: str) -> ClientInfo:
        """Forget a client. Its input that the guest did not take is discarded and counted."""
        info = self.info(client, 0.0)
        del self._clients[client]
        self._discard_input(client)
        return info

    def info(self, client: str, now: float) -> ClientInfo:
        """Return a client's figures."""
        one = self._clients[client]
        held = self._input if self._held else ()
        return ClientInfo(
            session=client,
            state="detached" if one.away else self.state.value,
            idle=max(0.0, round(now - one.last_input, 3)),
            bytes_in=one.bytes_in,
            bytes_out=one.bytes_out,
            skipped=one.skipped,
            held=sum(len(data) for typist, data in held if typist == client),
        )

    def finish(self, client: str, code: int, reason: str, now: float) -> None:
        """Have a client ended: it is told, then the intent to close it follows."""
        one = self._clients.get(client)
        if one is None or one.finished:
            return
        one.finished = True
        self._say(one, reason, now)
        self._intents.append(Finish(client, code, reason))

    # ---- guest to clients

    def output(self, data: bytes, now: float) -> None:
        """Take what the guest printed."""
        self._printed = now
        self._measure(len(data), now)
        self._total += len(data)
        if self._ring_max:
            self._ring.append(data)
            excess = len(self._ring) - self._ring_max
            if excess > 0:
                self._ring.drop(excess)
                self._ring_cut = True
        for client in self._clients.values():
            if not client.finished:
                self._push(client, data, now)

    @property
    def throttled(self) -> bool:
        """Whether the guest must wait: the client that types reads, but slowly.

        From an eighth of the backlog on: the rest is for what the guest prints before a client that
        takes output in gulps is known as such.
        """
        return any(
            client.mode == "rw" and not client.stalled and len(client.out) >= self._backlog // 8
            for client in self._clients.values()
        )

    def rest(self, now: float, gather: float = math.inf) -> float | None:
        """Return until when the guest is not to be read; None, or a time that is past: read it.

        A guest that prints steadily in little pieces is read a few hundred times a second; its
        first output after a pause, and what comes soon after input, at once.

        Args:
            now: the time.
            gather: seconds for which its console can be left alone, if less than GATHER.
        """
        if self.throttled:
            return math.inf
        if now - self._typed < ECHO:
            return None
        return self._printed + (min(gather, GATHER) if self._speed <= STEADY[1] else BURST)

    def to_client(self, client: str) -> memoryview:
        """Return what waits for a client; release it before any other call."""
        one = self._clients[client]
        self._mark_gap(one)
        return one.out.head()[: self._tell_gaps(one)]

    def has_output(self, client: str) -> bool:
        """Whether something waits for a client."""
        return bool(self._clients[client].out)

    def gathered_at(self, client: str, now: float) -> float | None:
        """Return until when more is to come before a client is given what waits for it, or None."""
        one = self._clients[client]
        size, seconds = PIECE
        if self._speed <= STEADY[1] or now - self._typed < ECHO or one.finished:
            return None
        if not 0 < len(one.out) < min(size, self._backlog // 8) or now >= one.progress + seconds:
            return None
        return one.progress + seconds

    def took(self, client: str, count: int, now: float) -> None:
        """Note that a client took so many bytes."""
        if count:
            one = self._clients[client]
            one.taken += count
            self._advance(one, count)
            one.bytes_out += count
            one.progress = now
            one.stalled = False
            if not one.out:
                one.patience = STALL

    def taking(self, client: str, pause: float, now: float) -> None:
        """Note that a client takes output, though nothing more fits in between us and it.

        Args:
            client: who.
            pause: the longest time in seconds that it lately took nothing; twice that it is not
                taken for stalled.
            now: the time.
        """
        one = self._clients[client]
        if not one.away:
            one.progress = now
            one.stalled = False
            one.patience = min(max(STALL, 2 * pause), PATIENCE)

    # ---- client to guest

    def wants_input(self, client: str) -> bool:
        """Whether the client is to be read: always, until too much input is held."""
        one = self._clients[client]
        return not one.finished and (one.mode == "ro" or self._input_bytes < INPUT_MAX)

    def has_input(self, client: str) -> bool:
        """Whether the guest is still to take something that a client typed, and takes input."""
        taken = self.state is State.CONNECTED and not self._held
        return taken and any(typist == client for typist, _ in self._input)

    def input(self, client: str, data: bytes, now: float) -> None:
        """Take one read of what a client typed.

        A watcher's is ignored. The escape key counts only alone in a read: inside longer input it
        is data. While the guest is off there is nobody to type to, and what is typed must not
        reach the boot loader of its next start: it is discarded, as the notice says.
        """
        one = self._clients[client]
        if one.finished:
            return
        if one.escape and data == one.escape:
            self.finish(client, CloseCode.ENDED, "Session ended by the escape key.", now)
            return
        if one.mode == "ro":
            return
        one.bytes_in += len(data)
        one.last_input = self._typed = now
        one.warned = False
        if self.state is State.WAITING:
            return
        if not self._input:
            self._input_since = now
        if self._input and self._input[-1][0] == client:
            self._input[-1][1].extend(data)
        else:
            self._input.append((client, bytearray(data)))
        self._input_bytes += len(data)

    def to_guest(self) -> bytes:
        """Return the next packet for the guest, empty when there is none or it is not to be sent.

        A paused guest gets none: libvirtd would take some and then stop reading us altogether.
        """
        if self.state is not State.CONNECTED or not self._input:
            return b""
        return bytes(self._input[0][1][:PACKET])

    def sent(self, count: int, now: float) -> None:
        """Note that the guest's console took so many bytes of the last packet."""
        data = self._input[0][1]
        del data[:count]
        if not data:
            self._input.popleft()
        self._input_bytes -= count
        self._input_since = now
        self._sent.append((now, count))
        if self._held and not self._input:
            self._held = False
            self._emit_held(0)

    # ---- events and time

    def set_state(self, state: State, text: str, now: float) -> None:
        """Note what became of the console and tell every client.

        Args:
            state: the new state; may be the old one again when only the text is news.
            text: a sentence for the person, or "" for a change that needs no words.
            now: the time.
        """
        if state is State.STARTING:
            raise AssertionError("a console starts once")
        log.debug("console %s -> %s %s", self.state.value, state.value, text)
        if state is State.RECONNECTING:
            text += self._uncertain_input(now)
        self.state = state
        self._state_text = text
        if state is State.WAITING:
            self._discard_all_input()
        elif state is State.CONNECTED:
            self._input_since = now
        for client in self._clients.values():
            self._intents.append(Emit(client.id, StateEvent(state=state.value, text=text)))
            if text:
                self._say(client, text, now)

    def tick(self, now: float) -> None:
        """Do what time asks for."""
        for client in list(self._clients.values()):
            if client.finished:
                continue
            if client.out and not client.stalled and now - client.progress >= client.patience:
                client.stalled = True
                self._trim(client, now)
            if self._longest and now - client.opened >= self._longest:
                self.finish(client.id, CloseCode.IDLE, "The longest session time is reached.", now)
            elif self._idle and client.mode == "rw":
                self._tick_idle(client, now)
        if self._input and not self._held and now >= self._held_at():
            self._held = True
            self._emit_held(self._input_bytes)
            for client in self._clients.values():
                if client.mode == "rw":
                    self._say(client, "The guest takes no input now: what you type is held.", now)

    def deadline(self) -> float | None:
        """Return when the next tick is due, or None."""
        due = [] if self._held or not self._input else [self._held_at()]
        for client in self._clients.values():
            if client.finished:
                continue
            if client.out and not client.stalled:
                due.append(client.progress + client.patience)
            if self._longest:
                due.append(client.opened + self._longest)
            if self._idle and client.mode == "rw":
                end = client.last_input + self._idle
                warn = self._idle > IDLE_WARNING and not client.warned
                due.append(end - IDLE_WARNING if warn else end)
        return min(due, default=None)

    def intents(self) -> list[Emit | Finish]:
        """Return what is to be done since the last call."""
        intents, self._intents = self._intents, []
        return intents

    # ---- inside

    def _measure(self, count: int, now: float) -> None:
        since, total = self._measured
        self._measured = since, total + count
        if now - since >= STEADY[0]:
            self._speed = (total + count) / (now - since)
            self._measured = now, 0

    def _tick_idle(self, client: _Client, now: float) -> None:
        idle = now - client.last_input
        if idle >= self._idle:
            reason = f"No input for {self._idle:g} s: the session was ended."
            self.finish(client.id, CloseCode.IDLE, reason, now)
        elif idle >= self._idle - IDLE_WARNING and self._idle > IDLE_WARNING and not client.warned:
            client.warned = True
            text = "No input: this session ends in 60 s. Any key keeps it."
            if client.shows_events:
                self._intents.append(Emit(client.id, NoticeEvent(text=text)))
            self._say(client, text, now)

    def _held_at(self) -> float:
        return self._input_since + (0.0 if self.state is State.PAUSED else HELD)

    def _push(self, client: _Client, data: bytes, now: float) -> None:
        if not client.out:
            client.progress = now
        client.out.append(data)
        client.at_line_start = data.endswith(b"\n")
        if client.stalled or client.mode == "ro":
            self._trim(client, now)

    def _trim(self, client: _Client, now: float) -> None:
        """Drop the oldest output beyond the backlog of a client that nobody waits for."""
        excess = len(client.out) - self._backlog
        if excess <= 0:
            return
        if not client.notices:
            reason = "Too slow: output would have been skipped, and this client shows no notices."
            self.finish(client.id, CloseCode.TOO_SLOW, reason, now)
            return
        notes = client.notes
        half = _half(client)
        keep = half.end - client.start if half else 0  # what is half said is said to its end
        begin = client.start + keep
        end = begin + excess
        ours = 0
        for note in [one for one in notes if begin <= one.begin < end and not one.told]:
            end = max(end, note.end)  # our own words go whole and are not counted
            ours += note.end - note.begin
            client.gap += note.skipped
            notes.remove(note)
        dropped = end - begin
        kept = client.out.take(keep)
        client.out.drop(dropped)
        client.out.push(kept)
        client.start += dropped
        for note in notes:
            if note.begin < begin or note.told:  # it stays where it was seen from behind the gap
                note.begin += dropped
                note.end += dropped
        client.gap += dropped - ours
        client.skipped += dropped - ours

    def _missed(self, one: _Client, count: int) -> None:
        self._mark_gap(one)  # of what comes after
        again = one.tail.last(count)
        before = one.tail.take(len(one.tail) - len(again))
        one.tail = ByteQueue()
        one.tail.append(before)
        one.out.push(again)
        one.start -= len(again)
        one.bytes_out -= count
        one.gap = count - len(again)
        one.skipped += one.gap
        self._untell(one)

    def _untell(self, one: _Client) -> None:
        """Tell of gaps again: where no byte behind has arrived, the event may not have either."""
        for note in one.notes:
            if one.shows_events and note.begin >= one.start:
                note.told = False

    def _mark_gap(self, client: _Client) -> None:
        """Put a mark at the front that tells of a gap there, after what is half said; what stands
        before it moves towards the front."""
        if not client.gap:
            return
        text = f"{client.gap} bytes of output skipped"
        mark = b"" if client.shows_events else terminal.notice(text, at_line_start=False)
        half = _half(client)
        before = client.out.take(half.end - client.start) if half else b""
        client.out.push(mark)
        client.out.push(before)
        client.start -= len(mark)
        begin = client.start + len(before)
        count = 0
        for note in client.notes:
            if note.end <= begin + len(mark):
                note.begin -= len(mark)
                note.end -= len(mark)
                count += 1
        client.notes.insert(count, _Note(begin, begin + len(mark), client.gap))
        client.gap = 0

    def _tell_gaps(self, client: _Client) -> int | None:
        """Tell a client that is shown events of a gap at the front. Returns how many bytes come
        before the next one, None if there is none: the event stands before what is behind it."""
        if client.shows_events:
            for note in client.notes:
                if note.begin > client.start:
                    return note.begin - client.start
                self._tell_gap(client, note)
        return None

    def _tell_gap(self, client: _Client, note: _Note) -> None:
        if note.skipped and not note.told:
            note.told = True
            at = client.taken + note.begin - client.start
            self._intents.append(Emit(client.id, SkippedEvent(bytes=note.skipped, at=at)))

    def _advance(self, client: _Client, count: int) -> None:
        """Note that the first bytes of the queue have been taken."""
        if client.resumable:
            client.tail.append(client.out.take(count))
            client.tail.drop(max(0, len(client.tail) - self._backlog))
        else:
            client.out.drop(count)
        client.start += count
        for note in client.notes:
            if note.begin < client.start:
                self._tell_gap(client, note)
        while client.notes and client.notes[0].end < client.start - len(client.tail):
            client.notes.popleft()

    def _say(self, client: _Client, text: str, now: float) -> None:
        if client.notices and not client.shows_events and text:
            note = terminal.notice(text, client.at_line_start)
            begin = client.start + len(client.out)
            client.notes.append(_Note(begin, begin + len(note)))
            self._push(client, note, now)

    def _emit_held(self, count: int) -> None:
        event = HeldEvent(bytes=count)
        self._intents += [Emit(one.id, event) for one in self._clients.values() if one.mode == "rw"]

    def _uncertain_input(self, now: float) -> str:
        """Return a sentence on input that a lost connection may have cost, "" if there is none.

        When it was not read in time, what is still held goes as well: after a hole it could do
        harm. A little input after which the guest printed something counts as read.
        """
        stuck = self.state is State.CONNECTED and self._input and now >= self._held_at()
        since = now - (UNREAD[1] if stuck else UNREAD[2])
        last = [(at, count) for at, count in self._sent if at > since]
        lost = sum(count for _, count in last)
        self._sent.clear()
        if stuck:
            lost += self._input_bytes
            self._discard_all_input()
            return f" What was typed was not read in time: up to {lost} bytes are discarded."
        if not last or (lost <= PACKET and not self._input and self._printed > last[-1][0]):
            return ""
        return f" The last {lost} bytes typed may not have reached the guest."

    def _discard_all_input(self) -> None:
        for typist in self._clients:
            self._discard_input(typist)

    def _discard_input(self, client: str) -> None:
        kept = deque(item for item in self._input if item[0] != client)
        dropped = self._input_bytes - sum(len(data) for _, data in kept)
        if dropped:
            log.info(
                "session %s: %d bytes of input not taken by the guest, discarded", client, dropped
            )
        self._input = kept
        self._input_bytes -= dropped
        if self._held and not kept:
            self._held = False
            self._emit_held(0)

    def _begin(self, one: _Client, after: int | None, now: float) -> Start:
        """Give a client what it is to see before anything new."""
        continued = after is not None and 0 <= after <= self._total
        missed = self._total - after if after is not None and continued else 0
        if not continued:
            recent = terminal.without_queries(self._recent(one.replay))
            shown = terminal.SOFT_RESET + recent if recent else b""
        elif missed <= min(one.replay, len(self._ring)):
            whole = self._ring.last(len(self._ring))
            seen = len(whole) - missed
            shown = terminal.rest_without_queries(whole[:seen], whole[seen:])
        else:
            recent = self._recent(one.replay)
            one.gap = missed - len(recent)
            one.skipped += one.gap
            shown = terminal.CANCEL + terminal.without_queries(recent)
        one.replay_end = one.start + len(shown)
        if shown:
            self._push(one, shown, now)
        start = Start(self._total, one.gap + len(shown), self._silence(now), continued)
        self._mark_gap(one)
        self._tell_gaps(one)
        return start

    def _silence(self, now: float) -> float | None:
        return round(now - self._printed, 3) if self._total else None

    def _recent(self, limit: int) -> bytes:
        recent = self._ring.last(limit)
        if recent and (self._ring_cut or len(recent) < len(self._ring)):
            line = re.search(rb"\n", recent)
            recent = recent[line.end() :] if line else recent
        return recent


def _half(client: _Client) -> _Note | None:
    """Return the notice of which a client has taken a part."""
    return next((one for one in client.notes if one.begin < client.start < one.end), None)
