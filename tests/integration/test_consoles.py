"""Consoles of every kind that can be opened: with a pty, and on a tcp or unix socket of QEMU's.

What is behind that, sharing, resume, stalls, is one code for all; here is what passes by it.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from serial_console.demo.libvirtd import Guest, PrivateLibvirtd
from tests import rig
from tests.clients import echo
from tests.stack import memory

SOCKETS = ["unix", "tcp", pytest.param("telnet", marks=pytest.mark.slow)]
SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in ("unix", "tcp", "telnet")]
BYTES = bytes(set(range(256)) - set(rig.ECHO_COMMANDS))
FLOODED = bytes(range(0x20, 0x7F))
TYPED = bytes(random.Random(1).choices(BYTES, k=65536))


@pytest.fixture(scope="module", params=SOCKETS)
def guest(request: pytest.FixtureRequest, libvirtd: PrivateLibvirtd) -> Iterator[Guest]:
    """An echo guest with its console on a socket, for the module."""
    factory = rig.GuestFactory(libvirtd)
    try:
        yield factory("echo", serial=request.param)
    finally:
        factory.close()


def hold(guest: Guest) -> rig.Plug:
    """Take the console as another program would, nova-serialproxy perhaps."""
    return rig.Plug(rig.sockets(guest)["serial0"])


def pid_of(guest: Guest) -> int:
    """Return the process of a running guest."""
    path = os.path.join(guest.libvirtd.directory, "run/libvirt/qemu/run", f"{guest.name}.pid")
    with open(path, encoding="ascii") as file:
        return int(file.read())


def boots(terminal, guest):
    """Start a guest that is off and see all that it says, from its first byte on."""
    guest.start()
    assert terminal.read_until(b"ready\r\n").count(b"ready") == 1
    assert echo(terminal, b"typed") == b"typed"


# ---- bytes


def test_every_byte_arrives_as_it_was_typed(shared, guest):
    with shared.open(guest.uuid, escape="", notices=False) as terminal:
        terminal.send(TYPED[:8192])
        assert terminal.read_exactly(8192) == TYPED[:8192]
        assert terminal.rest() == b""
    shared.wait_free()


@pytest.mark.slow
def test_a_mebibyte_of_noise_arrives_as_it_was_sent(shared, guest):
    with shared.open(guest.uuid, notices=False) as terminal:
        terminal.send(b"\5")
        data = terminal.read_exactly(rig.NOISE_BYTES)
        assert hashlib.sha256(data).digest() == hashlib.sha256(rig.noise()).digest()
    shared.wait_free()


@pytest.mark.slow
def test_a_mebibyte_typed_comes_back(shared, guest):
    typed = TYPED * 16
    with shared.raw(guest.uuid, escape="", notices=False) as client:
        client.send(typed)
        client.serve_until(typed[-1:], seconds=20)
        deadline = time.monotonic() + 250
        while len(client.output) < len(typed):
            assert time.monotonic() < deadline
            client.serve(0.2)
        assert hashlib.sha256(client.output).digest() == hashlib.sha256(typed).digest()
    shared.wait_free()


# ---- who has it


def test_a_second_client_is_refused_watches_and_takes_over(shared, guest):
    with shared.open(guest.uuid, user="alice") as first:
        assert echo(first, b"from the first") == b"from the first"
        with shared.open(guest.uuid, user="bob") as second:
            code, reason = second.ended()
            assert (code, "alice" in reason) == (4409, True)
        with shared.open(guest.uuid, mode="ro") as watcher:
            watcher.read_until(b"from the first")  # replayed
            with shared.open(guest.uuid, user="bob", takeover=True) as second:
                assert first.ended()[0] == 4410
                second.read_until(b"from the first")
                second.send(b"from the second")
                second.read_until(b"from the second")
                watcher.read_until(b"from the second")
    shared.wait_free()


def test_another_program_has_it(shared, guest):
    """Its connection is accepted, ours waits in the kernel's queue, which is no error there."""
    with hold(guest) as other:
        other.send(b"other")
        other.read_until(b"other")
        with shared.open(guest.uuid) as terminal:
            code, reason = terminal.ended()
            assert code == 4409
            assert "another program" in reason
        shared.wait_free()
        other.send(b"still")
        assert other.read_until(b"still").endswith(b"still")
    with shared.open(guest.uuid) as terminal:  # what waited in the queue does not take it
        assert echo(terminal, b"free") == b"free"
    shared.wait_free()


def test_another_program_leaves_while_somebody_waits(shared, guest):
    with hold(guest) as other, ThreadPoolExecutor() as pool:
        other.send(b"other")
        other.read_until(b"other")
        opening = pool.submit(shared.open, guest.uuid)
        assert rig.eventually(lambda: shared.relay_sockets() != [])
        other.close()
        with opening.result() as terminal:
            assert echo(terminal, b"free") == b"free"
    shared.wait_free()


# ---- the guest's life


