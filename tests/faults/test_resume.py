"""A client comes back to its session with the same token, and gets what it missed."""

import contextlib
import os
import re
import signal
import socket
import time

import pytest

from tests import rig
from tests.clients import Raw, echo

HELD = b"\x1b[2m[The guest takes no input now: what you type is held.]\x1b[22m\r\n"
RUNS_AGAIN = b"\x1b[2m[The guest runs again.]\x1b[22m\r\n"
SKIPPED = re.compile(rb"\r\n\x1b\[2m\[(\d+) bytes of output skipped\]\x1b\[22m\r\n")
BACKLOG = 262144
"""Bytes that wait for a client at most (DESIGN.md)."""
ESCAPE = b"\x11"


def session_of(stack, user):
    return next(one for one in stack.sessions() if one["user"] == user)


def all_arrived(port):
    """Whether the clients' kernel has acknowledged all output, which may take it 40 ms."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table.readlines()[1:]]
    ours = [row for row in rows if row[1].endswith(f":{port:04X}")]
    return all(row[4].startswith("00000000:") for row in ours)


def end_of(stack, token):
    with stack.connect(token) as refused:
        return refused.ended()[0]


def gone(stack, token):
    """A client that has connected with a token and is gone again; return its session."""
    with stack.connect(token) as terminal:
        (session,) = stack.wait_sessions("connected")
        terminal.vanish()
    stack.wait_sessions("detached")
    return session


@pytest.mark.parametrize("how", ["vanish", "close"])
def test_a_client_comes_back_to_its_own_session(either, via, shared_guest, how):
    token = either.token(shared_guest.uuid, user="alice", resume=30)
    first = either.connect(token, via)
    assert echo(first, b"before") == b"before"
    (before,) = either.wait_sessions("connected")
    getattr(first, how)()
    either.wait_sessions("detached")
    if via == "gateway":
        with either.open(shared_guest.uuid, user="bob") as other:
            code, reason = other.ended()
            assert (code, "alice" in reason) == (4409, True)
    with either.connect(token, via) as second:
        assert echo(second, b"after") == b"after"
        assert second.output == b"after"
        (after,) = either.wait_sessions("connected")
    for key in ("id", "opened_at", "relay_pid", "user", "token_id"):
        assert after[key] == before[key], key
    assert after["gateway_pid"] != before["gateway_pid"]
    assert after["client"] != before["client"] or via == "stock"  # which tells no address
    assert (after["bytes_in"], after["bytes_out"]) == (11, 11)
    either.wait_sessions("detached")
    assert either.cli("close", "--all").returncode == 0
    either.wait_free()


def test_a_client_that_comes_back_replaces_its_connection_that_is_still_open(
    either, via, shared_guest
):
    token = either.token(shared_guest.uuid, resume=30)
    with either.connect(token, via) as first:
        assert echo(first, b"first") == b"first"
        (before,) = either.wait_sessions("connected")
        assert rig.eventually(lambda: all_arrived(either.gateway_port))
        with either.connect(token, via) as second:
            end = first.ended()
            assert echo(second, b"second") == b"second"
            assert (first.output, second.output) == (b"first", b"second")
            assert either.wait_sessions("connected")[0]["id"] == before["id"]
    if via == "gateway":
        assert end == (4410, "You have come back on another connection.")
    assert either.cli("close", "--all").returncode == 0
    either.wait_free()


def test_what_the_guest_prints_meanwhile_is_shown_and_what_is_typed_waits(shared, shared_guest):
    """The pause holds the client's input: it is typed, and answered, while the client is away."""
    for typed, printed in ((b"0123456789" * 400, None), (b"\5", rig.noise())):
        printed = printed or typed
        token = shared.token(shared_guest.uuid, user="alice", resume=30)
        with (
            shared.connect(token) as first,
            shared.open(shared_guest.uuid, user="eve", mode="ro", notices=True) as watcher,
        ):
            shared.wait_sessions("connected", "connected")
            shared_guest.suspend()
            first.read_until(b"what you type is held.]\x1b[22m\r\n")
            first.send(typed)
            assert rig.eventually(lambda: session_of(shared, "alice")["bytes_in"] > 0)
            first.vanish()
            shared.wait_sessions("detached", "paused")
            shared_guest.resume()
            watcher.read_until(RUNS_AGAIN)
            assert watcher.read_exactly(len(printed)) == printed
            with shared.connect(token) as second:
                second.send(b"!")
                output = second.read_until(b"!", seconds=10)
                while not output.endswith(printed[-100:] + b"!"):
                    output += second.read_until(b"!", seconds=10)
                session = session_of(shared, "alice")
                second.send(ESCAPE)
                second.ended()
        if len(printed) < BACKLOG:
            # A guest that has no processor for a while is said to take no input.
            assert output.replace(HELD, b"") == RUNS_AGAIN + printed + b"!"
            assert session["skipped"] == 0
        else:
            mark = SKIPPED.match(output)
            shown = output[mark.end() : -1]
            assert int(mark[1]) == session["skipped"] == len(printed) - len(shown)
            assert printed.endswith(shown)
            assert BACKLOG - 100 <= len(shown) <= BACKLOG
        shared.wait_free()


