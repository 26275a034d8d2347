"""``serial-console run`` with small programs in the place of its services."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serial_console import run
from serial_console.reload import Hangup

from .. import clients, rig

SERVE = """
import signal, sys
def told(*_):
    sys.stderr.write(f"{NAME} told\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
while True:
    signal.pause()
"""
# It reads again what it is told, and ends then, which ends all.
RELOADS = """
import signal, sys
def told(*_):
    sys.stderr.write(f"{NAME} reads again\\n")
    sys.exit(0)
signal.signal(signal.SIGHUP, told)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
# It starts when DIRECTORY/go is written to; before that, a signal ends it.
LATE = f"""
open(f"{{DIRECTORY}}/go").read()
{RELOADS}
"""
AGAIN = """
import signal, sys
def told(*_):
    sys.stderr.write(f"{NAME} reads again\\n")
    sys.stderr.flush()
signal.signal(signal.SIGHUP, told)
print("ready", flush=True)
while True:
    signal.pause()
"""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
# Like a supervisor: with a child that outlives it, which in turn has one.
PARENT = """
import os, signal, sys
if os.fork() == 0:
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(f"{DIRECTORY}/{os.getpid()}", "w").close()
    while True:
        signal.pause()
while len(os.listdir(DIRECTORY)) < 2:
    os.sched_yield()
"""
HARNESS = """
import sys
from serial_console import log, run
run.STOP_TIMEOUT = run.REST_TIMEOUT = 0.5
run.READY_TIMEOUT = float(sys.argv[1])
log.start("info", "text")
what = [
    run.Service(name, [sys.executable, "-S", "-c", code], last=name == "gateway")
    for name, code in zip(("supervisor", "gateway", "api"), sys.argv[2:])
]
sys.exit(run.run(what))
"""


class Running:
    """``run`` in a process of its own."""

    def __init__(self, *codes: str, directory: str = "", ready: float = 20) -> None:
        named = [
            f"NAME = {name!r}; DIRECTORY = {directory!r}\n{code}"
            for name, code in zip(("supervisor", "gateway", "api"), codes, strict=True)
        ]
        self.child = subprocess.Popen(
            [sys.executable, "-c", HARNESS, str(ready), *named],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n"

    def service(self, name: str) -> psutil.Process:
        (found,) = [
            process
            for process in psutil.Process(self.child.pid).children()
            if f"NAME = {name!r}" in " ".join(process.cmdline())
        ]
        return found

    def logged_until(self, *words: str) -> str:
        """Return the log up to where all of the words have been in it, or its end."""
        assert self.child.stderr is not None
        said = ""
        while not all(word in said for word in words) and (line := self.child.stderr.readline()):
            said += line
        return said

    def ended(self) -> tuple[int, str]:
        """Return exit status and log; assert that nothing more was printed on stdout."""
        output, said = self.child.communicate(timeout=15)
        assert output == ""
        return self.child.returncode, said

    def close(self) -> None:
        if self.child.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(self.child.pid).children(recursive=True):
                    process.kill()
            self.child.kill()
            self.child.communicate()


@pytest.fixture
def start() -> Iterator[list[Running]]:
    running: list[Running] = []
    yield running
    for one in running:
        one.close()


def begin(start: list[Running], *codes: str, directory: str = "", ready: float = 20) -> Running:
    running = Running(*codes, directory=directory, ready=ready)
    start.append(running)
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_and_the_gateway_last(
    start: list[Running], number: signal.Signals
) -> None:
    running = begin(start, SERVE, SERVE, SERVE)
    running.wait_ready()
    running.child.send_signal(number)
    status, said = running.ended()
    assert status == 0
    told = [line for line in said.splitlines() if line.endswith(" told")]
    assert sorted(told) == ["api told", "gateway told", "supervisor told"]
    assert told[-1] == "gateway told"


def test_a_terminal_that_is_closed_ends_all() -> None:
    codes = [f"NAME = {name!r}\n{SERVE}" for name in ("supervisor", "gateway", "api")]
    with clients.Pty([sys.executable, "-c", HARNESS, "20", *codes]) as terminal:
        terminal.read_until(b"everything serves")
        terminal.process.send_signal(signal.SIGHUP)  # as the kernel does
        assert terminal.wait() == 0


def test_without_a_terminal_a_hangup_is_for_the_services(start: list[Running]) -> None:
    running = begin(start, *3 * [RELOADS])
    running.wait_ready()
    running.child.send_signal(signal.SIGHUP)
    _, said = running.ended()
    told = sorted(line for line in said.splitlines() if line.endswith(" again"))
    assert told == ["api reads again", "gateway reads again", "supervisor reads again"]


def test_a_hangup_waits_for_a_service_that_starts(start: list[Running], tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    running = begin(start, AGAIN, AGAIN, LATE, directory=str(tmp_path))
    with open(go, "w"):  # the api waits for its end
        running.child.send_signal(signal.SIGHUP)
        said = running.logged_until("supervisor reads again", "gateway reads again")
        assert "ending everything" not in said
    running.wait_ready()
    _, said = running.ended()
    assert "api reads again" in said
    assert "the api ended with status 0" in said


def test_a_hangup_takes_no_status_of_a_service_that_has_just_ended() -> None:
    """Its end is told by SIGCHLD, which may be looked at after SIGHUP."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    runner = run._Runner([])
    runner._hangup = Hangup.RELOAD
    runner._running[ended.pid] = run.Service("api", []), ended
    runner._on_signal(signal.SIGHUP)
    try:
        assert os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    finally:
        runner._loop._selector.close()
        ended.wait()


def test_ctrl_c_of_the_terminal_reaches_only_run_itself(start: list[Running]) -> None:
    running = begin(start, SERVE, SERVE, SERVE)
    running.wait_ready()
    groups = {os.getpgid(running.service(name).pid) for name in ("supervisor", "gateway", "api")}
    assert os.getpgid(running.child.pid) not in groups
    os.killpg(running.child.pid, signal.SIGINT)
    assert running.ended()[0] == 0


@pytest.mark.parametrize("name", ["supervisor", "gateway", "api"])
def test_when_one_dies_the_others_are_ended(start: list[Running], name: str) -> None:
    running = begin(start, SERVE, SERVE, SERVE)
    running.wait_ready()
    running.service(name).kill()
    status, said = running.ended()
    assert status == 1
    assert f"the {name} was killed by SIGKILL; ending everything" in said
    assert said.count(" told") == 2


def test_relays_of_a_killed_supervisor_are_ended(start: list[Running], tmp_path: Path) -> None:
    running = begin(start, PARENT + SERVE, SERVE, SERVE, directory=str(tmp_path))
    running.wait_ready()
    orphans = [int(name) for name in os.listdir(tmp_path)]
    assert len(orphans) == 2
    running.service("supervisor").kill()
    assert running.ended()[0] == 1
    assert not any(psutil.pid_exists(pid) for pid in orphans)


def test_what_does_not_end_is_killed(start: list[Running], tmp_path: Path) -> None:
    running = begin(start, PARENT + STUBBORN, STUBBORN, SERVE, directory=str(tmp_path))
    running.wait_ready()
    left = psutil.Process(running.child.pid).children(recursive=True)
    running.child.terminate()
    status, said = running.ended()
    assert status == 1
    assert "the supervisor did not end within" in said
    assert not any(process.is_running() for process in left)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "the gateway ended with status 3 before it was ready"),
        ("print('hello', flush=True)\nwhile True: input()", "something else than 'ready'"),
        ("print('hello', flush=True)", "the gateway"),
    ],
)
def test_one_that_does_not_start_ends_all(start: list[Running], code: str, words: str) -> None:
    running = begin(start, SERVE, code, SERVE)
    status, said = running.ended()
    assert status == 1
    assert words in said
    assert "supervisor told" in said
    assert "api" not in said


def test_one_that_is_never_ready_ends_all(start: list[Running]) -> None:
    running = begin(start, SERVE, "import signal; signal.pause()", SERVE, ready=0.5)
    status, said = running.ended()
    assert status == 1
    assert "the gateway was not ready within" in said


def test_a_program_that_cannot_be_started() -> None:
    code = (
        "import sys; from serial_console import log, run; log.start('info', 'text')\n"
        "sys.exit(run.run([run.Service('supervisor', ['/nonexistent'])]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot start the supervisor: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kill_of_run_itself_still_ends_the_services(start: list[Running]) -> None:
    running = begin(start, SERVE, SERVE, SERVE)
    running.wait_ready()
    services = [running.service(name) for name in ("supervisor", "gateway", "api")]
    running.child.kill()
    running.child.communicate()
    assert rig.eventually(lambda: not any(map(_lives, services)))


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_services_are_started_with_the_same_configuration() -> None:
    what = run.services("/etc/x.toml")
    assert [one.name for one in what] == ["supervisor", "gateway", "api"]
    for one in what:
        assert one.command[0] == sys.executable
        assert list(one.command[-3:]) == ["--config", "/etc/x.toml", one.name]
