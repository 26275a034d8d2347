"""Every way a session ends: who is told what, and that the console is free afterwards."""

import signal
import time

import psutil
import pytest

from tests.clients import echo

ESCAPE = b"\x11"
STOPPED = "The console service on the host was stopped."


def test_the_client_closes(either, via, shared_guest):
    with either.open(shared_guest.uuid, via) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = either.wait_sessions("connected")
        assert (session["bytes_in"], session["bytes_out"]) == (1, 1)
    either.wait_free()


def test_the_client_vanishes(either, via, shared_guest):
    with either.open(shared_guest.uuid, via) as terminal:
        assert echo(terminal, b"x") == b"x"
        terminal.vanish()
    either.wait_free()


def test_the_escape_key_alone(shared, shared_guest):
    with shared.open(shared_guest.uuid) as terminal:
        terminal.send(ESCAPE)
        assert terminal.ended() == (1000, "Session ended by the escape key.")
        assert b"[Session ended by the escape key.]" in terminal.rest()
    shared.wait_free()


def test_the_escape_key_through_an_unmodified_websockify(shared_stock, shared_guest):
    with shared_stock.open(shared_guest.uuid, "stock") as terminal:
        terminal.send(ESCAPE)
        terminal.ended()
        assert b"[Session ended by the escape key.]" in terminal.rest()
    shared_stock.wait_free()


def test_the_escape_byte_within_longer_input_is_data(shared, shared_guest):
    with shared.open(shared_guest.uuid) as terminal:
        for data in (b"a" + ESCAPE, ESCAPE + b"b", b"c" + ESCAPE + b"d", ESCAPE * 2):
            assert echo(terminal, data) == data
    shared.wait_free()


def test_a_token_may_have_another_escape_key(shared, shared_guest):
    with shared.open(shared_guest.uuid, escape="ctrl-]") as terminal:
        assert echo(terminal, ESCAPE) == ESCAPE
        terminal.send(b"\x1d")
        assert terminal.ended()[0] == 1000
    shared.wait_free()


