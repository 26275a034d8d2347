"""What becomes of a session when its guest crashes, sleeps, is saved, renamed or moved.

The everyday part, off and on, pause, reset and removal, is in integration/test_guest_life.py.
"""

import fcntl
import os
import re
import struct
import termios
from collections.abc import Iterator

import pytest

from serial_console.demo import host
from serial_console.demo.libvirtd import Guest, PrivateLibvirtd
from tests import rig
from tests.clients import Terminal
from tests.stack import Stack

PANIC = b"\x0e"
PVPANIC = "<panic model='isa'/>"
SLEEP = b"echo mem > /sys/power/state\r"


@pytest.fixture
def other_host() -> Iterator[PrivateLibvirtd]:
    """Another libvirtd, to which guests can move."""
    with host.short_directory("sc-other-") as directory, PrivateLibvirtd(f"{directory}/d") as one:
        yield one


def redefine(guest: Guest, old: str, new: str) -> None:
    """Change the XML of a guest that is off."""
    assert old in guest.xml
    guest.xml = guest.xml.replace(old, new)
    guest.define()


def echoes(terminal: Terminal, data: bytes = b"typed") -> None:
    """See that what is typed comes back, after whatever else there is."""
    terminal.send(data)
    terminal.read_until(data, seconds=5)


def notice(text: str) -> bytes:
    """Return a notice as it stands on its row."""
    return b"\x1b[2m[%s]\x1b[22m\r\n" % text.encode()


def said(output: bytes) -> list[str]:
    """Return all notices in some output."""
    return [text.decode() for text in re.findall(rb"\x1b\[2m\[(.*?)\]\x1b\[22m\r\n", output)]


def state(stack: Stack, guest: Guest) -> str:
    """Return the guest's state as the listing has it."""
    return str(stack.ask("guest", guest=guest.uuid)["guest"]["state"])


# ---- crash


@pytest.mark.parametrize("on_crash", ["destroy", "coredump-destroy"])
def test_a_guest_that_crashes_and_is_switched_off(shared, make_guest, on_crash):
    guest = make_guest("echo", state="off", extra=PVPANIC)
    redefine(guest, "<on_crash>destroy<", f"<on_crash>{on_crash}<")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        for _ in range(2):
            guest.start()
            terminal.read_until(b"ready\r\n")
            echoes(terminal)
            terminal.send(PANIC)
            terminal.read_until(notice("The guest has crashed: what you type is held."))
            terminal.read_until(notice("The guest has crashed; waiting for its start."))
            shared.wait_sessions("waiting")
            assert state(shared, guest) == "shutoff"
    shared.wait_free()


def test_a_guest_that_crashes_and_is_kept_for_a_look(shared, make_guest):
    guest = make_guest("echo", state="off", extra=PVPANIC)
    redefine(guest, "<on_crash>destroy<", "<on_crash>preserve<")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        guest.start()
        terminal.read_until(b"ready\r\n")
        terminal.send(PANIC)
        terminal.read_until(notice("The guest has crashed: what you type is held."))
        shared.wait_sessions("paused")
        assert state(shared, guest) == "crashed"
        with shared.open(guest.uuid, mode="ro") as watcher:
            watcher.read_until(notice("The guest has crashed: what you type is held."))
        guest.resume()
        terminal.read_until(notice("The guest runs again."))
        shared.wait_sessions("connected")
        echoes(terminal)
    shared.wait_free()


@pytest.mark.parametrize("on_crash", ["restart", "coredump-restart"])
def test_a_guest_that_crashes_and_starts_again(shared, make_guest, on_crash):
    guest = make_guest("echo", state="off", extra=PVPANIC)
    redefine(guest, "<on_crash>destroy<", f"<on_crash>{on_crash}<")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        guest.start()
        terminal.read_until(b"ready\r\n")
        terminal.send(PANIC)
        terminal.read_until(notice("The guest has crashed: what you type is held."))
        terminal.read_until(notice("The guest runs again."))
        assert terminal.read_until(b"ready\r\n").count(b"ready") == 1
        shared.wait_sessions("connected")
        echoes(terminal)
    shared.wait_free()


def test_a_guest_whose_qemu_is_killed(either, via, echo_guest):
    with either.open(echo_guest.uuid, via) as terminal:
        echoes(terminal)
        echo_guest.kill()
        terminal.read_until(
            notice("The guest was ended by an error on the host; waiting for its start.")
        )
        either.wait_sessions("waiting")
        echo_guest.start()
        terminal.read_until(b"ready\r\n")
        echoes(terminal)
    either.wait_free()


# ---- by itself


