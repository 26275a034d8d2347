"""Our services die or restart under live sessions: what goes on, and what the next one finds."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed

from tests import rig
from tests.clients import echo
from tests.faults.test_resume import all_arrived
from tests.stack import alive

SESSIONS = 20


def end_of(stack, token):
    with stack.connect(token) as refused:
        return refused.ended()[0]


def session_of(stack, guest):
    return next((one for one in stack.sessions() if one["uuid"] == guest.uuid), None)


@pytest.fixture
def twenty(make_guest):
    """Guests that echo; four boot at a time."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda _: make_guest(), range(SESSIONS)))


class Typing(threading.Thread):
    """Everybody types numbered lines and reads each back, until this is left."""

    def __init__(self, terminals):
        super().__init__()
        self.terminals = terminals
        self.lines = 0
        self.stopped = threading.Event()
        self.wrong = []

    def run(self):
        while not self.stopped.is_set() and not self.wrong:
            line = b"%06d\r\n" % self.lines
            try:
                for terminal in self.terminals:
                    terminal.send(line)
                self.wrong += [one for one in self.terminals if one.read_exactly(8) != line]
            except (AssertionError, OSError, ConnectionClosed) as error:
                self.wrong.append(error)
            self.lines += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def test_a_killed_supervisor_costs_twenty_typing_clients_nothing(make_stack, twenty, capsys):
    stack = make_stack("supervisor", "gateway", limits={"sessions": SESSIONS, "per_user": 2})
    with contextlib.ExitStack() as clients:
        terminals = [
            clients.enter_context(stack.open(guest.uuid, user=f"user-{number // 2}"))
            for number, guest in enumerate(twenty)
        ]
        before = {one["id"]: one for one in stack.wait_sessions(*SESSIONS * ["connected"])}
        stopped = session_of(stack, twenty[0])["relay_pid"]

        with Typing(terminals) as typing:
            assert rig.eventually(lambda: typing.lines > 3)
            stack.end("supervisor", signal.SIGKILL)
            began = time.monotonic()
            stack.start("supervisor")
            took = time.monotonic() - began
            adopted = stack.sessions()
            lines = typing.lines
            assert rig.eventually(lambda: typing.lines > lines + 3)
        assert typing.wrong == []
        assert [one.rest() for one in terminals] == SESSIONS * [b""]
        assert sorted(one["id"] for one in adopted) == sorted(before)
        for one in adopted:
            for key in ("guest", "uuid", "user", "client", "opened_at", "relay_pid", "gateway_pid"):
                assert one[key] == before[one["id"]][key], key

        assert end_of(stack, stack.token(twenty[0].uuid, mode="ro", user="eve")) == 4429
        (first, last) = (session_of(stack, guest) for guest in (twenty[0], twenty[-1]))
        assert stack.cli("close", last["id"]).returncode == 0
        assert terminals[-1].ended()[0] == 4411
        stack.wait_sessions(*(SESSIONS - 1) * ["connected"])
        assert end_of(stack, stack.token(twenty[-1].uuid, user="user-0")) == 4429
        with stack.open(twenty[-1].uuid, user="user-9") as another:
            assert echo(another, b"x") == b"x"
            stack.wait_sessions(*SESSIONS * ["connected"])

        # One that is stopped holds up nobody, and is adopted when it goes on.
        stack.end("supervisor", signal.SIGKILL)
        os.kill(stopped, signal.SIGSTOP)
        try:
            began = time.monotonic()
            stack.start("supervisor")
            with_a_stopped_one = time.monotonic() - began
            assert with_a_stopped_one - took < 3
            assert len(stack.sessions()) == SESSIONS - 2
            assert end_of(stack, stack.token(twenty[0].uuid, user="bob")) == 4503
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert rig.eventually(lambda: session_of(stack, twenty[0]) is not None)
        assert session_of(stack, twenty[0])["id"] == first["id"]
        assert echo(terminals[0], b"y") == b"y"
        assert stack.cli("close", "--all").stdout == f"{SESSIONS - 1} sessions closed\n"
        for terminal in terminals:
            assert terminal.ended()[0] == 4411
    stack.wait_free()
    with capsys.disabled():
        print(f"\n20 relays adopted in {took:.2f} s, one stopped: {with_a_stopped_one:.2f} s")


