"""A real systemd with our units, in namespaces of its own: the host's files, copied on write.

Only its services run in there; guests and their libvirtd are the host's, as the tests' are. The
network is the host's too, so the ports are free ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Self

import psutil

from serial_console.demo import host

from . import rig
from .stack import free_port, request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNITS = os.path.join(ROOT, "systemd")
LIBVIRT = "/run/libvirt-of-tests"
BOOT_SECONDS = 60.0
PYTHON = os.path.realpath(sys.executable)
QUIET = (
    "systemd-sysctl.service", "systemd-modules-load.service", "systemd-remount-fs.service",
    "systemd-update-utmp.service", "systemd-hwdb-update.service", "systemd-binfmt.service",
    "systemd-firstboot.service", "systemd-udevd.service", "systemd-udev-trigger.service",
    "systemd-machine-id-commit.service", "systemd-journal-flush.service", "dbus.socket",
    "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "dev-hugepages.mount",
    "dev-mqueue.mount", "tmp.mount", "timers.target", "paths.target", "swap.target",
)  # fmt: skip
"""Units of Debian that are masked: they would touch the host's kernel, or take time."""

_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs {mine}/root
cd {mine}/root
mkdir upper work merged
cp -a {mine}/upper/. upper
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay merged
cd merged
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for directory in run tmp dev; do mount -t tmpfs -o mode=0755 tmpfs $directory; done
chmod 1777 tmp
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
ln -s /proc/self/fd dev/fd
mkdir -p dev/pts dev/shm run/libvirt-of-tests opt/checkout
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount --bind {libvirt} run/libvirt-of-tests
mount --bind {checkout} opt/checkout
mkdir old
pivot_root . old
umount -l old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=tests.target --log-target=journal --show-status=0
"""

_PROGRAM = """#!/bin/sh
exec env PYTHONPATH=/opt/checkout:/opt/checkout/{packages} {python} -P -m serial_console "$@"
"""


def below(directory: str, *names: str) -> str:
    """Return a path below a directory and make the directories on the way."""
    path = os.path.join(directory, *names)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file below a scratch root."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def install(root: str) -> None:
    """Put our units, users and directories below a root, as docs/systemd.md says."""
    for name in os.listdir(UNITS):
        source = os.path.join(UNITS, name)
        if name.endswith((".service", ".socket", ".target")):
            shutil.copy(source, below(root, "etc/systemd/system", name))
    for name in ("sysusers.d", "tmpfiles.d"):
        for file in os.listdir(os.path.join(UNITS, name)):
            shutil.copy(os.path.join(UNITS, name, file), below(root, "etc", name, file))


def add_users(root: str) -> dict[str, int]:
    """Make our users and groups in a root that begins with the host's; return the users' ids.

    The supervisor's user gets the ids of Debian's ``games``: a libvirtd on the host asks who it is.
    """
    for name in ("passwd", "group", "shadow", "gshadow"):
        with open(f"/etc/{name}", encoding="utf-8") as file:
            text = re.sub("^games:", "serial-console:", file.read(), flags=re.MULTILINE)
        write(os.path.join(root, "etc", name), text)
    confs = os.listdir(os.path.join(UNITS, "sysusers.d"))
    subprocess.run(["systemd-sysusers", f"--root={root}", *confs], check=True)
    with open(os.path.join(root, "etc/passwd"), encoding="utf-8") as file:
        fields = [line.split(":") for line in file]
    return {one[0]: int(one[2]) for one in fields if one[0].startswith("serial-console")}


class Cgroup:
    """A control group of its own: of two systemds in one, each would find the other's processes
    in its services.

    Args:
        name: what no other has.
    """

    def __init__(self, name: str) -> None:
        with open("/proc/mounts", encoding="utf-8") as file:
            mounts = [line.split()[1:4] for line in file]
        self._paths = [
            os.path.join(where, name)
            for where, kind, options in mounts
            if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(","))
        ]
        if not self._paths:
            rig.missing("cgroup2")
        for path in self._paths:
            os.mkdir(path)

    def run_in(self, *command: str) -> list[str]:
        """Return the command as run in here."""
        script = 'for one in $0; do echo $$ > "$one/cgroup.procs" || exit; done; exec "$@"'
        return ["sh", "-c", script, " ".join(self._paths), *command]

    def kill(self) -> None:
        """Kill every process in it; version 1 has no such thing, and the same processes."""
        for path in self._paths:
            with contextlib.suppress(OSError), open(f"{path}/cgroup.kill", "w") as file:
                file.write("1")

    def close(self) -> None:
        """Remove it; fails when a process in it does not end."""
        assert rig.eventually(lambda: not any(map(self._remains, self._paths))), "something is left"

    @staticmethod
    def _remains(mine: str) -> bool:
        for path, _, _ in os.walk(mine, topdown=False):
            with contextlib.suppress(OSError):  # what is killed is not gone at once
                os.rmdir(path)
        return os.path.exists(mine)


class Booted:
    """A systemd that runs in namespaces, to be looked at from the host.

    Attributes:
        pid: its process 1, as the host numbers it.
    """

    pid = 0
    _namespaces: tuple[str, ...] = ("--mount", "--pid", "--cgroup", "--uts", "--ipc")

    def run(
        self, *command: str, user: str = "", seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there, as root or as a user with its groups."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), *self._namespaces, *as_user, *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, cwd="/",
        )  # fmt: skip

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl in there, which must succeed."""
        done = self.run("systemctl", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{self.journal()}"
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", f"serial-console-{unit}")

    def pids(self) -> dict[int, list[int]]:
        """Return its processes as the host numbers them, and all numbers of each, outer first."""
        found = {}
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(OSError), open(f"/proc/{process.pid}/status") as file:
                ids = next(line for line in file if line.startswith("NSpid:"))
                found[process.pid] = [int(one) for one in ids.split()[1:]]
        return found

    def main_pid(self, unit: str) -> int:
        """Return a service's main process, as the host numbers it."""
        inner = int(self.show(unit, "MainPID"))
        return next(pid for pid, names in self.pids().items() if names[-1] == inner)

    def journal(self) -> str:
        """Return the journal's last lines."""
        return self.run("journalctl", "--no-pager", "--lines=60").stdout

    def path(self, path: str) -> str:
        """Return how a path of its root is reached from the host."""
        return f"/proc/{self.pid}/root{path}"

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask its supervisor something."""
        admin = self.path("/run/serial-console/admin.sock")
        return request(admin, {"v": 1, "op": op, **fields})


class Machine(Booted):
    """A running systemd with our target's units installed, not started.

    Args:
        directory: a short one, for the scratch root.
        libvirt: the directory of the private libvirtd's socket.
    """

    def __init__(self, directory: str, libvirt: str) -> None:
        self.directory = directory
        self.gateway_port, self.api_port = free_port(), free_port()
        self._libvirt = libvirt
        self.upper = os.path.join(directory, "upper")
        self._unshare: subprocess.Popen[bytes] | None = None
        self._cgroup: Cgroup | None = None

    def configure(self, **sections: dict[str, Any]) -> dict[str, int]:
        """Install everything into the scratch root; return the users' ids."""
        install(self.upper)
        users = add_users(self.upper)
        settings: dict[str, dict[str, Any]] = {
            "libvirt": {"uri": f"qemu+unix:///session?socket={LIBVIRT}/libvirt-sock"},
            "gateway": {"listen": f"127.0.0.1:{self.gateway_port}"},
            "api": {"listen": f"127.0.0.1:{self.api_port}"},
        }
        for name, keys in sections.items():
            settings[name] = settings.get(name, {}) | keys
        lines = []
        for name, keys in settings.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        write(os.path.join(self.upper, "etc/serial-console/config.toml"), "\n".join(lines) + "\n")
        units = os.path.join(self.upper, "etc/systemd/system")
        for name, port in (("gateway", self.gateway_port), ("api", self.api_port)):
            more = "ListenStream=/run/serial-console-api/api.sock\n" if name == "api" else ""
            write(
                f"{units}/serial-console-{name}.socket.d/port.conf",
                f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n{more}",
            )
        write(
            f"{units}/tests.target",
            "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
        )
        for name in QUIET:
            os.symlink("/dev/null", f"{units}/{name}")
        write(os.path.join(self.upper, "etc/machine-id"), "5c" * 16 + "\n")
        packages = os.path.relpath(os.path.dirname(os.path.dirname(psutil.__file__)), ROOT)
        write(
            os.path.join(self.upper, "usr/bin/serial-console"),
            _PROGRAM.format(packages=packages, python=PYTHON),
            0o755,
        )
        return users

    def __enter__(self) -> Self:
        os.mkdir(os.path.join(self.directory, "root"))
        script = _BOOT.format(mine=self.directory, libvirt=self._libvirt, checkout=ROOT)
        self._cgroup = Cgroup(os.path.basename(self.directory))
        with open(os.path.join(self.directory, "boot.log"), "wb") as log:
            self._unshare = subprocess.Popen(
                self._cgroup.run_in(
                    "unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork",
                    "--kill-child", "/bin/bash", "-c", script,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        if (
            not rig.eventually(lambda: self._ended() or self._booted(), BOOT_SECONDS)
            or self._ended()
        ):
            with open(os.path.join(self.directory, "boot.log"), encoding="utf-8") as said:
                why = said.read()[-1000:]
            self.close()
            rig.missing(f"a machine where systemd can run in namespaces: {why}")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything in it."""
        if self._unshare is not None:
            self._unshare.kill()  # pid 1 in there goes with it, and with that the rest
            self._unshare.wait()
        if self._cgroup is not None:
            self._cgroup.close()

    def _ended(self) -> bool:
        return self._unshare is None or self._unshare.poll() is not None

    def _booted(self) -> bool:
        assert self._unshare is not None
        children = psutil.Process(self._unshare.pid).children()
        if not children or "systemd" not in children[0].name():
            return False
        self.pid = children[0].pid
        return self.run("systemctl", "is-active", "--quiet", "tests.target").returncode == 0

    def attack(self, unit: str, *attempts: Sequence[Any], more: str = "") -> list[str]:
        """Try something from within a service's unit, with all its restrictions, or with more
        lines of its ``[Service]``; return what came of it (tests/intruder.py)."""
        with open(os.path.join(UNITS, f"serial-console-{unit}.service"), encoding="utf-8") as file:
            lines = file.read().replace("Restart=always", "Restart=no").splitlines()
        drop = ("ExecStart=", "Type=", "WatchdogSec=", "Requires=", "PartOf=", "RuntimeDirectory=")
        write(
            self.path("/run/systemd/system/attack.service"),
            "\n".join(line for line in lines if not line.startswith(drop))
            + "\nType=oneshot\nStandardOutput=truncate:/run/attack.out\n"
            + more
            + f"ExecStart={PYTHON} /opt/checkout/tests/intruder.py '{json.dumps(attempts)}'\n",
        )
        self.systemctl("daemon-reload")
        self.systemctl("start", "attack.service")
        with open(self.path("/run/attack.out"), encoding="utf-8") as file:
            came_of: list[str] = json.load(file)
        return came_of


def scratch() -> contextlib.AbstractContextManager[str]:
    """Return a directory for a machine."""
    return host.short_directory("sc-sysd-")
