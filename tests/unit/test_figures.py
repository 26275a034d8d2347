"""Asking relays for figures: who is asked, and that nobody is waited for without end."""

from __future__ import annotations

from unittest.mock import Mock, create_autospec

import pytest

from serial_console import figures
from serial_console.child import Child
from serial_console.control import Query, encode
from serial_console.loop import Loop
from serial_console.sessions import Relay, Session


@pytest.fixture
def loop() -> Mock:
    made: Mock = create_autospec(Loop, instance=True)
    return made


def relay(id_: str, *, ready: bool = True, sessions: int = 1) -> Relay:
    made = Relay(id_, "web", "u", "serial0", "/p", ready=ready)
    made.child = create_autospec(Child, instance=True)
    made.sessions = {str(number): create_autospec(Session) for number in range(sessions)}
    return made


def test_goes_on_when_all_that_have_sessions_have_told(loop: Mock) -> None:
    relays = {"a": relay("a"), "b": relay("b"), "c": relay("c", sessions=0)}
    relays["d"] = relay("d", ready=False)
    asking, then = figures.Figures(loop, relays), Mock()
    asking.bring(then)
    told = [id_ for id_, one in relays.items() if one.child.send.mock_calls]
    assert told == ["a", "b"]
    relays["a"].child.send.assert_called_once_with(encode(Query()))
    asking.reported(relays["c"])
    asking.reported(relays["a"])
    asking.reported(relays["a"])
    then.assert_not_called()
    asking.reported(relays["b"])
    asking.reported(relays["b"])
    then.assert_called_once_with()
    assert loop.after.return_value.cancel.called


def test_a_thousand_are_asked_a_few_at_a_time(loop: Mock) -> None:
    relays = {f"{number:03}": relay(f"{number:03}") for number in range(2 * figures.BATCH + 1)}
    asking, then = figures.Figures(loop, relays), Mock()
    asking.bring(then)

    def asked() -> int:
        return sum(bool(one.child.send.mock_calls) for one in relays.values())  # type: ignore[attr-defined]

    assert asked() == figures.BATCH
    assert loop.after.call_args.args[0] == 0.0
    gone = relays.pop("020")
    asking.reported(gone)
    loop.after.call_args.args[1]()
    assert asked() == 2 * figures.BATCH - 1
    loop.after.call_args.args[1]()
    assert asked() == 2 * figures.BATCH
    assert loop.after.call_args.args[0] == figures.PATIENCE
    for one in relays.values():
        then.assert_not_called()
        asking.reported(one)
    then.assert_called_once_with()


def test_nobody_to_ask(loop: Mock) -> None:
    then = Mock()
    figures.Figures(loop, {"c": relay("c", sessions=0)}).bring(then)
    then.assert_called_once_with()


def test_goes_on_without_one_that_does_not_answer(loop: Mock) -> None:
    silent, then = relay("a"), Mock()
    asking = figures.Figures(loop, {"a": silent})
    asking.bring(then)
    seconds, enough = loop.after.call_args.args
    assert seconds == figures.PATIENCE
    then.assert_not_called()
    enough()
    asking.reported(silent)  # too late
    then.assert_called_once_with()
