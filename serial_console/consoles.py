"""A guest's consoles: read from its XML, one picked, the refusals that go with it."""

from __future__ import annotations

import contextlib
import pwd
import re
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from .control import ConsoleInfo, GuestInfo
from .errors import InUse, NoSuchConsole, UnsupportedConsole
from .names import shown

LOCAL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}
"""Where QEMU is reached that listens on all addresses, or by that name."""

_REASONS = {
    "dbus": "which is served to D-Bus alone",
    "dev": "which is a device of the host",
    "file": "which is only written to",
    "null": "which discards all output",
    "pipe": "which is a pair of named pipes",
    "spiceport": "which is a SPICE viewer's",
    "spicevmc": "which is a SPICE viewer's",
    "stdio": "which is QEMU's own terminal",
    "tcp": "but not in a form that can be opened",
    "udp": "which has no connection",
    "unix": "but not in a form that can be opened",
    "vc": "which is shown in the guest's window",
}
_FORMS = {
    "tcp": '<source mode="bind"> with an address and port of this host, '
    'no TLS, and <protocol type="raw"/> or "telnet"',
    "unix": '<source mode="bind"> with a path',
}


@dataclass(frozen=True)
class Address:
    """Where QEMU itself serves a console: ``path`` of a unix socket, or else ``host``, an IP
    address of this host, and ``port``. ``uid``: QEMU's user, None where libvirt does not say."""

    path: str = ""
    host: str = ""
    port: int = 0
    telnet: bool = False
    uid: int | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def consoles(xml: str) -> list[ConsoleInfo]:
    """List a guest's consoles from its XML; the one that libvirt opens by default stands first.

    A guest that is off has no aliases in its XML: they are made here as libvirt's QEMU driver
    makes them at its start (``serial<i>``, ``console<i>`` by position; the first ``<console>``
    of target type serial is the first ``<serial>`` seen again).
    """
    found = []
    for name, device in _devices(_parse(xml)).items():
        backend = device.get("type", "")
        supported = backend == "pty" or _address(device, None) is not None
        found.append(ConsoleInfo(name, backend, supported))
    return found


def address(xml: str, alias: str | None) -> Address | None:
    """Return where QEMU serves a console of a running guest: that of the alias, or its first.

    None where there is no such console, or none on a socket that can be opened.
    """
    domain = _parse(xml)
    devices = _devices(domain)
    device = next(iter(devices.values()), None) if alias is None else devices.get(alias)
    return None if device is None else _address(device, _uid(domain))


def logs(xml: str) -> dict[str, str]:
    """Return the file to which virtlogd writes what a console prints, of those that have one."""
    found: dict[str, str] = {}
    for name, device in _named(_parse(xml)):
        log = device.find("log")
        if log is not None:
            found.setdefault(name, log.get("file", ""))
    return found


def pick(guest: GuestInfo, alias: str | None) -> ConsoleInfo:
    """Return one console of a guest: the one of that alias, or its first.

    Raises:
        NoSuchConsole: there is none, or none of that alias.
        UnsupportedConsole: one of its type cannot be opened.
    """
    name = shown(guest.name)
    if not guest.consoles:
        raise NoSuchConsole(
            f'guest "{name}" has no console; add <serial type="pty"/> to it and start it again'
        )
    console = next((one for one in guest.consoles if one.alias == alias), None)
    if alias is None:
        console = guest.consoles[0]
    if console is None:
        has = ", ".join(shown(one.alias) for one in guest.consoles)
        raise NoSuchConsole(f'guest "{name}" has no console "{shown(alias or "")}"; it has: {has}')
    if not console.supported:
        reason = _REASONS.get(console.type, "which cannot be opened")
        form = _FORMS.get(console.type)
        raise UnsupportedConsole(
            f'console {shown(console.alias)} of guest "{name}" is of type {shown(console.type)}, '
            f"{reason}; make it " + (f'{form}, or type="pty"' if form else 'type="pty"')
        )
    return console


def held_by_another() -> InUse:
    """Return the refusal for a console that another program on the host has open."""
    return InUse(
        "Held by another program on the host (such as virsh console); end that and connect again."
    )


def _parse(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 - from libvirtd, which made it


def _devices(domain: ET.Element) -> dict[str, ET.Element]:
    """Return a guest's consoles by alias, as ``consoles`` orders and names them."""
    found: dict[str, ET.Element] = {}
    for name, device in _named(domain):
        found.setdefault(name, device)
    return found


def _named(domain: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    """Give each of the elements with its alias; a console may have two."""
    for kind in ("console", "serial"):
        for index, device in enumerate(domain.findall(f"devices/{kind}")):
            alias = device.find("alias")
            target = device.find("target")
            serial = index == 0 and target is not None and target.get("type") == "serial"
            name = alias.get("name") if alias is not None else None
            yield name or f"{'serial' if serial else kind}{index}", device


def _address(device: ET.Element, uid: int | None) -> Address | None:
    source = device.find("source")
    if source is None or source.get("mode") != "bind":
        return None
    if device.get("type") == "unix":
        path = source.get("path", "")
        return Address(path=path, uid=uid) if path.startswith("/") else None
    if device.get("type") != "tcp" or source.get("tls") == "yes":
        return None
    protocol = device.find("protocol")
    kind = "raw" if protocol is None else protocol.get("type")
    host, service = source.get("host", ""), source.get("service", "")
    host = LOCAL.get(host, host)
    if kind not in ("raw", "telnet") or not re.fullmatch("[1-9][0-9]{0,4}", service):
        return None
    if int(service) > 65535 or not _is_ip_address(host):
        return None
    return Address(host=host, port=int(service), telnet=kind == "telnet", uid=uid)


def _is_ip_address(host: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        return True
    return False


def _uid(domain: ET.Element) -> int | None:
    """Return the user that QEMU runs as, by the label that libvirt's DAC driver gave it."""
    for label in _labels(domain):
        user = label.partition(":")[0]
        if re.fullmatch(r"\+?[0-9]{1,10}", user):
            return int(user)
        with contextlib.suppress(KeyError, ValueError):
            return pwd.getpwnam(user).pw_uid
    return None


def _labels(domain: ET.Element) -> Iterator[str]:
    for security in domain.findall("seclabel"):
        if security.get("model") == "dac":
            yield security.findtext("label", "")
