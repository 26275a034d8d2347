"""A private libvirtd in a directory of its own, and guests in it, driven by virsh."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

from ..errors import SetupError
from . import host

START_SECONDS = 60.0
"""How long libvirtd may take; asking QEMU what it can do takes seconds where that is not cached."""
STOP_SECONDS = 5.0

# libvirt cuts a guest's name to 20 characters there; sun_path takes 107 bytes.
_LONGEST = "config/libvirt/qemu/lib/domain-99999-" + 20 * "x" + "/monitor.sock"
_MAX_DIRECTORY = 107 - len(_LONGEST) - 1


_CONFIG = "libvirtd.conf"
_LOCKS = "/var/lock/LCK..*"
_REAPER = os.path.join(os.path.dirname(__file__), "reaper.py")


class VirshError(SetupError):
    """A virsh command failed; the message is virsh's."""


class PrivateLibvirtd:
    """A session-mode libvirtd of its own user, state and socket: no other libvirtd is touched.

    A context manager: on exit the daemon, its guests and its helpers have ended and the directory
    is gone. As root, libvirtd and guests run as ``nobody``, who must be able to pass to there.
    """

    def __init__(self, directory: str, account: host.Account | None = None) -> None:
        """Use ``directory``, which must not exist yet, in a parent that does.

        Args:
            directory: where everything of this libvirtd is.
            account: who it and its guests run as; by default ``host.guest_account()``.

        Raises:
            SetupError: the path is too long for the sockets in it, or libvirtd or virsh is missing.
        """
        self.directory = os.path.abspath(directory)
        if len(os.fsencode(self.directory)) > _MAX_DIRECTORY:
            raise SetupError(
                f"the path {self.directory} is too long for unix sockets in it; "
                f"use one of at most {_MAX_DIRECTORY} bytes"
            )
        self.account = host.guest_account() if account is None else account
        self._libvirtd = host.program("libvirtd", "libvirt-daemon")
        self._virsh = host.program("virsh", "libvirt-clients")
        self._pid: int | None = None
        self._pids: set[int] = set()
        self._reapers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        os.mkdir(self.directory)
        try:
            # Of these only libvirtd's own four belong to its user: what we write, as root perhaps,
            # must not follow that user's symlinks.
            os.chmod(self.directory, host.PASSABLE)
            os.mkdir(self._path("files"))
            os.chmod(self._path("files"), host.PASSABLE)
            for name in ("run", "config", "cache", "data"):
                os.mkdir(self._path(name), 0o700)
                if self.account.user is not None and self.account.group is not None:
                    os.chown(self._path(name), self.account.user, self.account.group)
            # Of its own, so that guests can move between two of these on one machine.
            self.add_file(_CONFIG, b'host_uuid = "%s"\n' % str(uuid.uuid4()).encode())
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def socket(self) -> str:
        """The path of libvirtd's socket."""
        return self._path("run/libvirt/libvirt-sock")

    @property
    def uri(self) -> str:
        """The libvirt URI of this daemon."""
        return f"qemu+unix:///session?socket={self.socket}"

    @property
    def pid(self) -> int:
        """The daemon's process id.

        Raises:
            RuntimeError: it does not run.
        """
        if self._pid is None:
            raise RuntimeError("this libvirtd is not running")
        return self._pid

    def start(self) -> None:
        """Start the daemon, on the state of the one before if any, and wait until it answers.

        Raises:
            SetupError: it ended, or did not answer in time.
        """
        log = self._path("libvirtd.log")
        environment = {
            "PATH": host.PATH,
            "HOME": self.directory,
            "XDG_RUNTIME_DIR": self._path("run"),
            "XDG_CONFIG_HOME": self._path("config"),
            "XDG_CACHE_HOME": self._path("cache"),
            "XDG_DATA_HOME": self._path("data"),
        }
        with open(log, "ab") as output:
            reading, writing = os.pipe()
            # A session of its own: a Ctrl-C at our terminal is for us, who then end it in order.
            command = [self._libvirtd, "--config", self._path("files", _CONFIG)]
            reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", _REAPER, json.dumps(self.account), *command],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=output,
                start_new_session=True,
            )
        self._reapers = [other for other in self._reapers if other.poll() is None] + [reaper]
        os.close(writing)
        with open(reading, "rb") as pipe:
            pid = pipe.read()
        if not pid:
            raise SetupError(f"libvirtd could not be started: {_last_error(log)}")
        self._pid = int(pid)
        self._pids.add(self._pid)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(deadline):
            if self._ended(self._pid, 0.05):
                self._pid = None
                raise SetupError(f"libvirtd ended: {_last_error(log)}")
            if time.monotonic() > deadline:
                raise SetupError(f"libvirtd did not answer in {START_SECONDS:.0f} s")

    def stop_daemon(self) -> None:
        """End the daemon; its guests live on, and ``start`` finds them again."""
        if (pid := self._pid) is None:
            return
        for number in (signal.SIGCONT, signal.SIGTERM):
            self._signal(pid, number)
        if not self._ended(pid, STOP_SECONDS):
            self.kill()
        self._pid = None

    def kill(self) -> None:
        """SIGKILL the daemon; its guests live on, and ``start`` finds them again."""
        self._signal(self.pid, signal.SIGKILL)
        self._ended(self.pid, STOP_SECONDS)
        self._pid = None

    def freeze(self) -> None:
        """SIGSTOP the daemon: it answers nobody until ``thaw``."""
        self._signal(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen daemon go on."""
        self._signal(self.pid, signal.SIGCONT)

    def kill_guest(self, name: str) -> None:
        """SIGKILL the QEMU of a running guest."""
        with open(self._path("run/libvirt/qemu/run", f"{name}.pid"), encoding="ascii") as file:
            self._signal(int(file.read()), signal.SIGKILL)

    def close(self) -> None:
        """End everything that runs here and remove the directory; harmless when done before."""
        self.stop_daemon()
        self._end_members()
        for reaper in self._reapers:
            reaper.wait()
        self._remove_locks()
        shutil.rmtree(self.directory, ignore_errors=True)

    def virsh(self, *arguments: str, stdin: str = "", timeout: float = 60.0) -> str:
        """Run a virsh command on this daemon and return what it prints; ``timeout`` in seconds.

        Raises:
            VirshError: the command failed or took too long.
        """
        try:
            done = subprocess.run(
                [self._virsh, "--quiet", "--connect", self.uri, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=os.environ | {"LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired:
            raise VirshError(f"virsh {arguments[0]} took more than {timeout:.0f} s") from None
        if done.returncode != 0:
            raise VirshError(done.stderr.strip() or f"virsh {arguments[0]} failed")
        return done.stdout.strip()

    def add_file(self, name: str, data: bytes) -> str:
        """Write a file that this daemon's guests can read, and return its path."""
        path = self._path("files", name)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o644)
        return path

    def owns(self, pid: int) -> bool:
        """Tell whether a process is this daemon, one of its guests or of its helpers.

        libvirtd gives all its children XDG directories below its own, and nobody else has those.
        """
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"={self.directory}/".encode() in file.read()
        except OSError:
            return False

    def _answers(self, deadline: float) -> bool:
        if not os.path.exists(self.socket):
            return False
        try:
            self.virsh("uri", timeout=max(1.0, deadline - time.monotonic()))
        except VirshError:
            return False
        return True

    def _path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def _end_members(self) -> None:
        # Again until none is left: one that is being forked now is found in the next round.
        reapers = {reaper.pid for reaper in self._reapers}
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            pids = set(map(int, filter(str.isdigit, os.listdir("/proc")))) - reapers
            if not (members := list(filter(self.owns, pids))):
                return
            for pid in members:
                self._signal(pid, signal.SIGKILL)
            for pid in members:
                self._ended(pid, STOP_SECONDS)

    def _remove_locks(self) -> None:
        """Remove the locks of consoles that were open when a daemon of ours was killed."""
        for path in glob.glob(_LOCKS):
            with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as lock:
                if int(lock.read()) in self._pids:
                    os.unlink(path)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with self._pidfd(pid) as pidfd:
            if pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)

    def _ended(self, pid: int, seconds: float) -> bool:
        """Wait for a process to end, at most so long. A zombie has ended: see reaper.py."""
        with self._pidfd(pid) as pidfd:
            return pidfd is None or bool(select.select([pidfd], [], [], seconds)[0])

    @contextlib.contextmanager
    def _pidfd(self, pid: int) -> Iterator[int | None]:
        """Give a handle on a process of ours, None when it ended: a pid may be another's by now."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield pidfd if self.owns(pid) else None
        finally:
            os.close(pidfd)


class Guest:
    """One guest of a private libvirtd. Each method waits for virsh and can raise VirshError."""

    def __init__(self, libvirtd: PrivateLibvirtd, xml: str) -> None:
        """Take the guest's name and UUID from its XML, which must hold both."""
        self.libvirtd = libvirtd
        self.xml = xml
        domain = _parse(xml)
        self.name = domain.findtext("name", "")
        self.uuid = str(uuid.UUID(domain.findtext("uuid", "")))

    def define(self) -> None:
        """Make the guest known to libvirt, stopped."""
        self.libvirtd.virsh("define", "/dev/stdin", stdin=self.xml)

    def undefine(self) -> None:
        """Make libvirt forget the guest."""
        self.libvirtd.virsh("undefine", self.uuid)

    def start(self, *, paused: bool = False) -> None:
        """Start the guest, paused before its first instruction if wanted."""
        self.libvirtd.virsh("start", self.uuid, *(["--paused"] if paused else []))

    def destroy(self) -> None:
        """Stop the guest at once."""
        self.libvirtd.virsh("destroy", self.uuid)

    def kill(self) -> None:
        """SIGKILL the guest's QEMU."""
        self.libvirtd.kill_guest(self.name)

    def save(self, *options: str) -> None:
        """Save the guest to disk and stop it: its next start goes on from there. ``options`` are
        virsh managedsave's."""
        self.libvirtd.virsh("managedsave", *options, self.uuid)

    def migrate(self, target: PrivateLibvirtd, *options: str) -> None:
        """Move the guest on this machine; ``options`` are virsh migrate's."""
        # Else libvirt has it sent to this machine's name, which need not be known to its resolver.
        if "--offline" not in options:
            options = (*options, "--migrateuri", "tcp://127.0.0.1")
        self.libvirtd.virsh("migrate", "--unsafe", *options, self.uuid, target.uri)

    def shutdown(self) -> None:
        """Press the guest's power button; returns before the guest has stopped."""
        self.libvirtd.virsh("shutdown", "--mode", "acpi", self.uuid)

    def suspend(self) -> None:
        """Pause the guest."""
        self.libvirtd.virsh("suspend", self.uuid)

    def resume(self) -> None:
        """Let a paused guest go on."""
        self.libvirtd.virsh("resume", self.uuid)

    def reset(self) -> None:
        """Press the guest's reset button."""
        self.libvirtd.virsh("reset", self.uuid)

    def reboot(self) -> None:
        """Have the guest shut down and start again; returns before it does."""
        self.libvirtd.virsh("reboot", "--mode", "acpi", self.uuid)

    def wake(self) -> None:
        """Wake the guest from its sleep."""
        self.libvirtd.virsh("dompmwakeup", self.uuid)

    def nmi(self) -> None:
        """Press the guest's NMI button."""
        self.libvirtd.virsh("inject-nmi", self.uuid)

    def state(self) -> str:
        """Return the guest's state in virsh's words, such as ``running`` or ``shut off``."""
        return self.libvirtd.virsh("domstate", self.uuid)

    def ttys(self) -> dict[str, str]:
        """Return the pty of each console of the running guest by its alias, such as ``serial0``."""
        xml = self.libvirtd.virsh("dumpxml", self.uuid)
        found: dict[str, str] = {}
        for device in _parse(xml).findall("devices/*"):
            alias, source = device.find("alias"), device.find("source")
            if device.tag not in ("serial", "console") or alias is None or source is None:
                continue
            if device.get("type") == "pty":
                found.setdefault(alias.get("name", ""), source.get("path", ""))
        return found

    def remove(self) -> None:
        """Stop the guest if it runs and make libvirt forget it; harmless when done before."""
        with contextlib.suppress(VirshError):
            self.destroy()
        with contextlib.suppress(VirshError):
            self.undefine()


def _parse(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314 - it is libvirt's or our own


def _last_error(log: str) -> str:
    """Return the last error in a log of libvirtd's, without time stamp and function."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    errors = [line for line in lines if ": error :" in line] or lines or ["it said nothing"]
    return re.sub(r"^.*: error : \S+ : ", "", errors[-1])
