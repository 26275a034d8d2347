"""``serial-console attach`` on a real pty and on pipes, with a FAKE supervisor and relay."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from serial_console import control
from serial_console.errors import CloseCode

from .. import fakes, rig


class Attached:
    """A running ``attach``, and the relay's end of it.

    Attributes:
        relay: the console's bytes, from the relay's side.
        terminal: our side of its terminal, or -1.
        before: how that terminal was set.
    """

    def __init__(
        self, directory: str, config: str, supervisor: fakes.FakeSupervisor, terminal: bool
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._supervisor = supervisor
        self._listener = self._stack.enter_context(fakes.relay_socket(f"{directory}/relay.sock"))
        supervisor.relay = f"{directory}/relay.sock"
        supervisor.guests = [fakes.guest("web-1")]
        self._command = [sys.executable, "-m", "serial_console", "--config", config, "attach"]
        self.terminal = self.inner = -1
        if terminal:
            self.terminal, self.inner = os.openpty()
            self._stack.callback(self.hang_up)
            self._stack.callback(os.close, self.inner)
            self.before = termios.tcgetattr(self.inner)

    def start(self, *options: str, stdin: int = subprocess.PIPE) -> None:
        on_terminal = self.inner if self.terminal >= 0 else None
        self.child = subprocess.Popen(
            [*self._command, "web-1", *options],
            stdin=stdin if on_terminal is None else on_terminal,
            stdout=subprocess.PIPE if on_terminal is None else on_terminal,
            stderr=subprocess.PIPE,
        )
        self._stack.callback(self._end)
        self.relay = self._stack.enter_context(self._listener.accept()[0])
        self.relay.settimeout(10)
        self.events = self._supervisor.redeemed[0]
        if self.terminal >= 0:
            self.greeting = self.stderr_line()

    def close(self) -> None:
        self._stack.close()

    def hang_up(self) -> None:
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1

    def stderr_line(self) -> str:
        assert self.child.stderr is not None
        return self.child.stderr.readline().decode()

    def shown(self, count: int) -> bytes:
        """Return so many bytes of what the terminal shows."""
        found = b""
        while len(found) < count:
            assert select.select([self.terminal], [], [], 10)[0], found
            found += os.read(self.terminal, count - len(found))
        return found

    def typed(self, count: int) -> bytes:
        """Return so many bytes of what the relay gets."""
        found = b""
        while len(found) < count:
            data = self.relay.recv(count - len(found))
            assert data
            found += data
        return found

    def end_session(self, code: int, reason: str) -> None:
        """End as a relay does."""
        self.events.sendall(control.encode(control.End(code=code, reason=reason)))
        self.events.shutdown(socket.SHUT_RDWR)
        self.relay.close()

    def ended(self) -> tuple[int, str]:
        """Return exit status and stderr; assert that the terminal is as it was."""
        assert self.child.stderr is not None
        said = self.child.stderr.read().decode()
        status = self.child.wait(timeout=10)
        if self.terminal >= 0:
            assert termios.tcgetattr(self.inner) == self.before
        return status, said

    def _end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def attached(directory: str, config: Path, terminal: bool) -> Iterator[Attached]:
    config.write_text(fakes.config_text(directory, "/nonexistent"))
    with fakes.FakeSupervisor(directory) as supervisor:
        running = Attached(directory, str(config), supervisor, terminal)
        try:
            yield running
        finally:
            running.close()


@pytest.fixture
def tty(run_dir: str, tmp_path: Path) -> Iterator[Attached]:
    with attached(run_dir, tmp_path / "config.toml", terminal=True) as running:
        yield running


@pytest.fixture
def pipe(run_dir: str, tmp_path: Path) -> Iterator[Attached]:
    with attached(run_dir, tmp_path / "config.toml", terminal=False) as running:
        yield running


# ---- on a terminal


def test_bytes_pass_raw_both_ways_and_the_escape_ends_it(tty: Attached) -> None:
    tty.start()
    assert "connected to web-1 (serial0)" in tty.greeting
    assert "^]" in tty.greeting
    every = bytes(range(256)).replace(b"\x1d", b"")
    tty.relay.sendall(every)
    assert tty.shown(255) == every
    os.write(tty.terminal, every)  # Ctrl-C, Ctrl-Q, Ctrl-Z and NUL are data
    assert tty.typed(255) == every
    os.write(tty.terminal, b"a\x1d")  # not alone in a read
    assert tty.typed(2) == b"a\x1d"
    os.write(tty.terminal, b"\x1d")
    assert tty.ended() == (0, "serial-console: ended by the escape key\n")
    assert tty.relay.recv(1) == b""


def test_the_token_is_for_this_user_and_leaves_ctrl_q_alone(tty: Attached) -> None:
    tty.start("--mode", "ro", "--console", "serial0", "--takeover")
    issue = tty._supervisor.last(control.Issue)
    assert (issue.guest, issue.mode, issue.console) == ("web-1", "ro", "serial0")
    assert issue.takeover
    assert issue.user
    assert issue.escape == ""
    assert issue.notices is None
    assert tty._supervisor.last(control.Redeem).events


def test_another_escape_key(tty: Attached) -> None:
    tty.start("--escape", "ctrl-a")
    os.write(tty.terminal, b"\x1d")
    assert tty.typed(1) == b"\x1d"
    os.write(tty.terminal, b"\x01")
    assert tty.ended()[0] == 0


@pytest.mark.parametrize(
    ("code", "status"), [(CloseCode.ENDED, 0), (CloseCode.TAKEN_OVER, 1), (CloseCode.IDLE, 1)]
)
def test_the_reason_of_the_end_is_told(tty: Attached, code: CloseCode, status: int) -> None:
    tty.start()
    tty.relay.sendall(b"last words")
    tty.end_session(code, "The reason.")
    assert tty.shown(10) == b"last words"
    assert tty.ended() == (status, "serial-console: The reason.\n")


def test_a_relay_that_dies_without_a_word(tty: Attached) -> None:
    tty.start()
    tty.events.shutdown(socket.SHUT_RDWR)
    tty.relay.close()
    status, said = tty.ended()
    assert status == 1
    assert "without saying why" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_restores_the_terminal(tty: Attached, number: signal.Signals) -> None:
    tty.start()
    assert rig.eventually(lambda: termios.tcgetattr(tty.inner) != tty.before)
    tty.child.send_signal(number)
    assert tty.ended() == (1, f"serial-console: ended by {number.name}\n")


def test_what_was_typed_for_the_guest_never_reaches_the_shell(tty: Attached) -> None:
    tty.start()
    assert rig.eventually(lambda: termios.tcgetattr(tty.inner) != tty.before)
    tty.child.send_signal(signal.SIGSTOP)
    os.write(tty.terminal, b"reboot\r")
    tty.child.send_signal(signal.SIGTERM)
    tty.child.send_signal(signal.SIGCONT)
    assert tty.ended()[0] == 1
    os.set_blocking(tty.inner, False)
    with pytest.raises(BlockingIOError):
        os.read(tty.inner, 100)


def test_a_flood_of_output_for_a_stopped_terminal_does_not_keep_the_escape(tty: Attached) -> None:
    tty.start()
    tty.relay.setblocking(False)
    sent = 0
    while select.select([], [tty.relay], [], 0.5)[1]:
        sent += tty.relay.send(b"x" * 65536)
    assert sent < 4 << 20  # bounded
    os.write(tty.terminal, b"\x1d")
    assert tty.ended()[0] == 0


def test_the_terminal_that_goes_away_ends_it(tty: Attached) -> None:
    tty.start()
    tty.hang_up()
    assert tty.child.wait(timeout=10) == 1
    assert tty.relay.recv(1) == b""


# ---- on pipes


def test_piped_input_is_data_to_the_last_byte_and_its_answer_is_shown(pipe: Attached) -> None:
    pipe.start()
    assert pipe.child.stdin is not None
    assert pipe.child.stdout is not None
    sent = bytes(range(256)) * 1024
    pipe.child.stdin.write(b"\x1d")
    pipe.child.stdin.flush()
    assert pipe.typed(1) == b"\x1d"  # alone, and yet no escape
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1024)"],
        stdout=pipe.child.stdin,
    )
    got = pipe.typed(len(sent))
    writer.wait()
    pipe.child.stdin.close()
    assert got == sent
    pipe.relay.sendall(b"answer\x00\r\n")
    assert pipe.child.stdout.read() == b"answer\x00\r\n"
    assert pipe.ended() == (0, "")
    issue = pipe._supervisor.last(control.Issue)
    assert (issue.notices, issue.replay) == (False, 0)


def test_piped_input_is_not_given_up_while_the_guest_does_not_take_it(pipe: Attached) -> None:
    pipe.start()
    assert pipe.child.stdin is not None
    assert pipe.child.stdout is not None
    pipe.events.sendall(control.encode(control.HeldEvent(bytes=5)))
    pipe.child.stdin.write(b"hello")
    pipe.child.stdin.close()
    assert pipe.typed(5) == b"hello"
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.child.wait(timeout=1.5)
    pipe.events.sendall(control.encode(control.HeldEvent(bytes=0)))
    assert pipe.ended()[0] == 0


def test_input_from_a_regular_file(pipe: Attached, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"ls\n")
    with open(tmp_path / "input", "rb") as file:
        pipe.start(stdin=file.fileno())
    assert pipe.typed(3) == b"ls\n"
    assert pipe.ended()[0] == 0


def test_a_watcher_without_input_stays(pipe: Attached) -> None:
    pipe.start("--mode", "ro", stdin=subprocess.DEVNULL)
    assert pipe.child.stdout is not None
    with pytest.raises(subprocess.TimeoutExpired):
        pipe.child.wait(timeout=1.5)
    pipe.relay.sendall(b"boot\n")
    assert pipe.child.stdout.read(5) == b"boot\n"
    pipe.end_session(CloseCode.ENDED, "The guest ended.")
    assert pipe.ended() == (0, "serial-console: The guest ended.\n")


def test_a_reader_that_leaves_ends_it(pipe: Attached) -> None:
    pipe.start()
    assert pipe.child.stdout is not None
    pipe.child.stdout.close()
    pipe.relay.sendall(b"more\n")
    status, said = pipe.ended()
    assert status == 1
    assert "Broken pipe" in said
    assert said.count("\n") == 1


def test_a_slow_reader_loses_nothing(pipe: Attached) -> None:
    pipe.start()
    assert pipe.child.stdin is not None
    assert pipe.child.stdout is not None
    data = os.urandom(1 << 20)
    reader = subprocess.Popen(["sha256sum"], stdin=pipe.child.stdout, stdout=subprocess.PIPE)
    pipe.child.stdout.close()
    pipe.relay.sendall(data)
    pipe.end_session(CloseCode.ENDED, "The guest ended.")
    assert pipe.ended()[0] == 0
    assert reader.communicate()[0].split()[0].decode() == hashlib.sha256(data).hexdigest()


# ---- refused


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "gives no answer"),
        (b'{"v":1,"ok":false,"code":"in_use","message":"bob has it"}\n', "bob has it"),
    ],
)
def test_a_refused_token(run_dir: str, tmp_path: Path, raw: bytes, words: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(fakes.config_text(run_dir, "/nonexistent"))
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1")]
        supervisor.raw_redeem = raw
        command = [sys.executable, "-m", "serial_console", "--config", str(config), "attach"]
        for options, said in ((["web-1"], words), (["web-1", "--escape", "q"], "control key")):
            done = subprocess.run(
                [*command, *options], capture_output=True, text=True, check=False, stdin=0
            )
            assert done.returncode == 1
            assert said in done.stderr
            assert done.stderr.count("\n") == 1


def test_who_may_not_redeem_leaves_no_token(run_dir: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(fakes.config_text(run_dir, "/nonexistent"))
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1")]
        os.unlink(fakes.config(run_dir).paths.redeem)
        command = [sys.executable, "-m", "serial_console", "--config", str(config), "attach"]
        done = subprocess.run(
            [*command, "web-1"], capture_output=True, text=True, check=False, stdin=0
        )
        assert done.returncode == 1
        assert "redeem.sock" in done.stderr
        assert supervisor.asked(control.Issue) == 0
