"""libvirtd dies, restarts, hangs: sessions go on, and nothing of ours hangs with it."""

import time

from tests import rig


def test_a_killed_and_restarted_libvirtd_costs_no_session(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"a")
        terminal.read_until(b"a")
        libvirtd.kill()
        terminal.read_until(b"connection to libvirt on the host is lost; trying again.]")
        stack.wait_sessions("reconnecting")
        terminal.send(b"held meanwhile")
        libvirtd.start()
        terminal.read_until(b"connection to libvirt is back.]", seconds=30)
        terminal.read_until(b"held meanwhile")
    stack.wait_free()


def test_the_operator_can_close_a_session_while_libvirtd_is_away(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        stack.wait_sessions("connected")
        libvirtd.kill()
        try:
            (session,) = stack.wait_sessions("reconnecting")
            stack.ask("close", id=session["id"])
            assert terminal.ended()[0] == 4411
            stack.wait_free()
        finally:
            libvirtd.start()


def test_a_hung_libvirtd_does_not_hang_the_end_of_a_session(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"a")
        terminal.read_until(b"a")
        libvirtd.freeze()
        try:
            terminal.send(b"b" * 200000)
            (session,) = stack.sessions()
            began = time.monotonic()
            stack.ask("close", id=session["id"])
            assert terminal.ended()[0] == 4411
            stack.wait_free()
            assert time.monotonic() - began < 5
            assert stack.cli("guests").returncode == 1
        finally:
            libvirtd.thaw()
    assert rig.eventually(lambda: stack.cli("guests").returncode == 0, seconds=10)
