"""Processes that are killed: what lives on, and what the next one finds."""

import glob
import os
import signal

from serial_console import __version__
from serial_console.doctor import services
from tests import rig
from tests.clients import echo
from tests.stack import alive, descendants, request


def test_a_killed_relay_does_not_lock_its_guest(both, via, echo_guest):
    for _ in range(2):
        with both.open(echo_guest.uuid, via) as terminal:
            assert echo(terminal, b"x") == b"x"
            (session,) = both.wait_sessions("connected")
            os.kill(session["relay_pid"], signal.SIGKILL)
            end = terminal.ended()
            if via == "gateway":
                assert end[0] == 4412
                assert "connect again" in end[1]
        both.wait_free()
    with both.open(echo_guest.uuid, via) as terminal:
        assert echo(terminal, b"y") == b"y"
    both.wait_free()


def test_relay_and_supervisor_killed_together(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = stack.wait_sessions("connected")
        stack.end("supervisor", signal.SIGKILL)
        os.kill(session["relay_pid"], signal.SIGKILL)
        assert terminal.ended()[0] == 4412
    assert len(stack.relay_sockets()) == 2
    stack.start("supervisor")
    assert stack.relay_sockets() == []
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"y") == b"y"
    stack.wait_free()


def test_a_killed_gateway_child_frees_the_console(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = stack.wait_sessions("connected")
        os.kill(session["gateway_pid"], signal.SIGKILL)
        assert terminal.ended()[0] == 1006
        stack.wait_free()
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"y") == b"y"
    stack.wait_free()


def test_a_relay_of_the_release_before_ends_a_session_as_it_is_told(stack, echo_guest):
    """A supervisor may know reasons that it does not."""
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        stack.wait_sessions("connected")
        assert stack.end("supervisor", signal.SIGKILL) == -signal.SIGKILL
        (path,) = glob.glob(f"{stack.control}/relays/*.sock")
        end = {"v": 1, "op": "end", "code": 4499, "reason": "A later release knows why."}
        assert request(path, end)["op"] == "adopt"
        assert terminal.ended() == (4499, "A later release knows why.")
    stack.start("supervisor")
    stack.wait_free()


def survives(stack, guest, number, status):
    """The session lives on without a supervisor; the next one adopts it and can end it."""
    with stack.open(guest.uuid, user="alice") as terminal:
        assert echo(terminal, b"x") == b"x"
        (before,) = stack.wait_sessions("connected")
        redeem = {"v": 1, "op": "redeem", "token": "?" * 43, "client": "::1", "version": "0.0.9"}
        assert not request(stack.redeem_path, redeem)["ok"]
        assert stack.ask("health")["gateway_version"] == __version__
        assert stack.end("supervisor", number) == status
        assert echo(terminal, b"without") == b"without"
        assert [one.service for one in services.running(stack.config)] == ["gateway"]
        stack.start("supervisor")
        (after,) = stack.wait_sessions("connected")
        same = ("id", "guest", "uuid", "console", "mode", "user", "client", "opened_at")
        for key in (*same, "relay_pid", "gateway_pid", "token_id"):
            assert after[key] == before[key], key
        assert after["bytes_in"] == 8
        health = stack.ask("health")
        assert (health["relay_versions"], health["gateway_version"]) == ([__version__], "")
        assert echo(terminal, b"with") == b"with"
        with stack.open(guest.uuid) as second:
            code, reason = second.ended()
            assert code == 4409
            assert "alice" in reason
        assert stack.cli("close", after["id"]).returncode == 0
        assert terminal.ended()[0] == 4411
    stack.wait_free()
    assert rig.eventually(lambda: not alive(before["relay_pid"]))


def test_a_session_survives_its_killed_supervisor(stack, echo_guest):
    survives(stack, echo_guest, signal.SIGKILL, -signal.SIGKILL)


def test_a_session_survives_a_supervisor_told_to_leave_it(stack, echo_guest):
    survives(stack, echo_guest, signal.SIGUSR1, 0)


def test_a_session_that_ends_without_a_supervisor_leaves_nothing(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = stack.wait_sessions("connected")
        stack.end("supervisor", signal.SIGKILL)
    assert rig.eventually(lambda: not alive(session["relay_pid"]))
    assert stack.relay_sockets() == []
    stack.start("supervisor")
    assert stack.sessions() == []


def test_libvirtd_is_killed_and_comes_back(libvirtd, stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        libvirtd.kill()
        try:
            terminal.read_until(b"[The connection to libvirt on the host is lost; trying again.]")
        finally:
            libvirtd.start()
        terminal.read_until(b"[The connection to libvirt is back.]\x1b[22m\r\n")
        assert echo(terminal, b"y") == b"y"
        stack.wait_sessions("connected")
        assert stack.token(echo_guest.uuid)
    stack.wait_free()


def test_the_inventory_is_killed(stack, echo_guest):
    assert stack.token(echo_guest.uuid)
    (inventory,) = (child.pid for child in descendants(stack.pid("supervisor")))
    os.kill(inventory, signal.SIGKILL)
    assert rig.eventually(lambda: not alive(inventory))
    assert stack.token(echo_guest.uuid)
