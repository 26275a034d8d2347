"""``serial-console attach``: a console in this shell's terminal, or in a pipe.

On a terminal it is raw and the escape key, alone in a read, ends it. Where stdin is a pipe or file,
every byte of it is data; at its end we wait until the guest has taken it and has said nothing more
for QUIET seconds, so that ``echo reboot | serial-console attach web-1`` shows the answer. A
watcher (``--mode ro``) does not read such a stdin at all. Where stdout is no terminal it gets
the guest's bytes from now on and nothing else: no notices, no recent output.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import selectors
import signal
import socket
import stat
import sys
import termios
import time
import tty
from collections.abc import Iterator

from . import channel, control, names
from .config import Config, escape_byte
from .errors import BadRequest, CloseCode, RelayLost, os_reason

QUIET = 1.0
"""Seconds without output after which a piped input's answer counts as complete."""
BUFFER = 65536
"""Bytes that wait in each direction at most."""
LAST_WORD = 2.0
"""Seconds to wait for the reason after the relay closed the console."""
TIMEOUT = 15.0
"""Seconds for the supervisor to redeem the token."""

# First the end of a sequence that the guest began, in which our own words would be lost. Then
# colours, characters, cursor, mouse, focus, paste and key modes, which it may have left changed.
_RESET = (
    b"\x18\x1b\\\x1b[0m\x1b(B\x0f\x1b[?25h"
    b"\x1b[?9;1000;1002;1003;1004;1005;1006;1015;1016;2004;2026l\x1b[?1l\x1b>"
)
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_EVENTS = control.Decoder(
    control.StateEvent | control.SkippedEvent | control.HeldEvent | control.End
)


def attach(
    config: Config,
    guest: str,
    *,
    mode: control.Mode = "rw",
    console: str | None = None,
    takeover: bool = False,
    escape: str = "^]",
) -> int:
    """Attach this shell to a guest's console until it ends, and say on stderr why it did.

    Args:
        config: where the supervisor is.
        guest: its name or UUID.
        mode: ``rw`` or ``ro``.
        console: the console's alias, or None for the guest's first.
        takeover: take the console from the client that has it.
        escape: the key that ends it, as in the configuration; ``""`` for none.

    Returns:
        The exit status: 0 when the escape key, the input's end or the guest ended it, else 1.

    Raises:
        ConfigError: the escape is no key.
        ConsoleError: the console cannot be had; whatever the supervisor says.
    """
    key = escape_byte(escape)
    to_terminal = os.isatty(1)
    interactive = os.isatty(0)
    with contextlib.ExitStack() as stack:
        # Before there is a token: whoever may not use this socket should not leave one behind.
        events = stack.enter_context(channel.connect(config.paths.redeem, TIMEOUT))
        issued = channel.call(
            config.paths.admin,
            control.Issue(
                guest=guest,
                user=login_name(),
                by=login_name(),
                mode=mode,
                console=console,
                takeover=takeover,
                notices=None if to_terminal else False,
                replay=None if to_terminal else 0,
                escape="",
            ),
        )
        redeem = control.Redeem(token=str(issued.get("token")), client="local", events=True)
        redeemed, lines = channel.ask(events, redeem)
        path = str(redeemed.get("path"))
        data = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            data.connect(path)
        except OSError as error:
            raise RelayLost(
                f"cannot connect to the relay at {path}: {os_reason(error)}; try again"
            ) from error
        wake = stack.enter_context(_signals_as_bytes())
        if interactive:
            stack.enter_context(_raw(0))
            hint = f"the escape key is {escape}" if key else "there is no escape key"
            name = names.shown(str(issued.get("guest")))
            _say(f"connected to {name} ({issued.get('console')}); {hint}\r")
        output = stack.enter_context(_nonblocking(1))
        stdin = 0 if interactive or mode == "rw" else None
        pump = _Pump(data, events, lines, stdin, output, wake, key if interactive else None)
        status, reason = pump.run()
        if to_terminal:
            with contextlib.suppress(OSError):
                os.write(output, _RESET if pump.at_line_start else _RESET + b"\r\n")
    if reason:
        _say(reason)
    return status


def login_name() -> str:
    """Return who is at this terminal: who logged in, else the user of this process."""
    with contextlib.suppress(OSError):
        return os.getlogin()
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return f"uid {os.getuid()}"


