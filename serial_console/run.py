"""``serial-console run``: supervisor, gateway and api as one foreground command.

All three or none: when one dies, the others are ended, and so is all that is left of their
descendants. Relays outlive a killed supervisor; as a child subreaper we inherit and end them.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import psutil

from . import log as logs
from .errors import SetupError, os_reason
from .loop import Loop, Timer
from .reload import Hangup, hangup

READY_TIMEOUT = 20.0
"""Seconds that a service has to print ``ready``."""
STOP_TIMEOUT = 5.0
"""Seconds from SIGTERM to SIGKILL for supervisor and api."""
REST_TIMEOUT = 2.0
"""The same for the gateway and whatever is left, which are told when the supervisor is gone."""
GIVE_UP = 1.0
"""Seconds to wait for what SIGKILL has not ended."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger("run")


@dataclass(frozen=True)
class Service:
    """One of the programs that are run.

    Attributes:
        name: as in the log.
        command: its arguments; it prints ``ready`` on stdout when it serves.
        last: it is told to end after the others have, not with them.
    """

    name: str
    command: Sequence[str]
    last: bool = False


def services(config_path: str | None) -> list[Service]:
    """Return what to run, in order; the gateway ends last, so that browsers are told why."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # -P: never import from the current directory, unless that is where we are from ourselves.
    safe = [] if package in sys.path[:1] else ["-P"]
    config = [] if config_path is None else ["--config", config_path]
    program = [sys.executable, *safe, "-m", "serial_console", *config]
    return [
        Service("supervisor", [*program, "supervisor"]),
        Service("gateway", [*program, "gateway"], last=True),
        Service("api", [*program, "api"]),
    ]


def run(what: Sequence[Service]) -> int:
    """Start services one after the other, print ``ready``, wait, and end them all.

    Returns:
        The exit status: 0 after SIGTERM, SIGINT or the terminal's SIGHUP, 1 when a service failed.

    Raises:
        SetupError: the kernel does not let us adopt orphans.
    """
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SetupError(
            f"cannot become a child subreaper: {os.strerror(ctypes.get_errno())}; "
            "run supervisor, gateway and api one by one"
        )
    runner = _Runner(what)
    try:
        return runner.run()
    finally:
        for process in _descendants():
            _signal(process, signal.SIGKILL)


class _Runner:
    """Callbacks of one loop: starting, then serving, then stopping in two steps."""

    def __init__(self, what: Sequence[Service]) -> None:
        self._waiting = list(what)
        self._running: dict[int, tuple[Service, subprocess.Popen[bytes]]] = {}
        self._starting: subprocess.Popen[bytes] | None = None
        self._deadline: Timer | None = None
        self._read_again = False  # a hangup came that the one that starts would not survive
        self._stopping = False
        self._others_told = False
        self._killing = False
        self._status = 0
        self._hangup = hangup()
        self._loop = Loop()

    def run(self) -> int:
        handled = signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP
        self._loop.on_signals(handled, self._on_signal)
        self._start_next()
        self._loop.run()
        return self._status

    # ---- starting

    def _start_next(self) -> None:
        if not self._waiting:
            log.info("everything serves")
            logs.ready()
            return
        service = self._waiting.pop(0)
        try:
            child = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,  # the terminal's Ctrl-C is for us alone
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            self._fail(f"cannot start the {service.name}: {os_reason(error)}")
            return
        self._running[child.pid] = service, child
        self._starting = child
        output = child.stdout
        if output is not None:
            said = bytearray()
            self._loop.watch(output.fileno(), lambda: self._on_output(service, child, output, said))
        self._deadline = self._loop.after(
            READY_TIMEOUT,
            lambda: self._fail(f"the {service.name} was not ready within {READY_TIMEOUT:.0f} s"),
        )

    def _on_output(
        self, service: Service, child: subprocess.Popen[bytes], output: IO[bytes], said: bytearray
    ) -> None:
        data = os.read(output.fileno(), 4096)
        if not data:
            self._loop.forget(output.fileno())
        if self._starting is not child or self._stopping:
            return
        said += data
        if b"\n" in said:
            if said == b"ready\n":
                self._started()
                self._start_next()
            else:
                self._fail(f"the {service.name} printed something else than 'ready'")

    def _started(self) -> None:
        started, self._starting = self._starting, None
        if self._deadline is not None:
            self._deadline.cancel()
        if started is not None and self._read_again:
            os.kill(started.pid, signal.SIGHUP)
        self._read_again = False

    # ---- serving

    def _on_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP and self._hangup is not Hangup.END:
            if self._hangup is Hangup.RELOAD:
                self._hang_up()
        elif not self._stopping:
            log.info("ending on %s", number.name)
            self._stop()

    def _hang_up(self) -> None:
        """Have the services read the configuration; one that starts may have read it already, but
        takes the signal only when it is ready. Not by Popen, which would take the status of one
        that has just ended, and nobody would be told of its end."""
        self._read_again = self._starting is not None
        for pid, (_, child) in self._running.items():
            if child is not self._starting and not self._stopping:
                os.kill(pid, signal.SIGHUP)

    def _reap(self) -> None:
        """Take the status of every child that has ended, orphans included."""
        while True:
            try:
                # Only looked at: a service's status is for its Popen to take.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                ended = None
                if self._stopping:
                    self._loop.stop()
            if ended is None:
                break
            if ended.si_pid not in self._running:
                os.waitpid(ended.si_pid, 0)
                continue
            service, child = self._running.pop(ended.si_pid)
            self._on_end(service, child.wait(), child is self._starting)
            if child.stdout is not None:
                self._loop.forget(child.stdout.fileno())
                child.stdout.close()
        if self._stopping:
            self._go_on_stopping()

    def _on_end(self, service: Service, status: int, early: bool) -> None:
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        if not self._stopping:
            when = " before it was ready" if early else ""
            self._fail(f"the {service.name} {how}{when}")
        elif status:
            log.warning("the %s %s", service.name, how)

    # ---- stopping

    def _fail(self, why: str) -> None:
        if not self._stopping:
            self._status = 1
            log.error("%s; ending everything", why)
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._started()
        late = {pid for pid, (service, _) in self._running.items() if service.last}
        for process in _children():
            if process.pid not in late:
                _signal(process, signal.SIGTERM)
        self._deadline = self._loop.after(STOP_TIMEOUT, self._kill_first)
        # At once for the case that no child is left at all, whose end would wake us.
        self._loop.after(0.0, self._reap)

    def _kill_first(self) -> None:
        for pid, (service, _) in self._running.items():
            if not service.last:
                self._status = 1
                log.error("the %s did not end within %.0f s", service.name, STOP_TIMEOUT)
                os.kill(pid, signal.SIGKILL)

    def _go_on_stopping(self) -> None:
        if self._killing:
            self._kill_rest()  # those that became our children only now
        if self._others_told or not all(service.last for service, _ in self._running.values()):
            return
        self._others_told = True
        if self._deadline is not None:
            self._deadline.cancel()
        for process in _children():
            _signal(process, signal.SIGTERM)
        self._deadline = self._loop.after(REST_TIMEOUT, self._begin_to_kill)

    def _begin_to_kill(self) -> None:
        self._killing = True
        self._kill_rest()
        self._loop.after(GIVE_UP, self._give_up)

    def _kill_rest(self) -> None:
        for process in _descendants():
            self._status = 1
            log.error("killing pid %d, which did not end", process.pid)
            _signal(process, signal.SIGKILL)

    def _give_up(self) -> None:
        log.error("still there: pid %s", ", ".join(str(one.pid) for one in _descendants()))
        self._status = 1
        self._loop.stop()


def _end_with_parent() -> None:
    """In the child: a SIGKILL of ours still ends it cleanly."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _children() -> list[psutil.Process]:
    return psutil.Process().children()


def _descendants() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [process for process in found if _alive(process)]


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
