"""systemd's journal by its native protocol: one datagram an entry, with fields of its own.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"


class Journal:
    """Sends entries; never waits for journald, and loses what that does not take.

    Args:
        path: journald's socket.
    """

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one entry; names are upper-case letters, digits and ``_``. Returns whether it went.

        Not connected: journald may be restarted, with a new socket.
        """
        entry = b"".join(_field(name, value) for name, value in fields.items())
        try:
            self._socket.sendto(entry, self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def ours() -> bool:
    """Whether the service manager gave us the journal for stdout or stderr (systemd.exec(5))."""
    wanted = os.environ.get("JOURNAL_STREAM", "")
    for fd in (2, 1):
        with contextlib.suppress(OSError):
            status = os.fstat(fd)
            if wanted == f"{status.st_dev}:{status.st_ino}":
                return True
    return False


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:  # the form with a length: else a value could forge fields
        return name.encode("ascii") + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode("ascii") + b"=" + data + b"\n"
