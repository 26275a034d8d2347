"""``serial-console top``: what it shows, and what it leaves of the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from serial_console import top, views
from serial_console.commands.sessions import SORTS
from serial_console.output import amount

from .. import fakes, rig


def session(id_: str, guest: str = "web", **figures: float) -> views.Session:
    return views.session({**fakes.session(id_, fakes.guest(guest)), **figures})


def rows(*sessions: views.Session) -> list[top.Row]:
    return top.Rates().rows(sessions, 1.0)


# ---- what it shows


def test_rates_are_what_happened_between_two_looks() -> None:
    rates = top.Rates()
    (new,) = rates.rows([session("a", bytes_in=10**9)], 10.0)
    assert (new.rate_in, new.rate_out, new.cpu) == (0, 0, 0)
    later = session("a", bytes_in=10**9 + 50, bytes_out=2004, cpu=0.75)
    one, other = rates.rows([later, session("b")], 12.0)
    assert (one.rate_in, one.rate_out, one.cpu) == (25, 1000, 25)
    assert (other.rate_in, other.rate_out) == (0, 0)


def test_a_rate_is_never_negative() -> None:
    """A new supervisor lists a session with no figures until its relay has told them."""
    rates = top.Rates()
    rates.rows([session("a", bytes_in=700, bytes_out=5_000_000, cpu=9.0)], 0.0)
    (one,) = rates.rows([session("a")], 1.0)
    assert (one.rate_in, one.rate_out, one.cpu) == (0, 0, 0)


def test_the_orders_are_those_of_the_option() -> None:
    assert tuple(top.ORDERS) == SORTS


def test_sorting() -> None:
    rates = top.Rates()
    rates.rows([session(id_) for id_ in "abc"], 0.0)
    found = rates.rows(
        [
            session("a", "y", cpu=0.5, idle=9),
            session("b", "z", bytes_out=999, idle=5),
            session("c", "x", memory=10**9, idle=7),
        ],
        1.0,
    )
    first = {by: top.sort(found, by)[0].session.id for by in SORTS}
    assert first == {"activity": "b", "cpu": "a", "memory": "c", "idle": "b", "guest": "c"}


@pytest.mark.parametrize("width", [20, 79, 80, 100, 132, 300])
@pytest.mark.parametrize("height", [1, 2, 5, 24])
def test_a_picture_fits_the_terminal(width: int, height: int) -> None:
    many = rows(
        *(
            session(f"{number:012x}", "guest-with-a-long-name" * 9, bytes_in=10**12)
            for number in range(30)
        )
    )
    lines = top.frame(many, "activity", width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    if height == 24:
        assert lines[-1].startswith("9 more")
        assert lines[2].startswith("000000000000")


def test_80_columns_have_all_but_the_client() -> None:
    one = session("0123456789ab", "web-1", user="alice", state="reconnecting", client="192.0.2.1:5")
    lines = top.frame(rows(one), "cpu", 80, 24)
    assert lines[1].split() == [
        "ID", "GUEST", "USER", "MODE", "STATE", "IDLE", "IN/S", "OUT/S", "MEM", "CPU%",
    ]  # fmt: skip
    parts = lines[2].split()
    assert parts[:5] == ["0123456789ab", "web-1", "alice", "rw", "reconnec~"]
    assert parts[5:] == ["2s", "0B", "0B", "2.0M", "0"]
    assert "192.0.2.1:5" in top.frame(rows(one), "cpu", 102, 24)[2]


def test_watchers_share_a_relay_and_what_it_uses_counts_once() -> None:
    rates = top.Rates()
    rates.rows([session("a", cpu=1.0), session("b", mode="ro", cpu=1.0)], 1.0)
    shared = [session("a", cpu=1.25), session("b", mode="ro", cpu=1.25)]
    head = top.frame(rates.rows(shared, 2.0), "idle", 100, 24)[0]
    assert head.startswith("2 sessions, by idle")
    assert "memory 2.0M" in head
    assert "cpu 25%" in head


def test_no_name_harms_the_terminal() -> None:
    one = session("a", "g\x1b[2J", user="u\x07\x9b")
    lines = top.frame(rows(one), "cpu", 120, 24, note="no\x1b[2J answer")
    assert not any(char in line for line in lines for char in "\x1b\x07\x9b")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"), (999, "999B"), (1000, "1.0K"), (10188, "9.9K"), (10240, "10K"),
        (1023 * 1024, "1.0M"), (2**21, "2.0M"), (999 * 2**20, "999M"), (5 * 2**40, "5.0T"),
    ],
)  # fmt: skip
def test_amounts_are_short(count: int, text: str) -> None:
    assert amount(count) == text


# ---- the terminal

LEFT = "\x1b[?1049l"


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.terminal, self._other = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self._other)
        self.said = ""
        self.process = subprocess.Popen(
            command,
            stdin=self._other, stdout=self._other, stderr=subprocess.PIPE, text=True,
            preexec_fn=self._control,
        )  # fmt: skip

    def _control(self) -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.terminal, keys)

    def wait(self, text: str, seconds: float = 20.0) -> str:
        """Wait until it has said something since the last time; return what it has said."""
        end = time.monotonic() + seconds
        while text not in self.said:
            left = end - time.monotonic()
            assert left > 0, f"no {text!r} in {self.said!r}"
            if select.select([self.terminal], [], [], left)[0]:
                self.said += os.read(self.terminal, 65536).decode()
        said, self.said = self.said, ""
        return said

    def ended(self) -> int:
        """Return the exit status; the terminal is as it was."""
        status = self.process.wait(20)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        assert termios.tcgetattr(self._other) == self.before
        self.wait(LEFT)
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.terminal)
        os.close(self._other)


class Place:
    """A configuration and its FAKE supervisor."""

    def __init__(self, config: str, supervisor: fakes.FakeSupervisor) -> None:
        self.config = config
        self.supervisor = supervisor
        self.web = fakes.session("0123456789ab", fakes.guest("web-1"))
        supervisor.sessions = [self.web, fakes.session("s-2", fakes.guest("db"))]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "serial_console", "--config", self.config, "top", *arguments]

    def screen(self, *arguments: str) -> contextlib.closing[Screen]:
        return contextlib.closing(Screen(*self.command(*arguments)))


@pytest.fixture
def place(run_dir: str, tmp_path: pathlib.Path) -> Iterator[Place]:
    path = tmp_path / "config.toml"
    path.write_text(fakes.config_text(run_dir, str(tmp_path / "api-keys")))
    with fakes.FakeSupervisor(run_dir) as supervisor:
        yield Place(str(path), supervisor)


def test_it_goes_on_sorts_and_quits(place: Place) -> None:
    with place.screen("--interval", "0.1", "--sort", "guest") as screen:
        first = screen.wait("ends a session")
        assert "\x1b[?1049h" in first
        assert first.index("db") < first.index("web-1")
        place.web["bytes_out"] += 5_000_000
        assert "5.0M" not in first
        screen.wait("M/s")  # in the head
        screen.press(b"s")
        by = screen.wait("by activity")
        assert "by guest" not in by.rpartition("by activity")[2]
        screen.press(b"\x1bOQ")  # F2
        place.supervisor.sessions = []
        screen.wait("0 sessions")
        screen.press(b"q")
        assert screen.ended() == 0


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm", "hangup"])
def test_the_terminal_is_as_it_was_however_it_ends(place: Place, how: str) -> None:
    with place.screen() as screen:
        screen.wait("ends a session")
        if how == "ctrl-c":
            screen.press(b"\x03")
        else:
            screen.process.send_signal(signal.SIGTERM if how == "sigterm" else signal.SIGHUP)
        assert screen.ended() == 0


def test_ctrl_z_gives_the_terminal_back_until_fg(place: Place) -> None:
    with contextlib.closing(Screen("sh", "-c", "exec sh -i 2>&1")) as shell:
        shell.press(shlex.join(place.command("--interval", "3600")).encode() + b"\n")
        shell.wait("ends a session")
        drawing = termios.tcgetattr(shell.terminal)
        shell.press(b"\x1a")
        said = shell.wait("Stopped")
        assert said.index(LEFT) < said.index("Stopped")
        assert termios.tcgetattr(shell.terminal) == shell.before != drawing
        shell.press(b"bg\n")  # it may draw in the foreground alone
        said = ""
        while "(tty output)" not in said:
            shell.press(b"jobs; echo to''ld\n")
            said = shell.wait("told")
            assert "\x1b[?1049h" not in said
        shell.press(b"fg\n")
        said = shell.wait("ends a session")
        assert "\x1b[?1049h" in said
        assert said.index("\x1b[?1049h") < said.index("web-1")
        assert termios.tcgetattr(shell.terminal) == drawing
        shell.press(b"q")
        shell.wait(LEFT)
        assert termios.tcgetattr(shell.terminal) == shell.before
        shell.press(b"exit\n")
        assert shell.process.wait(20) == 0


def test_ctrl_z_where_no_shell_could_go_on(place: Place) -> None:
    with place.screen("--interval", "3600") as screen:
        screen.wait("ends a session")
        screen.press(b"\x1a")
        said = screen.wait("ends a session")
        assert said.index(LEFT) < said.index("\x1b[?1049h")
        screen.press(b"q")
        assert screen.ended() == 0


def test_a_new_size_is_drawn_at_once(place: Place) -> None:
    with place.screen("--interval", "3600") as screen:
        assert "192.0.2.1" not in screen.wait("ends a session")
        screen.resize(24, 120)
        screen.wait("192.0.2.1")
        screen.press(b"q")
        assert screen.ended() == 0


def test_a_supervisor_that_goes_and_comes_back(place: Place) -> None:
    with place.screen("--interval", "0.1") as screen:
        screen.wait("web-1")
        place.supervisor.raw = b""
        said = screen.wait("the supervisor gives no answer")
        assert "web-1" in said
        place.supervisor.raw = None
        assert rig.eventually(lambda: screen.wait("ends a session") != "")
        screen.press(b"q")
        assert screen.ended() == 0


def test_without_a_terminal_one_picture_and_no_sequence(place: Place) -> None:
    command = [sys.executable, "-m", "serial_console", "--config", place.config, "top"]
    done = subprocess.run(
        [*command, "--interval", "0.1"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    head, titles, *sessions = done.stdout.splitlines()
    assert head.startswith("2 sessions, by activity")
    assert titles.startswith("ID")
    assert len(sessions) == 2
    assert "\x1b" not in done.stdout


def test_without_a_supervisor_one_sentence(run_dir: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(fakes.config_text(run_dir, "none"))
    command = [sys.executable, "-m", "serial_console", "--config", str(path), "top"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot reach the supervisor" in done.stderr
