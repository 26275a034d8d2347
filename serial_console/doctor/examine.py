"""Runs the checks, each in a process of its own: one that hangs or dies takes no other with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec

from ..child import fork
from ..errors import ConsoleError, os_reason
from .finding import Finding, refused

Check = Callable[[], Iterable[Finding]]

LIMIT = 5.0
"""Seconds that a check has for its next finding: as long as the supervisor gives libvirt."""
MOST = 60.0
"""Seconds for all that it finds: thousands of guests are listed in it."""
REAPED = 1.0
"""Seconds that a killed check has to end; one that the kernel holds (a dead disk) is left."""

_LINE = 16384


def examine(checks: Mapping[str, Check], limit: float = LIMIT, most: float = MOST) -> list[Finding]:
    """Run checks, all of them side by side.

    Args:
        checks: by name, in the order of their findings.
        limit: seconds that each has for its next finding.
        most: seconds for all of them.

    Returns:
        What they found; of one that failed itself, and of one that was not done in time, a
        ``fail`` of its name behind what it had found until then.
    """
    end = time.monotonic() + most
    patients = [_Patient(name, check) for name, check in checks.items()]
    try:
        while waiting := [one for one in patients if not one.done]:
            now = time.monotonic()
            left = min(min(one.heard + limit, end) for one in waiting) - now
            for one in select.select(waiting, [], [], max(0.0, left))[0]:
                one.read()
            for one in waiting:
                if now >= min(one.heard + limit, end):
                    one.give_up(now - one.heard)
    finally:
        for one in patients:
            one.end()
    return [finding for one in patients for finding in one.findings]


class _Patient:
    """A check that runs in its process."""

    def __init__(self, name: str, check: Check) -> None:
        self._name = name
        self.findings: list[Finding] = []
        self.done = False
        self.heard = time.monotonic()
        self._pid = 0
        try:
            self._pid, self._channel = fork(partial(_run, name, check), "doctor")
        except ConsoleError as error:
            self.findings.append(refused(name, error, "look for what fills the host: ps, free"))
            self.done = True

    def fileno(self) -> int:
        """What is to be watched."""
        return self._channel.fileno()

    def read(self) -> None:
        """Take what it has found."""
        self.heard = time.monotonic()
        try:
            for line in self._channel.receive():
                found = msgspec.json.decode(line, type=Finding | None)
                if found is None:
                    self.done = True
                else:
                    self.findings.append(found)
        except (ConsoleError, msgspec.DecodeError) as error:
            self.findings.append(refused(self._name, error))
            self.done = True
        if self._channel.ended and not self.done:  # killed for want of memory, say
            fix = "see dmesg, run doctor again"
            self.findings.append(Finding(self._name, "fail", "this check was killed", fix))
            self.done = True

    def give_up(self, silent: float) -> None:
        """Wait for it no longer; ``silent``: seconds since its last finding."""
        if not self.done:
            message = f"nothing came of this check for {silent:.1f} s"
            fix = _HANGS.get(self._name, _HUNG)
            self.findings.append(Finding(self._name, "fail", message, fix))
            self.done = True

    def end(self) -> None:
        """Kill it where it still runs, and reap it."""
        if not self._pid:
            return
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        pidfd = os.pidfd_open(self._pid)
        try:
            if select.select([pidfd], [], [], REAPED)[0]:
                os.waitpid(self._pid, 0)
        finally:
            os.close(pidfd)


_HUNG = "look for what hangs: dmesg, or ps -eo pid,stat,wchan:20,args and states of D"
_HANGS = {
    "libvirt": "libvirtd hangs: see journalctl -u libvirtd -u virtqemud, then systemctl restart it",
    "supervisor": "it hangs: see journalctl -u serial-console-supervisor, then restart it; "
    "sessions go on",
}


def _run(name: str, check: Check, channel: socket.socket) -> int:
    """Run a check in this process and write what it finds, each at once."""
    os.dup2(1, 2)  # no library may write between our lines
    channel.setblocking(True)
    findings = iter(_guarded(name, check))
    with contextlib.suppress(OSError):
        for one in findings:
            cut = one._replace(message=one.message[: _LINE // 8], fix=one.fix[: _LINE // 8])
            channel.sendall(msgspec.json.encode(cut) + b"\n")
        channel.sendall(b"null\n")  # that was all
    return 0


def _guarded(name: str, check: Check) -> Iterable[Finding]:
    try:
        yield from check()
    except ModuleNotFoundError as error:
        message = f"the Python package {error.name} is missing, which this check needs"
        yield Finding(name, "fail", message, "install serial-console again")
    except ConsoleError as error:
        yield refused(name, error)
    except OSError as error:
        yield Finding(name, "fail", f"cannot look: {os_reason(error)}", "run it as root")
    except Exception as error:  # noqa: BLE001 - no traceback reaches an operator
        message = f"this check itself failed: {type(error).__name__}"
        yield Finding(name, "fail", message, "report it, with the output of doctor --json")
