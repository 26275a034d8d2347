"""serial_console.client against the real API on a FAKE supervisor, and against FAKE peers."""

from __future__ import annotations

import contextlib
import pathlib
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from serial_console import client as module
from serial_console import control, errors, keys, views
from serial_console.client import ApiError, Client, ClientError, NoAnswer
from serial_console.demo import host

from .. import certs, fakes
from .test_api_server import Server, start

KEY = "a-key-that-nobody-else-has"


class Api:
    """The real API, its FAKE supervisor, and clients of it."""

    def __init__(self, server: Server, supervisor: fakes.FakeSupervisor, api_keys: str) -> None:
        self.server = server
        self.supervisor = supervisor
        self.key = keys.add(api_keys, "all")
        self.read_only = keys.add(api_keys, "ro", mode="ro")

    @property
    def client(self) -> Client:
        return Client(self.server.url, self.key)


@pytest.fixture(scope="module")
def one_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api_keys = str(tmp_path_factory.mktemp("client") / "api-keys")
    with host.short_directory("sc-run-") as directory, fakes.FakeSupervisor(directory) as fake:
        server = start(directory, api_keys, "rate = 0\n")
        try:
            yield Api(server, fake, api_keys)
        finally:
            server.end()


@pytest.fixture
def api(one_api: Api) -> Api:
    fake = one_api.supervisor
    fake.guests = [fakes.guest("web-1"), fakes.guest("db"), fakes.guest("a")]
    fake.sessions = [fakes.session("s-1", fake.guests[0], "t-0")]
    fake.failure = None
    fake.tokens.clear()
    fake.requests.clear()
    return one_api


# ---- what it asks and gives


def test_a_token_with_every_wish(api: Api) -> None:
    token = api.client.issue(
        "web-1", user="anna", mode="ro", console="serial0", ttl=5, takeover=True, notices=False,
        replay=False, escape="ctrl-x", client_address="192.0.2.7", resume=3,
    )  # fmt: skip
    asked = api.supervisor.last(control.Issue)
    assert (asked.guest, asked.user, asked.mode, asked.console) == (
        "web-1", "anna", "ro", "serial0",
    )  # fmt: skip
    assert (asked.ttl, asked.takeover, asked.notices, asked.replay) == (5, True, False, 0)
    assert (asked.escape, asked.client_address, asked.resume) == ("ctrl-x", "192.0.2.7", 3)
    assert (token.guest, token.user, token.mode) == ("web-1", "anna", "ro")
    assert token.expires_at == datetime.fromtimestamp(fakes.EXPIRES_AT, UTC)
    assert token.websocket_url.startswith("ws://127.0.0.1:6083/websockify?token=secret-")
    assert token.page_url.startswith("http://127.0.0.1:6083/serial.html#token=secret-")
    assert token.token.startswith("secret-")
    assert "secret-" not in repr(token)


def test_guests_and_sessions(api: Api) -> None:
    client = api.client
    assert [one.name for one in client.guests()] == ["a", "db", "web-1"]
    guest = client.guest("db")
    assert [(one.alias, one.supported) for one in guest.consoles] == [
        ("serial0", True),
        ("serial1", False),
    ]
    assert client.guest(guest.uuid) == guest
    (session,) = client.sessions()
    assert session == client.session("s-1")
    assert session.opened_at == datetime.fromtimestamp(fakes.OPENED_AT, UTC)
    assert (session.idle, session.bytes_in, session.token_id) == (1.5, 3, "t-0")
    client.close("s-1")
    assert client.sessions() == []


def test_a_token_is_revoked(api: Api) -> None:
    token = api.client.issue("db")
    api.client.revoke(token.id)
    assert token.token not in api.supervisor.tokens


def test_health_needs_no_key(api: Api) -> None:
    health = Client(api.server.url).health()
    assert (health.status, health.supervisor, health.libvirt) == ("ok", "ok", "ok")
    assert health.sessions == 1


