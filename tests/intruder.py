"""What somebody tries who has broken into a service: run with its rights, as a program of its own.

Its argument is a JSON list of attempts, each a list of an attack's name and its arguments; it
prints a JSON list of what came of them: ``EACCES`` and the like, or what was got.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys

_PTRACE_ATTACH = 16
_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


def ask(path: str, request: dict[str, object]) -> str:
    """Say something to a unix socket; return the answer, "" where it just closes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            return sock.recv(65536).decode("utf-8", "replace")
        except (BrokenPipeError, ConnectionResetError):
            return ""


def read(path: str) -> str:
    """Read a file."""
    with open(path, "rb") as file:
        return f"read {len(file.read(65536))} bytes"


def listing(path: str) -> str:
    """List a directory."""
    return f"listed {os.listdir(path)}"


def plant(directory: str) -> str:
    """Put a link into a directory."""
    path = os.path.join(directory, "planted.sock")
    os.symlink("/etc/passwd", path)
    os.unlink(path)
    return "planted"


def replace(path: str) -> str:
    """Remove a socket and listen in its place."""
    os.unlink(path)
    return "removed"


def kill(pid: int) -> str:
    """See whether a process could be signalled."""
    os.kill(pid, 0)
    return "could be killed"


def trace(pid: int) -> str:
    """Attach to a process as a debugger does."""
    _checked(_libc.ptrace(_PTRACE_ATTACH, pid, None, None))
    return "attached"


def steal(pid: int) -> str:
    """Take a descriptor of another process."""
    pidfd = os.pidfd_open(pid)
    try:
        _checked(_libc.syscall(_PIDFD_GETFD, pidfd, 3, 0))
    finally:
        os.close(pidfd)
    return "stolen"


def dial(host: str, port: int) -> str:
    """Open a connection over the network."""
    with socket.create_connection((host, port), timeout=10):
        return "connected"


def become(uid: int) -> str:
    """Become another user."""
    os.setuid(uid)
    return "became"


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


ATTACKS = {
    one.__name__: one
    for one in (ask, read, listing, plant, replace, kill, trace, steal, dial, become)
}


def main() -> None:
    """Try everything."""
    came_of = []
    for name, *arguments in json.loads(sys.argv[1]):
        try:
            came_of.append(ATTACKS[name](*arguments))
        except OSError as error:
            came_of.append(errno.errorcode.get(error.errno or 0, str(error)))
    sys.stdout.write(json.dumps(came_of) + "\n")


if __name__ == "__main__":
    main()
