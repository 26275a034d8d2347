"""The inventory's answers, where a real libvirt would have to be slow at the right moment."""

from serial_console import control, guest, inventory
from serial_console.config import Config
from serial_console.errors import LibvirtUnavailable, NoSuchGuest


def test_each_guest_is_told_as_soon_as_it_is_known(monkeypatch):
    """The supervisor waits for the next line, not for all of hundreds of guests."""
    described = []

    def describe(domain):
        described.append(domain)
        if domain == "gone":
            raise NoSuchGuest("it went away")
        return control.GuestInfo(name=domain, uuid="", state="running", consoles=[])

    monkeypatch.setattr(guest, "connect", lambda *_args, **_options: None)
    monkeypatch.setattr(guest, "find_all", lambda _connection: ["a", "gone", "b"])
    monkeypatch.setattr(guest, "describe", describe)
    answers = inventory._Desk("").answers(control.Scan(id=1))
    first = next(answers)
    assert first.guest is not None
    assert (first.guest.name, first.last, described) == ("a", False, ["a"])
    assert [found.guest and found.guest.name for found in answers] == ["b", None]


def test_who_lists_guests_again_and_again_keeps_nobody_else_waiting(monkeypatch):
    """A look-up waits for one listing at most, however many ask for one."""
    asked, told = [], []
    desk = inventory.Inventory(None, Config())  # nothing here waits
    monkeypatch.setattr(desk, "ask", lambda _question, *callbacks: asked.append(callbacks))

    def listing(name):
        desk.list_all(lambda found: told.append((name, found)), lambda _: told.append((name, None)))

    for name in "abc":
        listing(name)
    assert len(asked) == 1
    asked[0][0](["first"])
    assert told == [("a", ["first"])]  # the others may have to see what it does not have
    assert len(asked) == 2
    listing("d")
    asked[1][1](LibvirtUnavailable("it has died"))
    assert told[1:] == [("b", None), ("c", None), ("d", None)]
    listing("e")
    asked[2][0](["second"])
    assert told[4:] == [("e", ["second"])]
    assert len(asked) == 3
