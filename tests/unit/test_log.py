"""The log: its fields, as documented; its levels; and that it reaches the journal whole."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import socket
from collections.abc import Iterator

import pytest

from serial_console import journal, log
from serial_console.audit import Audit
from serial_console.control import SessionInfo
from serial_console.errors import (
    CloseCode,
    ConsoleError,
    InUse,
    LibvirtUnavailable,
    LimitReached,
    RelayLost,
)
from serial_console.sessions import Relay, Session
from serial_console.tally import Tally

from .test_audit_journal import journald, parsed  # noqa: F401 - a fixture

DOCS = pathlib.Path(__file__).parents[2] / "docs"
BASE = {"time", "level", "name", "pid", "message"}


@pytest.fixture
def audit() -> Iterator[Audit]:
    yield Audit("", Tally())
    logging.getLogger("audit").handlers[:] = []


def session(user: str = "ann") -> Session:
    info = SessionInfo(
        id="0123456789ab", guest="web", uuid="u-1", console="serial0", mode="rw", user=user,
        client="192.0.2.1:7", opened_at=0, gateway_pid=1, gateway_uid=0, token_id="t", key="k",
    )  # fmt: skip
    return Session(info, Relay("r", "web", "u-1", "serial0", "/p"))


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What was logged, as ``log.format = "json"`` writes it."""
    return [json.loads(log._Json().format(one)) for one in caplog.records if one.name != "audit"]


def documented() -> set[str]:
    text = (DOCS / "monitoring.md").read_text("utf-8").partition("## The log")[2]
    tables = text.partition("| field |")[2]
    return set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE))


def test_every_field_is_documented_and_every_documented_one_occurs(
    audit: Audit, caplog: pytest.LogCaptureFixture
) -> None:
    one = session()
    with caplog.at_level(logging.DEBUG):
        audit.opened(one, again=False)
        audit.opened(one, again=True)
        audit.refused(InUse("In use by bob."), "192.0.2.1:7", one.info, "t")
        audit.closed(one, CloseCode.ENDED, "The client closed.")
    logged = lines(caplog)
    assert [line["event"] for line in logged] == [
        "session_opened", "session_resumed", "session_refused", "session_closed",
    ]  # fmt: skip
    assert set().union(*logged) == documented()
    assert all(set(line) > BASE for line in logged)
    opened, resumed, refused, closed = logged
    assert opened["session"] == closed["session"] == "0123456789ab"
    assert isinstance(opened["setup_seconds"], float)
    assert "setup_seconds" not in resumed
    assert (refused["code"], refused["error"]) == (4409, "in_use")
    assert (closed["code"], closed["reason"]) == (1000, "The client closed.")
    assert {type(closed[name]) for name in ("bytes_in", "bytes_out", "skipped")} == {int}


@pytest.mark.parametrize(
    ("code", "level"),
    [
        *((code, "info") for code in (1000, 1012, 4404, 4408, 4410, 4411, 4413)),
        (4503, "warning"),
        (4412, "error"),
    ],
)
def test_the_level_of_an_end_is_its_cause_s(
    audit: Audit, caplog: pytest.LogCaptureFixture, code: int, level: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        audit.closed(session(), code, "x")
    assert [line["level"] for line in lines(caplog)] == [level]


def test_sessions_that_end_with_the_service_are_as_asked_for(
    audit: Audit, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        audit.stopping("SIGTERM")
        audit.closed(session(), 4503, "x")
        audit.closed(session(), 4412, "x")
    assert [line["level"] for line in lines(caplog)] == ["info", "info", "error"]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (InUse("x"), "info"),
        (LimitReached("x"), "warning"),
        (LibvirtUnavailable("x"), "warning"),
        (RelayLost("x"), "error"),
    ],
)
def test_the_level_of_a_refusal_is_its_cause_s(
    audit: Audit, caplog: pytest.LogCaptureFixture, error: ConsoleError, level: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        audit.refused(error, "c", session().info, "t")
    assert [line["level"] for line in lines(caplog)] == [level]


def test_values_from_outside_stay_values(audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        audit.opened(session('x"}\n{"level":"error' + "y" * 5000), again=False)
    (line,) = lines(caplog)
    assert line["level"] == "info"
    user = str(line["user"])
    assert user.startswith('x"}\n{')
    assert len(user) == log.VALUE_MAX
    assert "\n" not in log._Json().format(caplog.records[0])


class Kept(logging.Handler):
    """Where lines go that the journal does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def record(level: int = logging.WARNING, text: str = "it\x1b is") -> logging.LogRecord:
    fields = log.fields(event="session_closed", guest="web\nSERIAL_CONSOLE_USER=root", code=4412)
    made = logging.makeLogRecord(
        {"name": "relay", "levelno": level, "levelname": logging.getLevelName(level), "msg": text}
    )
    made.__dict__.update(fields)
    return made


def test_the_journal_gets_level_and_fields(
    journald: socket.socket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = journald.getsockname()
    make = journal.Journal
    monkeypatch.setattr(journal, "Journal", lambda: make(path))
    otherwise = Kept()
    log._Journal(otherwise).emit(record())
    assert parsed(journald.recv(65536)) == {
        "MESSAGE": "it\N{REPLACEMENT CHARACTER} is",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "serial-console-relay",
        "SERIAL_CONSOLE_EVENT": "session_closed",
        "SERIAL_CONSOLE_GUEST": "web\nSERIAL_CONSOLE_USER=root",
        "SERIAL_CONSOLE_CODE": "4412",
    }
    assert otherwise.records == []


def test_what_the_journal_does_not_take_goes_to_stderr(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = journal.Journal
    monkeypatch.setattr(journal, "Journal", lambda: make(os.path.join(run_dir, "none")))
    otherwise, one = Kept(), record()
    log._Journal(otherwise).emit(one)
    assert otherwise.records == [one]
