"""A connection to a socket that QEMU serves; here a test listens in its place."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from serial_console import socketline
from serial_console.consoles import Address
from serial_console.errors import InUse, SetupError
from serial_console.eventloop import EventLoop
from serial_console.socketline import SocketLine
from tests import rig

US = {os.geteuid()}
GREETING = b"\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00"
"""QEMU's, 7.2."""


class Listener:
    """Listens as QEMU does: for one client at a time."""

    def __init__(self, kind: str, directory: str) -> None:
        family = {"unix": socket.AF_UNIX, "tcp": socket.AF_INET, "tcp6": socket.AF_INET6}[kind]
        self.sock = socket.socket(family)
        host = "::1" if kind == "tcp6" else "127.0.0.1"
        self.sock.bind(f"{directory}/sock" if kind == "unix" else (host, 0))
        self.sock.listen(1)
        name = self.sock.getsockname()
        self.address = Address(path=name) if kind == "unix" else Address(host=name[0], port=name[1])


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketline, "ACCEPT", 0.01)


@pytest.fixture(params=["unix", "tcp", "tcp6"])
def listener(request: pytest.FixtureRequest, run_dir: str) -> Iterator[Listener]:
    made = Listener(request.param, run_dir)
    yield made
    made.sock.close()
    if made.address.path:
        os.unlink(made.address.path)


