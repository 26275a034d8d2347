"""libvirt: event loop, connection, guests.

Safe to import before a fork, not to use: whoever uses it does so in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import libvirt

from .consoles import consoles
from .control import GuestInfo
from .errors import LibvirtDenied, LibvirtUnavailable, NoSuchGuest
from .eventloop import EventLoop
from .names import shown

STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutoff",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}
"""libvirt's domain states as REST shows them."""


REFUSALS = (
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_ACCESS_DENIED,
)
"""What libvirt says when polkit does not allow something, and while it cannot ask polkit."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def silence() -> None:
    """Keep libvirt from printing errors to stderr by itself; they come as exceptions."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


def event_loop() -> EventLoop:
    """Make the process's event loop, once, before any connection is opened."""
    loop = EventLoop(libvirt.virEventInvokeFreeCallback)
    libvirt.virEventRegisterImpl(
        loop.add_handle,
        loop.update_handle,
        loop.remove_handle,
        loop.add_timeout,
        loop.update_timeout,
        loop.remove_timeout,
    )
    return loop


# ---- guests


@contextlib.contextmanager
def translated(uri: str) -> Iterator[None]:
    """Have libvirt's errors within as LibvirtUnavailable."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise unavailable(error, f"libvirt at {uri}") from error


def unavailable(error: Any, libvirt_there: str = "libvirt") -> LibvirtUnavailable:
    """Return libvirt's error as ours."""
    if error.get_error_code() in REFUSALS:
        return LibvirtDenied(
            f"{libvirt_there} refuses our user (uid {os.geteuid()}): {reason(error)}; "
            "allow it what docs/libvirt-polkit.md lists"
        )
    return LibvirtUnavailable(
        f"{libvirt_there} does not answer: {reason(error)}; "
        "is libvirtd running, and may this user connect to it?"
    )


def connect(uri: str, readonly: bool = False) -> Any:
    """Open a connection (virConnect).

    Args:
        uri: libvirt's connection URI.
        readonly: ask for no more than reading.

    Raises:
        LibvirtUnavailable: it cannot be opened; LibvirtDenied: it may not.
    """
    with translated(uri):
        return libvirt.openReadOnly(uri) if readonly else libvirt.open(uri)


def probe(connection: Any) -> None:
    """See whether libvirt answers. Raises LibvirtUnavailable if it does not."""
    with translated(connection.getURI()):
        connection.getLibVersion()


def version(connection: Any) -> str:
    """Return the version of libvirt there, such as ``9.0.0``. Raises LibvirtUnavailable."""
    with translated(connection.getURI()):
        number = connection.getLibVersion()
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def hear(connection: Any, loop: EventLoop, keepalive: tuple[int, int]) -> None:
    """Have libvirt take us for a listener, as a relay does, and no longer. No event is provoked.

    Args:
        connection: libvirt's.
        loop: of event_loop().
        keepalive: seconds between two messages, and how many may stay unanswered.

    Raises:
        LibvirtUnavailable: it does not.
    """
    with translated(connection.getURI()):
        event = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        number = connection.domainEventRegisterAny(None, event, lambda *_: None, None)
        if connection.setKeepAlive(*keepalive) != 0 or not connection.isAlive():
            raise LibvirtUnavailable("libvirt does not tell whether it is alive; it is too old")
        loop.run_once(0.0, None)
        connection.domainEventDeregisterAny(number)


def xml(domain: Any) -> str:
    """Return a guest's XML. Raises as describe() does."""
    try:
        return str(domain.XMLDesc(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise NoSuchGuest("the guest went away while it was looked at") from error
        raise unavailable(error) from error


def find(connection: Any, guest: str) -> Any:
    """Find a guest (virDomain) by UUID or by name.

    What looks like a UUID is one first: no guest can be named so as to be taken for another.

    Raises:
        NoSuchGuest: there is none.
        LibvirtUnavailable: libvirt did not answer.
    """
    gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG)
    lookups = [connection.lookupByName]
    if _UUID.fullmatch(guest):
        lookups.insert(0, connection.lookupByUUIDString)
    for lookup in lookups:
        try:
            return lookup(guest)
        except ValueError:  # a NUL or a lone surrogate, which no guest's name can have
            continue
        except libvirt.libvirtError as error:
            if error.get_error_code() not in gone:
                raise unavailable(error) from error
    raise NoSuchGuest(
        f'there is no guest "{shown(guest)}" here; "serial-console guests" lists those there are'
    )


def describe(domain: Any) -> GuestInfo:
    """Describe a guest. Raises NoSuchGuest when it went away, LibvirtUnavailable as connect()."""
    try:
        return GuestInfo(
            name=domain.name(),
            uuid=domain.UUIDString(),
            state=STATES.get(domain.state()[0], "unknown"),
            consoles=consoles(domain.XMLDesc(0)),
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise NoSuchGuest("the guest went away while it was looked at") from error
        raise unavailable(error) from error


def find_all(connection: Any) -> list[Any]:
    """Find every guest (virDomain). Raises LibvirtUnavailable as connect() does."""
    try:
        return list(connection.listAllDomains(0))
    except libvirt.libvirtError as error:
        raise unavailable(error) from error


def reason(error: Any) -> str:
    """Return what libvirt says of its error."""
    return str(error.get_error_message() or error)
