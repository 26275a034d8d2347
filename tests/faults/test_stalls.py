"""Clients that read slowly, or not at all, while their guests print."""

import re
import time

import pytest

from tests import rig
from tests.stack import memory

MIB = 1 << 20
PAUSE = 3.0
"""Seconds without reading: longer than a gateway waits for the reply to its close frame."""
SLOW = 10240
"""Bytes per second."""
PATTERN = bytes(range(0x20, 0x7F))
FLOOD, STOP = b"\x06", b"x"
MARK = re.compile(rb"\r\n\x1b\[2m\[(\d+) bytes of output skipped\]\x1b\[22m\r\n")


def start_flood(client):
    client.send(FLOOD)
    client.serve_until(PATTERN)
    return time.monotonic()


def stop_flood(client):
    """Return how many bytes the guest has printed; everything that it has is read."""
    client.send(STOP)
    client.serve_until(b"\x04", seconds=60)
    return int(client.output[-9:-1], 16)


@pytest.mark.parametrize("seconds", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_a_stalled_client_costs_its_guest_nothing_and_a_slow_one_loses_nothing(
    stack, make_guest, seconds
):
    """Three guests print at once: to one that stalls, to one that reads 10 KB/s, and to nobody."""
    stalled_guest, slow_guest, free_guest = (make_guest("echo") for _ in range(3))
    with stack.raw(free_guest.uuid) as client:
        free_since = start_flood(client)
    with stack.raw(stalled_guest.uuid) as stalled, stack.raw(slow_guest.uuid) as slow:
        start_flood(slow)
        stalled_since = start_flood(stalled)
        stalled.serve(1.0)
        before = memory(stack.session_of(stalled_guest))
        for tenth in range(1, 10 * seconds):
            slow.serve(0.1, SLOW // 10)
            time.sleep(max(0.0, stalled_since + 1.0 + tenth / 10 - time.monotonic()))
        grown = [
            after - begin
            for begin, after in zip(before, memory(stack.session_of(stalled_guest)), strict=True)
        ]
        assert max(grown) < MIB

        stalled_count = stop_flood(stalled)
        stalled_speed = stalled_count / (time.monotonic() - stalled_since)
        with stack.raw(free_guest.uuid) as client:
            free_count = stop_flood(client)
        free_speed = free_count / (time.monotonic() - free_since)
        slow_count = stop_flood(slow)

        marks = list(MARK.finditer(stalled.output))
        skipped = sum(int(mark[1]) for mark in marks)
        shown = len(MARK.sub(b"", bytes(stalled.output))) - 9
        assert shown + skipped == stalled_count
        assert stack.session_of(stalled_guest)["skipped"] == skipped
        after_last = bytes(stalled.output[marks[-1].end() : -9])
        assert after_last == continued(after_last[0], len(after_last))

        assert stack.session_of(slow_guest)["skipped"] == 0
        assert bytes(slow.output[:-9]) == continued(0x20, slow_count)
        assert slow_count < free_count / 2, "the guest waits"

        ratio = stalled_speed / free_speed
        print(
            f"growth {[count >> 10 for count in grown]} KiB; {skipped} bytes skipped; "
            f"guest at {stalled_speed / 1000:.0f} KB/s, {ratio:.2f} of its speed with no client"
        )
        assert ratio > 0.4  # both want a whole core; a guest that waits has next to nothing
    stack.wait_free()


def continued(first, count):
    """Return so many bytes of the flood, from one on."""
    start = PATTERN.index(first)
    return (PATTERN * (count // len(PATTERN) + 2))[start : start + count]


def test_a_client_that_comes_back_from_a_stall_sees_what_is_new_at_once(shared, echo_guest):
    with shared.raw(echo_guest.uuid) as client:
        start_flood(client)
        assert rig.eventually(lambda: shared.sessions()[0]["skipped"] > MIB, seconds=60)
        began = time.monotonic()
        stop_flood(client)
        print(f"the answer to a key came {time.monotonic() - began:.2f} s after the stall")
        client.send(b"ab")
        client.serve_until(b"ab")
    shared.wait_free()


def test_a_slow_client_is_told_how_its_session_ended(shared, echo_guest):
    """It comes to the close frame seconds after that was sent: output stands before it."""
    with shared.raw(echo_guest.uuid, receive_buffer=8192) as client:
        start_flood(client)
        assert rig.eventually(lambda: shared.sessions()[0]["skipped"] > 0, seconds=60)
        began = time.monotonic()
        assert shared.ask("close")["closed"] == 1
        shared.wait_sessions()
        time.sleep(PAUSE)
        while client.close_code is None:
            # A full window is probed every few seconds where the update that opens it is late.
            assert client.serve(1.0) or client.serve(10.0), "ended without a word"
        assert client.close_code == 4411
        print(f"the close frame came {time.monotonic() - began:.1f} s after the end")
    shared.wait_free()


def test_a_client_without_notices_is_ended_rather_than_skipped(shared, echo_guest):
    with shared.raw(echo_guest.uuid, notices=False) as client:
        start_flood(client)
        assert rig.eventually(lambda: shared.sessions() == [], seconds=30)
        while client.close_code is None:
            assert client.serve(1.0)
        assert client.close_code == 4413
        assert b"skipped" not in client.output
        assert bytes(client.output) == continued(0x20, len(client.output))
    shared.wait_free()
