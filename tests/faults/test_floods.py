"""More input than a guest takes, from clients that vanish."""

import contextlib
import re
import time

import pytest

from tests import rig
from tests.stack import memory

MIB = 1 << 20
FLOOD = 10 * MIB
KINDS = ("paused", "hung", "deaf")
"""Guests that read nothing: libvirt knows it; nobody knows it; and it prints all the while."""


def stop_reading(kind, guest, terminal):
    if kind == "paused":
        guest.suspend()
    elif kind == "hung":
        terminal.send(b"a\x08")
        terminal.read_until(b"a")
    else:
        terminal.send(b"\x07")
        terminal.read_until(b"xyz")


def numbered(flood):
    """Return 10 MiB of which each piece tells where it belongs."""
    tag = bytes([ord("A") + flood])
    return b"".join(b"%s%07d" % (tag, number) for number in range(FLOOD // 8))


def test_input_to_a_paused_guest_is_held_bounded_and_typed_when_it_runs(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        terminal.send(b"first")
        terminal.read_until(b"first")
        echo_guest.suspend()
        terminal.read_until(b"what you type is held.]")
        typed = b"0123456789" * 3000
        terminal.send(typed)
        assert rig.eventually(lambda: shared.sessions()[0]["bytes_in"] == 5 + len(typed))
        echo_guest.resume()
        terminal.read_until(b"runs again.]\x1b[22m\r\n")
        assert terminal.read_exactly(len(typed)) == typed


def test_what_is_typed_just_before_the_client_leaves_is_taken(shared, echo_guest):
    typed = b"0123456789" * 1200
    with shared.open(echo_guest.uuid, mode="ro") as watcher:
        shared.wait_sessions("connected")
        with shared.open(echo_guest.uuid) as terminal:
            terminal.send(typed)
        assert watcher.read_exactly(len(typed)) == typed
    shared.wait_free()


PRINTED = 30_000
"""Bytes after which a relay of a guest that prints has all the memory that it needs for that."""


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_floods_at_guests_that_do_not_read_harm_nobody(stack, libvirtd, make_guest, rounds):
    """All three guests at once, since most of it is waiting."""
    pid = libvirtd.pid
    guests = {kind: make_guest("echo") for kind in KINDS}
    for kind, guest in guests.items():
        with stack.open(guest.uuid) as terminal:
            terminal.send(b"x")
            terminal.read_until(b"x")
            stop_reading(kind, guest, terminal)
    stack.wait_free()
    for flood in range(rounds):
        with contextlib.ExitStack() as clients:
            floods = {
                kind: clients.enter_context(stack.raw(guest.uuid, user=f"user {flood}"))
                for kind, guest in guests.items()
            }
            stack.wait_sessions("paused", "connected", "connected")
            # What printing alone costs a new relay is not what the flood does.
            while len(floods["deaf"].output) < PRINTED:
                floods["deaf"].serve(0.1)
            before = {kind: memory(stack.session_of(guests[kind])) for kind in guests}
            for client in floods.values():
                client.send(numbered(flood))
            for client in floods.values():
                client.serve_until(b"what you type is held.]")
            assert prints(floods["deaf"]), "it prints all the while"
            for kind, guest in guests.items():
                session = stack.session_of(guest)
                assert session["bytes_in"] < MIB, "the client is no longer read"
                for begin, end in zip(before[kind], memory(session), strict=True):
                    assert end - begin < 2 * MIB, (kind, flood)
            if flood == 5:
                taken_over(stack, guests, floods)
            if flood == 6:
                closed_by_the_operator(stack, guests, floods)
        stack.wait_sessions()
        assert libvirtd.pid == pid
    for kind, guest in guests.items():
        guest.resume() if kind == "paused" else guest.nmi()
        began = time.monotonic()
        with stack.open(guest.uuid) as terminal:
            stack.wait_sessions("connected", seconds=5)
            print(f"{kind}: the next client had a console after {time.monotonic() - began:.2f} s")
            terminal.send(b"mine")
            terminal.read_until(b"mine", seconds=60)  # after what was on its way to the guest
            pieces = re.findall(rb"[A-Z]\d{7}", terminal.output)
            assert pieces == sorted(pieces)
        stack.wait_sessions()
    stack.wait_free()
    assert libvirtd.pid == pid


def test_the_supervisor_ends_at_once_while_a_guest_does_not_read(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        stop_reading("deaf", echo_guest, terminal)
    stack.wait_free()
    with stack.raw(echo_guest.uuid) as client:
        client.send(numbered(0))
        client.serve_until(b"what you type is held.]")
        began = time.monotonic()
        assert stack.end("supervisor") == 0
        assert time.monotonic() - began < 3
        client.serve_until(b"The console service on the host was stopped.")
        assert stack.relay_sockets() == []
        assert "killed" not in stack.logs()


def prints(client):
    """Whether more output comes."""
    printed = len(client.output)
    return rig.eventually(
        lambda: client.serve(0.05) > 0 and len(client.output) > printed, seconds=2.0
    )


def taken_over(stack, guests, floods):
    for kind, guest in guests.items():
        with stack.open(guest.uuid, takeover=True, user="bob") as terminal:
            floods[kind].serve_until(b"bob has taken over this console.")
            if kind == "deaf":
                terminal.read_exactly(1000)


def closed_by_the_operator(stack, guests, floods):
    for kind, guest in guests.items():
        began = time.monotonic()
        stack.ask("close", id=stack.session_of(guest)["id"])
        floods[kind].serve_until(b"The operator closed this session.")
        assert time.monotonic() - began < 2
