"""The inventory's answers, where a real libvirt would have to be slow at the right moment."""

from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

from serial_console import control, guest, inventory
from serial_console.config import Config
from serial_console.errors import LibvirtUnavailable, NoSuchGuest
from serial_console.loop import Loop


def test_each_guest_is_told_as_soon_as_it_is_known(monkeypatch):
    """The supervisor waits for the next line, not for all of hundreds of guests."""
    described = []

    answers = desk_of(monkeypatch, ["z", "gone", "a"], described).answers(
        control.Scan(id=1, after="")
    )
    first = next(answers)
    assert first.guest is not None
    assert (first.guest.name, first.last, described) == ("a", False, ["a"])
    assert [found.guest and found.guest.name for found in answers] == ["z", None]


def test_a_page_asks_of_its_own_guests_alone(monkeypatch):
    """Thousands of guests in dozens of pages would each be asked of dozens of times."""
    described = []
    names = [f"{number:04}{'x' * 196}" for number in range(1000)]
    desk = desk_of(monkeypatch, names[::-1], described)
    listed, after = [], ""
    for page in range(1, 10):
        *found, end = desk.answers(control.Scan(id=page, after=after))
        assert (end.total, end.last) == (1000, True)
        assert described[len(listed) :] == [one.guest.name for one in found]
        listed += [one.guest.name for one in found]
        if not found:
            break
        after = listed[-1]
    assert listed == names
    assert page == 5
    assert [one.total for one in desk.answers(control.Count(id=9))] == [1000]
    assert len(described) == 1000


def desk_of(monkeypatch, names, described):
    """The process's own part on a FAKE libvirt; what it asks of is put into ``described``."""

    def describe(domain):
        described.append(domain.name())
        if domain.name() == "gone":
            raise NoSuchGuest("it went away")
        return control.GuestInfo(name=domain.name(), uuid="", state="running", consoles=[])

    domains = [SimpleNamespace(name=lambda name=name: name) for name in names]
    monkeypatch.setattr(guest, "connect", lambda *_args, **_options: None)
    monkeypatch.setattr(guest, "find_all", lambda _connection: domains)
    monkeypatch.setattr(guest, "describe", describe)
    return inventory._Desk("")


def test_who_lists_guests_again_and_again_keeps_nobody_else_waiting(monkeypatch):
    """A look-up waits for one page at most, however many ask for one."""
    asked, told = [], []
    desk = inventory.Inventory(None, Config())  # nothing here waits
    monkeypatch.setattr(desk, "ask", lambda _question, *callbacks: asked.append(callbacks))

    def listing(name, after=""):
        desk.list_page(
            after,
            lambda found: told.append((name, found)),
            lambda _: told.append((name, None)),
        )

    for name in "abc":
        listing(name)
    assert len(asked) == 1
    asked[0][0](["first"])
    assert told == [("a", ["first"])]  # the others may have to see what it does not have
    assert len(asked) == 2
    listing("d", "another page")
    assert len(asked) == 2
    asked[1][1](LibvirtUnavailable("it has died"))
    assert told[1:] == [("b", None), ("c", None), ("d", None)]
    listing("e")
    asked[2][0](["second"])
    assert told[4:] == [("e", ["second"])]
    assert len(asked) == 3


def test_a_count_of_guests_is_not_kept_when_libvirt_is_gone(monkeypatch):
    """Nor is the next scrape to wait five minutes for another try."""
    asked = []
    desk = inventory.Inventory(None, Config())  # nothing here waits
    monkeypatch.setattr(desk, "ask", lambda _question, *callbacks: asked.append(callbacks))
    desk.count_guests()
    desk.count_guests()
    assert len(asked) == 1, "it is being counted"
    asked[0][1](LibvirtUnavailable("it has not started yet"))
    desk.count_guests()
    desk._asked[7] = inventory._Question(*asked[1])
    desk._on_line(control.encode(control.Found(id=7, guest=None, last=True, total=2)))
    assert desk.guests == 2
    desk.count_guests()
    assert len(asked) == 2, "the count is good for a while"
    desk.list_page("", lambda _: None, lambda _: None)
    asked[2][1](LibvirtUnavailable("it has died"))
    assert desk.guests is None


@pytest.mark.parametrize("heard", [True, False])
def test_libvirt_that_lists_guests_for_long_is_there(monkeypatch, heard):
    """A probe waits behind the listing; who asks meanwhile does not ask libvirt once more."""
    asked, told = [], []
    loop = create_autospec(Loop, instance=True)
    desk = inventory.Inventory(loop, Config())
    monkeypatch.setattr(desk, "ask", lambda _question, *callbacks: asked.append(callbacks))
    desk.probe(told.append)
    desk.probe(told.append)
    assert len(asked) == 1
    if heard:
        desk._on_line(control.encode(control.Found(id=0, guest=None, last=False)))
    seconds, over = loop.after.call_args.args
    over()
    assert (seconds, told) == (inventory.PROBE, [heard, heard])
