"""A host of its own with a system bus, polkitd and a system-mode libvirtd, which asks polkit.

All of it, and what a test starts on it, is in a mount namespace: it has its own /run, /var/lib,
/etc/libvirt, polkit rules and users, which end with it. Needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Self

from serial_console.demo import host
from serial_console.demo.libvirtd import VirshError
from serial_console.errors import SetupError

from . import rig
from .stack import Stack

ROOT = os.path.dirname(os.path.dirname(__file__))
RULES = os.path.join(ROOT, "systemd", "polkit", "50-serial-console.rules")
ACTIONS = "/usr/share/polkit-1/actions"
FETCHED = os.path.join(ROOT, "build", "polkit") + ACTIONS
"""Where tools/setup put libvirt's actions: their package would start a libvirtd on the machine."""
POLKITD = "/usr/lib/polkit-1/polkitd"
REAPER = os.path.join(os.path.dirname(host.__file__), "reaper.py")
URI = "qemu:///system"
READY = 30.0
"""Seconds that a daemon may take to answer on a busy machine."""

USER = "serial-console"
USERS = {"libvirt-qemu": 64055, USER: 64056, "stranger": 64057, "manager": 64058}
"""Users that this host has beside the machine's, and their uids and gids."""
GROUP = "libvirt"
"""The manager's group, and what Debian's libvirt has as 60-libvirt.rules."""
DEBIAN = f"""\
polkit.addRule(function(action, subject) {{
    if (action.id == "org.libvirt.unix.manage" && subject.isInGroup("{GROUP}")) {{
        return polkit.Result.YES;
    }}
}});
"""

BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_sender="*"/>
  </policy>
  <include>/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
</busconfig>
"""
QEMU_CONF = """\
user = "nobody"
group = "nogroup"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
LOG = f"""\
polkit.addRule(function (action, subject) {{
    if (subject.user == "{USER}") polkit.log("asked " + action.id);
}});
"""

HOLDER = f"""\
set -e
for path in /run /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs $path; done
mkdir /run/dbus /run/lock
if mountpoint -q /sys/fs/cgroup; then umount --lazy --recursive /sys/fs/cgroup; fi
mount --bind etc/libvirt /etc/libvirt
mount --bind rules /etc/polkit-1/rules.d
mount --bind actions {ACTIONS}
for name in passwd group; do mount --bind etc/$name /etc/$name; done
# One that root can open and guests cannot makes libvirt ask QEMU anew, for seconds, at each call.
if [ -e /dev/kvm ]; then mount --bind kvm /dev/kvm; fi
"""
# Ends all that is in the namespace when its stdin is closed, by whatever way we end.
HOLDER += """\
echo ready
read end || true
for round in 1 2 3; do
    for process in /proc/[0-9]*; do
        if [ $process != /proc/$$ ] && [ $process/ns/mnt -ef /proc/$$/ns/mnt ]; then
            kill -KILL ${process#/proc/} 2>/dev/null || true
        fi
    done
done
"""


