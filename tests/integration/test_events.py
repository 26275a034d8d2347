"""serial-console.v1: events among the bytes, a client's window, coming back with a new token."""

import json
import signal
import socket
import time

import pytest

from serial_console.demo import host
from tests import rig
from tests.clients import Terminal, Viewer, echo
from tests.stack import Stack

BACKLOG, RING = 65536, 16384
FLOOD, STOP = b"\x06", b"x"
PATTERN = bytes(range(0x20, 0x7F))
MIB = 1 << 20


@pytest.fixture(scope="module")
def small(libvirtd, tmp_path_factory):
    """Supervisor and gateway for this module, with little room for output."""
    with host.short_directory("sc-run-") as directory:
        logs = str(tmp_path_factory.mktemp("small"))
        sizes = {"backlog": BACKLOG, "replay": RING}
        one = Stack(libvirtd.uri, directory, logs, session=sizes)
        try:
            one.start("supervisor", "gateway")
            assert one.ask("health")["libvirt"] == "ok"  # the inventory is there from now on
            yield one
        finally:
            one.close()


@pytest.fixture
def stack(small):
    yield small
    small.wait_free()


def expected(begin, end):
    """The flood from one count of its bytes to another."""
    first = begin % len(PATTERN)
    return (PATTERN * ((end - begin) // len(PATTERN) + 2))[first : first + end - begin]


def flood_as_seen(viewer, start):
    """Return how much of the flood came or is told as skipped, from ``start`` in the output on;
    every byte that came stands where it stood in the flood."""
    count = 0
    for at, skipped in [*((at, n) for at, n in viewer.gaps if at >= start), (None, 0)]:
        at = len(viewer.output) if at is None else at
        piece = bytes(viewer.output[start:at])
        assert piece == expected(count, count + len(piece))
        count += len(piece) + skipped
        start = at
    return count


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["binary", "serial-console.v1"], "serial-console.v1"),
        (["serial-console.v2", "binary"], "binary"),
        (["chat"], None),
    ],
)
def test_the_best_subprotocol_that_is_offered_is_chosen(stack, shared_guest, offered, chosen):
    with Terminal(stack.url("no-token"), protocols=offered) as client:
        assert client.subprotocol == chosen
        assert client.ended()[0] == 4401


def test_a_client_is_told_what_it_is_attached_to_before_any_byte(stack, shared_guest):
    with stack.view(shared_guest.uuid, user="alice", escape="^]", resume=7) as first:
        session = dict(first.session)
        (row,) = stack.sessions()
        for key in ("id", "guest", "uuid", "console", "user", "mode"):
            assert session.pop(key) == row[key], key
        relay, printed = session.pop("relay"), session.pop("printed")
        assert (len(relay), printed) == (16, None)
        assert session == {
            "v": 1,
            "op": "session",
            "escape": "ctrl-]",
            "resume": 7,
            "position": 0,
            "replay": 0,
            "continued": False,
        }
        assert first.event("state", state="connected")["text"] == ""
        assert echo(first, b"some output\r\n") == b"some output\r\n"
        with stack.view(shared_guest.uuid, mode="ro") as watcher:
            output = b"\x1b[!psome output\r\n"
            assert watcher.read_exactly(len(output)) == output
            told = watcher.session
            assert (told["mode"], told["position"], told["replay"]) == ("ro", 13, len(output))
            assert 0 <= told["printed"] < 10
            assert echo(first, b"more") == watcher.read_exactly(4)
            assert first.position == watcher.position == 17
        first.send(b"\x1d")
        assert first.ended() == (1000, "Session ended by the escape key.")


def test_what_others_read_among_the_bytes_comes_as_events_alone(stack, make_guest):
    guest = make_guest("echo")
    with stack.view(guest.uuid) as viewer:
        guest.suspend()
        assert viewer.event("state", state="paused")["text"]
        viewer.send(b"typed")
        viewer.event("held", bytes=5)
        guest.resume()
        viewer.event("held", bytes=0)
        assert viewer.read_exactly(5) == b"typed"
        guest.destroy()
        viewer.event("state", state="waiting")
        assert viewer.output == b"typed"