def test_a_client_that_is_away_finds_its_session_with_the_next_supervisor(stack, echo_guest):
    token = stack.token(echo_guest.uuid, user="alice", resume=60)
    with stack.connect(token) as first:
        assert echo(first, b"first") == b"first"
        (before,) = stack.wait_sessions("connected")
        first.vanish()
        stack.wait_sessions("detached")
        stack.end("supervisor", signal.SIGKILL)
        stack.start("supervisor")
        (session,) = stack.wait_sessions("detached")
        assert session["id"] == before["id"]
        with stack.open(echo_guest.uuid, user="bob") as other:
            code, reason = other.ended()
            assert (code, "alice" in reason) == (4409, True)
        with stack.connect(token) as second:
            assert echo(second, b"second") == b"second"
            assert second.output == b"second"
            # Once more, now with the supervisor away when the client goes.
            stack.end("supervisor", signal.SIGKILL)
            second.vanish()
        stack.start("supervisor")
        stack.wait_sessions("detached")
        with stack.connect(token) as third:
            assert echo(third, b"third") == b"third"
            assert third.output == b"third"
            assert stack.cli("close", before["id"]).returncode == 0
            assert third.ended()[0] == 4411
    stack.wait_free()
    assert end_of(stack, token) == 4401


def test_a_session_whose_client_is_away_ends_with_its_grace_without_a_supervisor(stack, echo_guest):
    token = stack.token(echo_guest.uuid, resume=1)
    with stack.connect(token) as terminal:
        assert echo(terminal, b"x") == b"x"
        (session,) = stack.wait_sessions("connected")
        terminal.vanish()
    stack.wait_sessions("detached")
    stack.end("supervisor", signal.SIGKILL)
    assert rig.eventually(lambda: not alive(session["relay_pid"]))
    assert stack.relay_sockets() == []
    stack.start("supervisor")
    assert stack.sessions() == []


def test_a_killed_relay_with_many_clients_leaves_nothing(stack, echo_guest):
    token = stack.token(echo_guest.uuid, user="eve", resume=60)
    with (
        stack.open(echo_guest.uuid, user="alice") as typist,
        stack.open(echo_guest.uuid, mode="ro") as watcher,
        stack.connect(stack.token(echo_guest.uuid, user="eve", mode="ro", resume=60)) as away,
    ):
        (session, *_) = stack.wait_sessions("connected", "connected", "connected")
        away.vanish()
        stack.wait_sessions("connected", "connected", "detached")
        os.kill(session["relay_pid"], signal.SIGKILL)
        for terminal in (typist, watcher):
            code, reason = terminal.ended()
            assert (code, "connect again" in reason) == (4412, True)
        stack.wait_free()
        with stack.connect(token) as again:
            assert echo(again, b"x") == b"x"
            again.send(b"\x11")
            again.ended()
    stack.wait_free()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_gateway_restarts_under_sessions_and_tokens(make_stack, make_guest, number):
    """SIGTERM ends its clients, who may come back with ``resume``. SIGKILL leaves its children."""
    stack = make_stack("supervisor", "gateway")
    guests = [make_guest(), make_guest()]
    token = stack.token(guests[0].uuid, user="alice", resume=60)
    once = stack.token(guests[1].uuid, user="bob")
    unused = stack.token(guests[1].uuid, user="carol", takeover=True, ttl=600)
    with stack.connect(token) as resumes, stack.connect(once) as ends:
        for terminal in (resumes, ends):
            assert echo(terminal, b"before") == b"before"
        before = session_of(stack, guests[0])
        assert rig.eventually(lambda: all_arrived(stack.gateway_port))
        stack.end("gateway", number)
        if number == signal.SIGTERM:
            restarted = 1012, "The gateway restarts; connect again."
            assert resumes.ended() == ends.ended() == restarted
            stack.wait_sessions("detached")
        else:
            for terminal in (resumes, ends):
                assert echo(terminal, b"still") == b"still"
            assert rig.eventually(lambda: all_arrived(stack.gateway_port))
        stack.start("gateway")
        if number == signal.SIGTERM:
            assert end_of(stack, once) == 4401
        with stack.connect(token) as back, stack.connect(unused) as new:
            for terminal in (back, new):
                terminal.send(b"after")
                terminal.read_until(b"after")
            after = session_of(stack, guests[0])
            assert (after["id"], after["relay_pid"]) == (before["id"], before["relay_pid"])
            assert back.output == b"after"
            if number == signal.SIGKILL:
                assert resumes.ended()[0] == ends.ended()[0] == 4410
            back.send(b"\x11")
            assert back.ended()[0] == 1000
    stack.wait_free()
