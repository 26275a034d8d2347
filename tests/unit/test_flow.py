"""How a client takes its output: pings, pauses, what has arrived."""

from __future__ import annotations

import pytest

from websockify_tokens import flow, frames
from websockify_tokens.flow import Flow


def parts(wire: bytes) -> list[tuple[int, bytes]]:
    """Take a server's frames apart."""
    found = []
    while wire:
        size, start = wire[1], 2
        if size == 126:
            size, start = int.from_bytes(wire[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(wire[2:10], "big"), 10
        found.append((wire[0] & 0xF, wire[start : start + size]))
        wire = wire[start + size :]
    return found


def pings(wire: bytes) -> list[bytes]:
    return [payload for opcode, payload in parts(wire) if opcode == frames.PING]


def test_output_is_whole_and_a_ping_follows_each_spacing() -> None:
    data = bytes(range(256)) * 20
    wire = Flow(0.0, pings=True).frames(data, 0.0)
    assert b"".join(payload for opcode, payload in parts(wire) if opcode == frames.BINARY) == data
    assert len(pings(wire)) == len(data) // flow.SPACING


def test_pings_count_over_many_small_pieces() -> None:
    one = Flow(0.0, pings=True)
    sent = [one.frames(b"x" * 100, 0.0) for _ in range(41)]
    assert sum(len(pings(wire)) for wire in sent) == 4


def test_without_pings_output_is_one_frame() -> None:
    data = bytes(70000)
    assert Flow(0.0, pings=False).frames(data, 0.0) == frames.frame(frames.BINARY, data)


def test_fast_output_has_few_pings() -> None:
    one = Flow(0.0, pings=True)
    count = 0
    for step in range(2000):  # 2 s of 64 MB/s
        count += len(pings(one.frames(bytes(65536), step / 1000)))
    first = 6400 * 1024 // flow.SPACING
    assert count - first < 2.2 * flow.PINGS


def test_each_pong_shows_that_the_client_takes_output_and_how_long_it_paused() -> None:
    one = Flow(0.0, pings=True)
    asked = pings(one.frames(bytes(8 * flow.SPACING), 0.0))
    for step, payload in enumerate(asked):
        assert one.pong(payload, 0.4 * (step + 1))
    assert one.pause == pytest.approx(0.4)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(8), b"\xff" * 8])
def test_a_pong_to_no_ping_of_ours_shows_nothing(payload: bytes) -> None:
    one = Flow(0.0, pings=True)
    one.frames(bytes(10 * flow.SPACING), 0.0)
    assert not one.pong(payload, 1.0)


def test_the_same_pong_twice_shows_nothing_new() -> None:
    one = Flow(0.0, pings=True)
    first = pings(one.frames(bytes(2 * flow.SPACING), 0.0))[0]
    assert one.pong(first, 1.0)
    assert not one.pong(first, 2.0)


def test_acknowledgements_show_it_too() -> None:
    one = Flow(0.0, pings=False)
    wire = len(one.frames(bytes(100000), 0.0))
    assert not one.look(wire, 1.0)
    assert one.look(wire - 1, 3.0)
    assert one.pause == 3.0
    assert not one.look(wire - 1, 4.0)
    assert one.look(0, 4.0)
    assert not one.outstanding


def test_time_with_nothing_to_take_is_no_pause() -> None:
    one = Flow(0.0, pings=False)
    one.look(0, 0.0)
    one.frames(b"x", 100.0)
    assert one.look(0, 100.1)
    assert one.pause == pytest.approx(0.1)


def test_a_pause_is_forgotten() -> None:
    one = Flow(0.0, pings=False)
    one.frames(bytes(1000), 0.0)
    one.look(900, 5.0)
    assert one.pause == 5.0
    for step in range(1, 12):
        one.frames(bytes(1000), 5.0 + 2 * step)
        one.look(0, 5.1 + 2 * step)
    assert one.pause < 5.0


def test_what_arrived_whole_is_delivered() -> None:
    one = Flow(0.0, pings=False)
    one.frames(bytes(1000), 0.0)
    one.other(frames.frame(frames.PONG, b"x"))
    second = one.frames(bytes(500), 0.0)
    assert one.delivered == 0
    one.look(len(second) + 3, 1.0)
    assert one.delivered == 1000
    one.look(len(second) - 10, 1.0)
    assert one.delivered == 1000, "half a frame is nothing to a browser"
    one.look(0, 1.0)
    assert one.delivered == 1500


def test_a_window_leaves_room_for_what_was_not_taken() -> None:
    one = Flow(0.0, pings=False)
    assert one.room is None
    one.frames(bytes(100), 0.0)
    one.limit(150, 0.0)
    assert one.room == 50
    one.frames(bytes(50), 0.0)
    assert one.room == 0
    assert one.took(30, 1.0)
    assert one.room == 30
    one.limit(20, 1.0)
    assert one.room == -100
    for total in (29, 151):
        with pytest.raises(ValueError, match=r"^$"):
            one.took(total, 1.0)


def test_a_client_is_slow_to_take_only_while_its_window_is_full() -> None:
    one = Flow(0.0, pings=False)
    one.limit(100, 0.0)
    one.frames(bytes(60), 0.0)
    assert not one.took(10, 50.0)
    assert one.pause == 0
    one.frames(bytes(50), 60.0)
    assert not one.took(10, 60.5)
    assert one.took(40, 61.0)
    assert one.pause == 1.0
