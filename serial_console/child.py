"""Child processes of the supervisor: forked from it frozen, watched through pidfds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable

from .channel import Channel
from .errors import ConsoleError, Unavailable, os_reason
from .loop import Loop

log = logging.getLogger("supervisor")

CRASHED = 70
"""Exit status of a child that ended by an unforeseen exception (sysexits.h EX_SOFTWARE)."""


class Child:
    """A relay or an inventory: its process, and the channel to it.

    Args:
        loop: the supervisor's loop.
        pid: the process, our child or an adopted one.
        channel: the channel to it.
        on_line: called with each line that it sends.
        on_end: called once, after the last line, with words on how it ended.

    Raises:
        Unavailable: the kernel does not let us watch it; it has been killed.
    """

    def __init__(
        self,
        loop: Loop,
        pid: int,
        channel: Channel,
        on_line: Callable[[bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        self.pid = pid
        self._loop = loop
        self._channel = channel
        self._on_line = on_line
        self._on_end = on_end
        self._closed = False
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _how_it_ended(pid)
            raise _unavailable(error) from error
        loop.watch(self._pidfd, self._ended)
        loop.watch(channel.fileno(), self._ready)

    def send(self, line: bytes, fd: int | None = None) -> None:
        """Send a line, and with it a copy of a file descriptor."""
        if not self._channel.ended:
            self._channel.send(line, fd)
            if self._channel.broken:
                self._loop.after(0.0, self._ready)  # what it said before it closed its end
            else:
                self._watch()

    def kill(self) -> None:
        """End it at once; ``on_end`` follows."""
        if self._closed:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def forget(self) -> None:
        """Let it live on without us."""
        if not self._closed:
            self._closed = True
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._close_channel()

    def _ready(self) -> None:
        if self._channel.fileno() < 0:
            return
        self._channel.flush()
        self._read()
        if not self._closed:
            self._watch()

    def _read(self) -> None:
        try:
            for line in self._channel.receive():
                self._on_line(line)
        except ConsoleError as error:
            log.error("child %d sent what is not understood: %s; it is ended", self.pid, error)
            self._close_channel()

    def _watch(self) -> None:
        if self._channel.ended:
            self._close_channel()
        else:
            self._loop.watch(self._channel.fileno(), self._ready, write=self._channel.pending)

    def _close_channel(self) -> None:
        self.kill()  # most often it is ending already; without a channel it is of no use
        if self._channel.fileno() >= 0:
            self._loop.forget(self._channel.fileno())
            self._channel.close()

    def _ended(self) -> None:
        if self._channel.fileno() >= 0:
            self._read()  # what it said before it ended
        how = _how_it_ended(self.pid)
        self.forget()
        self._on_end(how)


PREFIX = "console-"
"""How the names of all our children begin, in ps(1) and for ``serial-console doctor``."""


def fork(entry: Callable[[socket.socket], int], name: str) -> tuple[int, Channel]:
    """Fork a child that runs ``entry`` with its end of a channel, and nothing of ours but that.

    Args:
        entry: returns the exit status.
        name: of the process, behind PREFIX: its arguments stay the supervisor's.

    Returns:
        The child's pid and our end of the channel.

    Raises:
        Unavailable: the kernel refuses.
    """
    try:
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
    except OSError as error:
        raise _unavailable(error) from error
    if pid == 0:
        _become_child(entry, name, theirs)
    theirs.close()
    return pid, Channel(ours)


def _become_child(entry: Callable[[socket.socket], int], name: str, channel: socket.socket) -> None:
    """Run ``entry`` and exit. The supervisor's objects stay referenced from the frames below, so
    none of them is finalised here and closes a descriptor number that is ours by now."""
    status = CRASHED
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        keep = channel.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
        null = os.open(os.devnull, os.O_RDWR)  # only now: the supervisor may have had none left
        os.dup2(null, 0)
        os.dup2(null, 1)
        with contextlib.suppress(OSError):
            comm = os.open("/proc/self/comm", os.O_WRONLY)
            os.write(comm, (PREFIX + name).encode())
            os.close(comm)
        status = entry(channel)
    except BaseException:  # whatever it was, it must not run on as a supervisor
        log.exception("child %d failed", os.getpid())
    finally:
        os._exit(status)


def _unavailable(error: OSError) -> Unavailable:
    log.error("cannot start a process: %s", os_reason(error))
    return Unavailable("The host cannot start another process now; try again in a while.")


def _how_it_ended(pid: int) -> str:
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:  # adopted: only its former parent is told how
        return "has ended"
    if os.WIFSIGNALED(status):
        return f"was killed by signal {os.WTERMSIG(status)}"
    code = os.waitstatus_to_exitcode(status)
    return "has ended" if code == 0 else f"has ended with status {code}"