def test_a_guest_that_reboots_sleeps_and_shuts_down(shared, make_guest):
    """The Linux guest: asked to reboot, by its own command, suspend to memory, power off."""
    guest = make_guest("linux", state="off")
    redefine(guest, "<on_crash>", "<pm><suspend-to-mem enabled='yes'/></pm><on_crash>")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        guest.start()
        _log_in(terminal)
        guest.reboot()
        boot = _log_in(terminal)
        assert said(boot) == ["The guest reboots."]
        assert boot.count(b"Linux version") == 1
        terminal.send(b"reboot -f\r")
        boot = _log_in(terminal)
        assert said(boot) == ["The guest reboots."]
        assert boot.count(b"Linux version") == 1

        terminal.send(SLEEP)
        terminal.read_until(notice("The guest sleeps: what you type is held."))
        shared.wait_sessions("paused")
        assert state(shared, guest) == "pmsuspended"
        guest.wake()
        # What the kernel kept to itself while it slept: not a line is missing. On a busy machine
        # some of it comes before libvirt says that the guest has woken up.
        woken = terminal.read_until(notice("The guest has woken up."))
        if b"PM: suspend exit" not in woken:
            woken += terminal.read_until(b"PM: suspend exit")
        for line in b"Preparing to enter", b"Low-level resume", b"Waking up from":
            assert woken.count(line) == 1
        shared.wait_sessions("connected")
        terminal.send(b"echo $((6*7))\r")
        terminal.read_until(b"\n42\r\n")

        # Its very last words are libvirtd's to read in time: QEMU ends with the guest.
        terminal.send(b"poweroff -f\r")
        terminal.read_until(notice("The guest has shut down; waiting for its start."))
        shared.wait_sessions("waiting")
    shared.wait_free()


def _log_in(terminal: Terminal) -> bytes:
    boot = terminal.read_until(b"login: ", seconds=60)
    terminal.send(b"root\r")
    terminal.read_until(b"# ")
    return boot


def test_a_reset_is_told_once(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        echoes(terminal)
        echo_guest.reset()
        assert said(terminal.read_until(b"ready\r\n")) == ["The guest reboots."]
        echoes(terminal)
        assert said(terminal.output) == ["The guest reboots."]
    shared.wait_free()


# ---- first and last byte


def test_the_first_words_of_the_firmware_are_seen(shared, make_guest):
    guest = make_guest("echo", state="off")
    redefine(guest, "<boot dev='fd'/>", "<boot dev='fd'/><bios useserial='yes'/>")
    guest.start(paused=True)
    with rig.Tty(guest.ttys()["serial0"]) as tty:
        guest.resume()
        expected = tty.read_until(b"Floppy")
    assert expected.index(b"SeaBIOS") < 30
    guest.destroy()
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        for _ in range(3):
            guest.start(paused=True)  # else, on a busy host, it says them before the relay is there
            terminal.read_until(notice("The guest is paused: what you type is held."))
            guest.resume()
            terminal.read_until(notice("The guest runs again."))
            assert terminal.read_until(b"Floppy") == expected
            terminal.read_until(b"ready\r\n")
            guest.destroy()
            terminal.read_until(b"waiting for its start.]")
    shared.wait_free()


def test_a_guest_that_is_saved_in_mid_sentence_ends_it_when_it_is_started(either, via, echo_guest):
    """Not a byte is lost or doubled, as far as the host can give it (see the comments)."""
    noise = rig.noise()[:60000]
    with either.open(echo_guest.uuid, via) as terminal:
        terminal.send(b"\x05")
        terminal.read_exactly(20000)
        # What libvirtd has not read from the pty when QEMU ends, the kernel discards.
        echo_guest.suspend()
        tty = echo_guest.ttys()["serial0"]
        assert rig.eventually(lambda: _unread(tty) == 0)
        echo_guest.save("--paused")
        terminal.read_until(notice("The guest was saved to disk; waiting for its start."))
        either.wait_sessions("waiting")
        # On a busy host a saved guest goes on before anyone could open its console.
        echo_guest.start()
        either.wait_sessions("paused")
        echo_guest.resume()
        terminal.read_until(notice("The guest runs again."))
        while len(terminal.output) < len(noise) + 1000:
            terminal.read_exactly(len(noise) + 1000 - len(terminal.output))
        assert said(terminal.output) == [
            "The guest is paused: what you type is held.",
            "The guest was saved to disk; waiting for its start.",
            "The guest is paused: what you type is held.",
            "The guest runs again.",
        ]
        assert _without_notices(terminal.output)[: len(noise)] == noise
    either.wait_free()


def _unread(tty: str) -> int:
    """Return how many bytes of a guest's output wait in its pty."""
    fd = os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)


