"""Several clients at one console: takeovers, watchers, and what each is shown of it."""

import contextlib
import re
import socket
import threading
import time

from serial_console.terminal import SOFT_RESET, without_queries
from tests import rig
from tests.clients import echo
from tests.stack import alive

FLOOD = bytes(range(0x20, 0x7F))
RING = 65536
"""Bytes of recent output that are kept (DESIGN.md)."""
SKIPPED = re.compile(rb"\r\n\x1b\[2m\[(\d+) bytes of output skipped\]\x1b\[22m\r\n")


def is_flood(data):
    start = FLOOD.index(data[:1])
    return data == (FLOOD * (len(data) // len(FLOOD) + 2))[start : start + len(data)]


def stop_flood(terminal):
    """End the guest's flood; return what came until then, and how many bytes the guest sent."""
    terminal.send(b"x")
    seen = terminal.read_until(b"\4", seconds=60)
    return seen[:-9], int(seen[-9:-1], 16)


def has_ended(terminal):
    with contextlib.suppress(AssertionError):  # a time-out
        return bool(terminal.ended(0.01))
    return False


def console_openings(stack):
    return stack.services["supervisor"].logged().count("-> connected")


def session_of(stack, user):
    return next((one for one in stack.sessions() if one["user"] == user), None)


# ---- takeover


def test_a_takeover_at_full_speed_loses_and_doubles_nothing(both, via, echo_guest):
    token = both.token(echo_guest.uuid, user="bob", takeover=True)
    with both.open(echo_guest.uuid, via, user="alice") as first:
        first.send(b"\6")
        first.read_exactly(150_000)
        (before,) = both.sessions()
        with both.connect(token, via) as second:
            end = first.ended(30)
            second.read_exactly(len(SOFT_RESET) + RING + 100_000)
            (after,) = both.sessions()
            _, sent = stop_flood(second)
            assert echo(second, b"y") == b"y"
        both.wait_free()
    if via == "gateway":
        assert end == (4410, "bob has taken over this console.")
    old, told, _ = bytes(first.output).partition(b"\r\n\x1b[2m[bob has taken over this console.]")
    assert told
    new = bytes(second.output).removeprefix(SOFT_RESET)[: -len("00000000\x04y")]
    assert is_flood(old)
    assert is_flood(new)
    # The first saw all up to the takeover, the second the last RING bytes of it and all that came.
    assert len(old) + len(new) - RING == sent
    assert after["relay_pid"] == before["relay_pid"]
    assert console_openings(both) == 1


def test_input_held_for_the_one_before_is_not_typed(shared, shared_guest):
    with shared.open(shared_guest.uuid, user="alice") as first:
        assert echo(first, b"x") == b"x"
        shared_guest.suspend()
        first.read_until(b"what you type is held.]")
        first.send(b"shutdown now\r")
        assert rig.eventually(lambda: session_of(shared, "alice")["bytes_in"] == 14)
        with shared.open(shared_guest.uuid, user="bob", takeover=True, replay=0) as second:
            assert first.ended() == (4410, "bob has taken over this console.")
            second.send(b"mine")
            assert rig.eventually(lambda: session_of(shared, "bob")["bytes_in"] == 4)
            shared_guest.resume()
            second.read_until(b"[The guest runs again.]\x1b[22m\r\n")
            assert second.read_exactly(4) == b"mine"
            assert echo(second, b".") == b"."
    shared.wait_free()


def test_two_takeovers_at_the_same_moment_leave_one(shared, shared_guest):
    users, asked = ("bob", "carol"), {"takeover": True, "replay": 0}
    with shared.open(shared_guest.uuid, user="alice") as first:
        shared.wait_sessions("connected")
        tokens = [shared.token(shared_guest.uuid, user=user, **asked) for user in users]
        with shared.connect(tokens[0]) as bob, shared.connect(tokens[1]) as carol:
            clients = {"bob": bob, "carol": carol}
            assert first.ended()[0] == 4410
            assert rig.eventually(lambda: has_ended(bob) or has_ended(carol))
            (loser,) = (user for user in users if has_ended(clients[user]))
            (winner,) = set(users) - {loser}
            assert clients[loser].ended() == (4410, f"{winner} has taken over this console.")
            assert echo(clients[winner], b"z") == b"z"
            assert [one["user"] for one in shared.wait_sessions("connected")] == [winner]
    shared.wait_free()


def test_somebody_at_their_limit_takes_over_their_own_console(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", limits={"sessions": 1, "per_user": 1})
    with stack.open(echo_guest.uuid, user="alice") as first:
        stack.wait_sessions("connected")
        with stack.open(echo_guest.uuid, user="alice", takeover=True) as second:
            assert first.ended() == (4410, "alice has taken over this console.")
            assert echo(second, b"x") == b"x"
            stack.wait_sessions("connected")
            with stack.open(echo_guest.uuid, user="alice", mode="ro") as refused:
                assert refused.ended()[0] == 4429
    stack.wait_free()


# ---- stalled ones


def test_a_stalled_one_is_taken_over_from_and_told_when_it_reads(shared, shared_guest):
    with shared.raw(shared_guest.uuid, user="alice", receive_buffer=131072) as first:
        shared.wait_sessions("connected")
        first.send(b"\6")
        first.serve(30, most=1000)
        assert rig.eventually(lambda: shared.sessions()[0]["skipped"] > 0, seconds=60)
        with shared.open(shared_guest.uuid, user="bob", takeover=True, replay=0) as second:
            second.read_exactly(100_000)
            assert rig.eventually(lambda: session_of(shared, "alice") is None)
            flood, _ = stop_flood(second)
            assert is_flood(flood)
            assert echo(second, b"y") == b"y"
            assert rig.eventually(lambda: not first.serve(0.1) and bool(first.close_code), 30)
            assert first.close_code == 4410
    shared.wait_free()


class DirectWatcher:
    """Attached without a gateway, so that there are no megabytes of buffers between it and us."""

    def __init__(self, stack, guest):
        self.path = stack.redeem(stack.token(guest, mode="ro", user="eve", replay=0))["path"]

    def __enter__(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)
        self.sock.settimeout(20)
        return self

    def __exit__(self, *_):
        self.sock.close()

    def read_until(self, wanted):
        seen = b""
        while wanted not in seen:
            seen += self.sock.recv(65536)
        return seen


def flooded(terminals, seconds):
    """Let guests flood their clients side by side; return what each saw and its guest had sent."""
    found = {}
    end = time.monotonic() + seconds

    def read(terminal):
        seen = b""
        terminal.send(b"\6")
        while time.monotonic() < end:
            seen += terminal.read_exactly(4096)
        rest, sent = stop_flood(terminal)
        found[terminal] = seen + rest, sent

    threads = [threading.Thread(target=read, args=[terminal]) for terminal in terminals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[terminal] for terminal in terminals]


def test_a_stalled_watcher_costs_nobody_anything(shared, make_guest):
    watched, alone = make_guest(), make_guest()
    with (
        shared.open(watched.uuid, user="alice") as typist,
        DirectWatcher(shared, watched.uuid) as watcher,
        shared.open(alone.uuid, user="bob") as other,
    ):
        shared.wait_sessions("connected", "connected", "connected")
        typist.send(b"\6")
        while session_of(shared, "eve")["skipped"] == 0:
            typist.read_exactly(1 << 16)
        stop_flood(typist)

        seconds = 4
        seen = flooded([typist, other], seconds)
        assert all(is_flood(output) and len(output) == sent for output, sent in seen)
        speeds = [sent / seconds for _, sent in seen]
        print("bytes a second of a watched and an unwatched guest:", speeds)
        # Both want a whole core, and get half of one beside other tests.
        assert speeds[0] / speeds[1] > 0.4
        assert session_of(shared, "alice")["skipped"] == 0

        assert echo(typist, b"\r\n\r\n") == b"\r\n\r\n"
        output = watcher.read_until(b"\r\n\r\n")
        marks = list(SKIPPED.finditer(output))
        skipped = sum(int(mark[1]) for mark in marks)
        assert skipped == session_of(shared, "eve")["skipped"] > 0
        # The typist has seen all that the guest printed; the watcher lacks just what was skipped.
        assert len(SKIPPED.sub(b"", output)) + skipped == len(typist.output)
        assert typist.output.endswith(output[marks[-1].end() :])
    shared.wait_free()


# ---- watchers


def test_twenty_watchers_see_all_type_nothing_and_stay(shared, shared_guest):
    token = shared.token(shared_guest.uuid, mode="ro")
    with shared.open(shared_guest.uuid, user="alice") as typist:
        assert echo(typist, b"x") == b"x"
        watchers = [shared.open(shared_guest.uuid, mode="ro", replay=0) for _ in range(20)]
        try:
            shared.wait_sessions(*21 * ["connected"])
            with shared.connect(token) as refused:
                assert refused.ended()[0] == 4429
            for watcher in watchers:
                watcher.send(b"from a watcher" * (75_000 if watcher is watchers[0] else 1))
            watchers.pop(0).close()  # the relay has read all of it before it sees the end
            shared.wait_sessions(*20 * ["connected"])
            assert echo(typist, b"typed") == b"typed"
            relay = session_of(shared, "alice")["relay_pid"]
            typist.close()
            shared.wait_sessions(*19 * ["connected"])
            with shared.open(shared_guest.uuid, user="bob", replay=0) as next_one:
                assert echo(next_one, b"and more") == b"and more"
                assert session_of(shared, "bob")["relay_pid"] == relay
            for watcher in watchers:
                assert watcher.read_exactly(13) == b"typedand more"
                assert watcher.rest() == b""
            sessions = shared.wait_sessions(*19 * ["connected"])
            assert {one["bytes_in"] for one in sessions} == {0}
        finally:
            for watcher in watchers:
                watcher.vanish()
    shared.wait_free()
    assert rig.eventually(lambda: not alive(relay))
    with shared.connect(token):  # a refusal does not use it up
        shared.wait_sessions("connected")
    shared.wait_free()


# ---- replay


def test_each_newcomer_is_shown_as_much_as_its_token_says(shared, shared_guest):
    recent = b"first\r\nsecond line\r\n$ "
    cases = (
        ({}, SOFT_RESET + recent),
        ({"replay": True}, SOFT_RESET + recent),
        ({"replay": 20}, SOFT_RESET + b"second line\r\n$ "),
        ({"replay": 5}, SOFT_RESET + b"$ "),
        ({"replay": 0}, b""),
        ({"replay": False}, b""),
    )

    def newcomer(**asked):
        status, token = shared.rest("POST", f"/v1/guests/{shared_guest.uuid}/tokens", asked)
        assert status == 201
        return clients.enter_context(shared.connect(token["token"]))

    with contextlib.ExitStack() as clients:
        typist = clients.enter_context(shared.open(shared_guest.uuid))
        assert echo(typist, recent) == recent
        watchers = [newcomer(mode="ro", **asked) for asked, _ in cases]
        shared.wait_sessions(*7 * ["connected"])
        for asked, expected in cases:
            before, typist = typist, newcomer(user="bob", takeover=True, **asked)
            assert before.ended() == (4410, "bob has taken over this console.")
            assert typist.read_exactly(len(expected)) == expected
            assert before.rest().strip() == b"\x1b[2m[bob has taken over this console.]\x1b[22m"
        assert echo(typist, b"!") == b"!"
        for watcher, (_, expected) in zip(watchers, cases, strict=True):
            assert watcher.read_exactly(len(expected) + 1) == expected + b"!"
            assert watcher.rest() == b""
    shared.wait_free()


def test_of_much_output_the_last_64_kib_are_shown_from_the_start_of_a_line(shared, shared_guest):
    with shared.open(shared_guest.uuid) as typist:
        typist.send(b"\5")
        last = typist.read_exactly(rig.NOISE_BYTES)[-RING:]
        expected = SOFT_RESET + without_queries(last[last.index(b"\n") + 1 :])
        for options in ({"mode": "ro"}, {"takeover": True}):
            with shared.open(shared_guest.uuid, **options) as newcomer:
                assert newcomer.read_exactly(len(expected)) == expected
    shared.wait_free()
