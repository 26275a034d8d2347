"""redeem.sock, admin.sock and a relay's sockets under mutated messages, with a session in use."""

import array
import functools
import json
import os
import random
import socket
import time

import psutil
import pytest

from tests import rig
from tests.fuzz import seeds
from tests.fuzz.mutate import mutated

INPUTS = int(os.environ.get("FUZZ_EXAMPLES", "200"))
MEMORY = 4 << 20
"""Bytes that they may cost the supervisor."""
AHEAD = 16
"""Requests that a connection may send ahead (docs/protocol.md)."""
LAST = b'{"v": 1, "op": "nonsense"}'
# Without close: a mutation of it ends all sessions, as it should.
ADMIN_SEEDS = [seed for seed in seeds.ADMIN_SEEDS if b'"close"' not in seed]
DOORS = {"redeem_path": seeds.REDEEM_SEEDS, "admin_path": ADMIN_SEEDS}


@pytest.fixture
def session(shared, shared_guest):
    """A session whose supervisor is to be hurt: it must echo before and after, and nobody swear."""
    supervisor = shared.services["supervisor"]
    before = len(supervisor.logged())
    with shared.open(shared_guest.uuid) as terminal:
        _echoes(terminal, b"before")
        fds = supervisor.fds()
        yield terminal
        _echoes(terminal, b"after")
        assert rig.eventually(lambda: supervisor.fds() <= fds), "the supervisor keeps descriptors"
    shared.wait_free()
    said = supervisor.logged()[before:]
    for word in ("Traceback", "failed", " error "):
        assert word not in said, said


def _echoes(terminal, text):
    terminal.send(text)
    terminal.read_until(text)


def exchange(path, data, choose):
    """Send bytes in pieces of any size, close our half, return the lines that come."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        whole = choose.random() < 0.5
        try:
            while data:
                size = len(data) if whole else choose.randint(1, 1000)
                sock.sendall(data[:size])
                data = data[size:]
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was told why, and is closed
        got = bytearray()
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
    assert not got or got.endswith(b"\n")
    return bytes(got).splitlines()


@pytest.mark.parametrize("door", DOORS)
def test_every_mutated_line_is_answered(shared, session, door):
    path = getattr(shared, door)
    choose = random.Random(door)
    supervisor = psutil.Process(shared.pid("supervisor"))
    before = supervisor.memory_info().rss
    began = time.monotonic()
    for _ in range(INPUTS):
        ahead = [mutated(choose.choice(DOORS[door]), choose) for _ in range(choose.randint(1, 4))]
        data = b"\n".join([*ahead, LAST, b""])
        lines = data.split(b"\n")[:-1]
        answers = [json.loads(line) for line in exchange(path, data, choose)]
        for answer in answers:
            assert answer["v"] == 1
            assert answer["ok"] or (answer["code"] and answer["message"]), answer
        if len(lines) <= AHEAD and all(len(line) < 4096 for line in lines):
            assert len(answers) == len(lines), (lines, answers)
            assert answers[-1]["code"] == "unknown_op"
        else:
            assert answers, lines
            assert answers[-1]["code"] in ("bad_request", "unknown_op")
    assert shared.ask("health")["ok"]
    grown = supervisor.memory_info().rss - before
    assert grown < MEMORY, f"{grown >> 10} KiB"
    print(f"{INPUTS} inputs in {time.monotonic() - began:.1f} s, {grown >> 10} KiB")


def send_with(sock, data, fds):
    """Send bytes with file descriptors."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    sock.sendmsg([data], [rights])


@pytest.mark.parametrize("count", [1, 250])
@pytest.mark.parametrize("door", DOORS)
def test_descriptors_sent_unasked_are_not_kept(shared, session, door, count):
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(getattr(shared, door))
        with sock.makefile("rb") as answers:
            for line in (LAST + b"\n", LAST[:5], LAST[5:] + b"\n"):
                send_with(sock, line, [write] * count)
            for _ in range(2):
                assert json.loads(answers.readline())["code"] == "unknown_op"
        os.close(write)
        os.set_blocking(read, False)
        try:
            assert os.read(read, 1) == b"", "somebody holds the other end"
        finally:
            os.close(read)


def test_a_gateway_that_goes_mad_harms_its_own_session_at_most(shared, shared_guest):
    """On the way back and in the console's bytes; the session goes on, or its gateway is told."""
    choose = random.Random(7)
    supervisor = shared.services["supervisor"]
    logged = len(supervisor.logged())
    for number in range(5):
        token = shared.token(shared_guest.uuid)
        read, write = os.pipe()
        with socket.socket(socket.AF_UNIX) as back, socket.socket(socket.AF_UNIX) as relay:
            for sock in (back, relay):
                sock.settimeout(10)
            back.connect(shared.redeem_path)
            request = {"v": 1, "op": "redeem", "token": token, "events": True}
            back.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(back.recv(4096).partition(b"\n")[0])
            relay.connect(answer["path"])
            shared.wait_sessions("connected")
            try:
                for _ in range(20):
                    seed = choose.choice((*seeds.BACK_SEEDS, *seeds.REDEEM_SEEDS))
                    send_with(back, mutated(seed, choose)[:8000] + b"\n", [write])
            except (BrokenPipeError, ConnectionResetError):
                pass  # it does not listen to us any more
            send_with(relay, b"hello %d" % number, [write, write])
            said = b""
            while b"hello %d" % number not in said:
                said += relay.recv(65536)
            os.close(write)
            os.set_blocking(read, False)
            try:
                assert rig.eventually(functools.partial(_closed, read)), (
                    "somebody holds the other end"
                )
            finally:
                os.close(read)
        shared.wait_free()
    said = supervisor.logged()[logged:]
    assert "Traceback" not in said, said


def _closed(fd):
    try:
        return os.read(fd, 1) == b""
    except BlockingIOError:
        return False


def test_a_client_address_that_is_none_costs_no_token(shared, shared_guest):
    """A relay tells of its sessions in one line: long addresses would keep it from adoption."""
    token = shared.token(shared_guest.uuid)
    for client in ("x" * 65, "a\x1b[2J", "ü", "\u202e"):
        assert shared.redeem(token, client=client)["code"] == "bad_request"
    answer = shared.redeem(token, client="[2001:db8::1]:65535")
    with socket.socket(socket.AF_UNIX) as relay:
        relay.connect(answer["path"])
        (session,) = shared.wait_sessions("connected")
        assert session["client"] == "[2001:db8::1]:65535"
    shared.wait_free()