def test_the_idle_warning_comes_as_a_notice(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", session={"idle_timeout": 61})
    with stack.view(echo_guest.uuid) as viewer:
        assert "60 s" in viewer.event("notice")["text"]
        assert viewer.output == b""
    stack.wait_free()


def test_skipped_output_is_told_where_it_is_missing(stack, shared_guest):
    with stack.view(shared_guest.uuid) as viewer:
        assert viewer.session["position"] == 0
        viewer.say("window", 32768)
        viewer.send(FLOOD)
        taken = 0
        for times in range(2):
            before = stack.session_of(shared_guest)["skipped"]
            assert rig.eventually(
                lambda before=before: stack.session_of(shared_guest)["skipped"] > before + BACKLOG,
                seconds=30,
            )
            while len(viewer.gaps) <= times:
                viewer.read_for(0.05)
                assert len(viewer.output) - taken <= 32768, "more than its window"
                taken = len(viewer.output)
                viewer.say("taken", taken)
        viewer.say("window", 64 * MIB)
        viewer.send(STOP)
        viewer.read_until(b"\x04")
        count = int(viewer.output[-9:-1], 16)
        seen = viewer.output[-9:]
        del viewer.output[-9:]
        assert flood_as_seen(viewer, 0) == count
        assert len(viewer.gaps) >= 2
        assert viewer.position == count + len(seen)
        assert stack.session_of(shared_guest)["skipped"] == sum(n for _, n in viewer.gaps)


def test_the_guest_waits_for_a_client_that_is_slow_to_take(stack, shared_guest):
    with stack.view(shared_guest.uuid) as viewer:
        viewer.say("window", 8192)
        viewer.send(FLOOD)
        began, taken = time.monotonic(), 0
        while time.monotonic() - began < 4.0:
            viewer.read_for(0.4)
            assert len(viewer.output) - taken <= 8192
            taken = len(viewer.output)
            viewer.say("taken", taken)
        assert taken > 3 * 8192
        viewer.say("window", MIB)
        viewer.send(STOP)
        viewer.read_until(b"\x04")
        assert viewer.gaps == []
        assert bytes(viewer.output[:-9]) == expected(0, int(viewer.output[-9:-1], 16))


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("{", 1008, "not JSON"),
        ('{"op": "resize"}', 1008, '"window" and "taken"'),
        ("[]", 1008, '"op"'),
        ('{"op": "window", "bytes": -1}', 1008, '"bytes"'),
        ('{"op": "taken", "bytes": 1.5}', 1008, '"bytes"'),
        ('{"op": "taken", "bytes": 1}', 1008, "more than was sent"),
        ('{"op": "window", "bytes": 1' + " " * 4096 + "}", 1009, "4096 bytes"),
    ],
)
def test_a_text_message_that_is_not_understood_ends_the_session(
    stack, shared_guest, text, code, reason
):
    with stack.view(shared_guest.uuid) as viewer:
        viewer.event("state")
        viewer.send_text(text)
        end = viewer.ended()
    assert end[0] == code
    assert reason in end[1]


# ---- coming back with a new token


WHO = {"user": "alice", "key": "manager"}
COME_BACK = (4410, "You have come back on another connection.")


def test_a_client_takes_its_own_session_over_and_sees_nothing_twice(stack, shared_guest):
    uuid = shared_guest.uuid
    with stack.view(uuid, mode="ro") as keeps_relay, stack.view(uuid, **WHO) as first:
        assert echo(first, b"one ") == b"one "
        with stack.view(uuid, after=first.after, **WHO) as second:
            assert first.ended() == COME_BACK
            told = second.session
            assert (told["continued"], told["replay"]) == (True, 0)
            assert told["position"] == first.position
            assert told["id"] != first.session["id"]
            assert echo(second, b"two ") == b"two "
            second.vanish()
        # Nobody has noticed yet, or somebody has: it is all one.
        with stack.view(uuid, after=second.after, **WHO) as third:
            assert echo(third, b"three") == b"three"
            assert third.output == b"three"
            assert third.session["continued"]
        assert keeps_relay.read_until(b"three").endswith(b"one two three")
        assert keeps_relay.position == third.position


