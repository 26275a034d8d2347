"""Unix sockets that we listen on: bind without stealing, accept only who is expected, unlink."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from .channel import Peer, peer_of
from .errors import SetupError, os_reason


def make_directory(path: str, mode: int) -> None:
    """Make a directory for sockets if it is not there; one that is there is left as it is.

    Raises:
        SetupError: it cannot be made, we may not write to it, or others may: they could put
            sockets and links of theirs where we look for our own.
    """
    try:
        if not os.path.isdir(path):
            os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
            os.mkdir(path, mode)
            os.chmod(path, mode)  # whatever the umask
    except OSError as error:
        raise SetupError(
            f"cannot make the directory {path}: {os_reason(error)}; "
            "make it by hand or choose another one under [paths] in the configuration"
        ) from error
    if wrong := flaw(path):
        raise SetupError(wrong)


def flaw(path: str) -> str:
    """Return why a directory is none for sockets of ours, and what to do; "" where it is one."""
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        return (
            f"the directory {path} is not writable for uid {os.geteuid()}; "
            "change its owner or choose another one under [paths] in the configuration"
        )
    status = os.stat(path)
    open_to = ""
    if status.st_uid not in (0, os.geteuid()):
        open_to = f"belongs to uid {status.st_uid}"
    elif status.st_mode & stat.S_IWOTH:
        open_to = "can be written by everybody"
    elif status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()):
        open_to = f"can be written by group {status.st_gid}"
    if not open_to:
        return ""
    return (
        f"the directory {path} {open_to}, so that others could replace the sockets in it; give "
        f"it to uid {os.geteuid()} alone, or choose another one under [paths] in the "
        "configuration"
    )


class Listener:
    """A listening unix socket that removes its own file, and only its own, when closed.

    A stale socket file of a killed predecessor is replaced: one that is a socket and that nobody
    answers on. Anything else at that path is somebody's and is left alone.

    Args:
        path: where to bind.
        mode: the file's mode; set by umask around bind, so that it is never wider.
        inherited: a socket that somebody bound there for us (systemd): its file is left to them.

    Raises:
        SetupError: the path is taken, too long, or not writable.
    """

    def __init__(
        self, path: str, mode: int = 0o660, inherited: socket.socket | None = None
    ) -> None:
        self.path = path
        self._inode: int | None = None
        if inherited is not None:
            self.sock = inherited
            self.sock.setblocking(False)
            self.gid = _group(path)
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(mode)
            self.sock.listen(128)
        except OSError as error:
            self.sock.close()
            raise SetupError(
                f"cannot bind the socket {path}: {os_reason(error)}; "
                "check that directory, or choose another one under [paths] in the configuration"
            ) from error
        except SetupError:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        status = os.stat(path)
        self._inode = status.st_ino
        self.gid = status.st_gid

    def _bind(self, mode: int) -> None:
        umask = os.umask(0o777 & ~mode)
        try:
            try:
                self.sock.bind(self.path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                remove_stale(self.path)
                self.sock.bind(self.path)
        finally:
            os.umask(umask)

    def accept(self) -> tuple[socket.socket, Peer] | None:
        """Return the next connection and who made it, or None when there is none (any more)."""
        try:
            sock, _ = self.sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return None
        try:
            return sock, peer_of(sock)
        except OSError:
            sock.close()
            return None

    def close(self) -> None:
        """Stop listening and remove the file if it is still ours."""
        with contextlib.suppress(OSError):
            if self._inode is not None and os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self.sock.close()


def _group(path: str) -> int:
    try:
        return os.stat(path).st_gid
    except OSError as error:
        raise SetupError(
            f"systemd's socket {path} is not there: {os_reason(error)}; restart its socket unit"
        ) from error


def remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises:
        SetupError: it is not a socket, somebody answers on it, or it is not ours to remove.
    """
    try:
        _remove_stale(path)
    except OSError as error:
        raise SetupError(f"cannot replace {path}: {os_reason(error)}; remove it by hand") from error


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SetupError(f"{path} exists and is not a socket; move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody is there
    raise SetupError(f"{path} is in use by a running program; end that program first")
