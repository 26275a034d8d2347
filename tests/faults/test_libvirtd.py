"""libvirtd dies, restarts, is away, hangs: sessions go on, and nothing of ours hangs with it."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from serial_console.demo import host
from serial_console.demo.libvirtd import Guest, PrivateLibvirtd
from tests import rig
from tests.clients import Pty, Terminal
from tests.stack import Json, Stack

LOST = b"connection to libvirt on the host is lost; trying again."
BACK = b"connection to libvirt is back.]"
AWAY = 60.0
"""Seconds that libvirtd is away."""
KEEPALIVE = 25.0, 35.0
"""Seconds after which keepalive gives a connection up: five unanswered messages, 5 s apart."""
RETURN = 3.0
"""Seconds from libvirtd's return to the console's: the longest backoff is 2 s."""
IDLE = 20


class Rig:
    """A libvirtd, services and guests apart from those of the other tests."""

    def __init__(self, directory: str, **sections: dict[str, object]) -> None:
        self._sections = sections
        self._directory = directory
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> "Rig":
        with contextlib.ExitStack() as exits:
            path = exits.enter_context(host.short_directory("sc-rig-"))
            self.libvirtd = exits.enter_context(PrivateLibvirtd(f"{path}/d"))
            self.make_guest = rig.GuestFactory(self.libvirtd)
            run_dir = exits.enter_context(host.short_directory("sc-run-"))
            self.stack = Stack(self.libvirtd.uri, run_dir, self._directory, **self._sections)
            exits.callback(self.stack.close)
            self.stack.start("supervisor", "gateway")
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exits.close()

    def attempts(self) -> int:
        """Return how many times a relay found libvirtd still away."""
        return self.stack.services["supervisor"].logged().count("is still away")


@contextlib.contextmanager
def frozen(libvirtd: PrivateLibvirtd) -> Iterator[float]:
    """libvirtd hangs: it takes what the kernel takes for it, and answers nothing. Gives the time
    since when."""
    libvirtd.freeze()
    try:
        yield time.monotonic()
    finally:
        libvirtd.thaw()


def echoes(terminal: Terminal, data: bytes) -> None:
    """See that what is typed comes back, after whatever else there is."""
    terminal.send(data)
    terminal.read_until(data, seconds=5)


def within(seconds: float, check: Callable[[], object]) -> float:
    """Do something that must not take longer; return how long it took."""
    began = time.monotonic()
    check()
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.1f} s"
    return took


def test_killed_and_restarted_while_output_flows(stack, libvirtd, make_guest):
    """What is lost is what the guest printed while nobody had its pty; the rest is in order."""
    noise = rig.noise()
    talking = [make_guest("echo") for _ in range(2)]
    quiet = make_guest("echo")
    with contextlib.ExitStack() as clients:
        talkers = [clients.enter_context(stack.open(guest.uuid)) for guest in talking]
        typist = clients.enter_context(stack.open(quiet.uuid))
        watcher = clients.enter_context(stack.open(quiet.uuid, mode="ro"))
        echoes(typist, b"before")
        watcher.read_until(b"before")
        for talker in talkers:
            talker.send(b"\x05")
            talker.read_exactly(20000)
        libvirtd.kill()
        for terminal in (*talkers, typist, watcher):
            terminal.read_until(LOST)
        stack.wait_sessions(*4 * ["reconnecting"])
        typist.send(b"held meanwhile")
        libvirtd.start()
        for terminal in (*talkers, typist, watcher):
            terminal.read_until(BACK)
        stack.wait_sessions(*4 * ["connected"])
        typist.read_until(b"held meanwhile")
        watcher.read_until(b"held meanwhile")
        assert typist.rest() == b""
        for talker in talkers:
            talker.read_exactly(20000)
            assert_only_gaps(bytes(talker.output), noise)
    stack.wait_free()


def assert_only_gaps(output: bytes, noise: bytes) -> None:
    """See that output is the beginning of the noise, but for gaps at or after the notices.

    The pty still holds what libvirtd had not read when it died; and QEMU, which looks only once a
    second whether somebody has opened its pty again, drops until then what finds that pty full.
    """
    notices = rb"(?:\r\n)?\x1b\[2m\[The connection to.*is back\.\]\x1b\[22m\r\n"
    before, after = re.split(notices, output, flags=re.DOTALL)
    assert before == noise[: len(before)]
    rest = iter(noise[len(before) :])
    assert all(byte in rest for byte in after), "all of it comes in order, and once"


def test_what_ended_while_libvirtd_was_away_is_told_at_its_return(stack, libvirtd, make_guest):
    defined = make_guest("echo")
    transient = make_guest("echo")
    transient.undefine()
    with stack.open(defined.uuid) as first, stack.open(transient.uuid) as second:
        stack.wait_sessions("connected", "connected")
        libvirtd.kill()
        stack.wait_sessions("reconnecting", "reconnecting")
        defined.kill()
        transient.kill()
        libvirtd.start()
        first.read_until(b"[The guest is off; waiting for its start.]")
        assert second.ended() == (4404, "The guest no longer exists.")
        defined.start()
        first.read_until(b"ready\r\n")
        echoes(first, b"typed")
    stack.wait_free()


@pytest.mark.slow
def test_away_for_a_minute_and_hung_and_a_guest_gone_unheard(tmp_path, stack, make_guest):
    """At the same time, each on a libvirtd of its own, so that the waiting is done once."""
    (tmp_path / "away").mkdir()
    (tmp_path / "hung").mkdir()
    with (
        Rig(str(tmp_path / "away")) as away,
        Rig(str(tmp_path / "hung"), session={"idle_timeout": IDLE}) as hung,
        contextlib.ExitStack() as clients,
    ):
        typist, idler = (
            clients.enter_context(away.stack.open(away.make_guest("echo").uuid)) for _ in range(2)
        )
        echoes(typist, b"before")
        echoes(idler, b"before")
        moved, off = (make_guest("echo", state="off") for _ in range(2))
        left, waiter = (clients.enter_context(stack.open(one.uuid)) for one in (moved, off))
        stack.wait_sessions("waiting", "waiting")
        moved.migrate(away.libvirtd, "--offline", "--persistent", "--undefinesource")
        began = time.monotonic()
        away.libvirtd.stop_daemon()
        for terminal in (typist, idler):
            terminal.read_until(LOST)
        away.stack.wait_sessions("reconnecting", "reconnecting")
        typist.send(b"held, ")

        hang(hung)

        typist.send(b"in order")
        attempts = away.attempts()
        at = time.monotonic()
        rest = max(20.0, began + AWAY - at)  # where the other one took all the time
        assert not rig.eventually(lambda: away.stack.sessions()[0]["state"] != "reconnecting", rest)
        rate = (away.attempts() - attempts) / (time.monotonic() - at) / 2
        assert 0.3 < rate < 0.6, f"{rate} attempts a second and session"
        away.libvirtd.start()
        took = within(RETURN, lambda: away.stack.wait_sessions("connected", "connected"))
        print(f"back {took:.2f} s after libvirtd")
        for terminal in (typist, idler):
            terminal.read_until(BACK)
        typist.read_until(b"held, in order")
        echoes(idler, b"after")
        assert left.ended(1) == (4404, "The guest no longer exists.")  # no event tells it
        off.start()
        assert waiter.read_until(b"ready\r\n").count(b"The guest is off") == 1


def hang(hung: Rig) -> None:
    """Freeze libvirtd, end sessions in every way meanwhile, let keepalive find out, thaw."""
    stack, libvirtd = hung.stack, hung.libvirtd
    guests = [hung.make_guest("echo") for _ in range(5)]
    typed, taken, _, left, stolen = guests
    takeover = stack.token(taken.uuid, takeover=True, user="bob", ttl=60)
    with contextlib.ExitStack() as clients:
        terminals = [clients.enter_context(stack.open(guest.uuid)) for guest in guests]
        typist, old, idler, leaver, robbed = terminals
        for terminal in terminals:
            echoes(terminal, b"before")
        clients.enter_context(steal(stolen))
        late = hung.make_guest("echo", state="off")
        starter = clients.enter_context(stack.open(late.uuid))
        stack.wait_sessions(*4 * ["connected"], "busy", "waiting")
        with contextlib.ExitStack() as faults:
            with stopped(session_of(stack, late)["relay_pid"]):
                # So it hears of the start when it can no more ask for the console.
                late.start()
                assert late.state() == "running"
                began = faults.enter_context(frozen(libvirtd))
            typist.send(b"discarded, ")
            within(1.5, stack.sessions)
            answer = stack.ask("issue", guest=typed.uuid)  # takes a while, and holds up nothing
            assert answer["code"] == "libvirt_unavailable"
            assert time.monotonic() - began < 8

            new = clients.enter_context(stack.connect(takeover))
            assert old.ended(2)[0] == 4410
            leaver.close()
            assert rig.eventually(lambda: not session_of(stack, left), seconds=3)
            for guest, terminal in ((taken, new), (stolen, robbed), (late, starter)):
                assert stack.ask("close", id=session_of(stack, guest)["id"])["ok"]
                assert terminal.ended(2)[0] == 4411
            stack.wait_sessions("connected", "connected", seconds=3)
            assert idler.ended(IDLE)[0] == 4408
            assert time.monotonic() - began < IDLE + 3
            typist.send(b"and this")

            typist.read_until(LOST, seconds=40)
            least, most = KEEPALIVE
            assert least < time.monotonic() - began < most
            print(f"keepalive: {time.monotonic() - began:.1f} s")
            lost = typist.read_until(b" bytes are discarded.]")
            count = int(re.findall(rb"in time: up to (\d+) bytes", lost)[0])
            assert count >= len(b"discarded, and this")
            stack.wait_sessions("reconnecting")
            typist.send(b"held, ")
            typist.send(b"in order")
        within(RETURN, lambda: typist.read_until(BACK))
        typist.read_until(b"held, in order")
    stack.wait_free()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process is stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def session_of(stack: Stack, guest: Guest) -> Json:
    """Return a guest's session; empty if it has none."""
    found = [one for one in stack.sessions() if one["uuid"] == guest.uuid]
    return found[0] if found else {}