@pytest.mark.parametrize("who", [{"user": "bob"}, {"key": "another"}, {"user": ""}])
def test_to_anybody_else_the_console_is_in_use(stack, shared_guest, who):
    with stack.view(shared_guest.uuid, **WHO) as owner:
        assert echo(owner, b"mine") == b"mine"
        with stack.view(shared_guest.uuid, after=owner.after, **WHO | who) as other:
            code, reason = other.ended()
            assert (code, "alice" in reason) == (4409, True)
            assert other.events == []
        assert echo(owner, b"still mine") == b"still mine"


def test_who_comes_back_gets_what_it_missed_without_queries(stack, shared_guest):
    """A query that it had seen one half of is cancelled."""
    uuid = shared_guest.uuid
    with stack.view(uuid) as types, stack.view(uuid, mode="ro") as watcher:
        assert echo(types, b"seen\x1b[") == b"seen\x1b["
        watcher.read_until(b"seen\x1b[")
        watcher.vanish()
        missed = b"6n" + "é".encode() + b"missed\x1b[c\x1b[31m red\r\n"
        assert echo(types, missed) == missed
        with stack.view(uuid, after=watcher.after, mode="ro") as again:
            shown = b"\x18" + "émissed".encode() + b"\x1b[31m red\r\n"
            assert again.read_exactly(len(shown)) == shown
            assert echo(types, b"live") == again.read_exactly(4)
            assert again.session["replay"] == len(shown)
            assert (again.gaps, again.position) == ([], types.position)


