"""One session's bytes both ways: bounded, watched for clients that are slow, stalled or gone."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import ssl
import time

from . import events, frames
from .client import VERSION, WayBack
from .ending import (
    CHUNK,
    GOING_AWAY,
    LATER,
    NORMAL,
    TICK,
    Ended,
    end_in,
    end_of,
    in_kernel,
    restart,
    send,
)
from .flow import Flow
from .liveness import INFO_SIZE, LOOKS, Liveness, Look

KNOCK = 1.0
"""Seconds between two pings while the client is not read. One that has closed with its input still
on the way to us cannot say so; its kernel answers a ping with a reset."""


class Pump:
    """Bytes both ways. Reads a side only when what it read before has been written.

    Args:
        client: the connected client, past its handshake.
        relay: the connected relay.
        back: the way back from the relay.
        heartbeat: seconds between pings, 0 for none.
        shown: places the events, where the client is shown them.
    """

    def __init__(
        self,
        client: socket.socket,
        relay: socket.socket,
        back: WayBack,
        heartbeat: float,
        shown: events.Events | None = None,
    ) -> None:
        self._client = client
        self._relay = relay
        self._back = back
        self._heartbeat = heartbeat
        self._shown = shown
        self._reader = frames.Reader(events.TEXT_MAX if shown else 0)
        self._to_client = bytearray()
        self._to_relay = bytearray()
        self._end: Ended | None = None
        now = time.monotonic()
        self._flow = Flow(now, pings=heartbeat > 0)
        self._told = self._knocked = now
        self._liveness = Liveness(heartbeat, now)
        self._looks = 0
        self._ping_waits = False
        self._tls = client if isinstance(client, ssl.SSLSocket) else None
        self._poll = select.poll()
        self._watched: tuple[bool, ...] = ()
        client.setblocking(False)
        relay.setblocking(False)

    def run(self) -> None:
        """Pump until the end. Raises Ended, or OSError when the client's connection breaks."""
        try:
            self._run()
        except Ended as end:
            self._tell_delivered(end.reason, there=not end.by_client, left=end.left)
            end.unsent, end.reader = bytes(self._to_client), self._reader
            raise
        except OSError as error:
            self._tell_delivered(f"The connection broke: {error.strerror}.", there=False)
            raise

    def _tell_delivered(self, reason: str, *, there: bool, left: bool = False) -> None:
        """Tell the relay why this ends and how much output has arrived; a client that is still
        there is given a moment to acknowledge what it has. One that has left will not come back."""
        deadline = time.monotonic() + TICK
        while self._look_at_flow(now := time.monotonic()) or self._flow.outstanding:
            if not there or now >= deadline:
                break
            with contextlib.suppress(OSError):
                if self._to_client:
                    self._write_client()
            select.select([], [], [], TICK / 20)
        self._back.tell("delivered", bytes=self._flow.delivered, reason=reason, left=left)

    def _run(self) -> None:
        wake = _woken_by_sigterm()
        self._poll.register(wake, select.POLLIN)
        client, relay, back = self._client.fileno(), self._relay.fileno(), self._back.fileno()
        now = time.monotonic()
        look_at = now + self._heartbeat / LOOKS if self._heartbeat else math.inf
        tick_at = 0.0
        while True:
            self._watch()
            due = look_at
            if (self._flow.outstanding or self._to_relay) and tick_at < due:
                due = tick_at
            wait = max(0.0, due - now) * 1000 if due < math.inf else None
            ready = self._poll.poll(wait)
            now = time.monotonic()
            for fd, mask in ready:
                if fd == relay:
                    if mask & ~select.POLLOUT:
                        self._read_relay(now)
                elif fd == client:
                    if mask & select.POLLIN:
                        self._read_client(now)
                    elif mask & (select.POLLHUP | select.POLLERR | select.POLLRDHUP):
                        raise Ended(GOING_AWAY, "The client is gone.", by_client=True)
                elif fd == back:
                    self._read_back()
                else:
                    raise restart()
            if self._to_relay:
                self._write_relay()
            if self._shown is not None and self._shown.waiting and not self._to_client:
                self._send(self._shown.parts(b""), now)
            if self._to_client:
                self._write_client()
            if now >= look_at:
                look_at = now + self._heartbeat / LOOKS
                self._look(now)
            if now >= tick_at:
                tick_at = now + TICK
                self._tick(now)

    def _watch(self) -> None:
        """Poll for what can be done: a side is read only when nothing waits to be written to the
        other."""
        state = bool(self._to_client), bool(self._to_relay), self._room() > 0, self._back.ended
        if state == self._watched:
            return
        self._watched = state
        to_client, to_relay, room, ended = state
        client = select.POLLRDHUP
        client |= select.POLLIN if not to_relay else 0
        client |= select.POLLOUT if to_client else 0
        relay = select.POLLIN if room else 0
        relay |= select.POLLOUT if to_relay else 0
        back = select.POLLIN if not ended else 0
        for side, mask in (self._back, back), (self._relay, relay), (self._client, client):
            if mask:
                self._poll.register(side, mask)
            else:  # even then it would be told of an end, again and again
                with contextlib.suppress(KeyError):
                    self._poll.unregister(side)

    def _tick(self, now: float) -> None:
        if self._flow.outstanding and self._look_at_flow(now):
            self._tell_taking(now)
        if self._to_relay and self._heartbeat and now - self._knocked >= KNOCK:
            self._knocked = now
            self._ping()

    def _look_at_flow(self, now: float) -> bool:
        """Take note of what the client's kernel has acknowledged."""
        return self._flow.look(len(self._to_client) + in_kernel(self._client), now)

    def _tell_taking(self, now: float) -> None:
        """Tell the relay that its client takes output, while it cannot see that for itself."""
        if (self._to_client or self._flow.room is not None) and now - self._told >= TICK:
            self._told = now
            self._back.tell("taking", pause=round(self._flow.pause, 3))

    def _ping(self) -> None:
        if not self._ping_waits:
            self._to_client += self._flow.other(self._flow.ping())
            self._ping_waits = True

    def _look(self, now: float) -> None:
        """See whether the client is still there; send a ping when it is time for one."""
        info = self._client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_SIZE)
        reading = not self._to_relay
        why = self._liveness.verdict(now, Look.parse(info), reading=reading)
        if why is not None:
            raise Ended(GOING_AWAY, why, vanished=True)
        self._looks += 1
        if self._looks % LOOKS == 0:
            self._ping()
            self._tell_alive()

    def _tell_alive(self) -> None:
        """Let a page know that its connection lives: it is not shown the pings."""
        if self._shown is not None and self._heartbeat:
            self._shown.add([{"v": VERSION, "op": "alive", "next": self._heartbeat}])

    def _room(self) -> int:
        """Return how many bytes are to be read from the relay. A session that has ended is not held
        back by the client's window: it is to be told."""
        if self._to_client:
            return 0
        room = self._flow.room
        if room is None or self._end is not None or self._back.ended:
            return CHUNK
        return max(0, min(room, CHUNK))

    def _read_relay(self, now: float) -> None:
        room = self._room()
        if not room:
            return
        try:
            data = self._relay.recv(room)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise self._end or end_of(self._back)
        if self._shown is None:
            self._give(self._flow.frames(data, now))
        else:
            self._read_back()  # what stands before or in this output has been written before it
            self._send(self._shown.parts(data), now)

    def _give(self, wire: bytes) -> None:
        """Send the client what it takes at once."""
        if not self._to_client:
            wire = wire[send(self._client, wire) :]
        self._to_client += wire

    def _send(self, parts: list[tuple[int, bytes]], now: float) -> None:
        for opcode, payload in parts:
            if opcode == frames.BINARY:
                self._give(self._flow.frames(payload, now))
            else:
                self._to_client += self._flow.other(frames.frame(opcode, payload))

    def _read_client(self, now: float) -> None:
        while not self._to_relay:
            try:
                data = self._client.recv(CHUNK)
            except LATER:
                return
            if not data:
                raise Ended(GOING_AWAY, "The client is gone.", by_client=True)
            try:
                pieces = self._reader.feed(data)
            except frames.FrameError as error:
                raise Ended(error.code, f"WebSocket protocol error: {error}.") from None
            for opcode, payload in pieces:
                if opcode == frames.BINARY:
                    self._to_relay += payload
                elif opcode == frames.TEXT:
                    self._hear(payload, now)
                elif opcode == frames.PING and len(self._to_client) < CHUNK:
                    self._to_client += self._flow.other(frames.frame(frames.PONG, payload))
                elif opcode == frames.PONG and self._flow.pong(payload, now):
                    self._tell_taking(now)
                elif opcode == frames.CLOSE:
                    self._write_relay()
                    end = Ended(NORMAL, "The client closed.", by_client=True)
                    end.left = self._shown is not None and payload[:2] == NORMAL.to_bytes(2, "big")
                    raise end
            if self._tls is None or not self._tls.pending():
                return

    def _hear(self, payload: bytes, now: float) -> None:
        """Take a text message of a client that is shown events."""
        try:
            op, count = events.understood(payload)
            if op == "window":
                self._flow.limit(count, now)
            elif self._flow.took(count, now):
                self._tell_taking(now)
        except events.MessageError as error:
            raise Ended(events.POLICY_VIOLATION, str(error)) from None
        except ValueError:
            text = '"taken" went back, or was more than was sent.'
            raise Ended(events.POLICY_VIOLATION, text) from None

    def _write_relay(self) -> None:
        try:
            del self._to_relay[: send(self._relay, self._to_relay)]
        except OSError:  # it has ended: reading it, which comes next, says how
            self._to_relay.clear()

    def _write_client(self) -> None:
        del self._to_client[: send(self._client, self._to_client)]
        self._ping_waits = self._ping_waits and bool(self._to_client)

    def _read_back(self) -> None:
        while told := self._back.events():
            self._end = end_in(told) or self._end
            if self._shown is not None:
                self._shown.add(told)
                if told[0]["op"] == "session":
                    self._tell_alive()


def _woken_by_sigterm() -> int:
    """Let SIGTERM be seen by the poll loop. Returns the fd to watch."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    return read
