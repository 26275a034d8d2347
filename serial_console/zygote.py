"""The zygote: a process that forks the relays and does nothing else.

A relay shares each page of memory that neither it nor its parent has written since the fork. The
supervisor writes 1.6 MiB from one relay's fork to the next one's, and each relay that it forked
itself was left the only owner of what had been there.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import struct
from collections.abc import Callable

from .channel import Channel
from .child import become_child, fork, unavailable, wait
from .control import REQUEST_MAX

ANSWER = 5.0
"""Seconds in which it answers; else it is ended, and another is forked."""

_FD = struct.Struct("i")
_PID = struct.Struct("i")
_ANSWER = struct.Struct("ii")
"""A pid or a status (wait(2)), and 0; or nothing, and the errno."""

_Entry = Callable[[bytes, socket.socket], int]


class Zygote:
    """The supervisor's side of it: forked at the start, and again when it is gone.

    Args:
        entry: what a child runs, with what ``fork`` was given and its end of the channel.
    """

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry
        self._pid = 0
        self._sock: socket.socket | None = None

    def start(self) -> socket.socket:
        """Fork it, and return our end. Raises Unavailable when the kernel refuses."""
        self._pid, sock = fork(functools.partial(_serve, self._entry), socket.SOCK_SEQPACKET)
        sock.settimeout(ANSWER)
        self._sock = sock
        return sock

    def fork(self, what: bytes) -> tuple[int, Channel]:
        """Have a child forked for ``what``, at most REQUEST_MAX bytes that tell it what it is for.

        Returns:
            The child's pid and our end of the channel.

        Raises:
            Unavailable: the kernel refuses.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise unavailable(error) from error
        try:
            with theirs:
                fd = theirs.fileno()
                answer = self._ask(what, fd) or self._ask(what, fd)
            pid, errno = answer or (0, 0)
            if not pid:
                raise unavailable(OSError(errno, os.strerror(errno) if errno else "no answer"))
        except BaseException:
            ours.close()
            raise
        return pid, Channel(ours)

    def wait(self, pid: int) -> int | None:
        """Return the status of a process that has ended; None if the zygote did not fork it."""
        answer = self._ask(_PID.pack(pid)) if self._sock is not None else None
        return answer[0] if answer and not answer[1] else None

    def close(self) -> None:
        """End it; its children live on."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            wait(self._pid)

    def _ask(self, request: bytes, *fds: int) -> tuple[int, int] | None:
        """Return what it answers; None if it does not: then it is ended."""
        sock = self._sock or self.start()
        try:
            if fds:
                socket.send_fds(sock, [request], fds)
            else:
                sock.send(request)
            answer = sock.recv(_ANSWER.size)
        except OSError:
            answer = b""
        if not answer:
            os.kill(self._pid, signal.SIGKILL)
            self.close()
            return None
        result, errno = _ANSWER.unpack(answer)
        return result, errno


def _serve(entry: _Entry, sock: socket.socket) -> int:
    """Be the zygote until the supervisor is gone. Returns the exit status.

    What it is asked comes with the end of a channel: for whom to fork; or it is the pid of a child
    that has ended. Until then nobody else can be given that number.
    """
    gc.freeze()  # no collection in a relay touches what the zygote had
    sock.setblocking(True)
    with contextlib.suppress(ConnectionError):  # a supervisor that was killed resets it
        while True:
            request, fds, _, _ = sock.recvmsg(REQUEST_MAX, socket.CMSG_LEN(_FD.size))
            if not request:
                break
            result = errno = 0
            try:
                if fds:
                    with socket.socket(fileno=_FD.unpack(fds[0][2])[0]) as channel:
                        result = os.fork()
                        if not result:
                            become_child(functools.partial(entry, request), channel)
                else:
                    (pid,) = _PID.unpack(request)
                    _, result = os.waitpid(pid, 0)
            except OSError as error:
                errno = error.errno or 0
            sock.send(_ANSWER.pack(result, errno))
    return 0