def test_what_is_not_there_any_more_is_told_as_skipped(stack, shared_guest):
    uuid = shared_guest.uuid
    with stack.view(uuid) as types:
        with stack.view(uuid, mode="ro") as watcher:
            assert echo(types, b"seen") == watcher.read_exactly(4)
        lines = b"".join(b"%06d\r\n" % number for number in range(RING // 4))
        assert echo(types, lines) == lines
        with stack.view(uuid, after=watcher.after, mode="ro") as again:
            again.read_until(lines[-8:])
            ((at, skipped),) = again.gaps
            assert at == 0
            shown = bytes(again.output)
            assert shown == b"\x18" + lines[skipped:]
            assert RING - 8 <= len(shown) - 1 <= RING
            assert (again.session["continued"], again.position) == (True, types.position)


@pytest.mark.parametrize(
    "after",
    [
        "{relay}",
        "{other}.{session}.1",
        "{relay}.{session}.-1",
        "{relay}.{session}.99",
        "%00",
    ],
)
def test_a_position_that_is_none_gives_what_anybody_gets(stack, shared_guest, after):
    uuid = shared_guest.uuid
    with stack.view(uuid) as types:
        assert echo(types, b"some output") == b"some output"
        names = {"relay": types.session["relay"], "session": types.session["id"], "other": "0" * 16}
        with stack.view(uuid, after=after.format(**names), mode="ro") as watcher:
            assert watcher.read_exactly(15) == b"\x1b[!psome output"
            assert not watcher.session["continued"]
            assert watcher.position == types.position


@pytest.mark.parametrize("position", [0, 4])
def test_a_token_without_replay_gets_none_by_a_position(stack, shared_guest, position):
    uuid = shared_guest.uuid
    with stack.view(uuid, **WHO) as first:
        assert echo(first, b"secret") == b"secret"
        after = f"{first.session['relay']}.{first.session['id']}.{position}"
        with stack.view(uuid, after=after, mode="ro", replay=0) as watcher:
            assert watcher.event("skipped")["bytes"] == 6 - position
            assert echo(first, b"live") == b"live"
            assert watcher.read_until(b"live") == b"\x18live"


def test_who_takes_nothing_is_ended_with_what_was_printed(stack, shared_guest):
    with stack.view(shared_guest.uuid) as viewer:
        viewer.say("window", 1)
        viewer.send(b"printed")
        assert viewer.read_exactly(1) == b"p"
        assert rig.eventually(lambda: stack.session_of(shared_guest)["bytes_out"] == 7)
        stack.ask("close", id=viewer.session["id"])
        assert viewer.ended()[0] == 4411
        assert viewer.output == b"printed"


def test_who_lost_its_connection_within_the_replay_comes_back_without_a_position(
    stack, shared_guest
):
    uuid = shared_guest.uuid
    with stack.view(uuid, **WHO) as first:
        assert echo(first, b"some output") == b"some output"
        session = f"{first.session['relay']}.{first.session['id']}"
        with stack.view(uuid, after=session, **WHO) as second:
            assert first.ended() == COME_BACK
            assert second.read_exactly(15) == b"\x1b[!psome output"
            assert (second.session["continued"], second.session["replay"]) == (False, 15)


def test_a_token_that_may_come_back_goes_on_where_its_client_stood(stack, shared_guest):
    token = stack.token(shared_guest.uuid, resume=30)
    url = stack.url(token)
    with Viewer(url) as first:
        assert echo(first, b"before") == b"before"
        first.vanish()
    with Viewer(url) as second:
        assert second.session["id"] == first.session["id"]
        assert (second.session["continued"], second.session["resume"]) == (True, 30)
        assert echo(second, b"after") == b"after"
        assert second.output[second.session["replay"] :].endswith(b"after")
        assert second.position == first.position + 5
        second.vanish()
    # Told by its client, it is exact whatever the kernel had acknowledged.
    with Viewer(f"{url}&after={first.session['relay']}.{first.session['id']}.8") as third:
        assert third.read_exactly(3) == b"ter"
        assert third.session["position"] == third.position == 11
        third.send(b"\x11")
        assert third.ended()[0] == 1000


def test_the_session_comes_first_whatever_happens_before_its_client_connects(stack, shared_guest):
    token = stack.token(shared_guest.uuid, resume=30)
    with Viewer(stack.url(token)) as first:
        assert first.session["resume"] == 30
        first.vanish()
    with (
        stack.view(shared_guest.uuid, mode="ro") as watcher,
        socket.socket(socket.AF_UNIX) as back,
        socket.socket(socket.AF_UNIX) as data,
    ):
        back.settimeout(10)
        back.connect(stack.redeem_path)
        redeem = {"v": 1, "op": "redeem", "token": token, "events": True, "shows_events": True}
        back.sendall(json.dumps(redeem).encode() + b"\n")
        with back.makefile("rb") as lines:
            answer = json.loads(next(lines))
            shared_guest.suspend()
            watcher.event("state", state="paused")
            shared_guest.resume()
            data.connect(answer["path"])
            assert json.loads(next(lines))["op"] == "session"
    assert stack.cli("close", "--all").returncode == 0


def test_it_comes_back_to_a_relay_that_a_new_supervisor_has_adopted(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway")
    with stack.view(echo_guest.uuid, **WHO) as first:
        assert echo(first, b"one ") == b"one "
        assert stack.end("supervisor", signal.SIGUSR1) == 0
        assert echo(first, b"two ") == b"two "
        stack.start("supervisor")
        with stack.view(echo_guest.uuid, after=first.after, user="bob", key="manager") as other:
            assert other.ended()[0] == 4409
        with stack.view(echo_guest.uuid, after=first.after, **WHO) as second:
            assert first.ended() == COME_BACK
            assert echo(second, b"three") == b"three"
            assert (second.output, second.position) == (b"three", first.position + 5)
    stack.wait_free()
