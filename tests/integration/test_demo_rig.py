"""The rig itself: what the other tests stand on."""

import hashlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from serial_console.demo import host
from serial_console.demo.libvirtd import PrivateLibvirtd, VirshError
from serial_console.errors import SetupError
from tests import rig


def test_echo_guest_echoes_on_the_tty_that_virsh_names(libvirtd, echo_guest):
    path = libvirtd.virsh("ttyconsole", echo_guest.uuid)
    assert echo_guest.ttys() == {"serial0": path}
    with rig.Tty(path) as tty:
        data = bytes(set(range(256)) - set(rig.ECHO_COMMANDS))
        tty.send(data)
        assert tty.read_exactly(len(data)) == data


def test_echo_guest_sends_noise(echo_guest):
    with rig.Tty(echo_guest.ttys()["serial0"]) as tty:
        tty.send(b"\5")
        data = tty.read_exactly(rig.NOISE_BYTES)
        assert hashlib.sha256(data).digest() == hashlib.sha256(rig.noise()).digest()
        assert set(data) == set(range(256))
        tty.send(b"x")
        assert tty.read_exactly(1) == b"x"


def test_echo_guest_floods_until_a_byte_comes(echo_guest):
    pattern = bytes(range(0x20, 0x7F))
    with rig.Tty(echo_guest.ttys()["serial0"]) as tty:
        tty.send(b"\6")
        assert tty.read_exactly(10 * len(pattern)) == 10 * pattern
        tty.send(b"x")
        tty.read_until(b"\4")
        tty.send(b"y")
        assert tty.read_exactly(1) == b"y"


def test_linux_guest_logs_in(linux_guest):
    with rig.Tty(linux_guest.ttys()["serial0"]) as tty:
        tty.send(b"\r")
        tty.read_until(b"login: ")
        tty.send(b"root\r")
        tty.read_until(b"# ")
        tty.send(b"echo $((6*7))\r")
        tty.read_until(b"\n42\r\n")
        tty.send(b"exit\r")
        tty.read_until(b"login: ")


def test_linux_guest_boots_where_it_can_be_watched_and_powers_off(make_guest):
    guest = make_guest("linux", virtio="pty", state="paused")
    ttys = guest.ttys()
    assert list(ttys) == ["serial0", "console1"]
    with rig.Tty(ttys["serial0"]) as tty, rig.Tty(ttys["console1"]) as virtio:
        guest.resume()
        assert b"Linux version" in tty.read_until(b"login: ")
        virtio.read_until(b"login: ")
        guest.shutdown()
        # Of what it says last a pty keeps nothing once QEMU has ended.
        tty.read_until(b"The system is going down NOW!")
    assert rig.eventually(lambda: guest.state() == "shut off")


@pytest.mark.parametrize("backend", ["pty", "tcp", "unix", "null"])
def test_consoles_of_every_backend(make_guest, backend):
    guest = make_guest(serial=["pty", backend], virtio=[backend])
    expected = ["serial0", "serial1", "console1"] if backend == "pty" else ["serial0"]
    assert list(guest.ttys()) == expected


def test_guest_without_a_console(make_guest):
    assert make_guest(serial=(), state="running").ttys() == {}


@pytest.mark.parametrize("name", ["-x", "1", "two words", "\u00fcml\u00e4ut \u20ac", "a'\"&<b>"])
def test_odd_names(libvirtd, make_guest, name):
    assert make_guest(name=name).state() == "running"
    assert name in libvirtd.virsh("list", "--name").splitlines()


def test_guest_survives_its_daemon(libvirtd, echo_guest):
    with rig.Tty(echo_guest.ttys()["serial0"]) as tty:
        libvirtd.kill()
        libvirtd.start()
        libvirtd.stop_daemon()
        libvirtd.start()
        assert echo_guest.state() == "running"
        libvirtd.freeze()
        with pytest.raises(VirshError, match="took more than"):
            libvirtd.virsh("list", timeout=0.2)
        libvirtd.thaw()
        tty.send(b"still here")
        assert tty.read_exactly(10) == b"still here"


@pytest.mark.parametrize("end", ["close", "kill", "freeze"])
def test_daemon_leaves_nothing(end):
    with host.short_directory("sc-rig-") as directory:
        with PrivateLibvirtd(f"{directory}/d") as daemon:
            rig.GuestFactory(daemon)(state="running")
            members = list(filter(daemon.owns, psutil.pids()))
            assert len(members) >= 2
            getattr(daemon, end)()
        assert os.listdir(directory) == []
        assert not any(map(daemon.owns, members))


def test_daemon_that_cannot_reach_its_directory_says_so():
    if os.geteuid() != 0:
        rig.missing("root, whose libvirtd runs as another user")
    with host.short_directory("sc-rig-") as directory:
        os.chmod(directory, 0o700)
        with pytest.raises(SetupError, match="Permission denied"):
            PrivateLibvirtd(f"{directory}/d").__enter__()
        assert os.listdir(directory) == []


class TestLeaks:
    """A check that cannot fail proves nothing."""

    def test_finds_a_child_and_an_orphan(self):
        leaks = rig.Leaks(set().__contains__)
        orphan_maker = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=2).pid)"
        orphan = int(
            subprocess.check_output(
                [sys.executable, "-c", orphan_maker], env=os.environ | {rig.TEST_MARK: leaks.mark}
            )
        )
        child = subprocess.Popen(["sleep", "60"])
        try:
            found = leaks.found()
        finally:
            child.kill()
            child.wait()
            os.kill(orphan, signal.SIGKILL)
        assert sorted(found) == sorted(f"process {pid}: sleep 60" for pid in (child.pid, orphan))
        assert leaks.found() == []

    def test_finds_an_fd(self):
        leaks = rig.Leaks(set().__contains__)
        with open("/dev/null") as file:
            assert leaks.found() == [f"fd {file.fileno()}: /dev/null"]
        assert leaks.found() == []
