"""Services that take a socket of ours for systemd's journal, in a mount namespace of their own."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, Self

from . import rig
from .stack import Service, Stack

_SCRIPT = (
    "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && "
    'mount --bind "$1" /run/systemd/journal && shift && '
    'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
)


class Journaled(Stack):
    """Supervisor, gateway and api as services of systemd, as far as their journal goes.

    Only root can make the namespace. Used as a context: it ends the services.
    """

    def __init__(self, uri: str, run_dir: str, directory: str, **sections: Any) -> None:
        self._private = rig.with_own_mounts("sh", "-c", _SCRIPT, "sh")
        super().__init__(uri, run_dir, directory, **sections)
        self.entries: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        os.mkdir(f"{directory}/journal")
        self._socket.bind(f"{directory}/journal/socket")
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            self._socket.shutdown(socket.SHUT_RD)
            self._reader.join()
            self._socket.close()

    def _read(self) -> None:
        while entry := self._socket.recv(1 << 20):
            self.entries.append(entry)

    def _launch(self, name: str) -> Service:
        log = os.path.join(self.directory, f"{name}.log")
        command = [*self._private, f"{self.directory}/journal", *self.program, name]
        self.services[name] = Service(name, command, log)
        return self.services[name]
