"""Logging to stderr: one line an event, the process's role in front."""

from __future__ import annotations

import json
import logging
import sys
import time

from .names import printable


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
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
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                "level": record.levelname.lower(),
                "name": record.name,
                "pid": record.process,
                "message": self.text(record),
            }
        )


def start(level: str, style: str) -> None:
    """Send this process's log to stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error`` (config ``log.level``).
        style: ``text`` or ``json`` (config ``log.format``).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
