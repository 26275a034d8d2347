"""What this machine gives us: programs, an account for guests, KVM."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import SetupError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""An ordinary user's PATH lacks sbin, where libvirtd is."""

PASSABLE = stat.S_IRWXU | stat.S_IXGRP | stat.S_IXOTH
"""Mode of a directory on the way to what guests, who run as another user, must reach."""

QEMU = "qemu-system-x86_64"

# Boot sector: out 0x501, 0x21 ends QEMU with status 0x21 << 1 | 1; the loop is for who ignores it.
_PROBE = b"\xba\x01\x05\xb0\x21\xee\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa"
_PROBE_STATUS = 0x21 << 1 | 1
_PROBE_SECONDS = 2.0


class Account(NamedTuple):
    """Whom libvirtd and its guests run as; None: as ourselves."""

    user: int | None = None
    group: int | None = None
    groups: Sequence[int] | None = None


def guest_account() -> Account:
    """Return the account for guests: never root.

    Raises:
        SetupError: we are root and there is no user ``nobody``.
    """
    if os.geteuid() != 0:
        return Account()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise SetupError(
            "guests must not run as root, and this machine has no user 'nobody'; "
            "run this as an ordinary user"
        ) from None
    groups = []
    try:
        device = os.stat("/dev/kvm")
    except OSError:
        pass
    else:
        shared = stat.S_IRGRP | stat.S_IWGRP
        if device.st_mode & shared == shared and device.st_gid != 0:
            groups = [device.st_gid]
    return Account(nobody.pw_uid, nobody.pw_gid, groups)


def program(name: str, package: str) -> str:
    """Return the path of a program.

    Raises:
        SetupError: it is not installed.
    """
    if path := shutil.which(name, path=PATH):
        return path
    raise SetupError(f"there is no {name} here; install the package {package}, or run 'make setup'")


@contextlib.contextmanager
def short_directory(prefix: str) -> Iterator[str]:
    """Make a temporary directory that every user can pass, with a path short enough for sockets.

    TMPDIR does not count: it may be long, and may lie where only we can pass.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp") as path:
        os.chmod(path, PASSABLE)
        yield path


def kvm_works(account: Account) -> bool:
    """Tell whether a guest of this account boots under KVM, by booting a boot sector (at most 2 s).

    That the device can be opened says too little: nested KVM can lack the CPU's help for real mode
    and then is slower than no KVM at all.

    Raises:
        SetupError: there is no QEMU.
    """
    qemu = program(QEMU, "qemu-system-x86")
    disk = os.memfd_create("probe")
    try:
        os.write(disk, _PROBE)
        probe = subprocess.run(
            [
                qemu, "-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none",
                "-device", "isa-debug-exit,iobase=0x501,iosize=1",
                "-drive", f"if=floppy,format=raw,readonly=on,file=/proc/self/fd/{disk}",
            ],
            cwd="/",
            pass_fds=[disk],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            user=account.user,
            group=account.group,
            extra_groups=account.groups,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    finally:
        os.close(disk)
    return probe.returncode == _PROBE_STATUS
