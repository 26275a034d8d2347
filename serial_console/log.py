"""Logging: one line an event, to stderr with the process's role in front, or to systemd's journal.

``docs/monitoring.md`` lists the fields that a line has beside its text: they are for programs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
from collections.abc import Mapping
from typing import Any

from . import journal
from .names import printable, shortened
from .times import rfc3339

VALUE_MAX = 256
"""Characters of a field that others choose; what is longer is cut."""
_PRIORITIES = {"DEBUG": "7", "INFO": "6", "WARNING": "4", "ERROR": "3", "CRITICAL": "2"}
"""syslog(3)'s, by ours."""


def fields(**values: str | float) -> dict[str, Any]:
    """Return what is to be given to a logging call as ``extra``, so that its line has fields."""
    cut = {
        name: shortened(value, VALUE_MAX) if isinstance(value, str) else value
        for name, value in values.items()
    }
    return {"fields": cut}


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    found: Mapping[str, Any] = record.__dict__.get("fields", {})
    return found


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = rfc3339(record.created, "seconds")
        line = f"{stamp} {record.levelname.lower()} {record.name}[{record.process}]: "
        return line + printable(" ".join(self.text(record).splitlines()))

    def text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += " | " + self.formatException(record.exc_info)
        return message


class _Json(_Text):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": rfc3339(record.created, "seconds"),
                "level": record.levelname.lower(),
                "name": record.name,
                "pid": record.process,
                "message": self.text(record),
                **_fields(record),
            }
        )


PIECE = select.PIPE_BUF
"""Bytes of one write: what a pipe that polls as writable takes without blocking."""
PATIENCE = 100
"""Milliseconds that a line may wait for a reader; once one was lost, the next wait for nothing."""


class _Stderr(logging.Handler):
    """Writes to stderr what can be written: no session ends, or waits, for the sake of a log whose
    disk is full or whose reader hangs. What was lost is told when there is room again."""

    def __init__(self) -> None:
        super().__init__()
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)
        self._lost = 0  # lines
        self._torn = False  # the last line that was written was written in part

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)
            return
        if self._lost:
            about = {"name": "log", "levelname": "WARNING", "levelno": logging.WARNING}
            message = f"{self._lost} lines before this one could not be written"
            lost = logging.makeLogRecord({**about, "msg": message})
            line = f"{self.format(lost)}\n{line}"
        data = f"{line}\n".encode(errors="replace")
        left = self._write(b"\n" + data if self._torn else data)
        self._torn = 0 < left < len(data) or (self._torn and left > 0)
        self._lost = self._lost + 1 if left else 0

    def _write(self, data: bytes) -> int:
        """Write what can be written now; return how many bytes could not."""
        try:
            while data and self._poll.poll(0 if self._lost else PATIENCE):
                data = data[os.write(2, data[:PIECE]) :]
        except OSError:
            pass
        return len(data)


class _Journal(logging.Handler):
    """Sends each line to systemd's journal, with its level and its fields; what that does not take
    goes where it would go without one."""

    def __init__(self, otherwise: logging.Handler) -> None:
        super().__init__()
        self._otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = {
                "MESSAGE": printable(" ".join(_Text().text(record).splitlines())),
                "PRIORITY": _PRIORITIES.get(record.levelname, "6"),
                "SYSLOG_IDENTIFIER": f"serial-console-{record.name}",
            }
            for name, value in _fields(record).items():
                entry[f"SERIAL_CONSOLE_{name.upper()}"] = str(value)
            # A socket an entry: a relay closes all descriptors that it has from its parent.
            with contextlib.closing(journal.Journal()) as socket:
                sent = socket.send(entry)
        except OSError:
            sent = False  # no descriptor is left
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)
            return
        if not sent:
            self._otherwise.emit(record)


def ready() -> None:
    """Print the line that tells a service's starter that it serves, if that can be told."""
    with contextlib.suppress(OSError):
        os.write(1, b"ready\n")


def start(level: str, style: str) -> None:
    """Send this process's log to stderr, or to systemd's journal where stderr is that.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error`` (config ``log.level``).
        style: ``text`` or ``json`` (config ``log.format``); the journal has fields of its own.
    """
    handler: logging.Handler = _Stderr()
    handler.setFormatter(_Json() if style == "json" else _Text())
    if journal.ours():
        handler = _Journal(handler)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