def test_a_saved_guest_that_is_started_is_said_to_go_on(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        echoes(terminal)
        echo_guest.save()
        terminal.read_until(notice("The guest was saved to disk; waiting for its start."))
        echo_guest.start()
        terminal.read_until(notice("The guest goes on where it was saved."))
        echoes(terminal)
        assert b"ready" not in terminal.output  # it did not boot again
    shared.wait_free()


def _without_notices(output: bytes) -> bytes:
    """Return what the guest printed; a notice in mid-line starts a row of its own."""
    parts = re.split(rb"(\x1b\[2m\[.*?\]\x1b\[22m\r\n)", output)
    for at in range(1, len(parts), 2):
        if parts[at - 1] and parts[at - 1].endswith(b"\r\n"):
            parts[at - 1] = parts[at - 1][:-2]
    return b"".join(parts[::2])


def test_a_guest_that_starts_paused_is_said_to_be(shared, make_guest):
    guest = make_guest("echo", state="off")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        guest.start(paused=True)
        shared.wait_sessions("paused")
        guest.resume()
        shown = terminal.read_until(b"ready\r\n")
        assert said(shown) == [
            "The guest is off; waiting for its start.",
            "The guest is paused: what you type is held.",
            "The guest runs again.",
        ]
        echoes(terminal)
    shared.wait_free()


# ---- what libvirt knows of it


def test_a_guest_that_is_renamed_keeps_its_session(shared, libvirtd, make_guest):
    guest = make_guest("echo", state="off")
    with shared.open(guest.uuid) as terminal:
        shared.wait_sessions("waiting")
        libvirtd.virsh("domrename", guest.uuid, "another [name]")
        terminal.read_until(
            notice("The guest was renamed to another [name]; waiting for its start.")
        )
        assert shared.ask("guest", guest=guest.uuid)["guest"]["name"] == "another [name]"
        guest.start()
        terminal.read_until(b"ready\r\n")
        echoes(terminal)
    shared.wait_free()


def test_a_guest_that_is_removed_while_it_runs_and_one_that_was_never_defined(shared, make_guest):
    removed = make_guest("echo")
    transient = make_guest("echo", state="off")
    transient.undefine()
    transient.libvirtd.virsh("create", "--paused", "/dev/stdin", stdin=transient.xml)
    with shared.open(removed.uuid) as first, shared.open(transient.uuid) as second:
        shared.wait_sessions("connected", "paused")
        transient.resume()
        second.read_until(b"ready\r\n")
        removed.undefine()
        first.read_until(
            notice("The guest was removed from this host; it runs until it is switched off.")
        )
        echoes(first)
        echoes(second)
        for guest, terminal in ((removed, first), (transient, second)):
            guest.destroy()
            reason = "The guest was switched off and no longer exists."
            assert terminal.ended() == (4404, reason)
            assert said(terminal.output)[-1] == reason
            assert "The guest was switched off; waiting for its start." not in said(terminal.output)
    shared.wait_free()


def test_a_removed_guest_that_is_defined_again_is_waited_for(shared, echo_guest):
    with shared.open(echo_guest.uuid) as terminal:
        shared.wait_sessions("connected")
        echo_guest.undefine()
        terminal.read_until(b"until it is switched off.]")
        echo_guest.define()
        echo_guest.destroy()
        terminal.read_until(notice("The guest was switched off; waiting for its start."))
        echo_guest.start()
        terminal.read_until(b"ready\r\n")
        echoes(terminal)
    shared.wait_free()


def test_the_end_of_the_guest_ends_the_session_with_its_cause(make_stack, make_guest):
    stack = make_stack("supervisor", "gateway", session={"on_guest_stop": "close"})
    crashing = make_guest("echo", extra=PVPANIC)
    killed = make_guest("echo")
    saved = make_guest("echo")
    transient = make_guest("echo")
    transient.undefine()
    for guest, end, reason in (
        (crashing, None, "The guest has crashed."),
        (killed, killed.kill, "The guest was ended by an error on the host."),
        (saved, saved.save, "The guest was saved to disk."),
        (transient, transient.destroy, "The guest has stopped."),
    ):
        with stack.open(guest.uuid) as terminal:
            echoes(terminal)
            if end is None:
                terminal.send(PANIC)
            else:
                end()
            assert terminal.ended() == (1000, reason)
            assert said(terminal.output)[-1] == reason
            assert not [text for text in said(terminal.output) if "waiting" in text]
        stack.wait_free()


# ---- migration


def test_a_guest_that_moves_away_ends_the_session_and_one_that_comes_goes_on(
    either, via, libvirtd, other_host, make_guest
):
    guest = make_guest("echo")
    with either.open(guest.uuid, via) as terminal:
        echoes(terminal)
        guest.migrate(other_host, "--live", "--persistent")
        if via == "gateway":
            assert terminal.ended() == (4404, "The guest has moved to another host.")
        else:
            terminal.ended()
        assert said(terminal.output)[-1] == "The guest has moved to another host."
    either.wait_free()
    assert state(either, guest) == "shutoff"  # it is still defined here, and comes back:
    with either.open(guest.uuid, via) as terminal:
        either.wait_sessions("waiting")
        other_host.virsh("migrate", "--live", "--unsafe", "--p2p", guest.uuid, libvirtd.uri)
        either.wait_sessions("connected")
        echoes(terminal)
        assert said(terminal.output)[-1] in (  # as the console was opened before or after
            "The guest runs on this host.",
            "The guest has come from another host.",
        )
        assert b"ready" not in terminal.output  # it did not start anew
    either.wait_free()