class _Pump:
    """Moves bytes both ways until the session ends."""

    def __init__(
        self,
        data: socket.socket,
        events: socket.socket,
        lines: channel.Lines,
        stdin: int | None,
        stdout: int,
        wake: socket.socket,
        escape: bytes | None,
    ) -> None:
        """Take sockets and fds that the caller closes.

        Args:
            data: the console's bytes.
            events: the relay's events, of which ``lines`` may hold the first already.
            lines: the lines of ``events``.
            stdin: what to read, or None for nothing.
            stdout: where to write; best non-blocking.
            wake: gives the number of each signal that came.
            escape: the escape key where ``stdin`` is a terminal (empty: none), else None.
        """
        data.setblocking(False)
        events.setblocking(False)
        self._data: socket.socket | None = data
        self._events: socket.socket | None = events
        self._lines = lines
        self._stdin = stdin
        self._stdout = stdout
        self._wake = wake
        self._escape = escape
        # poll, as epoll refuses regular files
        self._selector = selectors.PollSelector()
        self._to_guest = bytearray()
        self._to_output = bytearray()
        self._held = 0
        self._input_ended = False
        self._end: control.End | None = None
        self._closed_at = 0.0
        self._active = time.monotonic()
        self._result: tuple[int, str] | None = None
        self.at_line_start = True

    def run(self) -> tuple[int, str]:
        """Return the exit status and a sentence for the user, which may be empty."""
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._take_events()
        while self._result is None:
            if self._data is None and not self._to_output:
                if self._end is not None:
                    code, reason = self._end.code, self._end.reason
                    return 0 if code == CloseCode.ENDED else 1, reason
                if self._events is None or time.monotonic() >= self._closed_at + LAST_WORD:
                    return 1, "the relay ended without saying why; see the supervisor's log"
            if self._quiet():
                return 0, ""
            self._step()
        return self._result

    def _step(self) -> None:
        full_in, full_out = len(self._to_guest) >= BUFFER, len(self._to_output) >= BUFFER
        reading, writing = selectors.EVENT_READ, selectors.EVENT_WRITE
        if self._stdin is not None:
            self._want(self._stdin, 0 if full_in or self._input_ended else reading)
        self._want(self._stdout, writing if self._to_output else 0)
        if self._data is not None:
            masks = (0 if full_out else reading) | (writing if self._to_guest else 0)
            self._want(self._data.fileno(), masks)
        if self._events is not None:
            self._want(self._events.fileno(), reading)
        for key, mask in self._selector.select(self._timeout()):
            if self._result is not None:
                return
            if key.fd == self._wake.fileno():
                number = signal.Signals(self._wake.recv(1)[0])
                self._result = 1, f"ended by {number.name}"
            elif key.fd == self._stdin:
                self._read_input(key.fd)
            elif key.fd == self._stdout:
                self._write_output()
            elif self._data is not None and key.fd == self._data.fileno():
                if mask & writing:
                    self._write_data(self._data)
                if mask & reading:
                    self._read_data(self._data)
            elif self._events is not None and key.fd == self._events.fileno():
                self._read_events(self._events)

    def _timeout(self) -> float | None:
        now = time.monotonic()
        if self._data is None:
            return max(0.0, self._closed_at + LAST_WORD - now) if not self._to_output else None
        if self._input_ended and not self._to_guest and not self._held:
            return max(0.0, self._active + QUIET - now)
        return None

    def _quiet(self) -> bool:
        """Whether a piped input has been taken and answered."""
        waiting = self._to_guest or self._to_output or self._held or self._data is None
        since = time.monotonic() - self._active
        return self._input_ended and not waiting and since >= QUIET

    def _read_input(self, fd: int) -> None:
        try:
            typed = os.read(fd, BUFFER)
        except OSError:
            typed = b""
        if self._escape is not None:
            if not typed:
                self._result = 1, "the terminal is gone"
            elif typed == self._escape:
                self._result = 0, "ended by the escape key"
        self._input_ended = not typed
        self._active = time.monotonic()
        if self._data is not None:
            self._to_guest += typed

    def _write_data(self, data: socket.socket) -> None:
        try:
            del self._to_guest[: data.send(self._to_guest)]
            self._active = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:  # the relay has closed; what it still said is there to be read
            self._to_guest.clear()

    def _read_data(self, data: socket.socket) -> None:
        try:
            said = data.recv(BUFFER)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._active = time.monotonic()
        self._to_output += said
        if not said:
            self._want(data.fileno(), 0)
            self._data = None
            self._to_guest.clear()
            self._closed_at = time.monotonic()

    def _write_output(self) -> None:
        # Where the fd had to stay blocking, poll promises room for this much at least.
        piece = self._to_output[: select.PIPE_BUF]
        try:
            count = os.write(self._stdout, piece)
        except BlockingIOError:
            return
        except OSError as error:
            self._result = 1, f"cannot write the output: {os_reason(error)}"
            return
        self.at_line_start = self._to_output[count - 1 : count] == b"\n"
        del self._to_output[:count]

    def _read_events(self, events: socket.socket) -> None:
        try:
            told = events.recv(BUFFER)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        self._lines.feed(told)
        self._take_events()
        if not told:
            self._want(events.fileno(), 0)
            self._events = None

    def _take_events(self) -> None:
        with contextlib.suppress(BadRequest):
            while (line := self._lines.next()) is not None:
                with contextlib.suppress(BadRequest):  # an event of a later version
                    event = _EVENTS.decode(line)
                    if isinstance(event, control.HeldEvent):
                        self._held = event.bytes
                    elif isinstance(event, control.End):
                        self._end = event

    def _want(self, fd: int, mask: int) -> None:
        known = self._selector.get_map().get(fd)
        if known is None and mask:
            self._selector.register(fd, mask)
        elif known is not None and not mask:
            self._selector.unregister(fd)
        elif known is not None and known.events != mask:
            self._selector.modify(fd, mask)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Make the terminal raw, and as it was again at the end."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        # What is still unread was typed or pasted for the guest: the shell must not run it.
        with contextlib.suppress(termios.error):
            termios.tcflush(fd, termios.TCIFLUSH)
        # Not TCSADRAIN: a stopped terminal must not keep us.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)


@contextlib.contextmanager
def _signals_as_bytes() -> Iterator[socket.socket]:
    """Have the signals that end us come as bytes on a socket instead."""
    wake, ours = socket.socketpair()
    with wake, ours:
        ours.setblocking(False)
        before = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield wake
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


@contextlib.contextmanager
def _nonblocking(fd: int) -> Iterator[int]:
    """Give a non-blocking fd for the same terminal or pipe.

    It is opened anew: O_NONBLOCK on the fd itself would be seen by the shell and everybody else
    who shares it. Where that is not possible the fd itself has to do.
    """
    kind = os.fstat(fd).st_mode
    again = fd
    if stat.S_ISCHR(kind) or stat.S_ISFIFO(kind):
        with contextlib.suppress(OSError):
            again = os.open(
                f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
    try:
        yield again
    finally:
        if again != fd:
            os.close(again)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"serial-console: {text}\n")
        sys.stderr.flush()
