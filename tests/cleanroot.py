"""A clean Debian 12 with libvirt and nothing of ours, booted by systemd-nspawn: a newcomer's host.

It is made once by debootstrap, kept under build/, and made anew when it is a week old. Each boot
gets a copy on write in memory, and a network of its own with a loopback and nothing else: the
ports are the defaults, and libvirt's own network cannot touch the host's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Self

import psutil

from serial_console.demo import guests, host
from serial_console.errors import SetupError

from . import rig
from .machine import BOOT_SECONDS, ROOT, Booted, Cgroup
from .netns import Namespace

SUITE = "bookworm"
BASE = ("systemd-sysv", "dbus", "ca-certificates")
"""What every Debian host has beside debootstrap's least."""
LIBVIRT = ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86")
CACHE = os.path.join(ROOT, "build", "cleanroot")
MAX_AGE = 7 * 86400
"""Seconds; Debian's updates of a week are not in it."""
MAKING_SECONDS = 900.0
IMAGES = "/var/lib/libvirt/images"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Whom the host's own clients believe, a proxy on its way to the registries say."""
ENVIRONMENT = ("DEBIAN_FRONTEND=noninteractive", "HOME=/root", "LANG=C.UTF-8",
               f"PIP_CERT={CERTIFICATES}",
               "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")  # fmt: skip

_IN_ROOT = """
set -e
mount -t proc proc "$0/proc"
mount --bind /dev/null "$0/dev/null"
exec chroot "$0" env -i "$@"
"""


