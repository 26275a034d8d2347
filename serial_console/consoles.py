"""A guest's consoles: read from its XML, one picked, the refusals that go with it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from .control import ConsoleInfo, GuestInfo
from .errors import InUse, NoSuchConsole, UnsupportedConsole
from .names import shown


def consoles(xml: str) -> list[ConsoleInfo]:
    """List a guest's consoles from its XML; the one that libvirt opens by default stands first.

    A guest that is off has no aliases in its XML: they are made here as libvirt's QEMU driver
    makes them at its start (``serial<i>``, ``console<i>`` by position; the first ``<console>``
    of target type serial is the first ``<serial>`` seen again).
    """
    devices = ET.fromstring(xml).find("devices")  # noqa: S314 - from libvirtd, which made it
    if devices is None:
        return []
    found: dict[str, ConsoleInfo] = {}
    for kind in ("console", "serial"):
        for index, device in enumerate(devices.findall(kind)):
            alias = device.find("alias")
            target = device.find("target")
            serial = index == 0 and target is not None and target.get("type") == "serial"
            name = alias.get("name") if alias is not None else None
            name = name or f"{'serial' if serial else kind}{index}"
            backend = device.get("type", "")
            found.setdefault(name, ConsoleInfo(name, backend, backend == "pty"))
    return list(found.values())


def pick(guest: GuestInfo, alias: str | None) -> ConsoleInfo:
    """Return one console of a guest: the one of that alias, or its first.

    Raises:
        NoSuchConsole: there is none, or none of that alias.
        UnsupportedConsole: libvirt cannot open one of its type.
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
        has = ", ".join(one.alias for one in guest.consoles)
        raise NoSuchConsole(f'guest "{name}" has no console "{shown(alias or "")}"; it has: {has}')
    if not console.supported:
        raise UnsupportedConsole(
            f'console {console.alias} of guest "{name}" is of type {console.type}, '
            "which libvirt does not open; only type pty can be opened"
        )
    return console


def held_by_another() -> InUse:
    """Return the refusal for a console that another program on the host has open."""
    return InUse(
        "Held by another program on the host (such as virsh console); end that and connect again."
    )
