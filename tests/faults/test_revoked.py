"""What a token is bound to holds across restarts: revoking it, its console, its longest session."""

import signal
import time

import psutil
import pytest

from ..clients import Terminal


def echo(terminal, data):
    terminal.send(data)
    return terminal.read_until(data)


def restart(stack, number=signal.SIGKILL):
    stack.end("supervisor", number)
    stack.start("supervisor")


def test_a_token_is_revoked_after_its_supervisor_died(stack, make_guest):
    here, away = make_guest("echo"), make_guest("echo")
    token = stack.token(away.uuid, resume=60)
    with stack.open(here.uuid) as terminal, stack.connect(token) as gone:
        stack.wait_sessions("connected", "connected")
        gone.vanish()
        stack.wait_sessions("connected", "detached")
        restart(stack)
        for session in stack.wait_sessions("connected", "detached"):
            assert stack.ask("revoke", id=session["token_id"])["ok"]
        assert terminal.ended() == (4411, "Your access to this console was revoked.")
    stack.wait_free()
    with stack.connect(token) as again:
        assert again.ended()[0] == 4401


@pytest.mark.parametrize("how", ["token", "key"])
def test_what_is_revoked_before_its_relay_is_adopted_ends_when_that_is(stack, make_guest, how):
    revoked, kept = make_guest("echo"), make_guest("echo", serial=["pty", "pty"])
    with (
        stack.open(revoked.uuid, key="leaked") as terminal,
        stack.open(kept.uuid, key="own", console="serial1") as second,
        stack.open(kept.uuid, key="good") as other,
    ):
        opened = stack.wait_sessions(*["connected"] * 3)
        sessions = {f"{one['uuid']} {one['console']}": one for one in opened}
        tokens = {name: one["token_id"] for name, one in sessions.items()}
        relays = [psutil.Process(one["relay_pid"]) for one in sessions.values()]
        for relay in relays:
            relay.suspend()  # so it cannot greet the next supervisor before that serves
        try:
            restart(stack)
            assert stack.sessions() == []
            if how == "token":
                for name, whose in (
                    (f"{revoked.uuid} serial0", {}),
                    (f"{kept.uuid} serial1", {"own": True, "key": "own"}),
                    (f"{kept.uuid} serial0", {"own": True, "key": "leaked"}),  # it is not
                ):
                    answer = stack.ask("revoke", id=tokens[name], **whose)
                    assert answer["code"] == "no_such_token"
            else:
                answer = stack.ask("revoke_key", key="leaked", close=True)
                assert (answer["tokens"], answer["sessions"]) == (0, 0)
        finally:
            for relay in relays:
                relay.resume()
        assert terminal.ended()[0] == 4411
        if how == "token":
            assert second.ended()[0] == 4411
        left = stack.wait_sessions(*["connected"] * (1 if how == "token" else 2))
        assert {one["uuid"] for one in left} == {kept.uuid}
        assert echo(other, b"x") == b"x"
    stack.wait_free()


def test_the_longest_session_goes_on_counting_across_a_restart(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", session={"max_session": 6})
    with stack.open(echo_guest.uuid) as terminal:
        stack.wait_sessions("connected")
        began = time.monotonic()
        restart(stack)
        restarted = time.monotonic()
        assert terminal.ended() == (4408, "The longest session time is reached.")
        assert time.monotonic() - restarted < 6 - (restarted - began) / 2  # not anew from there
    stack.wait_free()


def test_a_token_opens_the_console_it_is_for(shared, make_guest):
    guest = make_guest("echo", serial=["pty", "pty"])
    with shared.open(guest.uuid, console="serial1") as second:
        (session,) = shared.wait_sessions("connected")
        assert session["console"] == "serial1"
        with shared.open(guest.uuid) as first:  # the other one is free
            assert echo(first, b"only here") == b"only here"
            assert second.output == b""
    shared.wait_free()


def test_a_token_for_one_address_is_refused_from_another_and_kept(shared, echo_guest):
    token = shared.token(echo_guest.uuid, client_address="127.0.0.2")
    with shared.connect(token) as terminal:
        assert terminal.ended()[0] == 4401
    with Terminal(shared.url(token), source_address=("127.0.0.2", 0)) as terminal:
        assert echo(terminal, b"x") == b"x"
    shared.wait_free()
