"""redeem.sock and admin.sock: what is sent there, by whom, and what stands in their way."""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import psutil
import pytest

from tests import rig
from tests import stack as stacks

MESSAGES = {
    "not JSON": (b"hello\n", "bad_request"),
    "empty": (b"\n", "bad_request"),
    "not an object": (b"[1]\n", "bad_request"),
    "not UTF-8": (b'{"v": 1, "op": "\xff"}\n', "bad_request"),
    "deeply nested": (b"[" * 4000 + b"\n", "bad_request"),
    "deeply nested field": (
        b'{"v": 1, "op": "redeem", "x": ' + b"[" * 2000 + b"}\n",
        "bad_request",
    ),
    "NUL": (b"\0" * 100 + b"\n", "bad_request"),
    "no version": (b'{"op": "health"}\n', "bad_request"),
    "no op": (b'{"v": 1}\n', "bad_request"),
    "wrong version": (b'{"v": 2, "op": "health"}\n', "bad_version"),
    "unknown op": (b'{"v": 1, "op": "nonsense"}\n', "unknown_op"),
    "oversized": (b'{"v": 1, "op": "' + b"x" * 5000 + b'"}\n', "bad_request"),
    "oversized without an end": (b"x" * 100_000, "bad_request"),
}
WRONG_FIELDS = {
    "missing field": {"op": "issue"},
    "wrong type": {"op": "issue", "guest": 7},
    "unknown field": {"op": "issue", "guest": "x", "nonsense": 1},
    "wrong mode": {"op": "issue", "guest": "x", "mode": "rwx"},
    "endless ttl": {"op": "issue", "guest": "x", "ttl": 1 << 62},
    "control characters": {"op": "issue", "guest": "x", "user": "a\x1b[2Jb"},
    "watcher that takes over": {"op": "issue", "guest": "x", "mode": "ro", "takeover": True},
}


@pytest.mark.parametrize("door", ["redeem_path", "admin_path"])
@pytest.mark.parametrize("what", MESSAGES)
def test_a_bad_message_is_answered_and_nobody_else_suffers(shared, door, what):
    data, code = MESSAGES[what]
    path = getattr(shared, door)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall(data)
        answer = json.loads(sock.makefile("rb").readline())
    assert (answer["v"], answer["ok"], answer["code"]) == (1, False, code)
    assert answer["message"]
    assert shared.ask("health")["ok"]


def test_a_redeemer_that_goes_mad_before_its_answer_costs_nobody_anything(
    stack, libvirtd, echo_guest
):
    token = stack.token(echo_guest.uuid, ttl=60)
    stack.token(echo_guest.uuid)  # the inventory is connected
    libvirtd.freeze()  # so that the relay takes its time
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(stack.redeem_path)
            redeem = {"v": 1, "op": "redeem", "token": token, "events": True}
            sock.sendall(json.dumps(redeem).encode() + b"\n")
            stack.wait_sessions("starting")
            sock.sendall(b"\n" * 20)
            assert json.loads(sock.makefile("rb").readline())["code"] == "bad_request"
    finally:
        libvirtd.thaw()
    with stack.connect(token) as terminal:
        terminal.send(b"x")
        terminal.read_until(b"x")


