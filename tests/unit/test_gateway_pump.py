"""The gateway's pump between sockets: nothing is lost where a side does not read for a while."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from websockify_tokens import ending, frames, pump
from websockify_tokens.client import WayBack
from websockify_tokens.events import Events

from .test_flow import parts
from .test_frames import masked

MIB = 1 << 20
PATIENCE = 10.0
"""Seconds for what is to come at once."""


class Ends:
    """The outer ends of a pump that runs in a thread, and how it ended."""

    def __init__(self, stack: contextlib.ExitStack, shown: Events | None) -> None:
        ours, self.client = socket.socketpair()
        theirs, self.relay = socket.socketpair()
        back, self.back = socket.socketpair()
        for one in (ours, self.client, theirs, self.relay, back, self.back):
            stack.enter_context(one).settimeout(PATIENCE)
        made = pump.Pump(ours, theirs, WayBack(back, b""), 10.0, shown)
        self.ended: ending.Ended | None = None
        self.thread = threading.Thread(target=self._run, args=[made], daemon=True)
        self.thread.start()

    def _run(self, made: pump.Pump) -> None:
        try:
            made.run()
        except ending.Ended as end:
            self.ended = end

    def end(self) -> ending.Ended:
        """End the session from the relay's side, as it does."""
        end = {"v": 1, "op": "end", "code": 1000, "reason": "Over."}
        self.back.sendall(json.dumps(end).encode() + b"\n")
        self.relay.close()
        self.thread.join(PATIENCE)
        assert self.ended is not None
        return self.ended


@pytest.fixture(params=[None, Events], ids=["binary", "events"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    with contextlib.ExitStack() as stack:
        wake, other = socket.socketpair()
        stack.enter_context(wake)
        stack.enter_context(other)
        monkeypatch.setattr(pump, "_woken_by_sigterm", wake.fileno)
        yield Ends(stack, request.param and request.param())


def fill(sock: socket.socket, data: bytes) -> int:
    """Send until nothing has been taken for a while. Returns how many bytes were."""
    sent = 0
    sock.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65536])
    sock.settimeout(PATIENCE)
    return sent


def test_output_waits_for_a_client_that_does_not_read(ends: Ends) -> None:
    data = bytes(range(255)) * (MIB // 255) + b"the last"
    sent = fill(ends.relay, data)
    assert sent < len(data), "the gateway holds no more than it must"
    writer = threading.Thread(target=ends.relay.sendall, args=[data[sent:]])
    writer.start()
    wire = bytearray()
    while b"the last" not in wire[-64:]:  # a ping may come behind it
        wire += ends.client.recv(MIB)
    assert b"".join(load for opcode, load in parts(bytes(wire)) if opcode == frames.BINARY) == data
    writer.join(PATIENCE)
    assert ends.end().unsent == b""


def test_input_waits_for_a_relay_that_does_not_read(ends: Ends) -> None:
    data = bytes(range(256)) * (MIB // 256)
    wire = b"".join(
        masked(frames.BINARY, data[at : at + 65536]) for at in range(0, len(data), 65536)
    )
    sent = fill(ends.client, wire)
    assert sent < len(wire), "the gateway holds no more than it must"
    ends.relay.sendall(b"output goes on")
    assert (frames.BINARY, b"output goes on") in parts(ends.client.recv(1000))
    writer = threading.Thread(target=ends.client.sendall, args=[wire[sent:]])
    writer.start()
    got = bytearray()
    while len(got) < len(data):
        got += ends.relay.recv(MIB)
    assert got == data
    writer.join(PATIENCE)
    ends.end()
