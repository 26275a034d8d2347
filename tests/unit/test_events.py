"""Events among a client's output, and what it says in text messages."""

from __future__ import annotations

from typing import Any

import pytest

from websockify_tokens.events import Events, MessageError, understood
from websockify_tokens.frames import BINARY, TEXT


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