def test_a_caller_that_asks_and_never_reads_costs_no_processor_time(stack):
    supervisor = psutil.Process(stack.pid("supervisor"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(stack.admin_path)
        for _ in range(150):  # more answers than the kernel keeps for us
            sock.sendall(b"nonsense\n" * 8)
            assert rig.eventually(lambda: _unread(sock) == 0)
        sock.shutdown(socket.SHUT_WR)
        assert stack.ask("health")["ok"]
        before = supervisor.cpu_times()
        time.sleep(0.5)  # what is measured
        after = supervisor.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.1
        assert stack.ask("health")["ok"]


def _unread(sock):
    """How many bytes the peer has not read."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]


def test_a_session_that_is_closed_before_it_is_open_does_not_open(stack, libvirtd, echo_guest):
    token = stack.token(echo_guest.uuid, ttl=60)
    libvirtd.freeze()
    try:
        with stack.connect(token) as terminal:
            (session,) = stack.wait_sessions("starting")
            assert stack.ask("close", id=session["id"])["closed"] == 1
            assert terminal.ended()[0] == 4411
            stack.wait_free()
    finally:
        libvirtd.thaw()


@pytest.mark.parametrize("what", WRONG_FIELDS)
def test_a_wrong_field_is_answered(shared, what):
    answer = shared.ask(**WRONG_FIELDS[what])
    assert (answer["ok"], answer["code"]) == (False, "bad_request")


def test_a_connection_goes_on_after_a_mistake(shared):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(shared.admin_path)
        with sock.makefile("rwb", buffering=0) as lines:
            for line, ok in ((b"hello\n", False), (b'{"v": 1, "op": "health"}\n', True)):
                lines.write(line)
                assert json.loads(lines.readline())["ok"] is ok


def test_half_a_message_and_then_nothing(shared):
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(shared.admin_path)
        stuck.sendall(b'{"v": 1,')
        assert shared.ask("health")["ok"]
    assert shared.ask("health")["ok"]


@pytest.mark.parametrize(
    "message",
    [
        {"op": "issue", "guest": "x"},
        {"op": "sessions"},
        {"op": "guests"},
        {"op": "close"},
        {"op": "revoke", "id": "x"},
    ],
    ids=lambda message: message["op"],
)
def test_the_gateways_door_can_only_redeem(shared, message):
    answer = stacks.request(shared.redeem_path, {"v": 1, **message})
    assert (answer["ok"], answer["code"]) == (False, "unknown_op")


def test_one_of_many_redeemers_wins(shared, shared_guest):
    token = shared.token(shared_guest.uuid)
    begin = threading.Barrier(20)
    answers = []

    def redeem():
        begin.wait()
        answers.append(shared.redeem(token))

    threads = [threading.Thread(target=redeem) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = (answer for answer in answers if answer["ok"])
    assert {answer["code"] for answer in answers if not answer["ok"]} == {"bad_token"}
    with socket.socket(socket.AF_UNIX) as relay:
        relay.connect(won["path"])
        shared.wait_sessions("connected")
    shared.wait_free()


CONNECT = """
import contextlib, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(10)
    sock.connect(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):
        sock.sendall(sys.argv[2].encode() + b"\\n")
    with contextlib.suppress(ConnectionResetError):
        sys.stdout.write(sock.recv(4096).decode())
"""


def connect_as_another(path, message, *, user=False):
    """Have another process, maybe another user's, connect and send a line; return what it got."""
    command = [sys.executable, "-I", "-S", "-c", CONNECT, path, message]
    if user:
        command = rig.as_another(command)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd="/")
    return done.stdout, done.stderr


def test_only_the_process_that_redeemed_may_connect(shared, shared_guest):
    with shared.open(shared_guest.uuid, mode="ro") as watcher:
        shared.wait_sessions("connected")
        path = shared.redeem(shared.token(shared_guest.uuid))["path"]
        assert connect_as_another(path, "evil") == ("", "")
        with socket.socket(socket.AF_UNIX) as relay:
            relay.settimeout(10)
            relay.connect(path)
            relay.sendall(b"good")
            assert watcher.read_exactly(4) == b"good"
            # Neither may another one afterwards, nor the same process a second time.
            assert connect_as_another(path, "evil") == ("", "")
            with socket.socket(socket.AF_UNIX) as second:
                second.settimeout(10)
                second.connect(path)
                assert second.recv(1) == b""
            relay.sendall(b"more")
            assert watcher.read_exactly(4) == b"more"
        shared.wait_sessions("connected")
    shared.wait_free()


def test_another_user_is_refused(shared, shared_guest):
    health = json.dumps({"v": 1, "op": "health"})
    for path in (shared.redeem_path, shared.admin_path):
        assert os.stat(path).st_mode & 0o777 == 0o660
        said, complaint = connect_as_another(path, health, user=True)
        assert said == ""
        assert "PermissionError" in complaint
        os.chmod(path, 0o666)  # an operator's mistake
        said, _ = connect_as_another(path, health, user=True)
        assert json.loads(said)["code"] == "forbidden"
    command = rig.as_another([*shared.program, "sessions"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd="/")
    assert done.returncode == 1
    assert f"uid {rig.NOBODY} may not use this socket" in done.stderr
    with shared.open(shared_guest.uuid):
        shared.wait_sessions("connected")
        (path,) = rig.files_below(shared.consoles)
        assert os.stat(path).st_mode & 0o777 == 0o660
        os.chmod(path, 0o666)
        said, _ = connect_as_another(path, "x", user=True)
        assert said == ""
        for path in rig.files_below(os.path.join(shared.control, "relays")):
            os.chmod(os.path.dirname(path), 0o755)
            os.chmod(path, 0o666)
            said, _ = connect_as_another(path, "x", user=True)
            assert said == ""
        shared.wait_sessions("connected")
    shared.wait_free()


class TestWhatStandsAtThePath:
    @pytest.fixture(params=["redeem.sock", "admin.sock"])
    def path(self, request, run_dir):
        os.mkdir(os.path.join(run_dir, "control"))
        return os.path.join(run_dir, "control", request.param)

    def test_a_stale_socket_is_replaced(self, make_stack, path):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        stack = make_stack("supervisor")
        assert stack.ask("health")["ok"]

    def test_a_file_is_left_alone(self, make_stack, path):
        with open(path, "w") as file:
            file.write("mine")
        self.refused(make_stack, path, "not a socket")
        with open(path) as file:
            assert file.read() == "mine"
        os.unlink(path)

    def test_a_link_is_left_alone(self, make_stack, path, tmp_path):
        os.symlink(tmp_path / "elsewhere", path)
        self.refused(make_stack, path, "not a socket")
        os.unlink(path)

    def test_a_running_programs_socket_is_left_alone(self, make_stack, path):
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            other.listen()
            self.refused(make_stack, path, "in use")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
        os.unlink(path)

    def refused(self, make_stack, path, why):
        stack = make_stack(log={"level": "error"})
        done = stack.cli("supervisor")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert path in done.stderr
        assert why in done.stderr
        assert rig.files_below(os.path.dirname(path)) == [path], "left something behind"


def test_a_second_supervisor_leaves_the_first_alone(shared, shared_guest):
    with shared.open(shared_guest.uuid) as terminal:
        shared.wait_sessions("connected")
        done = shared.cli("supervisor")
        assert done.returncode == 1
        assert "in use" in done.stderr
        terminal.send(b"x")
        terminal.read_until(b"x")
        shared.wait_sessions("connected")
    shared.wait_free()


def test_a_killed_supervisors_sockets_are_replaced(stack):
    assert stack.end("supervisor", signal.SIGKILL) == -signal.SIGKILL
    assert sorted(map(os.path.basename, rig.files_below(stack.control))) == [
        "admin.sock",
        "redeem.sock",
    ]
    stack.start("supervisor")
    assert stack.ask("health")["ok"]
