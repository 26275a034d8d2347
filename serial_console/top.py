"""``serial-console top``: the sessions as they go, on a terminal, by ANSI sequences alone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import channel, control, views
from .errors import ConsoleError
from .names import printable, shown
from .output import amount, say

PATIENCE = 3.0
"""Seconds that the supervisor may take for an answer, before the line at the foot says so."""
FIRST = 1.0
"""Seconds until the second look at most: the first one shows no rates yet."""
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # another screen, no cursor, no wrapping
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HELP = "q quit   s sort   serial-console close ID ends a session"


@dataclass(frozen=True)
class Row:
    """A session, and what it did lately: bytes a second, both ways; percent of one CPU."""

    session: views.Session
    rate_in: float
    rate_out: float
    cpu: float


class Rates:
    """Makes rows from one look at the sessions after the other."""

    def __init__(self) -> None:
        self._before: dict[str, views.Session] = {}
        self._at = 0.0

    def rows(self, sessions: Sequence[views.Session], now: float) -> list[Row]:
        """Return a row for each session; one that is new has done nothing yet.

        Args:
            sessions: as they are.
            now: seconds on a monotonic clock.
        """
        seconds = max(now - self._at, 0.001)
        made = []
        for one in sessions:
            before = self._before.get(one.id, one)
            made.append(
                Row(
                    one,
                    max(0, one.bytes_in - before.bytes_in) / seconds,
                    max(0, one.bytes_out - before.bytes_out) / seconds,
                    max(0.0, one.cpu - before.cpu) / seconds * 100,
                )
            )
        self._before, self._at = {one.id: one for one in sessions}, now
        return made


ORDERS: dict[str, Callable[[Row], tuple[Any, ...]]] = {
    "activity": lambda row: (-row.rate_in - row.rate_out, row.session.idle),
    "cpu": lambda row: (-row.cpu, row.session.idle),
    "memory": lambda row: (-row.session.memory, row.session.idle),
    "idle": lambda row: (row.session.idle, 0),
    "guest": lambda row: (row.session.guest, row.session.console),
}
"""What to sort by, in the order of the key ``s``; ``commands.sessions.SORTS`` are the same."""


def sort(rows: Sequence[Row], by: str) -> list[Row]:
    """Return the rows in the order of a key of ``ORDERS``."""
    return sorted(rows, key=lambda row: (*ORDERS[by](row), row.session.id))


def frame(rows: Sequence[Row], by: str, width: int, height: int, note: str = "") -> list[str]:
    """Return the lines of one picture, none wider and no more than there is room for.

    Args:
        rows: the sessions, sorted.
        by: the sort key.
        width, height: of the terminal.
        note: what is wrong, for the last line.
    """
    memory = {row.session.relay_pid: row.session.memory for row in rows}
    cpu = {row.session.relay_pid: row.cpu for row in rows}
    head = (
        f"{len(rows)} {'session' if len(rows) == 1 else 'sessions'}, by {by}"
        f"   in {amount(sum(row.rate_in for row in rows))}/s"
        f"   out {amount(sum(row.rate_out for row in rows))}/s"
        f"   memory {amount(sum(memory.values()))}   cpu {sum(cpu.values()):.0f}%"
    )
    extra = max(0, width - 79)
    client = min(extra, 22) if extra >= 12 else 0
    guest = 12 + min(extra - client, 24)
    room = max(0, height - 3)
    lines = [head, _line(_TITLES, guest, client)]
    lines += [_line(_cells(row), guest, client) for row in rows[:room]]
    hidden = len(rows) - room
    foot = note or (f"{hidden} more   {_HELP}" if hidden > 0 else _HELP)
    lines.append(printable(foot))
    return [line[:width] for line in lines[:height]]


_TITLES = ("ID", "GUEST", "USER", "MODE", "STATE", "IDLE", "IN/S", "OUT/S", "MEM", "CPU%", "CLIENT")


def _cells(row: Row) -> tuple[str, ...]:
    one = row.session
    return (
        one.id,
        shown(one.guest),
        shown(one.user) or "-",
        one.mode,
        one.state,
        _age(one.idle),
        amount(row.rate_in),
        amount(row.rate_out),
        amount(one.memory) if one.memory else "-",
        f"{row.cpu:.0f}",
        shown(one.client) or "-",
    )


def _line(cells: Sequence[str], guest: int, client: int) -> str:
    widths = (12, guest, 8, 4, 9, 4, 6, 6, 5, 4)
    parts = []
    for number, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        cut = cell if len(cell) <= width else cell[: width - 1] + "~"
        parts.append(cut.rjust(width) if number >= 5 else cut.ljust(width))
    if client:
        parts.append(cells[-1][:client])
    return " ".join(parts)


def _age(seconds: float) -> str:
    for unit, length in (("s", 60), ("m", 60), ("h", 24)):
        if seconds < length:
            return f"{seconds:.0f}{unit}"
        seconds /= length
    return f"{seconds:.0f}d"


def top(admin: str, interval: float, by: str) -> int:
    """Show sessions until ``q`` or Ctrl-C; where stdout is no terminal, once, after one interval.

    Args:
        admin: the path of admin.sock.
        interval: seconds from one picture to the next.
        by: the sort key to begin with.

    Returns:
        The exit status, 0.

    Raises:
        SupervisorUnavailable: it does not answer at the start.
    """
    rates = Rates()
    rows = rates.rows(_sessions(admin), time.monotonic())
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        time.sleep(interval)
        rows = rates.rows(_sessions(admin), time.monotonic())
        for line in frame(sort(rows, by), by, 132, len(rows) + 3)[:-1]:
            say(line.rstrip())
        return 0
    with contextlib.suppress(KeyboardInterrupt), _screen() as wake:
        _watch(admin, interval, by, rates, rows, wake)
    return 0


def _watch(
    admin: str, interval: float, by: str, rates: Rates, rows: Sequence[Row], wake: int
) -> None:
    note = ""
    due = time.monotonic() + min(interval, FIRST)
    while True:
        size = os.get_terminal_size(1)  # not shutil's: $COLUMNS does not change with the window
        _draw(frame(sort(rows, by), by, size.columns or 80, size.lines or 24, note))
        key = _key(max(0.0, due - time.monotonic()), wake)
        if key in ("q", "Q"):
            return
        if key == "s":
            order = list(ORDERS)
            by = order[(order.index(by) + 1) % len(order)]
        elif not key:
            try:
                rows, note = rates.rows(_sessions(admin), time.monotonic()), ""
            except ConsoleError as error:
                note = str(error)
            due = time.monotonic() + interval


def _sessions(admin: str) -> list[views.Session]:
    found = channel.call_all(admin, control.ListSessions(), "sessions", PATIENCE)
    return [views.session(one) for one in found]


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """Have the terminal for pictures; it is as it was afterwards, and while Ctrl-Z stops us. Gives
    the fd that tells of a signal: there may be another size, or another screen to draw on."""
    before = termios.tcgetattr(0)

    def show() -> None:
        tty.setcbreak(0)  # first: in the background it stops us, and we write nothing there
        os.write(1, _ENTER.encode())

    def hide() -> None:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.write(1, _LEAVE.encode())  # last: who sees it finds all as it was

    def stop(*_: object) -> None:
        hide()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # not SIGSTOP: without a shell to go on from, we do
        signal.signal(signal.SIGTSTP, stop)
        show()

    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    old = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    handlers: Mapping[signal.Signals, object] = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt),
        signal.SIGHUP: signal.signal(signal.SIGHUP, _interrupt),
        signal.SIGTSTP: signal.signal(signal.SIGTSTP, stop),
    }
    try:
        show()
        yield read
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(old)
        os.close(read)
        os.close(write)
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            hide()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _draw(lines: Sequence[str]) -> None:
    """Draw over what is there: clearing it first would flicker over a slow line."""
    title = f"\x1b[7m{lines[1]}\x1b[0m" if len(lines) > 1 else ""
    shows = [*lines[:1], title, *lines[2:]] if title else list(lines)
    picture = "\x1b[H" + "\x1b[K\r\n".join(shows) + "\x1b[K\x1b[J"
    data = picture.encode("utf-8", "replace")
    while data:
        data = data[os.write(1, data) :]


def _key(seconds: float, wake: int) -> str:
    """Return the key that is pressed, "" when the time is over, or ``resize``."""
    ready = select.select([0, wake], [], [], seconds)[0]
    if wake in ready:
        os.read(wake, 64)
        return "resize"
    if 0 not in ready:
        return ""
    pressed = os.read(0, 64).decode("latin-1") or "q"  # the terminal is gone
    return pressed if pressed.startswith("\x1b") else pressed[0]  # F2 is ESC O Q