def listening(port: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", port))
    sock.listen(1)
    return sock


def test_who_is_not_accepted_waits_and_knows_it(listener: Listener) -> None:
    line = SocketLine(listener.address, US)
    assert not line.accepted()
    server, _ = listener.sock.accept()
    assert line.accepted()
    line.close()
    assert server.recv(1) == b""
    server.close()


def test_who_waits_where_many_do_is_told_by_the_first_byte(listener: Listener) -> None:
    with ExitStack() as stack:
        line = SocketLine(listener.address, US)
        stack.callback(line.close)
        other = SocketLine(listener.address, US)
        stack.callback(other.close)
        server = stack.enter_context(listener.sock.accept()[0])
        server.send(b"login: ")
        assert rig.eventually(line.accepted)
        assert not other.accepted()


def test_more_than_the_queue_takes_are_told_that_it_is_in_use(listener: Listener) -> None:
    with ExitStack() as stack:
        for _ in range(2):  # what libvirt and QEMU say to listen(2) is 1: one more
            stack.callback(SocketLine(listener.address, US).close)
        with pytest.raises(InUse, match="another program"):
            SocketLine(listener.address, US)


def test_a_queue_whose_server_ends(listener: Listener) -> None:
    line = SocketLine(listener.address, US)
    listener.sock.close()
    with pytest.raises(SetupError, match=r"Connection (closed|reset by peer)"):
        line.accepted()
    line.close()


def test_a_server_that_has_left_before_we_looked(listener: Listener) -> None:
    line = SocketLine(listener.address, US)
    listener.sock.accept()[0].close()
    with pytest.raises(SetupError, match="Connection closed"):
        line.accepted()
    line.close()


def test_nobody_listens(listener: Listener) -> None:
    listener.sock.close()
    with pytest.raises(SetupError, match=r"cannot connect .*: Connection refused"):
        SocketLine(listener.address, US)
    with pytest.raises(SetupError, match=r"cannot connect .*: No such file"):
        SocketLine(Address(path="/nonexistent/sock"), US)


def test_another_s_socket_is_left_at_once(listener: Listener) -> None:
    """Whoever may define guests gets no further by it than QEMU."""
    line = SocketLine(listener.address, {os.geteuid() + 1})
    server, _ = listener.sock.accept()
    with pytest.raises(
        SetupError, match=f"not the guest listens but a process of uid {os.geteuid()}"
    ):
        line.accepted()
    line.close()
    assert server.recv(1) == b""
    server.close()


def test_our_own_sockets_are_no_guest_s(tmp_path: os.PathLike[str], run_dir: str) -> None:
    link = os.path.join(tmp_path, "link")
    os.symlink(run_dir, link)
    listener = Listener("unix", run_dir)
    for path in (
        listener.address.path,
        f"{link}/sock",
        f"{run_dir}/../{os.path.basename(run_dir)}/sock",
    ):
        with pytest.raises(SetupError, match="not for guests"):
            SocketLine(Address(path=path), US, ["/elsewhere", run_dir])
    listener.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.sock.accept()
    listener.sock.close()
    os.unlink(listener.address.path)


def test_no_other_host_is_ever_asked() -> None:
    with pytest.raises(SetupError, match=r"192\.0\.2\.1:7: Cannot assign requested address"):
        SocketLine(Address(host="192.0.2.1", port=7), US)


def test_without_the_right_it_says_what_to_read(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAKE: the kernel's refusals to a user without rights, and to one that may use no network."""
    for error, address in (
        (PermissionError(13, "Permission denied"), Address(path="/somewhere/sock")),
        (OSError(97, "Address family not supported by protocol"), Address(host="::1", port=7)),
    ):

        def refuse(*_: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(socket, "socket", refuse)
        with pytest.raises(
            SetupError, match=rf"uid {os.geteuid()}\).*{error.strerror}; docs/consoles"
        ):
            SocketLine(address, US)


class Client:
    """A line that is accepted, in a loop, and the server's side of it."""

    def __init__(self, telnet: bool) -> None:
        with listening() as sock:
            host, port = sock.getsockname()
            self.line = SocketLine(Address(host=host, port=port, telnet=telnet), US)
            self.server, _ = sock.accept()
        assert self.line.accepted()
        self.loop = EventLoop(lambda _: None)
        self.output: list[bytes] = []
        self.ends: list[str] = []
        self.line.begin(self.loop, self.output.append, self.ends.append)

    def shown(self, *pieces: bytes) -> bytes:
        """Return what comes of this."""
        for piece in pieces:
            self.server.send(piece)
            self.loop.run_once(time.monotonic() + 1, None)
        return b"".join(self.output)

    def close(self) -> None:
        self.line.close()
        self.server.close()
        os.close(self.loop._wake)


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    made = Client(getattr(request, "param", False))
    yield made
    made.close()


telnet = pytest.mark.parametrize("client", [True], indirect=True)


@telnet
@pytest.mark.parametrize("size", [1, 2, 5, 12, 100])
def test_telnet_s_greeting_is_not_shown_and_a_0xff_after_it_is(client: Client, size: int) -> None:
    stream = GREETING + b"\xfflogin: \xff\xfb\x01"
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert client.shown(*pieces) == b"\xfflogin: \xff\xfb\x01"


@telnet
def test_a_0xff_is_typed_as_telnet_has_it(client: Client) -> None:
    typed = b"\xffa\xff\xffb\xff"
    left = typed
    while left:
        left = left[client.line.send(left) :]
    assert client.server.recv(100) == typed.replace(b"\xff", b"\xff\xff")


def test_raw_is_raw(client: Client) -> None:
    assert client.shown(GREETING) == GREETING
    assert client.line.send(b"\xff") == 1
    assert client.server.recv(100) == b"\xff"


def test_a_full_socket_is_not_writable_and_takes_nothing(client: Client) -> None:
    taken = 0
    while client.line.writable:
        taken += client.line.send(bytes(4096))
    assert client.line.send(bytes(1 << 20)) < 1 << 20
    while client.line.send(b"x"):
        taken += 1
    assert taken < 4 << 20
    assert client.server.recv(1) == b"\0"


def test_what_was_printed_comes_before_the_end(client: Client) -> None:
    client.line.send(b"never read")
    client.server.send(b"last words")
    client.server.close()  # with unread input: a reset
    poll = select.poll()
    poll.register(client.line._sock, select.POLLIN)
    poll.poll(1000)
    client.line.drain()
    assert b"".join(client.output) == b"last words"
    assert len(client.ends) == 1


def test_it_is_left_alone_while_the_guest_is_to_wait(client: Client) -> None:
    client.server.send(b"x")
    client.loop.run_once(time.monotonic() + 0.05, time.monotonic() + 10)
    assert client.output == []
    client.loop.run_once(time.monotonic() + 1, None)
    assert client.output == [b"x"]
