"""What a session holds of the kernel's does not grow with the faults it outlives."""

import os


def descriptors(pid):
    return {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}


def test_a_relay_that_reconnects_holds_no_more_descriptors_than_before(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        (session,) = stack.wait_sessions("connected")
        before = descriptors(session["relay_pid"])
        for _ in range(2):
            libvirtd.kill()
            libvirtd.start()
            terminal.read_until(b"connection to libvirt is back.]", seconds=30)
        terminal.send(b"x")
        terminal.read_until(b"x")
        after = descriptors(session["relay_pid"])
        assert len(after) == len(before), f"{before} became {after}"
    stack.wait_free()