def test_a_guest_that_is_paused_reset_switched_off_and_killed(shared, guest):
    with shared.open(guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        guest.suspend()
        terminal.read_until(b"[The guest is paused: what you type is held.]")
        terminal.send(b"held")
        terminal.read_until(b"is held.]")
        guest.resume()
        terminal.read_until(b"[The guest runs again.]")
        terminal.read_until(b"held")
        guest.reset()
        terminal.read_until(b"ready\r\n")
        for end, notice in (
            (guest.destroy, b"[The guest was switched off; waiting for its start.]"),
            (guest.kill, b"[The guest was ended by an error on the host; waiting for its start.]"),
        ):
            end()
            terminal.read_until(notice)
            boots(terminal, guest)
    shared.wait_free()


@pytest.mark.slow
def test_a_guest_that_is_off_is_waited_for(shared, guest):
    guest.destroy()
    with shared.open(guest.uuid) as terminal:
        terminal.read_until(b"[The guest is off; waiting for its start.]")
        boots(terminal, guest)
    shared.wait_free()


@pytest.mark.slow
def test_a_guest_that_was_saved(shared, guest):
    with shared.open(guest.uuid) as terminal:
        assert echo(terminal, b"x") == b"x"
        guest.save()
        terminal.read_until(b"[The guest was saved to disk; waiting for its start.]")
        guest.start()
        terminal.read_until(b"[The guest goes on where it was saved.]")
        terminal.send(b"again")
        terminal.read_until(b"again")
    shared.wait_free()


@pytest.mark.parametrize("backend", SLOW)
def test_libvirtd_dies_and_nobody_notices(stack, libvirtd, make_guest, backend):
    """The bytes do not pass through it. What it says when it is back is heard."""
    guest = make_guest(serial=backend)
    with stack.open(guest.uuid) as terminal:
        assert echo(terminal, b"before") == b"before"
        libvirtd.kill()
        assert echo(terminal, b"without") == b"without"
        (session,) = stack.sessions()
        assert session["state"] == "connected"
        libvirtd.start()
        # It may find us back before or after; either way the pause is told.
        guest.suspend()
        terminal.read_until(b"[The guest is paused: what you type is held.]")
        guest.resume()
        terminal.read_until(b"[The guest runs again.]")
        terminal.send(b"after")
        terminal.read_until(b"after")
        assert b"lost" not in terminal.output
        libvirtd.kill()
        os.kill(pid_of(guest), signal.SIGKILL)
        terminal.read_until(b"[The connection to libvirt on the host is lost; trying again.]")
        libvirtd.start()
        terminal.read_until(b"waiting for its start.]")
        boots(terminal, guest)
    stack.wait_free()


# ---- floods


@pytest.mark.slow
def test_what_is_typed_to_a_guest_that_hangs_is_held_and_bounded(shared, guest):
    with shared.raw(guest.uuid) as client:
        client.send(b"a\x08")
        client.serve_until(b"a")
        before = memory(shared.session_of(guest))
        client.send(bytes(10 << 20))
        client.serve_until(b"what you type is held.]")
        client.serve(2.0)
        session = shared.session_of(guest)
        assert session["bytes_in"] < 1 << 20
        for begin, end in zip(before, memory(session), strict=True):
            assert end - begin < 2 << 20
    shared.wait_free()
    guest.nmi()
    with shared.open(guest.uuid) as terminal:
        terminal.send(b"mine")
        terminal.read_until(b"mine", seconds=60)  # after what was on its way to the guest
    shared.wait_free()


@pytest.mark.slow
def test_a_client_that_reads_slowly_slows_the_guest(shared, guest):
    """As it does with a pty; nothing is skipped."""
    with shared.raw(guest.uuid, notices=False) as client:
        client.send(b"\x06")
        read = 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            read += client.serve(0.1, most=2000)
        client.send(b".")
        client.serve_until(b"\x04", seconds=60)
        output = bytes(client.output)
        printed = int(output[-9:-1], 16)
        assert len(output) - 9 == printed
        assert output[:-9] == (FLOODED * (printed // len(FLOODED) + 1))[:printed]
        print(f"printed {printed}, of which {read} were read slowly")
    shared.wait_free()


# ---- which


@pytest.mark.slow
def test_all_consoles_of_a_guest_at_the_same_time(shared, make_guest):
    kinds = ["pty", "tcp", "unix", "telnet"]
    guest = make_guest("linux", serial=kinds, state="running")
    names = [f"serial{number}" for number in range(4)]
    listed = shared.rest("GET", f"/v1/guests/{guest.uuid}")[1]["consoles"]
    assert listed == [
        {"alias": name, "type": rig.TYPES.get(kind, kind), "supported": True}
        for name, kind in zip(names, kinds, strict=True)
    ]
    with ExitStack() as clients:
        terminals = {
            name: clients.enter_context(shared.open(guest.uuid, console=name)) for name in names
        }
        for terminal in terminals.values():
            terminal.send(b"\r")
            terminal.read_until(b"login: ", seconds=60)
            terminal.send(b"root\r")
            terminal.read_until(b"# ")
        for name, terminal in terminals.items():
            terminal.send(b"tty; echo on $((6*7)) " + name.encode() + b"\r")
            terminal.read_until(b"/dev/ttyS" + name[-1:].encode() + b"\r\n")
            terminal.read_until(b"on 42 " + name.encode())
        assert sorted(one["console"] for one in shared.sessions()) == names
    shared.wait_free()
    done = shared.cli("token", guest.name, "--console", "serial2")
    with shared.connect(done.stdout.strip()) as terminal:
        terminal.send(b"tty\r")
        terminal.read_until(b"/dev/ttyS2\r\n")
    shared.wait_free()
