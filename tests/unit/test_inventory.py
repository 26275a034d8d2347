"""The inventory's answers, where a real libvirt would have to be slow at the right moment."""

from serial_console import control, guest, inventory
from serial_console.errors import NoSuchGuest


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
