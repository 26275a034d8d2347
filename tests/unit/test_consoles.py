"""Which consoles a guest has, by its XML alone."""

from __future__ import annotations

import pytest

from serial_console.consoles import Address, address, consoles, pick
from serial_console.control import GuestInfo
from serial_console.errors import NoSuchConsole, UnsupportedConsole

RUNNING = """<domain><devices>
<serial type='pty'><target port='0'/><alias name='serial0'/></serial>
<serial type='null'><target port='1'/><alias name='serial1'/></serial>
<console type='pty'><target type='serial' port='0'/><alias name='serial0'/></console>
<console type='pty'><target type='virtio' port='1'/><alias name='ua-mine'/></console>
</devices></domain>"""
OFF = RUNNING.replace("<alias name='serial0'/>", "").replace("<alias name='serial1'/>", "")


@pytest.mark.parametrize("xml", [RUNNING, OFF])
def test_the_default_console_first_and_the_same_aliases_whether_it_runs_or_not(xml: str) -> None:
    found = [(one.alias, one.type, one.supported) for one in consoles(xml)]
    assert found == [
        ("serial0", "pty", True),
        ("ua-mine", "pty", True),
        ("serial1", "null", False),
    ]


def guest(xml: str) -> GuestInfo:
    return GuestInfo("web", "u", "running", consoles(xml))


def test_one_is_picked_by_alias_or_the_first() -> None:
    assert pick(guest(RUNNING), None).alias == "serial0"
    assert pick(guest(RUNNING), "ua-mine").alias == "ua-mine"


@pytest.mark.parametrize(
    ("xml", "alias", "error", "says"),
    [
        ("<domain><devices/></domain>", None, NoSuchConsole, "add <serial"),
        (RUNNING, "serial7", NoSuchConsole, "it has: serial0, ua-mine, serial1"),
        (
            RUNNING,
            "serial1",
            UnsupportedConsole,
            "of type null, which discards all output; make it",
        ),
    ],
)
def test_a_refusal_says_what_there_is(
    xml: str, alias: str | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        pick(guest(xml), alias)


def with_serial(device: str, rest: str = "") -> str:
    return f"<domain><devices><serial {device}</serial></devices>{rest}</domain>"


def tcp(source: str, protocol: str = "<protocol type='raw'/>") -> str:
    return with_serial(f"type='tcp'><source mode='bind' {source}/>{protocol}")


@pytest.mark.parametrize(
    ("xml", "where"),
    [
        (tcp("host='127.0.0.1' service='10000' tls='no'"), Address(host="127.0.0.1", port=10000)),
        (tcp("host='10.0.0.5' service='10000'", ""), Address(host="10.0.0.5", port=10000)),
        (tcp("host='0.0.0.0' service='1'"), Address(host="127.0.0.1", port=1)),
        (tcp("service='65535'"), Address(host="127.0.0.1", port=65535)),
        (tcp("host='localhost' service='7'"), Address(host="127.0.0.1", port=7)),
        (tcp("host='::' service='7'"), Address(host="::1", port=7)),
        (
            tcp("host='::1' service='7'", "<protocol type='telnet'/>"),
            Address(host="::1", port=7, telnet=True),
        ),
        (
            with_serial("type='unix'><source mode='bind' path='/a b.sock'/>"),
            Address(path="/a b.sock"),
        ),
        (with_serial("type='unix'><source mode='bind' path='a.sock'/>"), None),
        (with_serial("type='unix'><source mode='bind'/>"), None),
        (with_serial("type='unix'><source mode='connect' path='/a.sock'/>"), None),
        (with_serial("type='unix'><source path='/a.sock'/>"), None),
        (with_serial("type='tcp'><source mode='connect' host='127.0.0.1' service='7'/>"), None),
        (tcp("host='127.0.0.1' service='7' tls='yes'"), None),
        (tcp("host='127.0.0.1' service='7'", "<protocol type='tls'/>"), None),
        (tcp("host='127.0.0.1' service='0'"), None),
        (tcp("host='127.0.0.1' service='65536'"), None),
        (tcp("host='127.0.0.1' service='http'"), None),
        (tcp("host='vm.example' service='7'"), None),
        (tcp("host='127.1' service='7'"), None),
        (tcp("host='fe80::1%lo' service='7'"), None),
        (with_serial("type='udp'><source mode='bind' host='127.0.0.1' service='7'/>"), None),
        (with_serial("type='pty'><source path='/dev/pts/1'/>"), None),
        (with_serial("type='spicevmc'>"), None),
    ],
)
def test_where_it_is_reached_and_that_no_other_is_said_to_be_open(
    xml: str, where: Address | None
) -> None:
    assert address(xml, None) == address(xml, "serial0") == where
    assert address(xml, "serial1") is None
    (console,) = consoles(xml)
    assert console.supported is (where is not None or console.type == "pty")
    if not console.supported:
        with pytest.raises(UnsupportedConsole, match=f"of type {console.type}, .*; make it "):
            pick(guest(xml), None)


@pytest.mark.parametrize(
    ("labels", "uid"),
    [
        ("<seclabel model='dac'><label>+64055:+64055</label></seclabel>", 64055),
        (
            "<seclabel model='apparmor'><label>libvirt-x</label></seclabel>"
            "<seclabel model='dac'><label>root:root</label></seclabel>",
            0,
        ),
        ("<seclabel model='dac'><label>no such user:x</label></seclabel>", None),
        ("<seclabel type='none' model='dac'/>", None),
        ("", None),
    ],
)
def test_who_is_qemu_s_user(labels: str, uid: int | None) -> None:
    where = address(with_serial("type='unix'><source mode='bind' path='/a'/>", labels), None)
    assert where == Address(path="/a", uid=uid)
