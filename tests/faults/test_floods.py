"""More input than a guest takes, more output than a client reads."""

import psutil

from tests import rig

MIB = 1 << 20


def test_input_to_a_paused_guest_is_held_bounded_and_typed_when_it_runs(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"first")
        terminal.read_until(b"first")
        echo_guest.suspend()
        terminal.read_until(b"what you type is held.]")
        typed = b"0123456789" * 3000
        terminal.send(typed)
        assert rig.eventually(lambda: stack.sessions()[0]["bytes_in"] == 5 + len(typed))
        echo_guest.resume()
        terminal.read_until(b"runs again.]\x1b[22m\r\n")
        assert terminal.read_exactly(len(typed)) == typed


def test_a_flood_at_a_paused_guest_by_clients_that_vanish(stack, libvirtd, echo_guest):
    pid = libvirtd.pid
    echo_guest.suspend()
    for _ in range(5):
        terminal = stack.open(echo_guest.uuid)
        terminal.send(b"x" * 300000)
        (session,) = stack.wait_sessions("paused")
        assert psutil.Process(session["relay_pid"]).memory_full_info().uss < 30 * MIB
        terminal.vanish()
        stack.wait_free()
    echo_guest.resume()
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"mine")
        terminal.read_until(b"mine")
    assert libvirtd.pid == pid


def test_a_client_that_does_not_read_holds_up_nobody_and_sees_the_newest(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        stack.wait_sessions("connected")
        terminal.send(b"\x06")
        assert rig.eventually(lambda: stack.sessions()[0]["skipped"] > 0, seconds=60)
        (session,) = stack.sessions()
        pids = session["relay_pid"], session["gateway_pid"]
        before = [psutil.Process(pid).memory_full_info().uss for pid in pids]
        goal = session["skipped"] + MIB
        assert rig.eventually(lambda: stack.sessions()[0]["skipped"] > goal, seconds=60)
        after = [psutil.Process(pid).memory_full_info().uss for pid in pids]
        assert all(end - begin < MIB for begin, end in zip(before, after, strict=True))
        terminal.send(b"x")
        terminal.read_until(b"bytes of output skipped]")
        terminal.read_until(b"\x04")
