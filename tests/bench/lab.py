"""Where it is measured: a libvirtd of its own, guests in it, our services."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
from typing import NamedTuple, Self

from serial_console.demo import host
from serial_console.demo.libvirtd import PrivateLibvirtd
from tests import rig
from tests.stack import Stack, free_port

from .namespace import bind
from .programs import BUILD, Source

UNPACKED = [os.path.join(BUILD, "..", "conserver", "usr", name) for name in ("sbin", "bin")]
"""Where tools/setup puts what it does not install."""
PORTS = 30
"""Of a virtio-serial controller."""


class Console(NamedTuple):
    """A console of a guest: what libvirt opens, and the pty or the TCP port itself behind it."""

    guest: str
    alias: str
    pty: str
    port: int


class Lab:
    """Everything that is measured but the peers; a context manager.

    Two kinds of consoles: ``uart``, a real serial port of QEMU (tests/guests/echo.asm), 0.2 MB/s;
    and synthetic ones, as fast as a pty is. Those are virtio consoles of a real guest, with
    a pty of load/source.c mounted over QEMU's, so that libvirt opens that.
    """

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as things:
            directory = things.enter_context(host.short_directory("sc-bench-"))
            self.logs = things.enter_context(tempfile.TemporaryDirectory(prefix="sc-bench-logs-"))
            self.libvirtd = things.enter_context(PrivateLibvirtd(f"{directory}/d"))
            self._factory = rig.GuestFactory(self.libvirtd)
            things.callback(self._factory.close)
            self.stack = Stack(
                self.libvirtd.uri,
                directory,
                self.logs,
                log={"level": "warning"},
                limits={"per_user": 1000},
            )
            things.callback(self._end_services)
            self.stack.start("supervisor", "gateway", "stock")
            self.stack.ask("health")  # its inventory is there from now on
            self._things = things.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._things.close()

    @functools.cached_property
    def uart(self) -> Console:
        """A guest with a real UART on a pty."""
        guest = self._factory("echo")
        return Console(guest.uuid, "serial0", guest.ttys()["serial0"], 0)

    @functools.cached_property
    def tcp_uart(self) -> Console:
        """Another such guest, whose UART is on a TCP port."""
        port = free_port()
        source = f"<source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='raw'/>"
        serial = f"<serial type='tcp'>{source}</serial>"
        guest = self._factory("echo", serial=(), extra=serial, state="running")
        return Console(guest.uuid, "serial0", "", port)

    def synthetic(self, count: int) -> list[Console]:
        """Start a guest with so many synthetic consoles, served by one process."""
        guest = self._factory("echo", extra=_virtio_consoles(count))
        source = Source(count)
        self._things.callback(source.close)
        found = []
        for number, pty in enumerate(source.ptys, 1):
            alias = f"console{number}"
            bind(pty, guest.ttys()[alias])
            found.append(Console(guest.uuid, alias, pty, source.port))
        return found

    def _end_services(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints all logs
            self.stack.close()


def _virtio_consoles(count: int) -> str:
    """Return the XML of virtio consoles on as many controllers as they need."""
    # libvirt takes the first <console> for another name of the first serial port.
    devices = ["<console type='pty'><target type='serial'/></console>"]
    for number in range(count):
        controller, port = divmod(number, PORTS)
        where = f"<address type='virtio-serial' controller='{controller}' port='{port + 1}'/>"
        devices.append(f"<console type='pty'><target type='virtio'/>{where}</console>")
    return "".join(devices)


def path_of(name: str) -> str | None:
    """Return where a peer's program is, None where it is not installed."""
    for directory in (*host.PATH.split(":"), *UNPACKED):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return None
