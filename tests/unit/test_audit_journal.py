"""Entries for systemd's journal, by its native protocol."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from serial_console import audit, journal
from serial_console.chain import Head


@pytest.fixture
def journald(run_dir: str) -> Iterator[socket.socket]:
    """What stands in journald's place: a socket of its kind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{run_dir}/socket")
        sock.settimeout(5)
        yield sock
    os.unlink(f"{run_dir}/socket")


def parsed(entry: bytes) -> dict[str, str]:
    """Read an entry as the protocol says."""
    found = {}
    while entry:
        name, value, rest = entry.partition(b"=")
        if b"\n" in name:
            name, _, rest = entry.partition(b"\n")
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        else:
            value, _, rest = rest.partition(b"\n")
        found[name.decode()] = value.decode()
        entry = rest
    return found


def test_an_entry_has_fields_and_no_value_can_forge_one(journald: socket.socket) -> None:
    entries = journal.Journal(journald.getsockname())
    fields = {"guest": "web\nSERIAL_CONSOLE_USER=root\n", "user": "bob", "token": "t1", "n": 3}
    assert entries.send(audit._entry("token_issued", fields, Head(7, "ab")))
    got = parsed(journald.recv(65536))
    assert got.pop("MESSAGE").startswith("token_issued guest=web\N{REPLACEMENT CHARACTER}SERIAL")
    assert got == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "serial-console-audit",
        "SERIAL_CONSOLE_EVENT": "token_issued",
        "SERIAL_CONSOLE_GUEST": "web\nSERIAL_CONSOLE_USER=root\n",
        "SERIAL_CONSOLE_USER": "bob",
        "SERIAL_CONSOLE_TOKEN": "t1",
        "SERIAL_CONSOLE_N": "3",
        "SERIAL_CONSOLE_SEQ": "7",
        "SERIAL_CONSOLE_HASH": "ab",
    }
    entries.close()


def test_nobody_waits_for_a_journal_that_hangs_or_is_gone(journald: socket.socket) -> None:
    entries = journal.Journal(journald.getsockname())
    sent = 0
    while entries.send({"MESSAGE": "x" * 1000}):  # until its queue is full
        sent += 1
    assert sent
    journald.recv(65536)
    assert entries.send({"MESSAGE": "x"})
    entries.close()
    nowhere = journal.Journal("/nonexistent/socket")
    assert not nowhere.send({"MESSAGE": "x"})
    nowhere.close()


def test_the_journal_is_used_where_the_service_manager_gave_it_to_us(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not journal.ours()
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert journal.ours()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    assert journal.ours() == (os.fstat(1).st_ino == status.st_ino + 1)
