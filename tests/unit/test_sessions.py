"""The session table: what is refused before a token is burnt."""

from __future__ import annotations

import dataclasses

import pytest

from serial_console.config import Limits
from serial_console.control import After, Resume, SessionInfo
from serial_console.errors import BadToken, ConsoleError, InUse, LimitReached, NoSuchSession
from serial_console.sessions import Relay, Session, SessionTable, ended_at
from serial_console.tokens import Grant

GRANT = Grant(
    id="t", guest="web", uuid="u", alias=None, console="serial0", mode="rw", user="bob",
    takeover=False, notices=True, replay=0, escape="", client_address=None,
    resume=0, expires_at=0.0,
)  # fmt: skip


def table(*held: tuple[str, str, str], **limits: int) -> SessionTable:
    """A table with sessions of (user, console, mode)."""
    made = SessionTable(Limits(**limits))
    for number, (user, console, mode) in enumerate(held):
        info = SessionInfo(
            id=f"s{number}", guest="web", uuid="u", console=console, mode=mode, user=user,
            client="", opened_at=0.0, gateway_pid=1, gateway_uid=0, token_id=f"t{number}",
        )  # fmt: skip
        made.add(Session(info, Relay("r", "web", "u", console, "/p")))
    return made


def refused(by: SessionTable, client: str = "", **changes: object) -> ConsoleError | None:
    try:
        by.check(dataclasses.replace(GRANT, **changes), client)  # type: ignore[arg-type]
    except ConsoleError as error:
        return error
    return None


def test_a_console_in_use_says_by_whom_and_since_when() -> None:
    error = refused(table(("ann", "serial0", "rw")))
    assert isinstance(error, InUse)
    assert str(error).startswith("In use by ann since 00:00 UTC")


@pytest.mark.parametrize(
    ("held", "changes"),
    [
        (("ann", "serial0", "rw"), {"takeover": True}),
        (("ann", "serial0", "rw"), {"mode": "ro"}),
        (("ann", "serial1", "rw"), {}),
        (("ann", "serial0", "ro"), {}),
    ],
)
def test_who_is_not_in_the_way(held: tuple[str, str, str], changes: dict[str, object]) -> None:
    assert refused(table(held), **changes) is None


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        ({"sessions": 2}, {"console": "serial9"}),
        ({"per_user": 1}, {"console": "serial9", "user": "ann"}),
        ({"watchers": 1}, {"mode": "ro"}),
    ],
)
def test_limits(limits: dict[str, int], changes: dict[str, object]) -> None:
    held = ("ann", "serial0", "rw"), ("eve", "serial0", "ro")
    assert isinstance(refused(table(*held, **limits), **changes), LimitReached)
    more = {name: value + 1 for name, value in limits.items()}
    assert refused(table(*held, **more), **changes) is None


def test_a_takeover_needs_no_room_but_that_of_whom_it_ends() -> None:
    held = ("ann", "serial0", "rw"), ("ann", "serial0", "ro")
    takeover: dict[str, object] = {"user": "ann", "takeover": True}
    for limits in {"sessions": 2}, {"per_user": 2}:
        assert refused(table(*held, **limits), **takeover) is None
        elsewhere = refused(table(*held, **limits), **takeover, console="serial1")
        assert isinstance(elsewhere, LimitReached)
    assert isinstance(refused(table(*held, per_user=1), **takeover), LimitReached)


def test_the_holder_of_a_used_token_finds_the_session_from_the_right_address_only() -> None:
    made = table(("ann", "serial0", "rw"), ("bob", "serial1", "rw"))
    back = made.get("s1")
    back.info.resume = Resume(seconds=30, digest="d", client_address="192.0.2.7")
    assert made.resumable("d", "192.0.2.7:4000") is back
    assert made.resumable("other", "192.0.2.7:4000") is None
    with pytest.raises(BadToken):
        made.resumable("d", "192.0.2.8:4000")
    back.info.resume.client_address = None
    assert made.resumable("d", "") is back
    made.remove(back)
    assert made.resumable("d", "192.0.2.7:4000") is None


@pytest.mark.parametrize(
    ("client", "address", "good"),
    [
        ("192.0.2.7:4000", "192.0.2.7", True),
        ("[2001:db8::7]:4000", "2001:DB8:0::7", True),
        ("[::ffff:192.0.2.7]:4000", "192.0.2.7", True),
        ("192.0.2.70:4000", "192.0.2.7", False),
        ("", "192.0.2.7", False),  # a stock websockify tells no address
        ("local", "192.0.2.7", False),
    ],
)
def test_a_token_for_one_address(client: str, address: str, good: bool) -> None:
    error = refused(table(), client, client_address=address)
    assert error is None if good else isinstance(error, BadToken)


def test_sessions_are_found_by_id_and_by_token_until_they_are_removed() -> None:
    made = table(("ann", "serial0", "rw"))
    session = made.get("s0")
    assert made.of_token("t0") is session
    made.remove(session)
    made.remove(session)
    assert made.of_token("t0") is None
    with pytest.raises(NoSuchSession):
        made.get("s0")


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        ({}, True),
        ({"user": "ann"}, False),
        ({"user": ""}, False),
        ({"key": "other"}, False),
        ({"console": "serial1"}, False),
        ({"uuid": "v"}, False),
        ({"mode": "ro"}, False),
    ],
)
def test_whose_session_it_was(changes: dict[str, object], own: bool) -> None:
    by = table(("bob", "serial0", "rw"), sessions=1, per_user=1)
    grant = dataclasses.replace(GRANT, **changes)  # type: ignore[arg-type]
    assert by.own(grant, "s0") == ("s0" if own else "")
    assert by.own(grant, "s1") == ""
    if own:
        by.check(grant, "", "s0")  # nor does it need room
        assert isinstance(refused(by), InUse)


def test_a_watcher_replaces_nobody() -> None:
    assert table(("bob", "serial0", "ro")).own(GRANT, "s0") == ""


@pytest.mark.parametrize(
    ("text", "position"),
    [("0123456789abcdef.0123456789ab.17", 17), ("0123456789abcdef.0123456789ab", None)],
)
def test_where_a_client_s_output_ended(text: str, position: int | None) -> None:
    assert ended_at(text) == After("0123456789abcdef", "0123456789ab", position)


@pytest.mark.parametrize("more", [".", ".-1", ".1.1", ".x", "." + "1" * 19, ".1\n", ".\u0661"])
def test_what_is_written_otherwise_is_nothing(more: str) -> None:
    assert ended_at("0123456789abcdef.0123456789ab" + more) is None
