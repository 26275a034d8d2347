"""Sockets, readiness and watchdog as systemd gives them, with Debian's own activator."""

import json
import os
import socket
import subprocess
import sys

import pytest

from serial_console import sd
from serial_console.demo import host
from serial_console.errors import SetupError
from tests import rig

ASK = """
import json, os, subprocess, sys
from serial_console import errors, sd
given = sd.Inherited()
found = {}
for where in sys.argv[1:]:
    sock = given.unix(where) if where.startswith("/") else given.tcp(where)
    found[where] = sock and [sock.fileno(), os.get_inheritable(sock.fileno())]
left = [name for name in os.environ if name.startswith("LISTEN_")]
try:
    given.finish()
    error = ""
except errors.SetupError as refused:
    error = str(refused)
seen = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, close_fds=False)
print(json.dumps([found, left, error, len(seen.stdout.split())]))
"""
OWN = 4
"""What ls has open itself, its listing included."""


def activated(listening, asked, *options, connect=socket.AF_UNIX):
    """Have a process started by a connection to the first socket; return what it found."""
    try:
        activate = host.program("systemd-socket-activate", "systemd")
    except SetupError as error:
        rig.missing(str(error))
    command = [activate, *(f"--listen={one}" for one in listening), *options]
    with subprocess.Popen(
        [*command, sys.executable, "-c", ASK, *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        with socket.socket(connect) as client:
            where = listening[0]
            if connect != socket.AF_UNIX:
                name, _, port = where.rpartition(":")
                where = name.strip("[]"), int(port)
            assert rig.eventually(lambda: client.connect_ex(where) == 0)
            said = process.stdout.read()
        assert process.wait() == 0, process.stderr.read()
    for one in listening:
        if one.startswith("/"):
            os.unlink(one)
    return json.loads(said)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_sockets_are_found_by_address_and_hidden_from_children(run_dir):
    first, second = (os.path.join(run_dir, name) for name in ("a.sock", "b.sock"))
    port = f"127.0.0.1:{free_port()}"
    asked = [second, port, first, os.path.join(run_dir, "c.sock"), "127.0.0.1:1"]
    found, left, error, seen = activated([first, second, port], asked, "--fdname=x:y:z")
    assert found == {
        first: [3, False],
        second: [4, False],
        port: [5, False],
        asked[3]: None,
        asked[4]: None,
    }
    assert (left, error, seen) == ([], "", OWN)


def test_any_port_and_names_of_hosts_are_understood():
    port = free_port()
    try:
        socket.getaddrinfo("localhost", port)
    except OSError:
        rig.missing("localhost in /etc/hosts")
    for asked in ("127.0.0.1:0", f"localhost:{port}"):
        found, _, error, _ = activated([f"127.0.0.1:{port}"], [asked], connect=socket.AF_INET)
        assert (found, error) == ({asked: [3, False]}, "")


def test_an_address_that_is_not_the_configured_one_is_an_error(run_dir):
    """Else a socket unit could widen what the configuration was checked for."""
    path = os.path.join(run_dir, "a.sock")
    other = os.path.join(run_dir, "b.sock")
    _, _, error, _ = activated([path], [other])
    assert error == (
        f"systemd opened {path} for this service, which listens on {other}; "
        "make ListenStream= in the socket's unit and the configuration say the same"
    )
    port = free_port()
    _, _, error, _ = activated([f"0.0.0.0:{port}"], [f"127.0.0.1:{port}"], connect=socket.AF_INET)
    assert f"systemd opened 0.0.0.0:{port}" in error


def test_what_is_meant_for_another_process_is_left_alone(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "x")
    assert sd.Inherited().unix("/nowhere") is None
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_a_descriptor_that_is_no_listening_socket_is_an_error(monkeypatch):
    with socket.socket(socket.AF_UNIX) as deaf:
        monkeypatch.setattr(sd, "FIRST", deaf.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        with pytest.raises(SetupError, match="no listening stream socket; in the socket's unit"):
            sd.Inherited()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told(run_dir, monkeypatch, kind):
    path = os.path.join(run_dir, "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path if kind == "path" else f"\0{path}")
        monkeypatch.setenv("NOTIFY_SOCKET", path if kind == "path" else f"@{path}")
        sd.notify("READY=1", "STATUS=3 sessions")
        assert listening.recv(100, socket.MSG_DONTWAIT) == b"READY=1\nSTATUS=3 sessions"
        # One that does not read holds up nobody.
        for _ in range(3000):
            sd.notify("WATCHDOG=1")
    if kind == "path":
        os.unlink(path)
    sd.notify("READY=1")  # and one that is gone fails nobody
    monkeypatch.delenv("NOTIFY_SOCKET")
    sd.notify("READY=1")


def test_the_watchdog_is_pinged_at_half_its_time(run_dir, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(sd.time, "monotonic", lambda: now)
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    said = []
    monkeypatch.setattr(sd, "notify", lambda *states: said.append((now, *states)))
    watchdog = sd.Watchdog()
    assert watchdog.ping("STATUS=x") == 2.0
    for step in (0.5, 1.0, 0.5, 3.0):
        now += step
        watchdog.ping()
    assert said == [(1000.0, "WATCHDOG=1", "STATUS=x"), (1002.0, "WATCHDOG=1"),
                    (1005.0, "WATCHDOG=1")]  # fmt: skip
    for usec, pid in (("", ""), ("0", ""), ("4000000", str(os.getppid()))):
        monkeypatch.setenv("WATCHDOG_USEC", usec)
        monkeypatch.setenv("WATCHDOG_PID", pid)
        assert sd.Watchdog().ping() is None
