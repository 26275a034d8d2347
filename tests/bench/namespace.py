"""Namespaces of our own: mounts and processes that end with the bench, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import sys

_INSIDE = "SERIAL_CONSOLE_BENCH_INSIDE"
_MS_BIND = 0x1000
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4


def command() -> list[str]:
    """Return the command before whose arguments another is run in namespaces of its own.

    As an ordinary user within a user namespace too, in which it keeps its own identity: a libvirtd
    that thinks it is root would use the system's directories.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def enter(module: str) -> None:
    """Run the module anew in a mount and a process namespace, unless it runs there already."""
    if os.environ.pop(_INSIDE, None):
        # What we may do in our namespace is not for the programs we start: libvirtd refuses it.
        _libc().prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
        return
    os.environ[_INSIDE] = "1"
    words = [*command(), sys.executable, "-m", module, *sys.argv[1:]]
    os.execvp(words[0], words)


def bind(source: str, target: str) -> None:
    """Mount a file over another, as mount(8) does, which refuses users within their namespace.

    Raises:
        OSError: the kernel refused.
    """
    if _libc().mount(source.encode(), target.encode(), None, _MS_BIND, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