def test_that_a_part_is_away_is_health_and_no_error(api: Api) -> None:
    api.supervisor.failure = errors.Unavailable("It is away.")
    health = Client(api.server.url).health()
    assert (health.status, health.supervisor, health.libvirt) == (
        "unavailable",
        "unavailable",
        "unknown",
    )
    down = answer(b"<p>Down", "503 Service Unavailable")
    with Peer(down) as peer, pytest.raises(NoAnswer, match="is not JSON"):
        Client(f"http://{peer.where}").health()


def test_over_the_socket_without_a_key(api: Api) -> None:
    client = Client(api.server.socket)
    assert len(client.guests()) == 3
    assert client.issue("db").guest == "db"
    assert api.server.socket in repr(client)
    with pytest.raises(ApiError, match="unknown or revoked"):  # one that is given counts
        Client(api.server.socket, KEY).guests()


@pytest.mark.parametrize(
    "name", ["a/b", "../db", "..", "50%", "%2F", "é ü", "a?b#c", "\N{PILE OF POO}", "x\ny", "db "]
)
def test_a_guest_of_any_name(api: Api, name: str) -> None:
    api.supervisor.guests.append(fakes.guest(name))
    assert api.client.guest(name).name == name
    assert api.client.issue(name).guest == name


# ---- refusals


def refused(work: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        work()
    error = caught.value
    assert str(error) == error.detail != ""
    assert error.title != ""
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code) == (str(error), error.code)
    return error


@pytest.mark.parametrize(
    ("ask", "code", "status"),
    [
        (lambda api: Client(api.server.url).guests(), "unauthorized", 401),
        (lambda api: Client(api.server.url, KEY).guests(), "unauthorized", 401),
        (lambda api: api.client.issue("nobody"), "no_such_guest", 404),
        (lambda api: api.client.guest("nobody"), "no_such_guest", 404),
        (lambda api: api.client.issue("db", console="serial9"), "no_such_console", 404),
        (lambda api: api.client.session("s-9"), "no_such_session", 404),
        (lambda api: api.client.close("s-9"), "no_such_session", 404),
        (lambda api: api.client.revoke("t-9"), "no_such_token", 404),
        (lambda api: api.client.issue("db", ttl=0), "bad_request", 422),
        (lambda api: api.client.issue("db", usr="anna"), "bad_request", 422),
        (
            lambda api: Client(api.server.url, api.read_only).issue("db", mode="rw"),
            "forbidden",
            403,
        ),
        (lambda api: Client(api.server.url, api.read_only).close("s-1"), "forbidden", 403),
    ],
)
def test_a_refusal_has_its_code(
    api: Api, ask: Callable[[Api], object], code: str, status: int
) -> None:
    error = refused(lambda: ask(api))
    assert (error.code, error.status, error.retry_after) == (code, status, 0)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.LimitReached("There are 10000 tokens; use some."), "limit_reached"),
        (errors.UnsupportedConsole("It is spicevmc."), "unsupported_console"),
        (errors.LibvirtUnavailable("libvirt is away."), "libvirt_unavailable"),
    ],
)
def test_what_the_supervisor_refuses(api: Api, failure: errors.ConsoleError, code: str) -> None:
    api.supervisor.failure = failure
    error = refused(lambda: api.client.issue("db"))
    assert (error.code, error.detail) == (code, str(failure))


# ---- the context manager


def test_a_console_s_token_is_good_until_the_end_of_the_block(api: Api) -> None:
    with api.client.console("db", user="anna") as url:
        assert url.partition("token=")[2] in api.supervisor.tokens
        assert api.supervisor.last(control.Issue).user == "anna"
    assert api.supervisor.tokens == {}
    with api.client.console("db"):  # used, and its session over
        api.supervisor.tokens.clear()


