"""Checks audit files: is every line there, in its place, and as it was written?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from . import channel, control
from .chain import LINE_MAX, START, Head, parsed
from .config import Config
from .errors import AuditBroken, BadRequest, ConsoleError, SetupError, os_reason


def report(config: Config, files: Sequence[str]) -> list[str]:
    """Check audit files; return what there is to say when all is well.

    Args:
        config: the configuration.
        files: oldest first; none for the configuration's. Where the last one is that of a running
            supervisor, it is asked where the chain ends.

    Raises:
        AuditBroken, SetupError: as Check.run().
        BadRequest: there is no file.
    """
    paths = files or [config.log.audit]
    if not paths[0]:
        raise BadRequest("log.audit is not set: there is no audit log; set it, or name a file")
    written = None
    # Before the files are read: what it writes meanwhile is no mistake.
    with contextlib.suppress(ConsoleError, OSError):
        if os.path.samefile(paths[-1], config.log.audit):
            answer = channel.call(config.paths.admin, control.AuditHead())
            written = Head(int(answer["seq"]), str(answer["hash"]))
    check = Check(written)
    check.run(paths)
    end = "as the running supervisor has it" if written else "no supervisor says where it ends"
    return [
        *(f"note: {note}" for note in check.notes),
        f"{check.lines} lines, {check.first} to {check.head.seq}: none altered or missing; {end}",
        f"head {check.head.hash}",
    ]


class Check:
    """Reads audit files as one chain, oldest first.

    Args:
        written: where the running supervisor says that the chain ends, if it could be asked before
            the files are read.

    Attributes:
        lines: how many were read.
        first: the first line's number.
        head: the last line's number and hash.
        notes: what is no break of the chain and worth knowing, a sentence each.
    """

    def __init__(self, written: Head | None = None) -> None:
        self.lines = 0
        self.first = 0
        self.head = Head()
        self.notes: list[str] = []
        self._written = written
        self._torn = ""  # where half a line is, of which the next one has to tell

    def run(self, paths: Sequence[str]) -> None:
        """Read the files.

        Raises:
            AuditBroken: the first thing that is wrong: which file and line, and what.
            SetupError: a file cannot be read.
        """
        for path in paths:
            number = 0
            for number, line in _lines(path):
                self._one(f"{path}, line {number}", line)
            if not number:
                raise AuditBroken(f"{path}: it is empty; lines were removed, or never written")
        written = self._written
        if written is not None and self.head.seq < written.seq:
            raise AuditBroken(
                f"{paths[-1]}: {_missing(self.head.seq + 1, written.seq)} at the end, which the "
                "running supervisor wrote"
            )
        if self._torn and written is None:
            raise AuditBroken(
                f"{self._torn}: half a line at the end; it was cut off, or its supervisor crashed, "
                "which the next one would tell of in the line after it"
            )
        if self._torn:
            self.notes.append(f"{self._torn}: half a line; the next one will tell of it")

    def _one(self, where: str, raw: bytes) -> None:
        line = raw.removesuffix(b"\n")
        known = parsed(line) if raw.endswith(b"\n") else None
        if known is None:
            if len(raw) > LINE_MAX:
                raise AuditBroken(f"{where}: it was altered, or added")
            self._torn = self._torn or where
            whole = parsed(line)  # all but its end
            self.head = Head(whole["seq"], whole["hash"]) if whole else self.head.after(line)
            return
        seq, event = known["seq"], known.get("event")
        if self._torn:
            expected = self.head.seq + 1, self.head.hash
            if event not in ("log_resumed", "log_opened") or (seq, known["prev"]) != expected:
                raise AuditBroken(f"{self._torn}: it was altered, or added")
            self.notes.append(f"{self._torn}: half a line, of a crash or a full disk")
            self._torn = ""
        elif self.lines:
            self._follows(where, seq, known["prev"], event)
        elif event != "log_opened" or (seq == 1) != (known["prev"] == START):
            raise AuditBroken(f"{where}: this is not a log's beginning; lines before it are gone")
        if event == "log_resumed" and known.get("lost"):
            self.notes.append(f"{where}: {known['lost']} events before it could not be written")
        self.lines += 1
        self.first = self.first or seq
        self.head = Head(seq, known["hash"])
        if self._written is not None and seq == self._written.seq and self.head != self._written:
            raise AuditBroken(f"{where}: not what the running supervisor wrote; it was re-made")

    def _follows(self, where: str, seq: int, prev: str, event: object) -> None:
        wanted = self.head.seq + 1
        if seq == 1 and event == "log_opened":
            raise AuditBroken(
                f"{where}: another log begins; the file before it, up to line {self.head.seq}, was "
                "taken away while no supervisor ran"
            )
        if seq > wanted:
            raise AuditBroken(f"{where}: {_missing(wanted, seq - 1)} before it")
        if seq < wanted:
            raise AuditBroken(
                f"{where}: it is number {seq}, where {wanted} should be; "
                "it was moved, added or copied here"
            )
        if prev != self.head.hash:
            raise AuditBroken(f"{where}: it does not follow from the one before; one was altered")


def _missing(first: int, last: int) -> str:
    return f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(LINE_MAX + 1):
                number += 1
                yield number, line
    except OSError as error:
        raise SetupError(f"cannot read the audit log {path}: {os_reason(error)}") from error