def test_a_connection_that_breaks_under_output_loses_and_doubles_nothing(shared, shared_guest):
    """The client does not read for a while, then takes all that its kernel has (its gateway is
    stopped meanwhile, so that no more comes), and is gone."""
    token = shared.token(shared_guest.uuid, user="alice", resume=60)
    with Raw("127.0.0.1", shared.gateway_port, token, receive_buffer=16384) as first:
        first.send(b"\5")
        first.serve(30, most=100_000)
        assert rig.eventually(lambda: session_of(shared, "alice")["skipped"] > 0, seconds=60)
        gateway = session_of(shared, "alice")["gateway_pid"]
        os.kill(gateway, signal.SIGSTOP)
        try:
            while first.serve(0.5):
                pass
        finally:
            first.vanish()
            os.kill(gateway, signal.SIGCONT)
        shared.wait_sessions("detached")
    with shared.connect(token) as second:
        second.send(b"END")
        rest = second.read_until(b"END", seconds=60).removesuffix(b"END")
        skipped = session_of(shared, "alice")["skipped"]
        second.send(ESCAPE)
        second.ended()
    shared.wait_free()
    position = 0
    for number, piece in enumerate(SKIPPED.split(bytes(first.output) + rest)):
        if number % 2:
            position += int(piece)
            skipped -= int(piece)
        else:
            assert piece == rig.noise()[position : position + len(piece)]
            position += len(piece)
    assert position == rig.NOISE_BYTES
    assert skipped == 0


# ---- the end of it


def test_what_ends_a_session_ends_the_way_back_to_it(shared, make_guest):
    guest = make_guest()

    def new(**options):
        return shared.token(guest.uuid, user="alice", resume=30, **options)

    token = new()
    with shared.connect(token) as terminal:
        assert echo(terminal, b"x") == b"x"
        terminal.send(ESCAPE)
        assert terminal.ended()[0] == 1000
    shared.wait_free()
    assert end_of(shared, token) == 4401

    token = new()
    session = gone(shared, token)
    assert shared.cli("close", session["id"]).returncode == 0
    shared.wait_free()
    assert end_of(shared, token) == 4401

    token = new()
    session = gone(shared, token)
    assert shared.rest("DELETE", f"/v1/tokens/{session['token_id']}")[0] == 204
    shared.wait_free()
    assert end_of(shared, token) == 4401

    token = new()
    gone(shared, token)
    with shared.open(guest.uuid, user="bob", takeover=True) as other:
        assert [one["user"] for one in shared.wait_sessions("connected")] == ["bob"]
        assert end_of(shared, token) == 4401
        assert echo(other, b"y") == b"y"
    shared.wait_free()


def test_the_grace_is_over(shared, shared_guest):
    token = shared.token(shared_guest.uuid, resume=1)
    gone(shared, token)
    began = time.monotonic()
    shared.wait_free()
    assert time.monotonic() - began < 3
    assert end_of(shared, token) == 4401
    with shared.open(shared_guest.uuid) as other:
        assert echo(other, b"x") == b"x"
    shared.wait_free()


def test_a_token_without_resume_is_good_for_one_connection(shared, shared_guest):
    token = shared.token(shared_guest.uuid)
    with shared.connect(token) as terminal:
        assert echo(terminal, b"x") == b"x"
        assert end_of(shared, token) == 4401
        assert echo(terminal, b"y") == b"y"
    shared.wait_free()
    assert end_of(shared, token) == 4401


def test_a_process_number_lets_nobody_into_a_session_whose_client_is_away(shared, shared_guest):
    """A gateway process that was broken into may fork until it has that number."""
    answer = shared.redeem(shared.token(shared_guest.uuid, resume=30))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(answer["path"])
        shared.wait_sessions("connected")
    shared.wait_sessions("detached")
    with socket.socket(socket.AF_UNIX) as again:
        again.settimeout(10)
        again.connect(answer["path"])
        assert again.recv(1) == b""
    shared.wait_sessions("detached")
    assert shared.cli("close", "--all").returncode == 0
    shared.wait_free()


def test_a_token_for_one_address_lets_no_other_come_back(shared, shared_guest):
    token = shared.token(shared_guest.uuid, resume=30, client_address="127.0.0.1")
    gone(shared, token)
    answer = shared.redeem(token, client="127.0.0.2:5000")
    assert (answer["ok"], answer["close"]) == (False, 4401)
    with shared.connect(token) as terminal:
        assert echo(terminal, b"x") == b"x"
        terminal.send(ESCAPE)
        terminal.ended()
    shared.wait_free()


def test_a_gateway_that_died_between_token_and_connection_takes_nothing_away(shared, shared_guest):
    """What the token says of the session holds for whom is let in at the second attempt."""
    with shared.open(shared_guest.uuid, user="alice") as first:
        assert echo(first, b"x\r\n") == b"x\r\n"
        token = shared.token(
            shared_guest.uuid, user="bob", takeover=True, resume=30, escape="ctrl-]"
        )
        assert shared.redeem(token, events=True)["ok"]
        assert echo(first, b"y") == b"y"
        with shared.connect(token) as second:
            assert first.ended() == (4410, "bob has taken over this console.")
            assert second.read_exactly(8) == b"\x1b[!px\r\ny"
            second.send(b"\x1d")
            assert second.ended()[0] == 1000
    shared.wait_free()


def test_a_watcher_comes_back_too(shared, shared_guest):
    token = shared.token(shared_guest.uuid, mode="ro", resume=30, replay=0)
    with shared.open(shared_guest.uuid) as typist, contextlib.ExitStack() as watchers:
        watcher = watchers.enter_context(shared.connect(token))
        shared.wait_sessions("connected", "connected")
        assert echo(typist, b"seen,") == b"seen,"
        assert watcher.read_exactly(5) == b"seen,"
        watcher.vanish()
        shared.wait_sessions("connected", "detached")
        assert echo(typist, b"missed,") == b"missed,"
        watcher = watchers.enter_context(shared.connect(token))
        assert watcher.read_exactly(7) == b"missed,"
        assert echo(typist, b"seen") == b"seen"
        assert watcher.read_exactly(4) == b"seen"
        watcher.vanish()
        shared.wait_sessions("connected", "detached")
    shared.wait_sessions("detached")
    assert shared.cli("close", "--all").returncode == 0
    shared.wait_free()