def test_an_error_in_the_block_is_told_and_the_token_revoked(api: Api) -> None:
    with pytest.raises(KeyError), api.client.console("db"):
        raise KeyError
    assert api.supervisor.tokens == {}

    def fails() -> None:
        with api.client.console("db"):
            api.supervisor.failure = errors.Unavailable("It is away.")
            raise KeyError

    with pytest.raises(KeyError) as caught:
        fails()
    assert caught.value.__notes__ == ["The token could not be revoked either: It is away."]


def test_a_token_that_cannot_be_revoked_is_told(api: Api) -> None:
    with pytest.raises(ApiError, match="away"), api.client.console("db"):
        api.supervisor.failure = errors.Unavailable("It is away.")


def test_a_read_only_key_takes_back_its_own_token_alone(api: Api) -> None:
    watcher = Client(api.server.url, api.read_only)
    with watcher.console("db"):
        pass
    asked = api.supervisor.last(control.Revoke)
    assert (asked.own, asked.key) == (True, "ro")
    assert api.supervisor.tokens == {}
    api.client.revoke(api.client.issue("db").id)
    assert not api.supervisor.last(control.Revoke).own


# ---- what answers, and is not the API

TOKEN = b"""{"id": "t", "token": "s", "guest": "db", "uuid": "u", "console": "serial0",
"mode": "rw", "user": "", "expires_at": "2026-01-31T12:00:00.000Z",
"websocket_url": "ws", "page_url": "p"%s}"""
SILENCE = b""


