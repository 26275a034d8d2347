"""Guests, consoles and leak checks for tests against a real libvirt; fixtures: conftest.py."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import subprocess
import tempfile
import time
import tty
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn, Self
from xml.etree import ElementTree

import psutil
import pytest

from serial_console.demo import guests, host
from serial_console.demo.libvirtd import Guest, PrivateLibvirtd
from serial_console.errors import SetupError

ECHO_SOURCE = os.path.join(os.path.dirname(__file__), "guests", "echo.asm")
ECHO_KIB = 8192
NOISE_BYTES = 1 << 20
ECHO_COMMANDS = b"\x05\x06\x07\x08\x0e"
"""Noise, flood, deaf, hang, panic: see echo.asm. Every other byte comes back."""

TEST_MARK = "SERIAL_CONSOLE_TEST"
"""In the environment of every process that a test starts, so that orphans are found as well."""

# What a console's XML element holds for each backend; {path} is one that libvirtd's user can bind.
BACKENDS = {
    "pty": "",
    "null": "",
    "tcp": "<source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='raw'/>",
    "telnet": "<source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='telnet'/>",
    "connect": "<source mode='connect' host='127.0.0.1' service='{port}'/>",
    "unix": "<source mode='bind' path='{path}'/>",
}
TYPES = {"telnet": "tcp", "connect": "tcp"}
"""libvirt's types of those that are named otherwise."""

READY = {"echo": b"ready\r\n", "linux": b"login: "}
"""What each kind of guest says on its first console when it takes input."""


QUICK_START = (
    "<qemu:capabilities xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
    "<qemu:del capability='cpu-unavailable-features'/></qemu:capabilities>"
)
"""At each start libvirt asks QEMU for 390 properties of its CPU, one by one, which costs three
times as much as all the rest; for two where QEMU cannot say which features are unavailable."""

NOBODY = 65534
MAY_READ = "dac_read_search"