class PolkitHost:
    """The host. Guests can be made on it as on a PrivateLibvirtd.

    Args:
        directory: where its files are; it must not exist yet.
        access_driver: whether libvirtd asks polkit about each call, or about connecting alone.
        rules: polkit's rules, by file name.
    """

    uri = URI

    def __init__(self, directory: str, rules: dict[str, str], *, access_driver: bool = True):
        if os.geteuid() != 0:
            rig.missing("root, for namespaces of a host's own")
        try:
            self._virsh = host.program("virsh", "libvirt-clients")
            self._libvirtd = host.program("libvirtd", "libvirt-daemon")
            self._bus = host.program("dbus-daemon", "dbus-daemon")
            host.program(POLKITD, "polkitd")
        except SetupError as error:
            rig.missing(str(error))
        self.directory = directory
        self._rules = rules
        self._access_driver = access_driver
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        os.mkdir(self.directory)
        os.chmod(self.directory, host.PASSABLE)
        self._write_files()
        try:
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "--net", "sh", "-c", HOLDER],
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self._holder.stdout is not None
            if self._holder.stdout.readline() != b"ready\n":
                rig.missing("a machine that lets root make namespaces and mount in them")
            config = f"--config-file={self.directory}/bus.conf"
            self._daemon("bus", self._bus, config, "--nofork", "--nopidfile")
            self._await("/run/dbus/system_bus_socket")
            self.start_polkitd()
            # libvirt waits long for what it started and pid 1 does not reap.
            reaper = [sys.executable, "-I", "-S", REAPER, json.dumps(host.Account())]
            self._daemon("libvirtd", *reaper, self._libvirtd)
            self._await("/run/libvirt/libvirt-sock")
            self.virsh("uri")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything in the namespace, and with it the namespace."""
        if (holder := self._holder) is not None and holder.stdin and holder.stdout:
            holder.stdin.close()
            holder.wait(READY)
            holder.stdout.close()
        for daemon in self._daemons:
            daemon.wait(READY)

    def command(self, *command: str, user: str | None = None, net: bool = False) -> list[str]:
        """Return a command as run on this host; as root if no user is given.

        Another user may read our files nevertheless: only root may enter some checkouts.
        """
        assert self._holder is not None
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]
        if net:
            enter.append(f"--net=/proc/{self._holder.pid}/ns/net")
        return [*enter, *(rig.as_another(command, USERS[user]) if user else command)]

    def try_virsh(self, *arguments: str, user: str | None = None) -> tuple[bool, str]:
        """Run a virsh command; return whether it worked, and what it printed."""
        done = subprocess.run(
            self.command(self._virsh, "--quiet", "--connect", URI, *arguments, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
        return done.returncode == 0, done.stdout.strip()

    def virsh(self, *arguments: str, stdin: str = "") -> str:
        """Run a virsh command as root, whom polkit allows everything; return what it prints.

        Raises:
            VirshError: the command failed.
        """
        arguments = tuple(self.add_file("stdin", stdin.encode()) if one == "/dev/stdin" else one
                          for one in arguments)  # fmt: skip
        worked, said = self.try_virsh(*arguments)
        if not worked:
            raise VirshError(said)
        return said

    def add_file(self, name: str, data: bytes) -> str:
        """Write a file that this host's users can read, and return its path."""
        path = os.path.join(self.directory, "files", name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def add_rule(self, name: str, text: str) -> None:
        """Have polkitd use another file of rules, or another version of one."""
        self._reload(lambda path: self._write(path, text), name)

    def remove_rule(self, name: str) -> None:
        """Have polkitd forget a file of rules."""
        self._reload(os.unlink, name)

    def start_polkitd(self) -> None:
        """Start polkitd; it was not started yet, or ended."""
        seen = len(self._log("polkitd"))
        self._polkitd = self._daemon("polkitd", POLKITD)
        self._await_log("Acquired the name", seen)

    def end_polkitd(self) -> None:
        """End polkitd."""
        self._polkitd.kill()
        self._polkitd.wait()

    def owns(self, pid: int) -> bool:
        """Tell whether a process is one of this host's daemons or guests, not of its USER."""
        assert self._holder is not None
        with contextlib.suppress(OSError):
            there = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
            here = os.readlink(f"/proc/{pid}/ns/mnt")
            return here == there and os.stat(f"/proc/{pid}").st_uid != USERS[USER]
        return False

    def asked(self) -> list[str]:
        """Return the permissions that USER was asked for so far."""
        words = [line.split() for line in self._log("polkitd").splitlines()]
        return [line[-1] for line in words if line[-2:-1] == ["asked"]]

    def actions(self) -> list[str]:
        """Return all that libvirt can ask polkit."""
        text = _action("org.libvirt.unix.policy") + _action("org.libvirt.api.policy")
        return re.findall(r'<action id="([^"]+)"', text)

    def _write_files(self) -> None:
        for name in ("etc/libvirt", "rules", "actions", "files"):
            os.makedirs(os.path.join(self.directory, name), mode=0o755)
        files = {"bus.conf": BUS, "kvm": "", "etc/libvirt/qemu.conf": QEMU_CONF}
        files["etc/libvirt/libvirtd.conf"] = 'auth_unix_ro = "polkit"\nauth_unix_rw = "polkit"\n'
        if self._access_driver:
            files["etc/libvirt/libvirtd.conf"] += 'access_drivers = [ "polkit" ]\n'
        users = [f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n" for name, uid in USERS.items()]
        groups = [f"{name}:x:{uid}:\n" for name, uid in USERS.items()]
        files["etc/passwd"] = _with("/etc/passwd", users)
        files["etc/group"] = _with("/etc/group", [*groups, f"{GROUP}:x:64059:manager\n"])
        for name, text in {"00-log.rules": LOG, "60-libvirt.rules": DEBIAN, **self._rules}.items():
            files[f"rules/{name}"] = text
        for name in ("freedesktop.policykit", "libvirt.unix", "libvirt.api"):
            files[f"actions/org.{name}.policy"] = _action(f"org.{name}.policy")
        for name, text in files.items():
            self._write(os.path.join(self.directory, name), text)
        os.chmod(os.path.join(self.directory, "kvm"), 0)

    def _reload(self, change: Callable[[str], None], name: str) -> None:
        path = os.path.join(self.directory, "rules", name)
        seen = len(self._log("polkitd"))
        change(path)
        self._await_log("Finished loading", seen)

    def _daemon(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with open(os.path.join(self.directory, f"{name}.log"), "ab") as log:
            daemon = subprocess.Popen(
                self.command(*command, net=True),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._daemons.append(daemon)
        return daemon

    def _write(self, path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def _await_log(self, words: str, start: int | None = None) -> None:
        there = f"polkitd says {words!r}"
        assert rig.eventually(lambda: words in self._log("polkitd")[start:], READY), (
            f"never {there}"
        )

    def _log(self, name: str) -> str:
        path = os.path.join(self.directory, f"{name}.log")
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            return file.read()
        return ""

    def _await(self, path: str) -> None:
        assert self._holder is not None
        there = f"/proc/{self._holder.pid}/root{path}"
        assert rig.eventually(lambda: os.path.exists(there), READY), f"nobody made {path}"


class PolkitStack(Stack):
    """Our services on such a host, as USER."""

    def __init__(self, there: PolkitHost, run_dir: str, directory: str) -> None:
        super().__init__(URI, run_dir, directory)
        self._there = there
        os.chown(run_dir, USERS[USER], USERS[USER])

    @property
    def program(self) -> list[str]:
        """The command with this configuration, run by USER on the host."""
        return self._there.command(*super().program, user=USER)


def _action(name: str) -> str:
    found = [path for path in (f"{ACTIONS}/{name}", f"{FETCHED}/{name}") if os.path.exists(path)]
    if not found:
        rig.missing(f"polkit's {name}; run 'tools/setup test'")
    with open(found[0], encoding="utf-8") as file:
        return file.read()


def rule_for(permissions: Sequence[str]) -> str:
    """Return a rule that gives USER these permissions and says nothing of others."""
    return (
        "polkit.addRule(function (action, subject) {"
        f'if (subject.user == "{USER}" && {json.dumps(list(permissions))}.indexOf(action.id) >= 0)'
        "return polkit.Result.YES; });"
    )


def _with(path: str, ours: Sequence[str]) -> str:
    """Return a file like /etc/passwd with these lines, instead of those of the same names."""
    names = {line.partition(":")[0] for line in ours}
    with open(path, encoding="utf-8") as file:
        others = [line for line in file if line.partition(":")[0] not in names]
    return "".join([*others, *ours])