class Peer:
    """A FAKE API: answers each connection with these bytes, and keeps what was asked.

    Args:
        answer: the bytes; SILENCE: nothing, and the connection stays open.
        trickle: seconds between a byte and the next.
        tls: wraps each connection.
    """

    def __init__(
        self, answer: bytes, trickle: float = 0.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self._answer, self._trickle, self._tls = answer, trickle, tls
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.where = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), sock:
                if self._tls is None:
                    self._one(sock)
                else:
                    with self._tls.wrap_socket(sock, server_side=True) as secure:
                        self._one(secure)

    def _one(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        with sock.makefile("rb") as file:
            lines = list(iter(file.readline, b"\r\n"))
            sizes = [int(line[15:]) for line in lines if line.startswith(b"Content-Length:")]
            self.requests.append(b"".join(lines) + file.read(sum(sizes)))
        if self._trickle:
            for at in range(len(self._answer)):
                sock.sendall(self._answer[at : at + 1])
                if self._over.wait(self._trickle):
                    return
        elif self._answer == SILENCE:
            self._over.wait(20)
        sock.sendall(self._answer)


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def test_fields_of_a_later_version_are_left_out() -> None:
    with Peer(answer(TOKEN % b', "later": [1]')) as peer:
        assert Client(f"http://{peer.where}", KEY).issue("db").id == "t"
    request = peer.requests[0]
    assert request.startswith(b"POST /v1/guests/db/tokens HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}\r\n".encode() in request


SESSION = b"""{"sessions": [{"id": "s", "guest": "db", "uuid": "u", "console": "serial0",
"mode": "ro", "user": "", "client": "", "state": "", "opened_at": "2026-01-31T12:00:00Z",
"idle": 1, "bytes_in": 2, "bytes_out": 3, "skipped": 4, "relay_pid": 5, "gateway_pid": 6,
"token_id": "t"%s}]}"""


def test_fields_that_an_earlier_version_does_not_have() -> None:
    with Peer(answer(SESSION % b"")) as peer:
        (session,) = Client(f"http://{peer.where}", KEY).sessions()
    assert (session.idle, session.held, session.memory, session.cpu) == (1.0, 0, 0, 0.0)
    with Peer(answer(SESSION % b', "held": "7"')) as peer, pytest.raises(NoAnswer, match="held is"):
        Client(f"http://{peer.where}", KEY).sessions()


@pytest.mark.parametrize(
    "view", [views.Token, views.Guest, views.Console, views.Session, views.Health]
)
def test_it_knows_every_field_of_rest(view: type[Any]) -> None:
    ours = getattr(module, view.__name__)
    assert {one.name for one in fields(view)} <= {one.name for one in fields(ours)}


def test_below_a_proxy_s_path() -> None:
    with Peer(answer(b'{"guests": []}')) as peer:
        assert Client(f"http://{peer.where}/consoles/", KEY).guests() == []
    assert peer.requests[0].startswith(b"GET /consoles/v1/guests HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (answer(b"<p>Bad", "502 Bad Gateway"), "HTTP status 502"),
        (answer(b"", "302 Found", "Location: http://192.0.2.1/\r\n"), "redirects are not followed"),
        (answer(b"<p>Hello"), "is not JSON"),
        (answer(b"[" * 100000), "is not JSON"),
        (answer(b"[]"), "it is missing, or is not what it should be"),
        (answer(TOKEN.replace(b'"u"', b"5") % b""), "uuid is missing, or"),
        (answer(TOKEN.replace(b"00.000Z", b"") % b""), "expires_at is missing, or"),
        (answer(TOKEN.replace(b"000Z", b"000") % b""), "expires_at is missing, or"),
        (answer(b'{"code": 5}', "404 Not Found"), "HTTP status 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{", "is not JSON"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "IncompleteRead"),
        (answer(bytes(module.ANSWER_MAX + 1)), "more than 16777216 bytes"),
    ],
)
def test_what_is_no_answer_of_the_api(answered: bytes, said: str) -> None:
    with Peer(answered) as peer:
        client = Client(f"http://{peer.where}", KEY)
        with pytest.raises(NoAnswer, match=said) as caught:
            client.issue("db")
    assert peer.where in str(caught.value)
    assert len(peer.requests) == 1, "the key went somewhere again"


def test_how_long_to_wait_when_it_was_too_fast() -> None:
    problem = b'{"code": "rate_limited", "title": "Too Many Requests", "detail": "Wait."}'
    with Peer(answer(problem, "429 Too Many Requests", "Retry-After: 7\r\n")) as peer:
        error = refused(lambda: Client(f"http://{peer.where}", KEY).guests())
    assert (error.code, error.status, error.retry_after) == ("rate_limited", 429, 7)


@pytest.mark.parametrize(
    ("answered", "trickle"),
    [(SILENCE, 0.0), (answer(b"x" * 1000), 0.05), (answer(b"", headers="a:b\r\n" * 50), 0.05)],
)
def test_the_whole_answer_has_the_time_out(answered: bytes, trickle: float) -> None:
    begin = time.monotonic()
    late = r"did not answer within 0\.3 s"
    with Peer(answered, trickle) as peer, pytest.raises(NoAnswer, match=late):
        Client(f"http://{peer.where}", KEY, timeout=0.3).guests()
    assert time.monotonic() - begin < 5


def test_a_read_has_what_is_left_of_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the answer could take twice as long, or end in an error of another kind."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as file:
        ours.settimeout(20)
        reader = module._UntilThen(ours, file)
        theirs.sendall(b"ab")
        now[0] = 15.0
        assert reader.read(1) == b"a"
        assert ours.gettimeout() == 5.0
        now[0] = 20.5
        with pytest.raises(TimeoutError):
            reader.read(1)


def test_nobody_is_there(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        where = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(NoAnswer, match=f"{where}: Connection refused; does"):
        Client(where).health()
    with pytest.raises(NoAnswer, match="No such file or directory"):
        Client(f"{tmp_path}/api.sock").health()
    with pytest.raises(NoAnswer, match="too long"):
        Client(f"/{'x' * 200}").health()


def test_certificates(tmp_path: pathlib.Path) -> None:
    certificate, key = certs.make(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with Peer(answer(b'{"guests": []}'), tls=tls) as peer:
        assert Client(f"https://{peer.where}", KEY, ca_file=certificate).guests() == []
        with pytest.raises(NoAnswer, match=r"is not trusted: .*; give the file of its authority"):
            Client(f"https://{peer.where}", KEY).guests()
        other = f"https://127.1:{peer.where.rpartition(':')[2]}"  # a name to TLS
        with pytest.raises(NoAnswer, match="is not trusted: Hostname mismatch"):
            Client(other, KEY, ca_file=certificate).guests()
    assert len(peer.requests) == 1, "a stranger was sent the key"


def test_proxies_of_the_environment_get_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(answer(b'{"guests": []}')) as peer, Peer(SILENCE) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.where}")
        assert Client(f"http://{peer.where}", KEY).guests() == []
    assert proxy.requests == []


# ---- secrets


@pytest.mark.parametrize(
    "answered",
    [
        SILENCE,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        answer(b'{"code": "x", "title": "X", "detail": "x"}', "401 X"),
        answer(b"<p>Hello"),
    ],
)
def test_an_error_has_no_key_in_it_with_all_of_its_frames(answered: bytes) -> None:
    with Peer(answered) as peer:
        client = Client(f"http://{peer.where}", KEY, timeout=0.3)
        with pytest.raises(ClientError) as caught:
            client.issue("db")
    with_locals = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(with_locals.format())
    assert "wishes = " in text
    assert KEY not in text
    assert KEY not in repr(client)


# ---- what cannot be sent


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Client(""), "address must be like"),
        (lambda: Client("127.0.0.1:6084"), "address must be like"),
        (lambda: Client("ftp://host"), "address must be like"),
        (lambda: Client("http://"), "address must be like"),
        (lambda: Client("http://host:99999"), "address must be like"),
        (lambda: Client("http://a..b"), "address must be like"),
        (lambda: Client("http://[::1"), "address must be like"),
        (lambda: Client("http://host/a b"), "address must be like"),
        (lambda: Client("http://host\r\nX: y"), "address must be like"),
        (lambda: Client("http://me:it@host"), "no user, query"),
        (lambda: Client("http://host?key=it"), "no user, query"),
        (lambda: Client("http://host", "a\r\nX: y"), "characters that no key has"),
        (lambda: Client("http://host", "schlüssel"), "characters that no key has"),
        (lambda: Client("http://host", KEY, timeout=0), "timeout must be more than 0"),
        (lambda: Client("http://host", KEY, timeout=20000), "at most 3600 seconds"),
        (lambda: Client("http://host", KEY, ca_file="x"), "is for an https:// address"),
        (lambda: Client("/x", ca_file="x"), "is for an https:// address"),
        (lambda: Client("https://host", ca_file=__file__), "no certificate in PEM form"),
        (lambda: Client("http://host").guest(""), "guest's name is empty"),
        (lambda: Client("http://host").issue("a\udc80"), "cannot be written in UTF-8"),
        (lambda: Client("http://host").close(""), "session's name is empty"),
    ],
)
def test_bad_input_is_told(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "it@" not in str(caught.value)
    assert "key=it" not in str(caught.value)


def test_a_file_of_authorities_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'/nonexistent/ca\.pem'"):
        Client("https://host", KEY, ca_file="/nonexistent/ca.pem")


def test_the_last_line_of_a_file_is_a_key(api: Api) -> None:
    assert len(Client(api.server.url, f"{api.key}\n").guests()) == 3


def test_addresses_of_both_families() -> None:
    assert repr(Client("http://[::1]:6084", KEY)) == "Client('http://[::1]:6084')"
    assert repr(Client("https://host.example", KEY)) == "Client('https://host.example')"


def test_it_needs_the_standard_library_alone(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "serial_console"
    package.mkdir()
    for name in ("__init__.py", "client.py"):
        shutil.copy(pathlib.Path(module.__file__).with_name(name), package)
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import serial_console.client as c;"
    code += "print(c.Client('http://[::1]:1'))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout == "Client('http://[::1]:1')\n", done.stderr