def missing(why: str) -> NoReturn:
    """Skip the test for want of a prerequisite; where CI is set, fail it."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(why)
    pytest.fail(f"missing prerequisite: {why}", pytrace=False)


def as_another(command: Sequence[str], uid: int = NOBODY) -> list[str]:
    """Return the command as run by another user, who may read everything and write nothing of ours.

    Only root can do that. Reading is left to it so that a checkout which only root may enter does.
    """
    if os.geteuid() != 0:
        missing("root, to act as another user")
    ids = f"--reuid={uid}", f"--regid={uid}", "--clear-groups"
    return ["setpriv", *ids, f"--inh-caps=+{MAY_READ}", f"--ambient-caps=+{MAY_READ}", *command]


def with_own_mounts(*command: str) -> list[str]:
    """Return the command as run by root in a mount namespace of its own.

    In a mere chroot, whose root nothing is mounted on, that cannot be had.
    """
    private = ["unshare", "--mount"]
    if os.geteuid() != 0 or subprocess.run([*private, "true"], capture_output=True).returncode != 0:
        missing("root, on a machine that lets it make namespaces and mount in them")
    return [*private, *command]


def noise() -> bytes:
    """Return the 1 MiB that the echo guest sends on 0x05."""
    x, out = 1, bytearray()
    for _ in range(NOISE_BYTES):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(x >> 24)
    return bytes(out)


def eventually(check: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Ask until the answer is yes, at most so long; for what nothing tells us of."""
    deadline = time.monotonic() + seconds
    while not (done := check()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return done


class Line:
    """A guest's console opened by us, for what a test of the console itself must not depend on."""

    def __init__(self, fd: int) -> None:
        """Take a descriptor that does not block."""
        self._fd = fd
        self._read = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; harmless when done before."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def send(self, data: bytes, seconds: float = 120.0) -> None:
        """Write it all."""
        deadline = time.monotonic() + seconds
        while data:
            self._wait(select.POLLOUT, deadline, f"the guest does not take {len(data)} bytes")
            data = data[os.write(self._fd, data) :]

    def read_until(self, wanted: bytes, seconds: float = 120.0) -> bytes:
        """Return what comes up to and with ``wanted``; what is after it stays for the next call."""
        return self._take(lambda: self._read.find(wanted) + len(wanted), len(wanted), seconds)

    def read_exactly(self, count: int, seconds: float = 120.0) -> bytes:
        """Return the next ``count`` bytes."""
        return self._take(lambda: count if len(self._read) >= count else 0, 1, seconds)

    def _take(self, end: Callable[[], int], least: int, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while (length := end()) < least:
            self._wait(select.POLLIN, deadline, f"read only {bytes(self._read[-3000:])!r}")
            data = os.read(self._fd, 65536)
            assert data, f"closed after {bytes(self._read[-3000:])!r}"
            self._read += data
        taken = bytes(self._read[:length])
        del self._read[:length]
        return taken

    def _wait(self, event: int, deadline: float, what: str) -> None:
        poll = select.poll()
        poll.register(self._fd, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError(what)


class Tty(Line):
    """A guest's pty."""

    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
        tty.setraw(self._fd)


class Plug(Line):
    """A connection to the socket on which a guest's QEMU serves a console."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            sock.connect(address)
            sock.setblocking(False)
            super().__init__(sock.detach())
        finally:
            sock.close()


def sockets(guest: Guest) -> dict[str, str | tuple[str, int]]:
    """Return where QEMU serves each console of a running guest that is on a socket, by alias."""
    found: dict[str, str | tuple[str, int]] = {}
    xml = guest.libvirtd.virsh("dumpxml", guest.uuid)
    for device in ElementTree.fromstring(xml).findall("devices/*"):
        alias, source = device.find("alias"), device.find("source")
        if device.tag in ("serial", "console") and alias is not None and source is not None:
            if device.get("type") == "unix":
                found[alias.get("name", "")] = source.get("path", "")
            elif device.get("type") == "tcp":
                found[alias.get("name", "")] = (
                    source.get("host", ""),
                    int(source.get("service", "")),
                )
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class GuestFactory:
    """Makes guests of one libvirtd, each of its own name unless told, and removes them all."""

    def __init__(self, libvirtd: PrivateLibvirtd) -> None:
        self.libvirtd = libvirtd
        self._guests: list[Guest] = []

    def __call__(
        self,
        kind: str = "echo",
        *,
        name: str | None = None,
        serial: str | Sequence[str] = "pty",
        virtio: str | Sequence[str] = (),
        state: str = "ready",
        extra: str = "",
        files: Mapping[str, bytes] | None = None,
    ) -> Guest:
        """Make a guest.

        Args:
            kind: ``echo`` (tests/guests/echo.asm) or ``linux`` (login on serial ports and hvc0).
            name: any name that libvirt takes; by default a new one.
            serial: the backend of the serial port, one of BACKENDS, or of each of several; () for
                none at all.
            virtio: the same for virtio consoles.
            state: ``off`` (defined only), ``paused`` (before its first instruction), ``running``,
                or ``ready``: it has said on its first serial port that it takes input.
            extra: more XML elements for ``<devices>``.
            files: more files for a Linux guest, by path without the leading slash.
        """
        name = f"{kind}-{uuid.uuid4().hex[:8]}" if name is None else name
        serials = [serial] if isinstance(serial, str) else serial
        virtios = [virtio] if isinstance(virtio, str) else virtio
        devices = [self._console("serial", backend) for backend in serials]
        if serials and virtios:
            # libvirt takes the first <console> for another name of the first serial port.
            devices.append(self._console("console", serials[0]))
        devices += [
            self._console("console", backend, "<target type='virtio'/>") for backend in virtios
        ]
        guest = Guest(self.libvirtd, self._xml(kind, name, [*devices, extra], files or {}))
        self._guests.append(guest)
        guest.define()
        if state != "off":
            guest.start(paused=state != "running")
        if state == "ready":
            with self._first(guest) as console:
                guest.resume()
                console.read_until(READY[kind])
        return guest

    def _first(self, guest: Guest) -> Line:
        path = guest.ttys().get("serial0")
        return Plug(sockets(guest)["serial0"]) if path is None else Tty(path)

    def close(self) -> None:
        """Remove every guest made, running or not."""
        for guest in self._guests:
            guest.remove()

    def _console(self, element: str, backend: str, target: str = "") -> str:
        path = os.path.join(self.libvirtd.directory, "run", f"{uuid.uuid4().hex[:8]}.sock")
        source = BACKENDS[backend].format(path=path, port=free_port())
        kind = TYPES.get(backend, backend)
        return f"<{element} type='{kind}'>{source}{target}</{element}>"

    def _xml(self, kind: str, name: str, devices: Sequence[str], files: Mapping[str, bytes]) -> str:
        xml = self._domain(kind, name, devices, files)
        return xml.replace("</domain>", f"{QUICK_START}</domain>")

    def _domain(
        self, kind: str, name: str, devices: Sequence[str], files: Mapping[str, bytes]
    ) -> str:
        # TCG even where there is KVM: the same everywhere, and nested KVM is slow in real mode.
        if kind == "linux":
            linux = _linux(self.libvirtd)
            if files:
                linux = self._with_files(linux, files)
            return guests.linux_xml(name, linux, kvm=False, devices=devices)
        floppy = (
            "<disk type='file' device='floppy'><driver name='qemu' type='raw'/>"
            f"<source file='{_echo(self.libvirtd)}'/><target dev='fda' bus='fdc'/>"
            "<readonly/></disk>"
        )
        return guests.domain_xml(
            name, memory=ECHO_KIB, kvm=False, boot="<boot dev='fd'/>", devices=[floppy, *devices]
        )

    def _with_files(self, linux: guests.Linux, files: Mapping[str, bytes]) -> guests.Linux:
        """Append an archive: the kernel unpacks one after the other."""
        with open(linux.initramfs, "rb") as file:
            initramfs = file.read()
        folders = sorted({os.path.dirname(path) for path in files} - {""})
        entries = [(path, 0o040755, b"") for path in folders]
        entries += [(path, 0o100644, content) for path, content in files.items()]
        archive = initramfs + guests.cpio(entries)
        name = f"initramfs-{uuid.uuid4().hex[:8]}"
        return linux._replace(initramfs=self.libvirtd.add_file(name, archive))


@functools.cache
def _echo(libvirtd: PrivateLibvirtd) -> str:
    try:
        nasm = host.program("nasm", "nasm")
    except SetupError as error:
        missing(str(error))
    with tempfile.NamedTemporaryFile() as image:
        subprocess.run([nasm, "-f", "bin", "-o", image.name, ECHO_SOURCE], check=True)
        return libvirtd.add_file("echo.img", image.read())


@functools.cache
def _linux(libvirtd: PrivateLibvirtd) -> guests.Linux:
    try:
        return guests.linux(libvirtd, guests.fetch_kernel())
    except SetupError as error:
        missing(str(error))


class Leaks:
    """What a test leaves behind: processes it started, fds of ours, files in its directories."""

    def __init__(self, ours: Callable[[int], bool]) -> None:
        """Note what is there before the test.

        Args:
            ours: tells of a pid whether it belongs to a longer-lived fixture.
        """
        self.mark = uuid.uuid4().hex
        self._ours = ours
        self._children = set(psutil.Process().children(recursive=True))
        self._fds = self._open_files()

    def found(self) -> list[str]:
        """Return a line for each thing left behind, after a moment of grace."""
        left: list[str] = []

        def none_left() -> bool:
            left[:] = [
                f"process {process.pid}: {_command(process)}"
                for process in self._processes() - self._children
                if not self._ours(process.pid)
            ]
            left.extend(
                f"fd {number}: {target}"
                for number, target in self._open_files().items()
                if self._fds.get(number) != target
            )
            return not left

        eventually(none_left, seconds=2.0)
        return left

    def _processes(self) -> set[psutil.Process]:
        """Our descendants, and orphans with the mark; pid 1 may leave them zombies: ended."""
        mark = f"{TEST_MARK}={self.mark}".encode()
        found = set(psutil.Process().children(recursive=True))
        found |= {process for process in psutil.process_iter() if mark in _environment(process.pid)}
        return {process for process in found if _alive(process)} - {psutil.Process()}

    @staticmethod
    def _open_files() -> dict[int, str]:
        files = {}
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(FileNotFoundError):  # the one that lists them
                files[number] = os.readlink(f"/proc/self/fd/{number}")
        return files


def files_below(directory: str) -> list[str]:
    """Return every path below a directory that is not a directory, sockets above all."""
    return [os.path.join(path, name) for path, _, names in os.walk(directory) for name in names]


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return "ended just now"


def _environment(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()
    return b""
