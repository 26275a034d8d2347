"""A console that QEMU itself serves on a tcp or unix socket; libvirt opens those with a pty alone.

QEMU talks to one client at a time. Who connects meanwhile is not refused: the connection waits in
the kernel's queue, looks open, and nothing comes. Only /proc/net tells: a connection that nobody
has accepted has no inode there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Collection

from .consoles import Address, held_by_another
from .errors import SetupError, os_reason
from .eventloop import EventLoop

READ = 16384
"""Bytes of one recv."""
BUFFERS = 8192, 65536
"""SO_SNDBUF and SO_RCVBUF, in bytes. What the kernel holds for a guest that does not read is typed
when it reads, whoever is there then. With these it took 16 KB to a unix socket, where the default
is 180 KB, and 146 KB to a tcp one (QEMU's own buffer), where the default is 4.2 MB."""
ACCEPT = 0.3
"""Seconds in which a QEMU that has no other client accepts; it takes well under a millisecond."""
FULL = 256
"""Bytes of a UART at which a unix socket is as good as full: QEMU writes them one by one, and 278
take all of net.core.wmem_default, 212992 bytes. Then it looks again after 2 ms: read each 3 ms,
1 MiB took 17 s, each 0.2 ms 4.2 s. A tcp socket joins them."""
GATHER = 0.0001, 0.003
"""Shortest and longest time in seconds for which a unix socket is left alone, so that a read finds
less than FULL and more than half of it."""
LOOK = 0.002
"""Seconds between two looks whether it has."""

_IAC = b"\xff"
_GREETING = 4
"""Commands of three bytes that QEMU begins a telnet connection with; it sends none later, and
leaves a 0xff in the guest's output as it is."""


class SocketLine:
    """One connection to the socket that QEMU listens on.

    Args:
        address: where, from the running guest's XML.
        users: uids of which one must be at the other end: QEMU's, and libvirtd's, which makes some
            sockets for it.
        private: directories of ours and a path of libvirt's: no guest is served there.

    ``gather``: seconds that output may be left alone, so that more comes at once.

    Raises:
        InUse: so many wait for it that no more may.
        SetupError: nobody listens there (any more), we may not connect to there, or it is not QEMU
            who listens.
    """

    def __init__(
        self, address: Address, users: Collection[int], private: Collection[str] = ()
    ) -> None:
        self._address = address
        self._users = users
        self._number: int | None = None
        self._accepted = False
        self._greeting = _GREETING if address.telnet else 0
        self._begun = b""  # of a command of the greeting
        self._half_sent = False  # an escaped 0xff
        self.gather = GATHER[1]
        if address.path and _is_in(address.path, private):
            raise SetupError(f"the guest's console is at {address}, which is not for guests")
        self._sock = self._connect()
        self._room = select.poll()
        self._room.register(self._sock, select.POLLOUT)
        try:
            end = time.monotonic() + ACCEPT
            while not self.accepted() and time.monotonic() < end:
                time.sleep(LOOK)
        except Exception:
            self._sock.close()
            raise

    def accepted(self) -> bool:
        """Tell whether QEMU talks to us, not to another client.

        Where others wait for a unix socket as well, not before the guest prints something: which of
        the waiting is we is not told.

        Raises:
            SetupError: QEMU has ended, or it is not QEMU.
        """
        if self._accepted:
            return True
        try:
            has_come = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            has_come = None
        except OSError as error:
            raise self._refused(error) from error
        if has_come == b"":
            raise self._refused(ConnectionResetError(errno.ECONNRESET, "Connection closed"))
        uid = self._unix_peer(bool(has_come)) if self._address.path else self._tcp_peer()
        if uid is None:
            return False
        if uid not in self._users:
            raise SetupError(
                f"the guest's console is at {self._address}, where not the guest listens but a "
                f"process of uid {uid}"
            )
        self._accepted = True
        return True

    def begin(
        self, loop: EventLoop, on_output: Callable[[bytes], None], on_end: Callable[[str], None]
    ) -> None:
        """Give out what comes, from the loop; ``on_end`` with a few words when it is over."""
        self._loop = loop
        self._on_output = on_output
        self._on_end = on_end
        self._number = loop.attend(self._sock.fileno(), self._read)

    @property
    def writable(self) -> bool:
        """Whether the kernel takes more."""
        return bool(self._room.poll(0))

    def send(self, data: bytes) -> int:
        """Send; returns how many bytes were taken."""
        if not self._address.telnet:
            return self._send(data)
        if self._half_sent:
            self._half_sent = not self._send(_IAC)
        if self._half_sent:
            return 0
        before = data.find(_IAC)
        if before:
            return self._send(data if before < 0 else data[:before])
        count = self._send(_IAC + _IAC)
        self._half_sent = count == 1
        return min(1, count)

    def drain(self) -> None:
        """Give out what has come."""
        while self._read():
            pass

    def close(self) -> None:
        """Disconnect: QEMU talks to the next client."""
        if self._number is not None:
            self._loop.remove_handle(self._number)
            self._number = None
        self._sock.close()

    def _connect(self) -> socket.socket:
        address = self._address
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            sock = socket.socket(socket.AF_UNIX if address.path else family)
        except OSError as error:  # systemd's RestrictAddressFamilies
            raise self._refused(error) from error
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS[0])
            if address.path:
                sock.connect(address.path)
                return sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFERS[1])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((address.host, 0))  # no address but this host's own
            with contextlib.suppress(BlockingIOError):
                sock.connect((address.host, address.port))
            if not select.select([], [sock], [], ACCEPT)[1]:
                raise BlockingIOError  # the queue is full: the kernel drops what comes
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
        except BlockingIOError:
            sock.close()
            raise held_by_another() from None
        except OSError as error:
            sock.close()
            raise self._refused(error) from error
        return sock

    def _refused(self, error: OSError) -> SetupError:
        return SetupError(
            f"our user (uid {os.geteuid()}) cannot connect to the guest's console at "
            f"{self._address}: {os_reason(error)}; docs/consoles.md says what it needs"
        )

    def _unix_peer(self, has_come: bool) -> int | None:
        """Return the uid of who listens, None while we wait for being accepted."""
        path = os.fsencode(self._address.path)
        with open("/proc/self/net/unix", "rb") as rows:
            for row in rows:
                fields = row.rstrip(b"\n").split(None, 7)
                if not has_come and fields[6:] == [b"0", path]:
                    return None
        credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("=iII", credentials)[1])

    def _tcp_peer(self) -> int | None:
        """Return the uid of who has accepted us, None while nobody has."""
        near, far = _as_shown(self._sock.getpeername()), _as_shown(self._sock.getsockname())
        for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
            with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as rows:
                for row in rows:
                    fields = row.split()
                    if fields[1].endswith(near) and fields[2].endswith(far):
                        return int(fields[7]) if fields[9] != "0" else None
        return None

    def _read(self) -> bool:
        """Take what has come, at most READ bytes. Returns whether there may be more."""
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            return False
        except OSError as error:
            self._on_end(os_reason(error))
            return False
        if not data:
            self._on_end("end of stream")
            return False
        if self._address.path:
            factor = 0.5 if len(data) >= FULL else 1.2 if len(data) < FULL // 2 else 1.0
            self.gather = min(max(GATHER[0], self.gather * factor), GATHER[1])
        if self._greeting:
            data = self._without_greeting(data)
        if data:
            self._on_output(data)
        return True

    def _without_greeting(self, data: bytes) -> bytes:
        data = self._begun + data
        while self._greeting and data.startswith(_IAC):
            if len(data) < 3:
                self._begun = data
                return b""
            data = data[3:]
            self._greeting -= 1
        if data:
            self._greeting = 0
        self._begun = b""
        return data

    def _send(self, data: bytes) -> int:
        try:
            return self._sock.send(data)
        except OSError:  # full, or over: then what was printed is still to be read
            return 0


def _is_in(path: str, directories: Collection[str]) -> bool:
    parts = [os.path.realpath(one) for one in (path, *directories)]
    return any(os.path.commonpath((parts[0], one)) == one for one in parts[1:])


def _as_shown(name: tuple[str, int]) -> str:
    """Return an address as /proc/net/tcp shows it; an IPv4 one of tcp6 ends so."""
    host, port = name[:2]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
