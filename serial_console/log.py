"""Logging to stderr: one line an event, the process's role in front."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select

from .names import printable
from .times import rfc3339


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


def ready() -> None:
    """Print the line that tells a service's starter that it serves, if that can be told."""
    with contextlib.suppress(OSError):
        os.write(1, b"ready\n")


def start(level: str, style: str) -> None:
    """Send this process's log to stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error`` (config ``log.level``).
        style: ``text`` or ``json`` (config ``log.format``).
    """
    handler = _Stderr()
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
