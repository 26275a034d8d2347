"""A guest's life while somebody looks: off, started, switched off, paused, reset, removed."""

import pytest

from serial_console.demo.libvirtd import VirshError
from tests import rig


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_guest_that_is_off_is_waited_for_and_its_first_words_are_seen(shared, make_guest, mode):
    guest = make_guest("echo", state="off")
    with shared.open(guest.uuid, mode=mode) as terminal:
        terminal.read_until(b"[The guest is off; waiting for its start.]")
        shared.wait_sessions("waiting")
        guest.start()
        assert terminal.read_until(b"ready\r\n").count(b"ready") == 1
        shared.wait_sessions("connected")
    shared.wait_free()


def test_through_an_unmodified_websockify_as_well(shared_stock, make_guest):
    guest = make_guest("echo", state="off")
    with shared_stock.open(guest.uuid, "stock") as terminal:
        terminal.read_until(b"[The guest is off; waiting for its start.]")
        guest.start()
        terminal.read_until(b"ready\r\n")
        terminal.send(b"x")
        terminal.read_until(b"x")
    shared_stock.wait_free()


def test_every_byte_from_the_first_instruction_on(shared, make_guest):
    guest = make_guest("linux", state="off")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        guest.start()
        boot = terminal.read_until(b"login: ", seconds=60)
        assert b"Linux version" in boot
        assert b"Command line: console=ttyS0" in boot
    shared.wait_free()


def test_what_is_typed_while_the_guest_is_off_never_reaches_it(shared, make_guest):
    guest = make_guest("echo", state="off")
    with shared.open(guest.uuid) as terminal:
        terminal.read_until(b"waiting for its start.]")
        terminal.send(b"lost")
        assert rig.eventually(lambda: shared.sessions()[0]["bytes_in"] == 4)
        guest.start()
        terminal.read_until(b"ready\r\n")
        terminal.send(b"kept")
        assert b"lost" not in terminal.read_until(b"kept")
    shared.wait_free()


def test_a_guest_that_is_switched_off_and_on_keeps_its_session(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        for _ in range(2):
            echo_guest.destroy()
            terminal.read_until(b"[The guest was switched off; waiting for its start.]")
            shared.wait_sessions("waiting")
            echo_guest.start()
            terminal.read_until(b"ready\r\n")
            terminal.send(b"y")
            terminal.read_until(b"y")
    shared.wait_free()


def test_a_guest_that_stops_ends_the_session_where_that_is_configured(make_stack, echo_guest):
    stack = make_stack("supervisor", "gateway", session={"on_guest_stop": "close"})
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        echo_guest.destroy()
        assert terminal.ended() == (1000, "The guest was switched off.")
    stack.wait_free()


def test_a_guest_that_is_off_already_ends_the_session_there(make_stack, make_guest):
    stack = make_stack("supervisor", "gateway", session={"on_guest_stop": "close"})
    guest = make_guest("echo", state="off")
    with stack.open(guest.uuid) as terminal:
        code, reason = terminal.ended()
        assert code == 1000
        assert "guest" in reason
    stack.wait_free()


def test_a_paused_guest_takes_input_when_it_runs_again(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")
        echo_guest.suspend()
        terminal.read_until(b"[The guest is paused: what you type is held.]")
        shared.wait_sessions("paused")
        terminal.send(b"held")
        terminal.read_until(b"is held.]")
        echo_guest.resume()
        terminal.read_until(b"[The guest runs again.]")
        terminal.read_until(b"held")
    shared.wait_free()


def test_a_reset_guest_keeps_its_session(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        shared.wait_sessions("connected")
        echo_guest.reset()
        terminal.read_until(b"ready\r\n")
        terminal.send(b"x")
        terminal.read_until(b"x")
    shared.wait_free()


@pytest.mark.parametrize("state", ["ready", "off"])
def test_a_guest_that_is_removed_ends_the_session(shared, make_guest, state):
    guest = make_guest("echo", state=state)
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("connected" if state == "ready" else "waiting")
        guest.undefine()
        if state == "ready":
            terminal.send(b"x")
            terminal.read_until(b"x")  # it runs on, transient now
            guest.destroy()
        code, reason = terminal.ended()
        assert code == 4404
        assert "guest" in reason.lower()
    shared.wait_free()
    with pytest.raises(VirshError):
        guest.state()


def test_a_token_is_for_one_guest_not_for_a_new_one_of_the_same_name(shared, make_guest):
    old = make_guest("echo", name="the-name", state="off")
    token = shared.token("the-name", ttl=60)
    old.undefine()
    new = make_guest("echo", name="the-name", state="off")
    assert new.uuid != old.uuid
    with shared.connect(token) as terminal:
        assert terminal.ended()[0] == 4404
    shared.wait_free()
