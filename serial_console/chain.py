"""The audit file: JSON lines, each bound to the one before it by that one's hash.

::

    {"seq": 7, "prev": "5e88...", "time": "2025-01-31T12:00:00.000Z", ..., "hash": "9f86..."}

``hash`` stands last and is the sha256 of all bytes of the line before ``,"hash"``; ``prev`` is the
``hash`` of the line before. A file begins with an event ``log_opened``, which so names the last
line of the file before it (rotation). So whoever changes, removes, moves or inserts lines has to
write all later ones anew. Half a line, which only a crash or a full disk leaves, is told of by an
event ``log_resumed`` in the next whole one, whose ``prev`` covers it: see Head.after.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SetupError, os_reason
from .times import rfc3339

START = "0" * 64
"""``prev`` of the very first line."""
LINE_MAX = 32768
"""Bytes of a line; longer ones are not ours. See audit.TEXT_MAX."""
TAIL = 1 << 20
"""Bytes at the end of a file in which its last whole line is looked for."""

_END = len(',"hash":""}') + 64

log = logging.getLogger("supervisor")


@dataclass(frozen=True)
class Head:
    """The end of a chain: the last line's number and hash."""

    seq: int = 0
    hash: str = START

    def after(self, half: bytes) -> Head:
        """Return the end of the chain when half a line has followed."""
        return Head(self.seq, hashlib.sha256(self.hash.encode("ascii") + half).hexdigest())


class Chain:
    """Writes the file, alone.

    A line is in the kernel's hands when ``append`` returns: no crash of ours loses it. It is not
    forced to the disk, which would stop every session's supervisor for as long as that takes.

    Args:
        path: the file; made if it is not there, for its owner alone.

    Raises:
        SetupError: it cannot be opened, is no file, or others may write it, or do.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lost = 0  # events since the last line that could be written
        self._stuck = False  # told of in the log
        self._fd = _open(path)
        self.head, self._torn = _end_of(self._fd)
        if not os.fstat(self._fd).st_size:  # rotated while nobody wrote, by logrotate's own rule
            with contextlib.suppress(OSError):
                before = os.open(path + ".1", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                self.head, _ = _end_of(before)
                os.close(before)

    def append(self, event: str, fields: Mapping[str, Any]) -> Head | None:
        """Write one line. Returns what it ends with, or None: it could not be written, which the
        next line that can be tells of."""
        lines = [(event, fields)]
        try:
            self._follow()
            if self._lost or self._torn:
                lines.insert(0, ("log_resumed", {"lost": self._lost, "torn": self._torn}))
            if not os.fstat(self._fd).st_size:
                lines.insert(0, ("log_opened", {}))
            wrote = self._write(lines)
        except OSError as error:
            wrote = False
            self._complain(os_reason(error))
        if not wrote:
            self._lost += 1
            return None
        self._lost, self._stuck = 0, False
        return self.head

    def close(self) -> None:
        """Let another one write it."""
        os.close(self._fd)

    def _follow(self) -> None:
        """Go on in a new file where ours was renamed or removed (logrotate)."""
        with contextlib.suppress(FileNotFoundError):
            now = os.lstat(self._path)
            if os.path.samestat(now, os.fstat(self._fd)):
                return
        try:
            fd = _open(self._path)
        except SetupError as error:  # better in the old file than nowhere
            self._complain(str(error))
            return
        os.close(self._fd)
        self._fd, self._torn = fd, 0

    def _write(self, lines: list[tuple[str, Mapping[str, Any]]]) -> bool:
        """Write lines at once, and keep account of how far that went. Returns whether all are."""
        head = self.head
        pieces = [(b"\n", head, "")] if self._torn else []
        for event, fields in lines:
            line, head = _line(event, fields, head)
            pieces.append((line + b"\n", head, event))
        data = b"".join(piece for piece, _, _ in pieces)
        left = wrote = os.write(self._fd, data)
        for piece, head, event in pieces:
            if left < max(1, len(piece) - 1):
                if left:
                    self.head, self._torn = self.head.after(piece[:left]), left
                break
            self.head, self._torn = head, int(left < len(piece))  # but for its end it is whole
            left -= min(left, len(piece))
            if event == "log_resumed":
                self._lost = 0
        if wrote < len(data):
            self._complain("the disk is full")
        return wrote >= len(data) - 1

    def _complain(self, why: str) -> None:
        if not self._stuck:  # once, however many events are lost
            self._stuck = True
            log.error("the audit log %s cannot be written: %s; sessions go on", self._path, why)


def _line(event: str, fields: Mapping[str, Any], before: Head) -> tuple[bytes, Head]:
    seq = before.seq + 1
    stamp = rfc3339(time.time())
    known = {"seq": seq, "prev": before.hash, "time": stamp, "event": event, **fields}
    text = json.dumps(known, separators=(",", ":")).encode("ascii")[:-1]
    digest = hashlib.sha256(text).hexdigest()
    return text + f',"hash":"{digest}"}}'.encode("ascii"), Head(seq, digest)


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None: it is not a whole line as it was written."""
    text, end = line[:-_END], line[-_END:]
    digest = hashlib.sha256(text).hexdigest()
    if end != f',"hash":"{digest}"}}'.encode("ascii"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(found, dict) and isinstance(found.get("seq"), int)
    return found if known and isinstance(found.get("prev"), str) else None


def _open(path: str) -> int:
    # Not blocking: a FIFO by mistake must not hang us. No symbolic link: nobody else says where to.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise SetupError(
            f"cannot write the audit log {path}: {os_reason(error)}; "
            "make its directory writable for the supervisor, or set log.audit to another file"
        ) from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise SetupError(f"the audit log {path} is not a file; set log.audit to a file")
        if mode & 0o022:
            raise SetupError(
                f"the audit log {path} can be written by others "
                f"(mode {stat.S_IMODE(mode):04o}); run: chmod 640 {path}"
            )
        # Not flock: a forked relay would share that.
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except SetupError:
        os.close(fd)
        raise
    except OSError as error:
        os.close(fd)
        raise SetupError(
            f"the audit log {path} is another supervisor's; set log.audit to another file"
        ) from error
    return fd


def _end_of(fd: int) -> tuple[Head, int]:
    """Return where a file's chain ends, and the bytes of half a line after its last whole one."""
    size = os.fstat(fd).st_size
    lines = os.pread(fd, TAIL, max(0, size - TAIL)).split(b"\n")
    torn = len(lines[-1])
    if not torn:
        lines.pop()
    halves: list[bytes] = []
    head = Head()
    for line in reversed(lines):
        if (known := parsed(line)) is not None:
            head = Head(known["seq"], known["hash"])
            break
        halves.insert(0, line)
    for half in halves:
        head = head.after(half)
    return head, torn