def test_nobody_types_for_too_long(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", session={"idle_timeout": 2})
    with (
        stack.open(echo_guest.uuid) as typist,
        stack.open(echo_guest.uuid, mode="ro") as watcher,
    ):
        assert echo(typist, b"x") == b"x"
        echoed = time.monotonic()
        typist.send(b"y")
        assert typist.ended() == (4408, "No input for 2 s: the session was ended.")
        assert time.monotonic() - echoed > 1.9
        stack.wait_sessions("connected")
        watcher.read_until(b"xy")
    stack.wait_free()


def test_the_longest_session(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", session={"max_session": 1})
    with stack.open(echo_guest.uuid) as terminal:
        assert terminal.ended() == (4408, "The longest session time is reached.")
    stack.wait_free()


def test_the_operator_closes_one_session_or_all(shared, make_guest):
    one, other = make_guest("echo"), make_guest("echo")
    with shared.open(one.uuid) as closed, shared.open(other.uuid) as kept:
        shared.wait_sessions("connected", "connected")
        session = next(it for it in shared.sessions() if it["uuid"] == one.uuid)
        done = shared.cli("close", session["id"])
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 session closed\n", "")
        code, reason = closed.ended()
        assert code == 4411
        assert "operator" in reason
        shared.wait_sessions("connected")
        assert echo(kept, b"x") == b"x"
        done = shared.cli("close", session["id"])
        assert done.returncode == 1
        assert session["id"] in done.stderr
        assert shared.cli("close", "--all").stdout == "1 session closed\n"
        assert kept.ended()[0] == 4411
    shared.wait_free()


def test_a_session_and_a_token_are_deleted_over_rest(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", "api")
    with stack.open(echo_guest.uuid) as terminal:
        (session,) = stack.wait_sessions("connected")
        path = f"/v1/sessions/{session['id']}"
        assert stack.rest("GET", path)[1]["guest"] == echo_guest.name
        assert stack.rest("DELETE", path)[0] == 204
        assert terminal.ended()[0] == 4411
        stack.wait_free()
        assert stack.rest("DELETE", path)[0] == 404

    issued = stack.rest("POST", f"/v1/guests/{echo_guest.uuid}/tokens", {})[1]
    with stack.connect(issued["token"]) as terminal:
        stack.wait_sessions("connected")
        assert stack.rest("DELETE", f"/v1/tokens/{issued['id']}")[0] == 204
        assert terminal.ended() == (4411, "Your access to this console was revoked.")
    stack.wait_free()

    issued = stack.rest("POST", f"/v1/guests/{echo_guest.uuid}/tokens", {})[1]
    assert stack.rest("DELETE", f"/v1/tokens/{issued['id']}")[0] == 204
    with stack.connect(issued["token"]) as terminal:
        assert terminal.ended()[0] == 4401
    assert stack.rest("DELETE", f"/v1/tokens/{issued['id']}")[0] == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_supervisor_is_told_to_end(stack, make_guest, number):
    with (
        stack.open(make_guest("echo").uuid) as one,
        stack.open(make_guest("echo").uuid) as other,
        stack.open(make_guest("echo", state="off").uuid) as waiting,
    ):
        stack.wait_sessions("connected", "connected", "waiting")
        began = time.monotonic()
        assert stack.end("supervisor", number) == 0
        assert time.monotonic() - began < 5
        for terminal in (one, other, waiting):
            assert terminal.ended() == (4503, STOPPED)
            assert f"[{STOPPED}]".encode() in terminal.rest()
    assert stack.relay_sockets() == []


def test_the_gateway_is_told_to_end(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        assert stack.end("gateway") == 0
        assert terminal.ended() == (1012, "The gateway restarts; connect again.")
    stack.wait_free()


def test_the_gateway_is_told_to_end_while_a_token_is_redeemed(stack, echo_guest):
    token = stack.token(echo_guest.uuid)
    supervisor = psutil.Process(stack.pid("supervisor"))
    supervisor.suspend()
    try:
        with stack.connect(token) as terminal:
            assert stack.end("gateway") == 0
            assert terminal.ended() == (1012, "The gateway restarts; connect again.")
    finally:
        supervisor.resume()
    stack.wait_free()


def test_a_second_client_is_told_by_whom_and_its_token_is_kept(shared, shared_guest):
    token = shared.token(shared_guest.uuid, user="bob")
    with shared.open(shared_guest.uuid, user="alice") as first:
        assert echo(first, b"x") == b"x"
        with shared.connect(token) as second:
            code, reason = second.ended()
            assert code == 4409
            assert "alice" in reason
            assert second.output == b""
        assert echo(first, b"y") == b"y"
    shared.wait_free()
    with shared.connect(token) as second:
        assert echo(second, b"z") == b"z"
    shared.wait_free()


def test_a_takeover_names_who_and_loses_nothing(shared, shared_guest):
    pattern = bytes(range(0x20, 0x7F))
    with shared.open(shared_guest.uuid, user="alice") as first:
        first.send(b"\6")
        first.read_exactly(100_000)
        (before,) = shared.wait_sessions("connected")
        with shared.open(shared_guest.uuid, user="bob", takeover=True) as second:
            assert first.ended() == (4410, "bob has taken over this console.")
            assert second.read_exactly(4) == b"\x1b[!p"
            # The ring has no start of a line here: all of it is shown, and then what comes.
            shown = second.read_exactly(65536 + 200_000)
            start = pattern.index(shown[:1])
            assert shown == (pattern * 2800)[start : start + len(shown)]
            (after,) = shared.wait_sessions("connected")
            assert after["relay_pid"] == before["relay_pid"]
            assert after["user"] == "bob"
            second.send(b"x")
            second.read_until(b"\4")
            assert echo(second, b"y") == b"y"
    shared.wait_free()


def test_a_watcher_sees_all_and_types_nothing(shared, shared_guest):
    with shared.open(shared_guest.uuid) as typist:
        with shared.open(shared_guest.uuid, mode="ro") as watcher:
            shared.wait_sessions("connected", "connected")
            watcher.send(b"watcher")
            assert echo(typist, b"typist") == b"typist"
            assert watcher.read_exactly(6) == b"typist"
        shared.wait_sessions("connected")  # all that the watcher had sent has been read by now
        assert echo(typist, b"x") == b"x"
        assert typist.rest() == b""
    shared.wait_free()


def test_a_watcher_stays_when_the_typist_leaves(shared, shared_guest):
    with shared.open(shared_guest.uuid, mode="ro") as watcher:
        shared.wait_sessions("connected")
        for data in (b"first", b"second"):
            with shared.open(shared_guest.uuid, replay=0) as typist:
                assert echo(typist, data) == data
                assert watcher.read_exactly(len(data)) == data
            shared.wait_sessions("connected")
    shared.wait_free()


def test_limits(make_stack, make_guest):
    guests = [make_guest("echo", state="off").uuid for _ in range(3)]
    stack = make_stack("supervisor", "gateway", limits={"sessions": 2, "per_user": 1})
    kept = stack.token(guests[1], user="alice")
    with stack.open(guests[0], user="alice"):
        stack.wait_sessions("waiting")
        with stack.connect(kept) as refused:
            assert refused.ended()[0] == 4429
        with stack.open(guests[1], user="bob"):
            stack.wait_sessions("waiting", "waiting")
            with stack.open(guests[2], user="carol") as refused:
                assert refused.ended()[0] == 4429
    stack.wait_free()
    with stack.connect(kept):
        stack.wait_sessions("waiting")
    stack.wait_free()
