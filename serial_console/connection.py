"""A connection to libvirt for one guest: its socket, its events, its end."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import libvirt

from .errors import UnsupportedConsole
from .eventloop import EventLoop
from .guest import connect, find, translated

log = logging.getLogger("guest")

KEEPALIVE = (5, 5)
"""Seconds between keepalive messages, and how many may stay unanswered: libvirtd's own numbers."""


@dataclass(frozen=True)
class Dialled:
    """Such a connection (virConnect), and the guest (virDomain)."""

    connection: Any
    socket: int  # its file descriptor, -1 when it is not known
    domain: Any
    persistent: bool
    events: list[int]  # what is registered on it


def dial(
    loop: EventLoop,
    uri: str,
    uuid: str,
    on_close: Callable[..., None],
    on_lifecycle: Callable[..., None],
    on_reboot: Callable[..., None],
) -> Dialled:
    """Connect to libvirt and have a guest's events told, from the loop.

    Args:
        loop: the process's event loop.
        uri: libvirt's connection URI.
        uuid: the guest.
        on_close, on_lifecycle, on_reboot: as libvirt calls for its connection's close and for
            those events.

    Raises:
        LibvirtUnavailable, NoSuchGuest: as they say.
    """
    before = _sockets()
    connection = connect(uri)
    with translated(uri), contextlib.suppress(AttributeError):
        connection.setKeepAlive(*KEEPALIVE)
    new = [fd for inode, fd in _sockets().items() if inode not in before]
    if not new:
        log.warning("cannot tell which socket leads to libvirt; a hung guest may hang us")
    events: list[int] = []
    try:
        domain = find(connection, uuid)
        with translated(uri):
            connection.registerCloseCallback(loop.guarded(on_close), None)
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, on_reboot),
            ):
                call = loop.guarded(callback)
                events.append(connection.domainEventRegisterAny(domain, event, call, None))
            persistent = bool(domain.isPersistent())
    except Exception:
        release(connection, events)
        raise
    return Dialled(connection, min(new, default=-1), domain, persistent, events)


def neighbour(fd: int) -> tuple[int, str]:
    """Return the user and the path of libvirt's end of this socket.

    Raises:
        UnsupportedConsole: libvirt, and so the guest, may be on another host.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family == socket.AF_UNIX:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return struct.unpack("=iII", credentials)[1], sock.getpeername()
    raise UnsupportedConsole(
        "libvirt is on another host: of the consoles there only those of type pty can be opened"
    )


def release(connection: Any, events: list[int]) -> None:
    """Close a connection. What is registered on it would keep it, and its descriptors, for good."""
    for number in events:
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventDeregisterAny(number)
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


def _sockets() -> dict[int, int]:
    """Return this process's sockets that are connected to an address: inode and descriptor.

    A number may be used again, an inode is not. Our own sockets, which come and go meanwhile, are
    accepted ones or of pairs: their peers have no address.
    """
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not connected, or the listing's own, closed by now
            status = os.fstat(int(name))
            if stat.S_ISSOCK(
                status.st_mode
            ):  # of anything else, socket() would leave the copy open
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    if sock.getpeername():
                        found[status.st_ino] = int(name)
    return found
