"""``serial-console api`` as a process: its two listeners, who needs a key, its start and end."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serial_console import keys
from serial_console.api_server import BACKLOG, CONNECTIONS

from .. import fakes, rig


class Server:
    """A running ``serial-console api``."""

    def __init__(self, directory: str, child: subprocess.Popen[str]) -> None:
        self.socket = f"{directory}/api/api.sock"
        self.child = child
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "ready\n"
        self.log = ""
        while not (found := re.search(r"listening on \S+ port (\d+)", self.log)):
            self.log += child.stderr.readline()
        self.url = f"http://127.0.0.1:{found[1]}"

    def get(self, path: str, key: str | None = None, local: bool = False) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with self.client(local) as client:
            return client.get(path, headers=headers)

    def client(self, local: bool) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=self.socket if local else None, verify=False)
        return httpx.Client(transport=transport, base_url=self.url, timeout=20)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.child.send_signal(number)
        output, self.log = self.child.communicate(timeout=10)
        assert output == ""
        return self.child.returncode

    def reload(self, api_keys: str, change: str) -> None:
        with open(f"{api_keys}.toml", "a") as file:
            file.write(change)
        self.child.send_signal(signal.SIGHUP)
        assert self.child.stderr is not None
        for line in self.child.stderr:
            if "configuration was read again" in line:
                return
        pytest.fail("it has ended")


def start(directory: str, api_keys: str, change: str = "") -> Server:
    return Server(directory, launch(directory, api_keys, change))


def launch(directory: str, api_keys: str, change: str = "") -> subprocess.Popen[str]:
    text = fakes.config_text(directory, api_keys) + change
    with open(f"{api_keys}.toml", "w") as file:
        file.write(text)
    return subprocess.Popen(
        [sys.executable, "-m", "serial_console", "--config", file.name, "api"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # without our terminal SIGHUP means a reload
    )


@pytest.fixture
def api_keys(tmp_path: Path) -> str:
    return str(tmp_path / "api-keys")


@pytest.fixture
def server(run_dir: str, api_keys: str) -> Iterator[Server]:
    with fakes.FakeSupervisor(run_dir) as supervisor:
        supervisor.guests = [fakes.guest("web-1"), fakes.guest("db")]
        running = start(run_dir, api_keys)
        try:
            yield running
        finally:
            if running.child.returncode is None:
                assert running.end() == 0


def test_the_port_wants_a_key_and_the_socket_knows_its_peer(server: Server, api_keys: str) -> None:
    assert server.get("/v1/guests").status_code == 401
    assert len(server.get("/v1/guests", local=True).json()["guests"]) == 2
    key = keys.add(api_keys, "web", ["web-*"])
    for local in (False, True):  # a key that is sent counts on the socket too
        assert len(server.get("/v1/guests", key, local).json()["guests"]) == 1
        assert server.get("/v1/guests", "wrong", local).status_code == 401


def test_a_percent_encoded_slash_passes_the_real_server(server: Server, api_keys: str) -> None:
    answer = server.get("/v1/guests/a%2Fb", keys.add(api_keys, "all"))
    assert 'no guest "a/b"' in answer.json()["detail"]


@pytest.mark.parametrize(
    ("permitted", "status"), [("never", 401), ("from the start", 200), ("from a reload on", 200)]
)
def test_another_user_on_the_socket(
    run_dir: str, api_keys: str, permitted: str, status: int
) -> None:
    if os.geteuid() != 0:
        rig.missing("root, to be another user")
    change = "peer_uids = [4711]\n"
    with fakes.FakeSupervisor(run_dir):
        server = start(run_dir, api_keys, change if permitted == "from the start" else "")
        try:
            if permitted == "from a reload on":
                server.reload(api_keys, change)
            os.chmod(server.socket, 0o666)
            server.get("/healthz", local=True)  # imports what another user may not read
            with server.client(local=True) as client:
                os.seteuid(4711)  # what SO_PEERCRED tells is taken from here at connect
                try:
                    answer = client.get("/v1/guests")
                finally:
                    os.seteuid(0)
        finally:
            assert server.end() == 0
    assert answer.status_code == status


def test_a_head_that_trickles_in_has_ten_seconds(server: Server) -> None:
    """In all, also where a request was served before; one that is too large is not read on."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        fresh, used, large = (
            stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(3)
        )
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += used.recv(4096)
        large.sendall(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n")
        large.sendall(bytes(20000))
        with large.makefile("rb") as refusal:
            assert refusal.read().startswith(b"HTTP/1.1 413")  # and the end
        begin = time.monotonic()
        left = {fresh, used}
        head = itertools.chain(b"GET /healthz HTTP/1.1\r\n", itertools.repeat(ord("x")))
        while left and time.monotonic() < begin + 20:
            byte = bytes([next(head)])
            for sock in select.select(left, [], [], 0.5)[0]:
                with contextlib.suppress(ConnectionResetError):  # our last byte met its end
                    assert sock.recv(4096) == b""
                left.discard(sock)
            for sock in left:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    sock.send(byte)
        assert 9 < time.monotonic() - begin < 15


def test_the_socket_is_for_owner_and_group_and_goes_with_the_server(server: Server) -> None:
    assert stat.S_IMODE(os.stat(server.socket).st_mode) == 0o660
    assert server.end(signal.SIGINT) == 0
    assert not os.path.exists(server.socket)


def test_a_killed_servers_socket_is_replaced(run_dir: str, api_keys: str) -> None:
    first = start(run_dir, api_keys)
    first.child.kill()
    first.child.communicate()
    assert os.path.exists(first.socket)
    assert start(run_dir, api_keys).end() == 0


def test_it_ends_at_once_though_the_supervisor_hangs(run_dir: str, api_keys: str) -> None:
    with contextlib.ExitStack() as stack:
        hung = stack.enter_context(fakes.relay_socket(f"{run_dir}/admin.sock"))
        server = start(run_dir, api_keys)

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):
                server.get("/v1/guests", local=True)

        asking = threading.Thread(target=ask)
        asking.start()
        taken = stack.enter_context(hung.accept()[0])
        assert taken.recv(4096)
        assert server.end() == 0  # within the 10 s of communicate, less than a call's time-out
        asking.join()


