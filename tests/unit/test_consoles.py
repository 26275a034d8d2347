"""Which consoles a guest has, by its XML alone."""

from __future__ import annotations

import pytest

from serial_console.consoles import consoles, pick
from serial_console.control import GuestInfo
from serial_console.errors import NoSuchConsole, UnsupportedConsole

RUNNING = """<domain><devices>
<serial type='pty'><target port='0'/><alias name='serial0'/></serial>
<serial type='tcp'><target port='1'/><alias name='serial1'/></serial>
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
        ("serial1", "tcp", False),
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
        (RUNNING, "serial1", UnsupportedConsole, "type tcp"),
    ],
)
def test_a_refusal_says_what_there_is(
    xml: str, alias: str | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        pick(guest(xml), alias)