def made() -> str:
    """Return the directory of the clean root, ``root`` in it; made if need be.

    ``seconds.json`` in it says what took how long then.
    """
    if os.geteuid() != 0:
        rig.missing("root, to make and boot a Debian")
    os.makedirs(CACHE, exist_ok=True)
    done = os.path.join(CACHE, SUITE)
    with open(os.path.join(CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(done) or time.time() - os.stat(done).st_mtime > MAX_AGE:
            work = f"{done}.new"
            for old in (work, done):
                shutil.rmtree(old, ignore_errors=True)
            os.mkdir(work)
            with open(os.path.join(work, "seconds.json"), "w", encoding="utf-8") as file:
                json.dump(_make(os.path.join(work, "root")), file)
            os.rename(work, done)
    return done


def _make(root: str) -> dict[str, float]:
    program = _program("debootstrap", "debootstrap")
    include = f"--include={','.join(BASE)}"
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *LIBVIRT]
    steps = {
        "debootstrap": [program, "--variant=minbase", include, SUITE, root],
        "libvirt and QEMU": ["sh", "-c", _IN_ROOT, root, *ENVIRONMENT, *install],
        "apt-get clean": ["sh", "-c", _IN_ROOT, root, *ENVIRONMENT, "apt-get", "clean"],
    }
    seconds = {}
    for name, command in steps.items():
        begin = time.monotonic()
        # What it mounts goes with its namespace, whatever becomes of it.
        private = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *command]
        done = subprocess.run(
            private, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=MAKING_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        seconds[name] = round(time.monotonic() - begin, 1)
    return seconds


def _program(name: str, package: str) -> str:
    try:
        return host.program(name, package)
    except SetupError as error:
        rig.missing(str(error))


class CleanRoot(Booted):
    """A clean Debian 12 with libvirt that runs."""

    _namespaces = (*Booted._namespaces, "--net")

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.network: Namespace
        """Its network: sockets that are made in it reach its ports."""
        self.seconds: dict[str, float] = {}
        """What took how long in it, of what a test times."""

    def __enter__(self) -> Self:
        root = os.path.join(made(), "root")
        nspawn = _program("systemd-nspawn", "systemd-container")
        name = f"sc-{uuid.uuid4().hex[:8]}"
        with contextlib.ExitStack() as stack:
            self.network = Namespace()
            stack.callback(self.network.close)
            self.network.ip("link set lo up")
            self._cgroup = Cgroup(name)
            stack.callback(self._cgroup.close)
            # A tenth of the memory, as --volatile has it, is little for a newcomer's compiler.
            scratch = stack.enter_context(host.short_directory("sc-clean-"))
            overlay = f"lowerdir={root},upperdir={scratch}/m/upper,workdir={scratch}/m/work"
            script = f"""
                set -e
                cd {scratch}
                mkdir -p /run/systemd/nspawn
                mount -t tmpfs tmpfs /run/systemd/nspawn  # a killed nspawn leaves its locks
                mkdir m root
                mount -t tmpfs -o mode=0755 tmpfs m
                mkdir m/upper m/work
                mount -t overlay -o {overlay} overlay root
                exec "$@"
            """
            self._nspawn = subprocess.Popen(
                self._cgroup.run_in(
                    "unshare", "--mount", "sh", "-c", script, "sh",
                    nspawn, "--quiet", f"--directory={scratch}/root", f"--machine={name}",
                    "--register=no", "--keep-unit", "--resolv-conf=copy-host", "--console=pipe",
                    f"--network-namespace-path=/proc/{os.getpid()}/fd/{self.network.fd}", "--boot",
                ),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                # As Debian has it, also where this host still has version 1.
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )  # fmt: skip
            stack.callback(self._end)
            up = rig.eventually(lambda: self._ended() or self._booted(), BOOT_SECONDS)
            if not up or self._ended():
                self._cgroup.kill()
                assert self._nspawn.stdout is not None
                rig.missing(f"a machine where systemd-nspawn works: {self._nspawn.stdout.read()!r}")
            if os.path.exists(CERTIFICATES):
                self.copy(CERTIFICATES, CERTIFICATES)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything in it; nothing remains."""
        self._stack.close()

    def _end(self) -> None:
        assert self._nspawn is not None
        self._cgroup.kill()
        self._nspawn.wait()
        assert self._nspawn.stdout is not None
        self._nspawn.stdout.close()

    def _ended(self) -> bool:
        return self._nspawn is None or self._nspawn.poll() is not None

    def _booted(self) -> bool:
        assert self._nspawn is not None
        with contextlib.suppress(
            psutil.NoSuchProcess
        ):  # its first child makes the second, and ends
            for child in psutil.Process(self._nspawn.pid).children():
                if child.name() == "systemd":
                    self.pid = child.pid
        if not self.pid:
            return False
        return self.run("systemctl", "is-active", "--quiet", "multi-user.target").returncode == 0

    def owns(self, pid: int) -> bool:
        """Tell whether a process is in here."""
        return not self._ended() and pid in {
            self.pid, *(one.pid for one in psutil.Process(self.pid).children(recursive=True))
        }  # fmt: skip

    def type(self, text: str, *, online: bool = False, seconds: float = 110.0) -> str:
        """Have root's shell do what a document says; return what it prints.

        Args:
            text: a script; it ends with the first command that fails.
            online: in the host's network, for what asks registries.
            seconds: the longest that it may take.
        """
        with self.typing(text, online=online) as shell:
            try:
                said, _ = shell.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                shell.kill()
                raise
        assert shell.returncode == 0, f"{text}: status {shell.returncode}: {said[-3000:]}"
        return said

    def typing(self, text: str, *, online: bool = False) -> subprocess.Popen[str]:
        """The same without waiting for its end."""
        spaces = Booted._namespaces if online else self._namespaces
        return subprocess.Popen(
            ["nsenter", "--target", str(self.pid), *spaces, "env", "-i", *ENVIRONMENT,
             "sh", "-e", "-c", f"cd\n{text}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def copy(self, source: str, path: str) -> None:
        """Copy a file of the host's into it."""
        shutil.copy(source, self.path(path))

    def add_file(self, name: str, data: bytes) -> str:
        """Write a file that its guests can read, and return its path in there."""
        with open(self.path(f"{IMAGES}/{name}"), "wb") as file:
            file.write(data)
        return f"{IMAGES}/{name}"

    def add_guest(self, name: str) -> None:
        """Define and start the demo's Linux guest, with TCG, in the system's libvirt."""
        files = guests.linux(self, guests.fetch_kernel())
        xml = guests.linux_xml(name, files, kvm=False)
        self.add_file(f"{name}.xml", xml.encode())
        self.type(f"virsh --quiet define {IMAGES}/{name}.xml; virsh --quiet start {name}")


@contextlib.contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Note how long something takes."""
    begin = time.monotonic()
    yield
    seconds[what] = time.monotonic() - begin


def report(seconds: dict[str, float]) -> str:
    """Return the steps with their seconds, and before them what the clean root itself took."""
    with open(os.path.join(made(), "seconds.json"), encoding="utf-8") as file:
        before = json.load(file)
    shown = [
        ", ".join(f"{name} {took:.1f} s" for name, took in one.items()) for one in (before, seconds)
    ]
    return (
        f"{shown[1]}; {sum(seconds.values()):.1f} s in all (the clean root before that: {shown[0]})"
    )