def failure(child: subprocess.Popen[str]) -> str:
    output, said = child.communicate(timeout=20)
    assert (output, child.returncode) == ("", 1)
    lines = [line for line in said.splitlines() if line.startswith("serial-console: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    return lines[0]


def test_a_port_in_use(run_dir: str, api_keys: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = f"{api_keys}.toml"
        text = fakes.config_text(run_dir, api_keys).replace("127.0.0.1:0", f"127.0.0.1:{port}")
        Path(path).write_text(text)
        command = [sys.executable, "-m", "serial_console", "--config", path, "api"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_servers_of_one_socket(server: Server, run_dir: str, api_keys: str) -> None:
    assert "in use" in failure(launch(run_dir, api_keys))
    assert server.get("/healthz", local=True).status_code == 200


def test_a_broken_keys_file_at_the_start(run_dir: str, api_keys: str) -> None:
    Path(api_keys).write_text("x\n")
    os.chmod(api_keys, 0o600)
    assert "line 1: not a key" in failure(launch(run_dir, api_keys))


def test_an_unwritable_directory(run_dir: str, api_keys: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file/x/api" in failure(launch(f"{tmp_path}/file/x", api_keys))


def test_who_opens_connections_and_says_nothing_keeps_nobody_out(server: Server) -> None:
    with contextlib.ExitStack() as opened:
        crowd = []
        for _ in range(2 * CONNECTIONS):
            crowd.append(opened.enter_context(socket.socket()))
            crowd[-1].settimeout(20)
            crowd[-1].connect(("127.0.0.1", httpx.URL(server.url).port))
            crowd[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert server.get("/healthz").status_code == 200
        with contextlib.suppress(ConnectionResetError):
            assert crowd[0].recv(1) == b""
        assert psutil.Process(server.child.pid).num_fds() < CONNECTIONS + 2 * BACKLOG
    assert server.end() == 0
    assert "Traceback" not in server.log