# ---- another program has the console


@contextlib.contextmanager
def steal(guest: Guest) -> Iterator[Pty]:
    """An operator takes the console by force, and closes the window at the end: ^] is not always
    heard by a virsh whose stream has just come to its end."""
    command = ["virsh", "--connect", guest.libvirtd.uri, "console", "--force", guest.uuid]
    with Pty(command) as virsh:
        virsh.read_until(b"Escape character")
        # Until then its own terminal echoes what is typed, and nothing has been taken yet.
        assert rig.eventually(lambda: virsh.raw)
        yield virsh


def test_a_console_taken_by_force_comes_back(both, via, libvirtd, echo_guest):
    pid = libvirtd.pid
    with both.open(echo_guest.uuid, via) as terminal:
        echoes(terminal, b"before")
        with steal(echo_guest) as thief:
            thief.send(b"stolen")
            thief.read_until(b"stolen")
            terminal.read_until(b"[The console is held by another program on the host")
            both.wait_sessions("busy")
            terminal.send(b"held meanwhile")
        terminal.read_until(b"[The console is free again.]")
        terminal.read_until(b"held meanwhile")
        both.wait_sessions("connected")
        assert b"stolen" not in terminal.output
    both.wait_free()
    assert libvirtd.pid == pid


def test_a_console_taken_for_a_moment_is_told(stack, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        echoes(terminal, b"before")
        with steal(echo_guest) as thief:
            thief.send(b"stolen")
            thief.read_until(b"stolen")
        terminal.read_until(b"[The console was interrupted; some output may be missing.]")
        echoes(terminal, b"after")
    stack.wait_free()


def test_the_operator_can_close_a_session_while_libvirtd_is_away(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        stack.wait_sessions("connected")
        libvirtd.kill()
        try:
            (session,) = stack.wait_sessions("reconnecting")
            stack.ask("close", id=session["id"])
            assert terminal.ended()[0] == 4411
            stack.wait_free()
        finally:
            libvirtd.start()


def test_a_hung_libvirtd_does_not_hang_the_end_of_a_session(stack, libvirtd, echo_guest):
    with stack.open(echo_guest.uuid) as terminal:
        terminal.send(b"a")
        terminal.read_until(b"a")
        libvirtd.freeze()
        try:
            terminal.send(b"b" * 200000)
            (session,) = stack.sessions()
            began = time.monotonic()
            stack.ask("close", id=session["id"])
            assert terminal.ended()[0] == 4411
            stack.wait_free()
            assert time.monotonic() - began < 5
            assert stack.cli("guests").returncode == 1
        finally:
            libvirtd.thaw()
    assert rig.eventually(lambda: stack.cli("guests").returncode == 0, seconds=10)
