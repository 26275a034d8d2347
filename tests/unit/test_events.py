"""Events among a client's output, and what it says in text messages."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import pytest

from websockify_tokens import ending, pump
from websockify_tokens.client import WayBack
from websockify_tokens.events import Events, MessageError, understood
from websockify_tokens.frames import BINARY, TEXT

from .test_flow import parts


def event(op: str, **fields: Any) -> dict[str, Any]:
    return {"v": 1, "op": op, **fields}


def shown(parts: list[tuple[int, bytes]]) -> list[Any]:
    """Output as bytes, events as their ops."""
    found: list[Any] = []
    for opcode, payload in parts:
        assert opcode in (BINARY, TEXT)
        found.append(payload if opcode == BINARY else payload.split(b'"')[5].decode())
    return found


def test_a_gap_stands_in_its_place_however_the_output_is_cut() -> None:
    events = Events()
    gaps = [event("skipped", bytes=1, at=at) for at in (0, 3, 3, 6, 9)]
    events.add([event("session"), *gaps[:4]])
    assert shown(events.parts(b"abcd")) == [
        "session",
        "skipped",
        b"abc",
        "skipped",
        "skipped",
        b"d",
    ]
    assert shown(events.parts(b"")) == []
    assert shown(events.parts(b"ef")) == [b"ef", "skipped"]
    events.add(gaps[4:])
    assert shown(events.parts(b"ghij")) == [b"ghi", "skipped", b"j"]


def test_of_what_waits_only_the_newest_of_a_kind_is_kept() -> None:
    events = Events()
    events.add([event("state", state=str(number)) for number in range(1000)])
    events.add([event("held", bytes=1), event("end", code=1000)])
    ((_, first), (_, second)) = events.parts(b"")
    assert b'"999"' in first
    assert b"held" in second


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"op": "window", "bytes": 0}', ("window", 0)),
        (b'{"bytes": 9007199254740991, "op": "taken", "more": null}', ("taken", 2**53 - 1)),
        (b"", None),
        (b"nonsense", None),
        (b"[" * 4000, None),
        (b'"window"', None),
        (b'{"op": ["window"], "bytes": 1}', None),
        (b'{"op": "window"}', None),
        (b'{"op": "window", "bytes": true}', None),
        (b'{"op": "window", "bytes": "1"}', None),
        (b'{"op": "window", "bytes": 1e3}', None),
        (b'{"op": "taken", "bytes": 9007199254740992}', None),
    ],
)
def test_a_message_is_understood_or_refused(
    payload: bytes, message: tuple[str, int] | None
) -> None:
    if message is not None:
        assert understood(payload) == message
        return
    with pytest.raises(MessageError) as refused:
        understood(payload)
    assert len(str(refused.value)) <= 120


class LateRelay:
    """A fake relay's socket that tells of a gap after the gateway has looked for events, and
    before it reads what is behind the gap."""

    def __init__(self, back: socket.socket) -> None:
        self._back = back
        self._readable, self._other = socket.socketpair()
        self._other.send(b"x")
        self._output = [(event("skipped", bytes=7, at=1), b"ab"), (END, b"")]

    def recv(self, _count: int) -> bytes:
        told, output = self._output.pop(0)
        self._back.send(json.dumps(told).encode() + b"\n")
        return output

    def fileno(self) -> int:
        return self._readable.fileno()

    def setblocking(self, _flag: bool) -> None:
        pass

    def close(self) -> None:
        self._readable.close()
        self._other.close()


END = event("end", code=1000, reason="Over.")


def test_a_gap_that_is_told_just_before_its_output_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        ours, client, theirs, back, wake, _other = (
            stack.enter_context(one) for _ in range(3) for one in socket.socketpair()
        )
        monkeypatch.setattr(pump, "_woken_by_sigterm", wake.fileno)
        relay = stack.enter_context(contextlib.closing(LateRelay(theirs)))
        made = pump.Pump(ours, relay, WayBack(back, b""), 0, Events())  # type: ignore[arg-type]
        with pytest.raises(ending.Ended) as ended:
            made.run()
        assert (ended.value.code, ended.value.reason) == (1000, "Over.")
        assert shown(parts(client.recv(1000))) == [b"a", "skipped", b"b"]
