"""The way back: events as they come, and never more of them in memory than a line."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from websockify_tokens.client import ANSWER_MAX, WayBack

EVENT = b'{"v": 1, "op": "state"}\n'


@pytest.fixture
def relay() -> Iterator[tuple[WayBack, socket.socket]]:
    ours, theirs = socket.socketpair()
    back = WayBack(ours, EVENT[:5])
    yield back, theirs
    back.close()
    theirs.close()


def test_events_come_in_pieces(relay: tuple[WayBack, socket.socket]) -> None:
    back, theirs = relay
    assert back.events() == []
    theirs.sendall(EVENT[5:] + b"no JSON\n[]\n" + EVENT[:-1])
    assert [event["op"] for event in back.events()] == ["state"]
    theirs.close()
    assert back.events() == []
    assert back.ended


def test_a_flood_of_events_is_taken_in_small_parts(relay: tuple[WayBack, socket.socket]) -> None:
    back, theirs = relay
    flood = EVENT[5:] + EVENT * 3000
    theirs.sendall(flood)
    found = 0
    while events := back.events():
        assert len(events) <= 2 * ANSWER_MAX / len(EVENT)
        found += len(events)
    assert found == 3001


def test_a_line_without_an_end_ends_it(relay: tuple[WayBack, socket.socket]) -> None:
    back, theirs = relay
    theirs.sendall(b"x" * 3 * ANSWER_MAX)
    assert back.events() == []
    assert back.ended
