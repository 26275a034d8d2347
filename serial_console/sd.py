"""What systemd gives a service, without a library: listening sockets, readiness, the watchdog.

Each function does nothing where the service was started by something else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from .config import address
from .errors import SetupError, os_reason

FIRST = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START in sd-daemon.h)."""

_TCP = (socket.AF_INET, socket.AF_INET6)


class Inherited:
    """The listening sockets that systemd opened for this process (socket units).

    They are told apart by their addresses, so that each is what the configuration says. They are
    hidden from programs that we start, and so are the variables that tell of them.

    Raises:
        SetupError: one of them is no listening stream socket.
    """

    def __init__(self) -> None:
        pid, count, _ = (
            os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
        )
        self._left: list[socket.socket] = []
        self._asked: list[str] = []
        if pid == str(os.getpid()) and count.isdecimal():
            self._left += map(_listening, range(FIRST, FIRST + int(count)))

    def unix(self, path: str) -> socket.socket | None:
        """Return the socket at this path, or None; the caller owns it."""
        self._asked.append(path)
        for sock in self._left:
            if sock.family == socket.AF_UNIX and sock.getsockname() == path:
                return self._taken(sock)
        return None

    def tcp(self, listen: str) -> socket.socket | None:
        """Return the socket at this ``host:port`` or None; port 0 is any port.

        Raises:
            ConfigError: it is not of that form.
        """
        self._asked.append(listen)
        host, port = address(listen)
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            hosts = {(family, where[0]) for family, _, _, _, where in found}
            for sock in (one for one in self._left if one.family in _TCP):
                at = sock.getsockname()
                if (sock.family, at[0]) in hosts and port in (0, at[1]):
                    return self._taken(sock)
        return None

    def finish(self) -> None:
        """Check that every socket was asked for.

        Raises:
            SetupError: one was not: its unit says something else than the configuration.
        """
        for sock in self._left:
            raise SetupError(
                f"systemd opened {_shown(sock)} for this service, which listens on "
                f"{' and '.join(self._asked)}; make ListenStream= in the socket's unit and the "
                "configuration say the same"
            )

    def _taken(self, sock: socket.socket) -> socket.socket:
        self._left.remove(sock)
        return sock


def _listening(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        good = sock.type == socket.SOCK_STREAM and sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        )
        if good:
            return sock
        sock.detach()
        why = "it is no listening stream socket"
    except OSError as error:
        why = os_reason(error)
    raise SetupError(
        f"cannot use descriptor {fd} from systemd: {why}; "
        "in the socket's unit use ListenStream=, and Accept=no"
    )


def _shown(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family not in _TCP:
        return str(name)
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"


def notify(*states: str) -> None:
    """Tell systemd something, such as ``READY=1`` or ``STATUS=…`` (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    where = "\0" + path[1:] if path.startswith("@") else path
    # It is gone, or its queue is full: no reason to end or wait; a ping that is missed has others.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(states).encode(), where)


class Watchdog:
    """Pings systemd's watchdog at half its time, from the service's own loop: one that hangs, or
    is busy for too long, pings no more and is ended and started again (WatchdogSec=)."""

    def __init__(self) -> None:
        usec, pid = (os.environ.get(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID"))
        ours = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self.interval = int(usec) / 2e6 if ours else None
        """Seconds between two pings; None: nobody waits for any."""
        self._next = 0.0

    def ping(self, *states: str) -> float | None:
        """Ping if it is time, with more to tell; return the seconds until the next, or None."""
        if self.interval is None:
            return None
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.interval
            notify("WATCHDOG=1", *states)
        return self._next - now
